"""A small fleet with two versions, and the far end of the link: what a gateway would write when nodes answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from devices.models import Delivery, FirmwareBuild, HardwareProfile, LinkEvent, LinkEventKind, Node
from devices.services import register_image
from devices.wire import Cause, NodeState, StateReport
from fleet.blobs.models import store
from updates.campaigns import actions, engine, ingest, plan
from updates.models import Campaign, ModelFamily, ModelImage, ModelVersion, NodeUpdate, ValidationReport
from updates.services import build_patches_due

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ALL_AT_ONCE = [{"percent": 100, "soak_s": 0}]
LENIENT = {"maximum_failure_percent": 50, "maximum_silent_percent": 90, "minimum_sample": 1}


def make_image(family: ModelFamily, name: str, data: bytes, **fields: Any) -> ModelImage:
    blob = store(data)
    version = ModelVersion.objects.create(
        family=family,
        name=name,
        digest=hashlib.sha256(name.encode() + data).hexdigest(),
        onnx=blob,
        calibration=blob,
        evaluation=blob,
        state="ready",
    )
    values: dict[str, Any] = {
        "runtime": "tflm",
        "precision": "int8",
        "granularity": "fc-per-tensor",
        "alignment": 16,
        "arena_bytes": 5_000,
        "operators": ["CONV_2D"],
        "io_hash": "00c0ffee",
        "self_test_digest": "0011223344556677",
    }
    image = ModelImage.objects.create(
        version=version, known=register_image(blob.digest), blob=blob, size=len(data), **(values | fields)
    )
    ValidationReport.objects.create(image=image, verdict="passed", slices=[])
    return image


@dataclass
class Scene:
    """`now` moves only when a test says so."""

    nodes: int = 10
    now: datetime = START
    fleet: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.profile = HardwareProfile.objects.create(
            name="m4", slot_bytes=65_536, sram_bytes=65_536, reserved_sram_bytes=32_768
        )
        self.firmware = FirmwareBuild.objects.create(name="fw-1", operators=["CONV_2D"], io_hash="00c0ffee")
        family = ModelFamily.objects.create(name="vibration", model_id="01020304")
        old = bytes(range(256)) * 40
        self.old = make_image(family, "1.0", old)
        self.new = make_image(family, "1.1", old[:5000] + b"changed" + old[5007:])
        self.fleet = Node.objects.bulk_create(
            Node(
                endpoint=f"node-{index:04d}",
                link="nbiot",
                profile=self.profile,
                firmware_build=self.firmware,
                active_digest=self.old.digest,
            )
            for index in range(self.nodes)
        )

    def campaign(self, *, waves: Any = None, gate: Any = None, **fields: Any) -> Campaign:
        """Planned, patched, approved and started."""
        campaign = plan.create_campaign(
            name="1.1 to all",
            version=self.new.version,
            node_filter=fields.pop("node_filter", ""),
            waves=waves or ALL_AT_ONCE,
            gate=LENIENT if gate is None else gate,
            starts_at=fields.pop("starts_at", None),
            actor="olga",
            now=self.now,
            **fields,
        )
        return self.go(campaign)

    def go(self, campaign: Campaign) -> Campaign:
        build_patches_due(self.now, limit=100)
        plan.refresh_plan(campaign_id=campaign.pk, now=self.now)
        campaign.refresh_from_db()
        actions.approve(campaign_id=campaign.pk, plan_hash=campaign.plan_hash, actor="ana", now=self.now)
        return actions.start(campaign_id=campaign.pk, actor="ana", now=self.now)

    def tick(self, campaign: Campaign, *, times: int = 1, later_s: float = 0) -> Campaign:
        self.now += timedelta(seconds=later_s)
        for _ in range(times):
            engine.tick(campaign_id=campaign.pk, now=self.now)
        campaign.refresh_from_db()
        return campaign

    def event(self, node: Node, kind: LinkEventKind, **fields: Any) -> LinkEvent:
        return LinkEvent.objects.create(at=self.now, link="nbiot", kind=kind, node=node, **fields)

    def report(self, node: Node, campaign: Campaign, state: NodeState, **fields: Any) -> LinkEvent:
        """A state report; `active` and `standby` are images, `sequence` is the campaign's unless given."""
        report = StateReport(
            state=state,
            cause=fields.get("cause", Cause.NONE),
            active_prefix=bytes.fromhex(fields.get("active", self.old).digest)[:4],
            standby_prefix=bytes.fromhex(fields.get("standby", self.new).digest)[:4],
            sequence_low=fields.get("sequence", campaign.sequence) & 0xFF,
        )
        return self.event(node, LinkEventKind.REPORT, payload=report.encode())

    def delivered(self, update: NodeUpdate) -> None:
        """What the gateway writes when the node has pulled all."""
        delivery = Delivery.objects.filter(reference=update.pk).latest("pk")
        Delivery.objects.filter(pk=delivery.pk).update(state="delivered")
        self.event(update.node, LinkEventKind.DELIVERED, reference=update.pk, delivery_id=delivery.pk)

    def confirm(self, update: NodeUpdate, image: ModelImage | None = None) -> None:
        """Pulled, tried, confirmed: in the order in which an NB-IoT gateway writes it."""
        image, other = image or self.new, self.old if (image or self.new) == self.new else self.new
        self.delivered(update)
        self.event(update.node, LinkEventKind.HOLDS, digest=image.digest)
        self.report(update.node, update.campaign, NodeState.CONFIRMED, active=image, standby=other)

    def drain(self) -> int:
        total = 0
        while drained := ingest.drain(now=self.now):
            total += drained
        return total

    def open_updates(self, campaign: Campaign) -> list[NodeUpdate]:
        return list(campaign.node_updates.filter(state="offered").select_related("node", "campaign").order_by("pk"))

    def states(self, campaign: Campaign) -> dict[str, int]:
        counts: dict[str, int] = {}
        for state in campaign.node_updates.values_list("state", flat=True):
            counts[state] = counts.get(state, 0) + 1
        return counts

    def tallies(self, campaign: Campaign) -> dict[str, int]:
        counts: dict[str, int] = {}
        for wave in campaign.waves.all():
            for tally in wave.tallies.exclude(count=0):
                counts[tally.state] = counts.get(tally.state, 0) + tally.count
        return counts
