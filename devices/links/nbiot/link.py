"""The NB-IoT link as the engine sees it; `manage.py lwm2m` carries out what it queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil

from devices.links import outbox
from devices.links.base import Estimate, RadioFacts, Recipient
from devices.models import HardwareProfile, LinkKind

# A Block2 exchange at 512 bytes: CoAP headers as measured, DTLS record and IPv4 with UDP in each direction.
BLOCK_BYTES = 512
COAP_DOWN_BYTES, COAP_UP_BYTES = 19, 15
DTLS_BYTES = 29
IP_UDP_BYTES = 28
# What a window holds besides blocks: Update, base, address, state, execute, report.
WINDOW_EXCHANGES = 6
# Sustained NB1 rates, and the round trip in good coverage (deep coverage: 5-10 s).
DOWN_BITS_PER_SECOND = 26_000
UP_BITS_PER_SECOND = 62_000
ROUND_TRIP_S = 1.0


class NbIotLink:
    kind = LinkKind.NBIOT

    def estimate(self, *, profile: HardwareProfile, size: int, radio: RadioFacts | None = None) -> Estimate:
        """Blocks in lock step: time goes with round trips, not with bytes. Raises ValueError for a negative size."""
        if size < 0:
            raise ValueError(f"size: {size} bytes, must not be negative")
        exchanges = ceil(size / BLOCK_BYTES) + WINDOW_EXCHANGES
        down = size + exchanges * (COAP_DOWN_BYTES + DTLS_BYTES + IP_UDP_BYTES)
        up = exchanges * (COAP_UP_BYTES + DTLS_BYTES + IP_UDP_BYTES)
        per_kibibyte = profile.radio_joules_per_kibibyte
        return Estimate(
            frames=2 * exchanges,
            airtime_s=down * 8 / DOWN_BITS_PER_SECOND + up * 8 / UP_BITS_PER_SECOND,
            hours=exchanges * ROUND_TRIP_S / 3600,
            energy_j=None if per_kibibyte is None else per_kibibyte * (down + up) / 1024,
        )

    def offer(self, *, bundles: Mapping[str, bytes], nodes: Sequence[Recipient], now: datetime) -> None:
        outbox.offer(link=self.kind, bundles=bundles, nodes=nodes, now=now)

    def command(self, *, command: bytes, nodes: Sequence[Recipient], now: datetime) -> None:
        outbox.command(link=self.kind, command=command, nodes=nodes, now=now)

    def cancel(self, *, references: Sequence[int], now: datetime) -> int:
        return outbox.cancel(link=self.kind, references=references, now=now)
