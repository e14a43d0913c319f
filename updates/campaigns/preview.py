"""The first plan: what a campaign would do, computed as its stored plan will be, and stored nowhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devices.models import HardwareProfile
from devices.query.language import MAXIMUM_LENGTH
from updates.campaigns import waves as wave_assignment
from updates.campaigns.eligibility import images_of
from updates.campaigns.plan import Member, PlanRefused, checked_gate, planned_members, summarize
from updates.campaigns.plan_warnings import plan_warnings
from updates.models import Campaign, ModelVersion, Wave

# Which node is in which wave is drawn when the plan is stored; a preview draws with a salt of its own.
_SALT = "preview"


@dataclass(frozen=True)
class Preview:
    """`plan` is shaped like Campaign.plan. Each of `refused` has a filter that leads to its nodes: to exactly these
    where `exact`, else to all nodes of their profiles."""

    plan: dict[str, Any]
    refused: list[dict[str, Any]]
    warnings: list[str]


def preview(
    *,
    version: ModelVersion,
    node_filter: str,
    waves: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
    now: datetime,
    full_image_allowed: bool = True,
) -> Preview:
    """Takes what create_campaign takes and refuses what it refuses: PlanRefused, QueryError. Writes nothing."""
    images = images_of(version)
    if not images:
        raise PlanRefused("version", f"{version} has no image that passed validation.", "Build it until it is ready.")
    campaign = Campaign(
        version=version,
        node_filter=node_filter,
        gate=checked_gate(gate),
        salt=_SALT,
        full_image_allowed=full_image_allowed,
    )
    members = planned_members(campaign, images=images, now=now)
    if not members:
        raise PlanRefused("node_filter", f"No node matches {node_filter!r}.", "Widen the filter.")
    try:
        index_of = wave_assignment.assign(
            salt=_SALT,
            nodes=((member.node_id, member.stratum) for member in members),
            percents=[float(wave["percent"]) for wave in waves],
        )
    except ValueError as error:
        raise PlanRefused("waves", f"{error}.", "Give each wave a percent and a soak_s.") from error
    rows = [
        Wave(index=index, percent=float(wave["percent"]), soak_s=int(wave["soak_s"]))
        for index, wave in enumerate(waves)
    ]
    campaign.plan = {"members": "", "patches": []}
    summarize(campaign=campaign, members=members, index_of=index_of, waves=rows, now=now)
    return Preview(
        plan=campaign.plan,
        refused=_refused(members, node_filter),
        warnings=plan_warnings(campaign.plan, campaign.gate),
    )


def _refused(members: list[Member], node_filter: str) -> list[dict[str, Any]]:
    groups: defaultdict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in members:
        if member.image is None:
            groups[member.cause, member.reason].append(member)
    names = dict(HardwareProfile.objects.values_list("pk", "name")) if groups else {}
    rows = []
    for (cause, reason), found in sorted(groups.items()):
        exact = " or ".join(f"endpoint:{_quoted(member.endpoint)}" for member in found[:MAXIMUM_LENGTH])
        profiles = " or ".join(f"profile:{name}" for name in sorted({names[member.stratum[0]] for member in found}))
        around = f"({node_filter}) ({profiles})" if node_filter.strip() else profiles
        is_exact = len(exact) <= MAXIMUM_LENGTH
        rows.append(
            {
                "cause": cause,
                "reason": reason,
                "nodes": len(found),
                "filter": exact if is_exact else around[:MAXIMUM_LENGTH],
                "exact": is_exact,
            }
        )
    return rows


def _quoted(endpoint: str) -> str:
    escaped = endpoint.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
