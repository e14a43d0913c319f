"""Which campaign goes first where several want the same place, so that none waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PRIORITY_HIGHEST = 100
# A campaign that finds no free place gains a step of priority in each of these, fleet seconds: after 100 of them it beats
# every other, whatever their priorities.
AGING_STEP_S = 1800.0
# How long a campaign leaves a node to one of higher priority that has planned it too; then both are equal. Fleet seconds.
PATIENCE_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Turn:
    """`waiting_s`: fleet seconds since it first found no free place for a node that it could have offered to; else 0."""

    campaign_id: int
    priority: int
    waiting_s: float = 0.0


def in_turn(turns: Sequence[Turn]) -> list[int]:
    """Campaign ids, first comes first: by priority plus age of waiting, then by age, then the older campaign."""
    return [
        turn.campaign_id
        for turn in sorted(
            turns,
            key=lambda turn: (-(turn.priority + turn.waiting_s / AGING_STEP_S), -turn.waiting_s, turn.campaign_id),
        )
    ]
