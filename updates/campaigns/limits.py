"""How many updates may be open at once: in the campaign, in a wave, and in each group of nodes that share something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Count

from updates.campaigns.transitions import LOCK_SPACE
from updates.models import NodeUpdate
from updates.states import OPEN_STATES

# Groups of nodes by name: where the group of a node is read, as a lookup from Node. All campaigns count in a group: its
# radio does not know whose bytes it carries. Nodes with an empty group are not limited by it.
GROUPS: dict[str, str] = {"site": "site", "gateway": "radio__gateway_id"}
LIMITS = ("campaign", "wave", *GROUPS)
HIGHEST = 1_000_000
# No campaign has this number: the lock under which places in groups are counted and taken.
_GROUPS_LOCK = 0


class LimitError(ValueError):
    """`field` is where, such as limits.site."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def read_limits(values: Mapping[str, Any]) -> dict[str, int]:
    """Most open updates by name of LIMITS. Raises LimitError that names field, value and fix."""
    if unknown := set(values) - set(LIMITS):
        raise LimitError(f"limits.{min(unknown)}", f"is unknown; known are {', '.join(sorted(LIMITS))}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= HIGHEST:
            raise LimitError(
                f"limits.{name}", f"is {value!r}; give a whole number from 1 to {HIGHEST}, or leave it out"
            )
    return dict(values)


class Room:
    """Free places. Counted once, then taken one by one; groups under a lock that lasts until the transaction ends.

    `crowded`: a node found its group full. `had_its_turn`: the last place of a group was taken for this campaign.
    """

    def __init__(self, limits: Mapping[str, int], *, open_in_campaign: int) -> None:
        self._limits = limits
        self.crowded = self.had_its_turn = False
        self._campaign = limits.get("campaign", HIGHEST) - open_in_campaign
        self._wave = HIGHEST
        self.groups = [name for name in GROUPS if name in limits]
        self._taken: dict[str, Counter[str]] = {}
        if self.groups:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_SPACE, _GROUPS_LOCK])
        for name in self.groups:
            lookup = f"node__{GROUPS[name]}"
            opened = NodeUpdate.objects.filter(state__in=OPEN_STATES, **{f"{lookup}__gt": ""}).values_list(lookup)
            self._taken[name] = Counter(dict(opened.annotate(number=Count("id"))))

    def enter_wave(self, *, open_in_wave: int) -> None:
        self._wave = self._limits.get("wave", HIGHEST) - open_in_wave

    def left(self) -> int:
        """Places that the campaign and this wave have left, whatever the groups."""
        return max(0, min(self._campaign, self._wave))

    def take(self, groups: Iterable[str]) -> bool:
        """Takes a place for a node with these groups, in the order of `self.groups`; False where one is full."""
        keys = [(name, key) for name, key in zip(self.groups, groups, strict=True) if key]
        if self.left() == 0:
            return False
        if any(self._taken[name][key] >= self._limits[name] for name, key in keys):
            self.crowded = True
            return False
        for name, key in keys:
            self._taken[name][key] += 1
            self.had_its_turn |= self._taken[name][key] == self._limits[name]
        self._campaign -= 1
        self._wave -= 1
        return True
