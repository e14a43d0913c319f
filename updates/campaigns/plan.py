"""What a campaign will do, computed and stored before anyone approves it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast
from zoneinfo import available_timezones

from django.db import connection, transaction
from django.db.models import Count, QuerySet

from devices.links import LINKS
from devices.links.base import RadioFacts
from devices.models import FirmwareBuild, HardwareProfile, Node
from fleet.audit.models import record
from fleet.sealing import seal
from updates.campaigns import penalties
from updates.campaigns import waves as wave_assignment
from updates.campaigns.costs import Costs
from updates.campaigns.eligibility import Choice, NodeKind, choose, images_of
from updates.campaigns.gates import GatePolicy
from updates.campaigns.plan_patches import ask_for_patches, late, without_full_images
from updates.campaigns.terms import PlanRefused, promised, read_terms
from updates.models import Campaign, Method, ModelImage, ModelVersion, Patch, Tally, Wave
from updates.node_filter import nodes_matching
from updates.patches.revert import PREIMAGE_BYTES
from updates.states import NodeUpdateState, PatchState

REVERT_PURPOSE = "revert-preimage"
EXAMPLES = 3
# Keys of a plan that do not depend on the sizes of patches.
KEPT = ("members", "patches", "terms", "conflicts")
Value = TypeVar("Value")
# How a node is heard, and the region of one that was not heard yet.
RADIO_COLUMNS = ("radio__region", "radio__data_rate", "radio__gateway_id", "lorawan__region")


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a campaign as planned. `stratum` groups nodes that fail alike; `decoder` is that of its firmware.

    A plan holds one for each node, a million at a time: what many share is one object, see `Shared`.
    """

    node_id: int
    endpoint: str
    base_digest: str
    stratum: tuple[int, str]
    image: ModelImage | None
    cause: str = ""
    reason: str = ""
    method: str = Method.PATCH
    radio: RadioFacts | None = None
    decoder: str = ""


def next_sequence() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('updates_assignment_sequence')")
        return int(cursor.fetchone()[0])


@transaction.atomic
def create_campaign(
    *,
    name: str,
    version: ModelVersion,
    node_filter: str,
    waves: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
    starts_at: datetime | None,
    actor: str,
    now: datetime,
    idempotency_key: str | None = None,
    time_zone: str = "UTC",
    **terms: Any,
) -> Campaign:
    """A draft with its plan, its waves and one row a node. `waves`: cumulative `percent` and `soak_s` each; `terms`: see
    `terms.read_terms`.

    The same idempotency key gives the same campaign again. Raises PlanRefused; a filter's QueryError passes through.
    """
    if idempotency_key and (known := Campaign.objects.filter(idempotency_key=idempotency_key).first()):
        return known
    images = images_of(version)
    if not images:
        raise PlanRefused("version", f"{version} has no image that passed validation.", "Build it until it is ready.")
    campaign = new_campaign(
        name=name,
        version=version,
        node_filter=node_filter,
        gate=checked_gate(gate),
        starts_at=starts_at,
        time_zone=checked_zone(time_zone),
        created_by=actor,
        idempotency_key=idempotency_key or None,
        **read_terms(terms, starts_at=starts_at, now=now),
    )
    members = planned_members(campaign, images=images, now=now)
    if not members:
        raise PlanRefused("node_filter", f"No node matches {node_filter!r}.", "Widen the filter.")
    store_plan(campaign=campaign, members=members, waves=waves, now=now)
    record(actor=actor, action="campaign.create", subject=campaign, after={"plan_hash": campaign.plan_hash})
    return campaign


def new_campaign(**fields: Any) -> Campaign:
    return Campaign(
        salt=secrets.token_hex(16),
        sequence=next_sequence(),
        revert_preimage_sealed=seal(secrets.token_bytes(PREIMAGE_BYTES), purpose=REVERT_PURPOSE),
        **fields,
    )


def checked_gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    """A copy. Raises PlanRefused for what the gate cannot read."""
    try:
        GatePolicy.read(gate)
    except ValueError as error:
        raise PlanRefused("gate", f"{error}.", "Leave the field out for its default.") from error
    return dict(gate)


def checked_zone(name: str) -> str:
    """Raises PlanRefused for a name that the IANA database does not know."""
    if name not in available_timezones():
        raise PlanRefused("time_zone", f"{name!r} is no time zone.", "Give an IANA name such as Europe/Berlin or UTC.")
    return name


def planned_members(campaign: Campaign, *, images: list[ModelImage], now: datetime) -> list[Member]:
    """All nodes of the campaign's filter, as its terms allow."""
    members = members_among(nodes_matching(campaign.node_filter, now=now), images=images, now=now)
    return list(members if campaign.full_image_allowed else without_full_images(members))


def members_among(nodes: QuerySet[Node], *, images: list[ModelImage], now: datetime) -> Iterator[Member]:
    """What each of these nodes gets, or why nothing: a fixed number of queries for any number of nodes."""
    profiles = HardwareProfile.objects.in_bulk()
    firmware = FirmwareBuild.objects.in_bulk()
    in_penalty_box = penalties.boxed(now=now)
    choices: dict[NodeKind, Choice] = {}
    shared = Shared()
    columns = (
        *("id", "endpoint", "link", "active_digest"),
        *RADIO_COLUMNS,
        *("profile_id", "firmware_build_id", "slot_bytes", "sram_bytes", "reserved_sram_bytes"),
    )
    rows = nodes.order_by("id").values_list(*columns)
    for node_id, endpoint, link, active_digest, *rest in rows.iterator(chunk_size=5000):
        radio, kind = shared.radio(*rest[: len(RADIO_COLUMNS)]), NodeKind(*rest[len(RADIO_COLUMNS) :])
        active_digest, stratum = shared.one(active_digest), shared.one((kind.profile_id, link))
        build = firmware.get(kind.firmware_build_id) if kind.firmware_build_id is not None else None
        if kind not in choices:
            choices[kind] = choose(kind=kind, images=images, profile=profiles[kind.profile_id], firmware=build)
        choice = choices[kind]
        if link not in LINKS:
            choice = Choice(None, "no-link", f"This installation has no link for {link} nodes.")
        if choice.image is not None and node_id in in_penalty_box:
            choice = Choice(None, "penalty-box", penalties.reason())
        if choice.image is not None and choice.image.digest == active_digest:
            why = "These nodes run the image already."
            yield Member(node_id, endpoint, active_digest, stratum, None, "already-current", why)
        else:
            yield Member(
                *(node_id, endpoint, active_digest, stratum, choice.image, choice.cause, choice.reason),
                radio=radio,
                decoder=build.decoder_profile if build is not None else "",
            )


class Shared:
    """Equal values as one object: a few hundred stand for a million, and a plan of a million nodes takes a third."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def one(self, value: Value) -> Value:
        return cast("Value", self._known.setdefault(value, value))

    def radio(
        self, region: str | None, data_rate: int | None, gateway_id: str | None, device_region: str | None
    ) -> RadioFacts | None:
        """Of RADIO_COLUMNS; None where nothing is known of how the node is heard."""
        if region is None and device_region is None:
            return None
        return self.one(RadioFacts(region or device_region or "", data_rate, gateway_id or ""))


def store_plan(*, campaign: Campaign, members: list[Member], waves: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Saves the campaign, its waves, tallies and node updates, and asks for the patches it needs."""
    reached = [member for member in members if member.image is not None]
    try:
        index_of = wave_assignment.assign(
            salt=campaign.salt,
            nodes=((member.node_id, member.stratum) for member in members),
            percents=[float(wave["percent"]) for wave in waves],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise PlanRefused("waves", f"{error}.", "Give each wave a percent and a soak_s.") from error
    campaign.plan = {
        "members": _members_digest(members, index_of),
        "patches": ask_for_patches(campaign, reached, now=now),
    }
    campaign.save()
    rows = Wave.objects.bulk_create(
        Wave(campaign=campaign, index=index, percent=float(wave["percent"]), soak_s=int(wave.get("soak_s", 0)))
        for index, wave in enumerate(waves)
    )
    counts = copy_node_updates(campaign, rows, members, index_of, now)
    Tally.objects.bulk_create(
        Tally(wave=wave, state=state, count=counts[wave.pk, state]) for wave in rows for state in NodeUpdateState.values
    )
    campaign.plan |= promised(campaign, now=now)
    summarize(campaign=campaign, members=members, index_of=index_of, waves=rows, now=now)
    campaign.save(update_fields=["plan", "plan_hash"])


def _members_digest(members: list[Member], index_of: Mapping[int, int]) -> str:
    """So that the approved hash covers each node, its wave, its base and its image, not only the sums."""
    digest = hashlib.sha256()
    for member in sorted(members, key=lambda member: member.node_id):
        image = member.image.digest if member.image else member.cause
        digest.update(f"{member.node_id} {index_of[member.node_id]} {member.base_digest} {image}\n".encode())
    return digest.hexdigest()


def copy_node_updates(
    campaign: Campaign, waves: list[Wave], members: list[Member], index_of: Mapping[int, int], now: datetime
) -> Counter[tuple[int, str]]:
    """One row a member, planned or skipped; how many of each in each wave (by id). Tallies are the caller's."""
    counts: Counter[tuple[int, str]] = Counter()
    with connection.cursor() as cursor:
        statement = (
            "COPY updates_nodeupdate (campaign_id, wave_id, node_id, image_id, method, state, cause, base_digest,"
            " received_bytes, total_bytes, attempts, changed_at) FROM STDIN"
        )
        with cursor.copy(statement) as copy:
            for member in members:
                wave = waves[index_of[member.node_id]]
                state = NodeUpdateState.PLANNED if member.image else NodeUpdateState.SKIPPED
                counts[wave.pk, str(state)] += 1
                image_id = member.image.pk if member.image else None
                row = (campaign.pk, wave.pk, member.node_id, image_id, str(member.method), str(state))
                copy.write_row((*row, member.cause, member.base_digest, 0, 0, 0, now))
    return counts


class Flow(NamedTuple):
    """What costs the same for each node that has it."""

    image_id: int
    wave_index: int
    base_digest: str
    decoder: str
    stratum: tuple[int, str]
    method: str
    radio: RadioFacts | None


def summarize(
    *, campaign: Campaign, members: list[Member], index_of: Mapping[int, int], waves: Sequence[Wave], now: datetime
) -> None:
    """Fills campaign.plan and its hash: the numbers an approver sees. Sizes of patches still being built are null; those
    that are late are not waited for."""
    flows: Counter[Flow] = Counter()
    refused: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in members:
        if one.image is None:
            refused[one.cause, one.reason].append(one.endpoint)
        else:
            place = (one.image.pk, index_of[one.node_id], one.base_digest, one.decoder)
            flows[Flow(*place, one.stratum, str(one.method), one.radio)] += 1
    left_out = [
        {"cause": cause, "reason": reason, "nodes": len(endpoints), "examples": endpoints[:EXAMPLES]}
        for (cause, reason), endpoints in sorted(refused.items())
    ]
    _fill_plan(campaign, flows, {"nodes": len(members), "refused": left_out}, waves, now)


def _fill_plan(
    campaign: Campaign, flows: Counter[Flow], known: Mapping[str, Any], waves: Sequence[Wave], now: datetime
) -> None:
    """`known`: nodes and refused, which do not depend on sizes."""
    profiles = HardwareProfile.objects.in_bulk()
    images = ModelImage.objects.select_related("version").in_bulk({flow.image_id for flow in flows})
    patches = {
        (patch.base.digest, patch.target_id, patch.decoder): patch
        for patch in Patch.objects.filter(target__in=images).select_related("base", "blob").defer("blob__data")
    }
    bases: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(
        lambda: {"nodes": 0, "patch_bytes": None, "full_bytes": 0}
    )
    totals = {"bytes_full": 0, "bytes_sent": 0, "frames": 0, "pending_patches": 0}
    by_image: Counter[int] = Counter()
    in_wave: Counter[int] = Counter()
    costs, pending = Costs(), set()
    for flow, nodes in flows.items():
        image, (profile_id, link) = images[flow.image_id], flow.stratum
        patch = patches.get((flow.base_digest, flow.image_id, flow.decoder))
        row, size = bases[flow.base_digest, flow.decoder], image.size
        if flow.method == Method.COMMAND:
            size = PREIMAGE_BYTES + 1
        elif patch and patch.state == PatchState.READY and patch.blob:
            size = patch.blob.size
            row["patch_bytes"] = size
        elif patch and patch.state == PatchState.WAITING and not late(campaign, now=now):
            pending.add(patch.pk)
        row["nodes"] += nodes
        row["full_bytes"] = image.size
        estimate = costs.add(
            link=link, profile=profiles[profile_id], size=size, full=image.size, radio=flow.radio, nodes=nodes
        )
        totals["bytes_full"] += nodes * image.size
        totals["bytes_sent"] += nodes * size
        totals["frames"] += nodes * estimate.frames
        by_image[flow.image_id] += nodes
        in_wave[flow.wave_index] += nodes
    totals["pending_patches"] = len(pending)
    campaign.plan = {
        "nodes": known["nodes"],
        "reached": flows.total(),
        "refused": known["refused"],
        "images": [
            {"image": pk, "version": images[pk].version.name, "nodes": nodes, "bytes": images[pk].size}
            for pk, nodes in sorted(by_image.items())
        ],
        "bases": [
            {"base": base[:12], "decoder": decoder, **numbers} for (base, decoder), numbers in sorted(bases.items())
        ],
        **totals,
        **costs.as_json(),
        "waves": [
            {"index": wave.index, "percent": wave.percent, "nodes": in_wave[wave.index], "soak_s": wave.soak_s}
            for wave in waves
        ],
        **{key: campaign.plan[key] for key in KEPT if key in campaign.plan},
    }
    campaign.plan_hash = hash_of(campaign.plan)


def hash_of(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@transaction.atomic
def refresh_plan(*, campaign_id: int, now: datetime) -> bool:
    """Puts the sizes of patches that are built by now into a draft's plan; False while it waits for some."""
    campaign = Campaign.objects.select_for_update().get(pk=campaign_id)
    if not campaign.plan.get("pending_patches") or campaign.state != "draft":
        return not campaign.plan.get("pending_patches")
    columns = (
        *("image_id", "wave__index", "base_digest", "node__firmware_build__decoder_profile"),
        *("node__profile_id", "node__link", "method", *(f"node__{column}" for column in RADIO_COLUMNS)),
    )
    # Summed by the database: a worker's memory does not grow with the fleet.
    rows = campaign.node_updates.filter(image__isnull=False).order_by().values_list(*columns).annotate(Count("pk"))
    flows: Counter[Flow] = Counter()
    shared = Shared()
    for image_id, index, base, decoder, profile_id, link, method, *heard, nodes in rows.iterator():
        flow = Flow(image_id, index, base, decoder or "", (profile_id, link), method, shared.radio(*heard))
        flows[flow] += nodes
    known = {key: campaign.plan[key] for key in ("nodes", "refused")}
    _fill_plan(campaign, flows, known, list(campaign.waves.all()), now)
    campaign.save(update_fields=["plan", "plan_hash"])
    return not campaign.plan["pending_patches"]
