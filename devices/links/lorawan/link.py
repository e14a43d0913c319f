"""The LoRaWAN link as the engine sees it; `devices.tasks.feed_lorawan` carries out what it queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil

from django.db import transaction

from devices.links import outbox
from devices.links.base import Estimate, RadioFacts, Recipient
from devices.links.lorawan.models import LoRaWanDevice
from devices.links.lorawan.regions import DEFAULT_REGION, REGIONS, Region
from devices.links.lorawan.wake import wake
from devices.models import OPEN_DELIVERY, Delivery, HardwareProfile, LinkKind

# Set-up, question for what is missing, and the one for what the node holds; each answered by an uplink.
REQUESTS = 3
REQUEST_BYTES, ANSWER_BYTES = 11, 5
# From the end of an uplink to the end of RX2, during which a node does nothing else.
RECEIVE_WINDOWS_S = 3.0


class LoRaWanLink:
    kind = LinkKind.LORAWAN

    def estimate(self, *, profile: HardwareProfile, size: int, radio: RadioFacts | None = None) -> Estimate:
        """Class A: each fragment waits for an uplink, and the next uplink for the duty cycle.

        Raises ValueError for a negative size.
        """
        if size < 0:
            raise ValueError(f"size: {size} bytes, must not be negative")
        region = REGIONS.get(radio.region if radio else "", REGIONS[DEFAULT_REGION])
        known = radio is not None and radio.data_rate in region.uplink_bytes
        rate = radio.data_rate if known and radio and radio.data_rate is not None else region.slowest_rate
        fragment = region.fragment_bytes(rate)
        fragments = ceil(size / fragment)
        full_s = region.downlink_airtime_s(region.downlink_limit(rate), rate)
        request_s = region.downlink_airtime_s(REQUEST_BYTES, rate)
        empty_s, answer_s = region.uplink_airtime_s(0, rate), region.uplink_airtime_s(ANSWER_BYTES, rate)
        down_s = fragments * full_s + REQUESTS * request_s
        up_s = fragments * empty_s + REQUESTS * answer_s
        per_kibibyte = profile.radio_joules_per_kibibyte
        sent_bytes = size + (fragments + REQUESTS) * REQUEST_BYTES
        return Estimate(
            frames=2 * (fragments + REQUESTS),
            airtime_s=down_s + up_s,
            hours=(
                fragments * _period_s(region, up_s=empty_s, down_s=full_s)
                + REQUESTS * _period_s(region, up_s=answer_s, down_s=request_s)
            )
            / 3600,
            energy_j=None if per_kibibyte is None else per_kibibyte * sent_bytes / 1024,
            gateway_airtime_s=down_s,
            gateway_duty=region.duty(),
            assumed="" if known else f"data rate not known, DR{rate} of {region.name} taken",
        )

    def offer(self, *, bundles: Mapping[str, bytes], nodes: Sequence[Recipient], now: datetime) -> None:
        with transaction.atomic():
            _make_due([recipient.node_id for recipient in nodes], now=now)
            outbox.offer(link=self.kind, bundles=bundles, nodes=nodes, now=now)

    def command(self, *, command: bytes, nodes: Sequence[Recipient], now: datetime) -> None:
        with transaction.atomic():
            _make_due([recipient.node_id for recipient in nodes], now=now)
            outbox.command(link=self.kind, command=command, nodes=nodes, now=now)

    def cancel(self, *, references: Sequence[int], now: datetime) -> int:
        """See `Link.cancel`. What ChirpStack holds is flushed by the next tick at the latest."""
        nodes = Delivery.objects.filter(link=self.kind, reference__in=references, state__in=OPEN_DELIVERY).values_list(
            "node_id", flat=True
        )
        with transaction.atomic():
            _make_due(list(nodes), now=now, flush=True)
            return outbox.cancel(link=self.kind, references=references, now=now)


def _period_s(region: Region, *, up_s: float, down_s: float) -> float:
    """From one exchange to the next: both sides share the band of the default channels."""
    return max(up_s + RECEIVE_WINDOWS_S + down_s, max(up_s, down_s) / region.duty())


def _make_due(node_ids: Sequence[int], *, now: datetime, flush: bool = False) -> None:
    """Devices are locked in key order, and before the deliveries of theirs, as every writer here does."""
    locked = list(
        LoRaWanDevice.objects.filter(pk__in=node_ids)
        .order_by("pk")
        .select_for_update(of=("self",))
        .values_list("pk", flat=True)
    )
    if locked:
        LoRaWanDevice.objects.filter(pk__in=locked).update(due_at=now, **({"flush_due_at": now} if flush else {}))
        transaction.on_commit(wake)
