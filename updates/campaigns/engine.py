"""One look at one campaign: what is due, is done. Any call may be lost, doubled or late.

The algorithm of `tick`, in one transaction under the campaign's advisory lock:
1. A scheduled campaign whose time has come runs.
2. It leaves nodes to newer campaigns that may have them.
3. Updates whose time is up fall silent. A paused or halted campaign goes no further than this.
   Offers whose window has closed are planned again.
4. Nodes that match a dynamic campaign by now join it, nodes that no longer do leave it.
5. The gate looks at all waves opened so far and may halt or hold the campaign.
6. The open wave offers its planned updates, a batch a tick, when their patches are built or late.
7. A wave without open updates soaks, then passes; the next opens; after the last the campaign is finished.
A campaign whose end has come offers nothing more, and is finished when nothing is open.
Each step works on a bounded number of rows, and a campaign moves node updates of its own only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from devices.links import link_for
from devices.links.base import Recipient
from devices.models import OPEN_DELIVERY, Delivery, LinkEvent
from devices.selectors import time_zones
from devices.services import hold_deliveries
from fleet.clock import fleet_seconds, fleet_time
from updates.campaigns import deadlines
from updates.campaigns.actions import CHUNK, cancel_planned, set_state, set_wave_state, withdraw
from updates.campaigns.bundles import bundles_for, revert_command_for
from updates.campaigns.fairness import Turn, in_turn
from updates.campaigns.gates import GatePolicy, decide
from updates.campaigns.limits import Room
from updates.campaigns.membership import follow_filter
from updates.campaigns.offering import look, outdone
from updates.campaigns.plan import next_sequence
from updates.campaigns.plan_patches import NO_PATCH, patches_pending
from updates.campaigns.transitions import lock_for_tick, move, sum_tallies, tallies_of
from updates.campaigns.windows import Calendar, open_zones
from updates.models import Campaign, EndBehaviour, Membership, Method, NodeUpdate, Wave
from updates.states import (
    ON_THE_AIR,
    ON_THE_NODE,
    OPEN_STATES,
    Actor,
    CampaignState,
    NodeUpdateState,
    WaveState,
)

BATCH = 500
LIVE = [CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]


def due_campaigns(now: datetime) -> list[int]:
    """Campaigns that a tick may have something to do for, in the order in which they take free places."""
    alive = Campaign.objects.filter(state__in=LIVE).values_list("pk", "priority", "crowded_since")
    return in_turn(
        [
            Turn(pk, priority, fleet_seconds(max(now - since, timedelta())) if since else 0.0)
            for pk, priority, since in alive
        ]
    )


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
        set_state(campaign, CampaignState.RUNNING, by=Actor.ENGINE, **first)
    _leave_to_newer(campaign, now)
    _let_silent(campaign, now)
    if campaign.state == CampaignState.RUNNING:
        zones = _open_zones(campaign, now)
        if zones is not None:
            _close_windows(campaign, zones, now)
        ending = campaign.ends_at is not None and campaign.ends_at <= now
        if campaign.membership == Membership.DYNAMIC and not ending:
            follow_filter(campaign, now=now)
        _advance(campaign, zones, now, ending=ending)
        _hold_activation(campaign, now)
    return True


def _open_zones(campaign: Campaign, now: datetime) -> list[str] | None:
    """Time zones of nodes whose transfer window is open; None where the campaign has no windows."""
    calendar = Calendar.read(campaign.windows)
    if not calendar.transfer and not calendar.blackout:
        return None
    return open_zones(calendar, at=now, zones=time_zones())


def _leave_to_newer(campaign: Campaign, now: datetime) -> None:
    newer = Campaign.objects.filter(state=CampaignState.RUNNING, sequence__gt=campaign.sequence)
    if campaign.state == CampaignState.RUNNING:
        newer = newer.filter(priority__gt=campaign.priority)
    # Asked first, since the look at every open update is worth it for few campaigns.
    if campaign.state == CampaignState.SCHEDULED or not newer.exists():
        return
    pairs = outdone(campaign, now=now, most=CHUNK)
    move([pk for pk, _ in pairs], NodeUpdateState.CANCELLED, now=now, by=Actor.ENGINE, cause="superseded")
    _cancel(pairs, now)


def _hold_activation(campaign: Campaign, now: datetime) -> None:
    """Keeps nodes from switching outside the activation window, and lets them inside; a chunk of each a tick."""
    calendar = Calendar.read(campaign.windows)
    if not calendar.activation and not calendar.blackout:
        return
    opened = [zone for zone in time_zones() if calendar.activation_open(now, zone)]
    on_the_air = campaign.node_updates.filter(state__in=ON_THE_AIR).values("pk")
    mine = Delivery.objects.filter(reference__in=on_the_air, state__in=OPEN_DELIVERY, offering__isnull=False)
    in_window = Q(node__time_zone__in=opened)
    for held, wrong in ((True, mine.filter(~in_window, held=False)), (False, mine.filter(in_window, held=True))):
        if ids := list(wrong.order_by("pk").values_list("pk", flat=True)[:CHUNK]):
            hold_deliveries(deliveries=ids, held=held)


def _close_windows(campaign: Campaign, zones: list[str], now: datetime) -> None:
    """Takes back offers that no node has begun where the window has closed; a transfer under way goes on."""
    offered = campaign.node_updates.filter(state=NodeUpdateState.OFFERED).exclude(node__time_zone__in=zones)
    pairs = list(offered.order_by("id").values_list("pk", "node__link")[:CHUNK])
    moved = move(
        [pk for pk, _ in pairs],
        NodeUpdateState.PLANNED,
        now=now,
        by=Actor.ENGINE,
        cause="window-closed",
        keep_deadline=True,
    )
    deadlines.stop([item.node_update_id for item in moved], now=now)
    _cancel(pairs, now)


def _let_silent(campaign: Campaign, now: datetime) -> None:
    # What a node has said and nobody has drained yet is not silence.
    unheard = LinkEvent.objects.filter(node=OuterRef("node"), drained_at=None)
    due = campaign.node_updates.filter(~Exists(unheard), due_at__lte=now).order_by("id")
    parts = [([NodeUpdateState.TRANSFERRING, *ON_THE_NODE], "no-progress"), ([NodeUpdateState.OFFERED], "no-contact")]
    if campaign.state != CampaignState.RUNNING:
        # A pause has withdrawn what was on the air; what is whole on a node goes on there, and so does its timer.
        parts = [(ON_THE_NODE, "no-progress")]
    for states, cause in parts:
        pairs = list(due.filter(state__in=states).values_list("pk", "node__link")[:BATCH])
        move([pk for pk, _ in pairs], NodeUpdateState.SILENT, now=now, by=Actor.ENGINE, cause=cause)
        _cancel(pairs, now)


def _cancel(pairs: list[tuple[int, str]], now: datetime) -> None:
    by_link = defaultdict(list)
    for pk, kind in pairs:
        by_link[kind].append(pk)
    for kind, references in by_link.items():
        link_for(kind).cancel(references=references, now=now)


def _advance(campaign: Campaign, zones: list[str] | None, now: datetime, *, ending: bool) -> None:
    waves = list(campaign.waves.order_by("index"))
    current = next((wave for wave in waves if wave.state != WaveState.PASSED), None)
    if current is None:
        set_state(campaign, CampaignState.FINISHED, by=Actor.ENGINE, ended_at=now)
        return
    if current.state == WaveState.WAITING and not ending:
        set_wave_state(current, WaveState.OPEN, by=Actor.ENGINE, opened_at=now)
    opened = [wave for wave in waves if wave.index <= current.index]
    tallies = sum_tallies([wave.pk for wave in opened])
    unended = sum(tallies.get(state, 0) for state in (NodeUpdateState.PLANNED, *OPEN_STATES))
    soaked = current.state == WaveState.SOAKING and current.soak_until is not None and now >= current.soak_until
    if not _gate_allows(campaign, current, tallies, ended=not unended and not ending, now=now):
        return
    if ending:
        _end(campaign, now)
    elif unended:
        _offer_batch(campaign, opened, zones, now)
    elif current.state == WaveState.OPEN:
        set_wave_state(current, WaveState.SOAKING, by=Actor.ENGINE, soak_until=now + fleet_time(current.soak_s))
    elif soaked and not (current is waves[-1] and _stands(campaign)):
        set_wave_state(current, WaveState.PASSED, by=Actor.ENGINE)
        _advance(campaign, zones, now, ending=False)


def _stands(campaign: Campaign) -> bool:
    """A dynamic campaign with an end takes nodes in until then, also after all that it had are done."""
    return campaign.membership == Membership.DYNAMIC and campaign.ends_at is not None


def _end(campaign: Campaign, now: datetime) -> None:
    """Its end has come: a chunk a tick of what was never offered, and of what is open where it is to be withdrawn."""
    left = cancel_planned(campaign, now=now, by=Actor.ENGINE, cause="end-reached")
    if campaign.end_behaviour == EndBehaviour.CANCEL:
        pairs = list(campaign.node_updates.filter(state__in=OPEN_STATES).values_list("pk", "node__link")[:CHUNK])
        _cancel(pairs, now)
        left += len(
            move([pk for pk, _ in pairs], NodeUpdateState.CANCELLED, now=now, by=Actor.ENGINE, cause="end-reached")
        )
    unended = Q(state__in=[NodeUpdateState.PLANNED, *OPEN_STATES])
    if not left and not campaign.node_updates.filter(unended).exists():
        reason = f"Its end was reached at {campaign.ends_at:%Y-%m-%d %H:%M} UTC."
        set_state(campaign, CampaignState.FINISHED, by=Actor.ENGINE, reason=reason, ended_at=now)


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
        set_wave_state(wave, WaveState.HALTED, by=Actor.ENGINE)
        set_state(campaign, CampaignState.HALTED, by=Actor.ENGINE, reason=reason)
    else:
        set_state(campaign, CampaignState.PAUSED, by=Actor.ENGINE, reason=reason)
    withdraw(campaign, now=now, states=ON_THE_AIR)
    return False


def _accepted_before(wave: Wave) -> dict[str, int]:
    """What a person has accepted in an earlier wave: it must not stop this one again."""
    earlier = Wave.objects.filter(campaign=wave.campaign_id, index__lt=wave.index, verdict__accepted__isnull=False)
    last = earlier.order_by("-index").first()
    return dict(last.verdict["accepted"]["tallies"]) if last is not None and last.verdict else {}


def _offer_batch(campaign: Campaign, waves: list[Wave], zones: list[str] | None, now: datetime) -> None:
    if patches_pending(campaign, now=now):
        return
    tallies = tallies_of([wave.pk for wave in waves])
    opened = {wave.pk: sum(tallies[wave.pk].get(state, 0) for state in OPEN_STATES) for wave in waves}
    room = Room(campaign.limits, open_in_campaign=sum(opened.values()))
    # First, for these were sent before.
    _hand_over_again(campaign, room, zones, now)
    offered = 0
    for wave in waves:
        room.enter_wave(open_in_wave=opened[wave.pk])
        if not tallies[wave.pk].get(NodeUpdateState.PLANNED) or zones == []:
            continue
        found = look(campaign, wave, room=room, zones=zones, most=BATCH - offered, now=now)
        move(found.superseded, NodeUpdateState.CANCELLED, now=now, by=Actor.ENGINE, cause="superseded")
        move(found.current, NodeUpdateState.SKIPPED, now=now, by=Actor.ENGINE, cause="already-current")
        move(found.unpatched, NodeUpdateState.SKIPPED, now=now, by=Actor.ENGINE, cause=NO_PATCH)
        moved = move(found.offer, NodeUpdateState.OFFERED, now=now, by=Actor.ENGINE, timeout_s=campaign.offer_timeout_s)
        ids = [item.node_update_id for item in moved]
        deadlines.go_on(ids, now=now)
        hand_over(campaign, ids, now=now)
        offered += len(found.offer)
    _note_crowding(campaign, room, now)


def _note_crowding(campaign: Campaign, room: Room, now: datetime) -> None:
    """Since when it finds no place: that is its age in the order of turns, and ends with the turn it had."""
    since = (campaign.crowded_since or now) if room.crowded and not room.had_its_turn else None
    if since != campaign.crowded_since:
        Campaign.objects.filter(pk=campaign.pk).update(crowded_since=since)
        campaign.crowded_since = since


def _hand_over_again(campaign: Campaign, room: Room, zones: list[str] | None, now: datetime) -> None:
    """What no link holds any more: withdrawn by a halt that was lifted, or the node had been given up and came back.

    Where its group is full it waits for a place, and its timer with it. Its transfer begins anew. What no link can carry, for
    the node has other firmware by now, falls silent.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.id FROM updates_nodeupdate n WHERE n.campaign_id = %s AND n.state IN ('offered', 'transferring')"
            " AND NOT EXISTS (SELECT 1 FROM devices_delivery d WHERE d.reference = n.id AND d.state <> 'cancelled'"
            # The command that was refused; the patch instead of it may have been withdrawn.
            " AND NOT (n.method = 'patch' AND d.command IS NOT NULL))"
            " AND (%s::text[] IS NULL OR EXISTS (SELECT 1 FROM devices_node o WHERE o.id = n.node_id"
            " AND o.time_zone = ANY(%s)))"
            " ORDER BY n.id LIMIT %s",
            # Those in a full group must not stand before the others.
            [campaign.pk, zones, zones, CHUNK if room.groups else BATCH],
        )
        ids = [row[0] for row in cursor.fetchall()]
    if room.groups:
        groups = room.groups_of(ids)
        waiting = {pk for pk in ids if not room.take_again(groups[pk])}
        deadlines.renew(sorted(waiting), states=ON_THE_AIR, timeout_s=campaign.offer_timeout_s, now=now)
        ids = [pk for pk in ids if pk not in waiting][:BATCH]
    handed = hand_over(campaign, ids, now=now)
    NodeUpdate.objects.filter(pk__in=handed).update(received_bytes=0)
    deadlines.renew(handed, states=ON_THE_AIR, timeout_s=campaign.offer_timeout_s, now=now)


def hand_over(campaign: Campaign, ids: Sequence[int], *, now: datetime) -> list[int]:
    """Gives offered node updates to their links: a command where that is the method, else bundles. Those that had either."""
    handed: list[int] = []
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
            handed += [update.pk for update in members]
        elif first.image is not None and first.node.firmware_build is not None:
            bundles = bundles_for(campaign=campaign, image=first.image, firmware=first.node.firmware_build)
            # None where a patch was all that could go and the node has other firmware by now: it falls silent.
            if bundles:
                link.offer(bundles=bundles, nodes=recipients, now=now)
                handed += [update.pk for update in members]
    return handed
