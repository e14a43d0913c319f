"""One look at one campaign: what is due, is done. Any call may be lost, doubled or late.

The algorithm of `tick`, in one transaction under the campaign's advisory lock:
1. A scheduled campaign whose time has come runs.
2. Updates whose time is up fall silent.
3. The gate looks at all waves opened so far and may halt or hold the campaign.
4. The open wave offers its planned updates, a batch a tick, when their patches are built.
5. A wave without open updates soaks, then passes; the next opens; after the last the campaign is finished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef

from devices.links import link_for
from devices.links.base import Recipient
from devices.models import LinkEvent
from fleet.clock import fleet_time
from updates.campaigns.actions import ON_THE_AIR, set_state, withdraw
from updates.campaigns.bundles import bundles_for, revert_command_for
from updates.campaigns.gates import GatePolicy, decide
from updates.campaigns.plan import next_sequence
from updates.campaigns.transitions import lock_for_tick, move, sum_tallies
from updates.models import Campaign, Method, NodeUpdate, Patch, Wave
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState, PatchState, WaveState

BATCH = 500


def due_campaigns() -> list[int]:
    """Campaigns that a tick may have something to do for."""
    alive = [CampaignState.SCHEDULED, CampaignState.RUNNING]
    return list(Campaign.objects.filter(state__in=alive).order_by("id").values_list("pk", flat=True))


@transaction.atomic
def tick(*, campaign_id: int, now: datetime) -> bool:
    """Whether this call held the lock and looked. A second tick that comes at the same time leaves at once; a batch of
    reports that holds the campaign is waited for, a few seconds at most."""
    if not lock_for_tick(campaign_id):
        return False
    # The row lock orders this against a person's halt: whoever commits first is seen by the other.
    campaign = Campaign.objects.select_for_update().get(pk=campaign_id)
    if campaign.state == CampaignState.SCHEDULED and (campaign.starts_at is None or campaign.starts_at <= now):
        first: dict[str, Any] = {} if campaign.started_at else {"started_at": now, "sequence": next_sequence()}
        # Drawn now and not with the plan: one that was planned earlier and starts later must win over what ran between.
        set_state(campaign, CampaignState.RUNNING, **first)
    if campaign.state == CampaignState.RUNNING:
        _let_silent(campaign, now)
        _advance(campaign, now)
    return True


def _let_silent(campaign: Campaign, now: datetime) -> None:
    # What a node has said and nobody has drained yet is not silence.
    unheard = LinkEvent.objects.filter(node=OuterRef("node"), drained_at=None)
    due = campaign.node_updates.filter(~Exists(unheard), due_at__lte=now, state__in=OPEN_STATES).order_by("id")
    for state, cause in ((NodeUpdateState.OFFERED, "no-contact"), (None, "no-progress")):
        part = due.filter(state=state) if state else due.exclude(state=NodeUpdateState.OFFERED)
        pairs = list(part.values_list("pk", "node__link")[:BATCH])
        move([pk for pk, _ in pairs], NodeUpdateState.SILENT, now=now, cause=cause)
        _cancel(pairs, now)


def _cancel(pairs: list[tuple[int, str]], now: datetime) -> None:
    by_link = defaultdict(list)
    for pk, kind in pairs:
        by_link[kind].append(pk)
    for kind, references in by_link.items():
        link_for(kind).cancel(references=references, now=now)


def _advance(campaign: Campaign, now: datetime) -> None:
    waves = list(campaign.waves.order_by("index"))
    current = next((wave for wave in waves if wave.state != WaveState.PASSED), None)
    if current is None:
        set_state(campaign, CampaignState.FINISHED, ended_at=now)
        return
    if current.state == WaveState.WAITING:
        Wave.objects.filter(pk=current.pk, state=WaveState.WAITING).update(state=WaveState.OPEN, opened_at=now)
        current.refresh_from_db()
    tallies = sum_tallies([wave.pk for wave in waves if wave.index <= current.index])
    unended = sum(tallies.get(state, 0) for state in (NodeUpdateState.PLANNED, *OPEN_STATES))
    soaked = current.state == WaveState.SOAKING and current.soak_until is not None and now >= current.soak_until
    if not _gate_allows(campaign, current, tallies, ended=not unended, now=now):
        return
    if unended:
        _offer_batch(campaign, current, now)
    elif current.state == WaveState.OPEN:
        _soak(current, now)
    elif soaked:
        Wave.objects.filter(pk=current.pk).update(state=WaveState.PASSED)
        _advance(campaign, now)


def _soak(wave: Wave, now: datetime) -> None:
    Wave.objects.filter(pk=wave.pk, state=WaveState.OPEN).update(
        state=WaveState.SOAKING, soak_until=now + fleet_time(wave.soak_s)
    )


def _gate_allows(campaign: Campaign, wave: Wave, tallies: dict[str, int], *, ended: bool, now: datetime) -> bool:
    """Decides, keeps the decision with its numbers, and stops the campaign where it must. A person's word stands."""
    accepted = (wave.verdict or {}).get("accepted")
    if not any(tallies.get(state, 0) for state in NodeUpdateState.values if state != NodeUpdateState.SKIPPED):
        return True
    verdict = decide(
        tallies=tallies,
        policy=GatePolicy.read(campaign.gate),
        ended=ended,
        accepted=accepted["tallies"] if accepted else _accepted_before(wave),
    )
    values = {**verdict.as_json(), "accepted": accepted} if accepted else verdict.as_json()
    if values != wave.verdict:
        Wave.objects.filter(pk=wave.pk).update(verdict=values)
    if verdict.decision == "pass":
        return True
    reason = f"Wave {wave.index + 1}: {verdict.reason}."
    if verdict.decision == "halt":
        Wave.objects.filter(pk=wave.pk).update(state=WaveState.HALTED)
        set_state(campaign, CampaignState.HALTED, reason=reason)
    else:
        set_state(campaign, CampaignState.PAUSED, reason=reason)
    withdraw(campaign, now=now, states=ON_THE_AIR)
    return False


def _accepted_before(wave: Wave) -> dict[str, int]:
    """What a person has accepted in an earlier wave: it must not stop this one again."""
    earlier = Wave.objects.filter(campaign=wave.campaign_id, index__lt=wave.index, verdict__accepted__isnull=False)
    last = earlier.order_by("-index").first()
    return dict(last.verdict["accepted"]["tallies"]) if last is not None and last.verdict else {}


def _offer_batch(campaign: Campaign, wave: Wave, now: datetime) -> None:
    if _patches_pending(campaign):
        return
    planned = (
        NodeUpdate.objects.filter(wave__campaign=campaign, wave__index__lte=wave.index, state=NodeUpdateState.PLANNED)
        .exclude(node__node_updates__state__in=OPEN_STATES)
        .order_by("id")[:BATCH]
    )
    moved = move(
        list(planned.values_list("pk", flat=True)),
        NodeUpdateState.OFFERED,
        now=now,
        due_at=now + fleet_time(campaign.offer_timeout_s),
    )
    hand_over(campaign, [item.node_update_id for item in moved], now=now)
    _hand_over_again(campaign, now)


def _patches_pending(campaign: Campaign) -> bool:
    """Whether a patch of this campaign is still waiting. Building gives up after a few attempts, so this ends."""
    return Patch.objects.filter(state=PatchState.WAITING, pk__in=campaign.plan["patches"]).exists()


def _hand_over_again(campaign: Campaign, now: datetime) -> None:
    """What no link holds any more: withdrawn by a halt that was lifted, or the node had been given up and came back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.id FROM updates_nodeupdate n WHERE n.campaign_id = %s AND n.state IN ('offered', 'transferring')"
            " AND NOT EXISTS (SELECT 1 FROM devices_delivery d WHERE d.reference = n.id AND d.state <> 'cancelled'"
            # The command that was refused; the patch instead of it may have been withdrawn.
            " AND NOT (n.method = 'patch' AND d.command IS NOT NULL))"
            " ORDER BY n.id LIMIT %s",
            [campaign.pk, BATCH],
        )
        ids = [row[0] for row in cursor.fetchall()]
    NodeUpdate.objects.filter(pk__in=ids).update(due_at=now + fleet_time(campaign.offer_timeout_s))
    hand_over(campaign, ids, now=now)


def hand_over(campaign: Campaign, ids: Sequence[int], *, now: datetime) -> None:
    """Gives offered node updates to their links: a command where that is the method, else bundles."""
    groups: defaultdict[tuple[str, str, int, int], list[NodeUpdate]] = defaultdict(list)
    updates = NodeUpdate.objects.filter(pk__in=ids).select_related("node__firmware_build", "image__version__family")
    for update in updates.order_by("pk"):
        groups[update.node.link, update.method, update.image_id or 0, update.node.firmware_build_id or 0].append(update)
    for (kind, method, _, _), members in groups.items():
        link = link_for(kind)
        recipients = [Recipient(node_id=update.node_id, reference=update.pk) for update in members]
        first = members[0]
        if method == Method.COMMAND:
            reverted = campaign.reverts
            if reverted is None:
                raise ValueError(f"campaign {campaign.pk} sends revert commands but reverts no campaign")
            link.command(command=revert_command_for(reverted), nodes=recipients, now=now)
        elif first.image is not None and first.node.firmware_build is not None:
            bundles = bundles_for(campaign=campaign, image=first.image, firmware=first.node.firmware_build)
            link.offer(bundles=bundles, nodes=recipients, now=now)
    NodeUpdate.objects.filter(pk__in=ids).update(attempts=F("attempts") + 1)
