"""What has happened to a campaign: who did what, what the engine decided, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.audit.models import AuditEntry
from updates.models import Campaign, CampaignMove

ENGINE = "the engine"
# A person's act and the move that it caused are written in one transaction, by two clocks.
_TOGETHER = timedelta(seconds=5)
_ACTS = {
    "campaign.create": "planned it",
    "campaign.approve": "approved its plan",
    "campaign.start": "started it",
    "campaign.pause": "paused it",
    "campaign.resume": "let it go on",
    "campaign.abort": "aborted it",
    "campaign.rollback": "rolled it back",
}


@dataclass(frozen=True)
class Moment:
    """`state` is the one that the campaign, or the wave where `wave` is a number from 1, came to; empty for an act that
    changed none. `act` says in words what a person did."""

    at: datetime
    who: str
    act: str
    state: str
    wave: int | None
    why: str


def history(campaign_id: int, *, limit: int = 100) -> list[Moment]:
    """Newest first, at most `limit`. Two queries."""
    moves = list(CampaignMove.objects.filter(campaign=campaign_id).order_by("-id")[:limit])
    acts = list(
        AuditEntry.objects.filter(object_type=Campaign._meta.label_lower, object_id=str(campaign_id)).order_by("-id")[
            :limit
        ]
    )
    moments = []
    for move in moves:
        act = next((one for one in acts if _caused(one, move)), None)
        if act is not None:
            acts.remove(act)
        moments.append(
            Moment(
                at=move.at,
                who=act.actor if act else ENGINE,
                act=_words(act) if act else "",
                state=move.to_state,
                wave=None if move.wave_index is None else move.wave_index + 1,
                why=move.reason,
            )
        )
    moments += [Moment(act.at, act.actor, _words(act), "", None, "") for act in acts]
    return sorted(moments, key=lambda moment: moment.at, reverse=True)[:limit]


def _caused(act: AuditEntry, move: CampaignMove) -> bool:
    if move.wave_index is not None or abs(act.at - move.at) > _TOGETHER:
        return False
    came_to = "aborted" if act.action == "campaign.rollback" else (act.after or {}).get("state")
    return came_to == move.to_state


def _words(act: AuditEntry) -> str:
    return _ACTS.get(act.action, act.action)
