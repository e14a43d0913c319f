"""What a data rate carries, how long that takes and how often it may be sent, by region.

LoRaWAN regional parameters RP002-1.0.4, without a repeater and, for AS923, without the dwell time limit: where a
network has either, ChirpStack says so when it drops the first frame, and the link uses the limit that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from devices.links.lorawan.airtime import MAC_BYTES, fsk_s, lora_s

# Command, index and number before the bytes of a fragment (TS004).
FRAGMENT_HEADER_BYTES = 3


@dataclass(frozen=True)
class Modulation:
    """`spreading_factor` 0: FSK at 50 kbit/s."""

    spreading_factor: int
    bandwidth_hz: int

    def airtime_s(self, payload_bytes: int, *, down: bool) -> float:
        """Seconds for so many application bytes in one frame."""
        if not self.spreading_factor:
            return fsk_s(MAC_BYTES + payload_bytes)
        return lora_s(
            MAC_BYTES + payload_bytes,
            spreading_factor=self.spreading_factor,
            bandwidth_hz=self.bandwidth_hz,
            crc=not down,
        )


@dataclass(frozen=True)
class Band:
    """`duty`: share of the time (0..1] that one sender may be on the air between these frequencies."""

    low_hz: int
    high_hz: int
    duty: float


@dataclass(frozen=True)
class Region:
    """Maps are by data rate. Payloads are the most application bytes of one frame (N)."""

    name: str
    modulations: Mapping[int, Modulation]
    uplink_bytes: Mapping[int, int]
    downlink_bytes: Mapping[int, int]
    rx1_rates: Mapping[int, int]  # uplink data rate to that of RX1, at offset 0
    bands: tuple[Band, ...]
    # Band of the default channels, which RX1 shares with uplinks, joins and acknowledgements.
    uplink_hz: int

    @property
    def slowest_rate(self) -> int:
        return min(self.uplink_bytes)

    def rx1_rate(self, uplink_rate: int) -> int:
        """Of the answer to an uplink. A rate that the region does not know counts as its slowest."""
        return self.rx1_rates.get(uplink_rate, self.rx1_rates[self.slowest_rate])

    def downlink_limit(self, uplink_rate: int | None) -> int:
        """Most application bytes in RX1 after an uplink at this rate; None: not known, so the slowest."""
        return self.downlink_bytes[self.rx1_rate(self.slowest_rate if uplink_rate is None else uplink_rate)]

    def fragment_bytes(self, uplink_rate: int | None) -> int:
        return self.downlink_limit(uplink_rate) - FRAGMENT_HEADER_BYTES

    def uplink_airtime_s(self, payload_bytes: int, uplink_rate: int) -> float:
        return self.modulations[uplink_rate].airtime_s(payload_bytes, down=False)

    def downlink_airtime_s(self, payload_bytes: int, uplink_rate: int) -> float:
        return self.modulations[self.rx1_rate(uplink_rate)].airtime_s(payload_bytes, down=True)

    def duty(self, frequency_hz: int | None = None) -> float:
        """Of the band that holds this frequency, else of the default channels; 1.0 where there is no limit."""
        at = self.uplink_hz if frequency_hz is None else frequency_hz
        return next((band.duty for band in self.bands if band.low_hz <= at < band.high_hz), 1.0)


def _lora(*pairs: tuple[int, int, int]) -> dict[int, Modulation]:
    return {rate: Modulation(spreading_factor, khz * 1000) for rate, spreading_factor, khz in pairs}


_EU868_RATES = _lora(
    *((0, 12, 125), (1, 11, 125), (2, 10, 125), (3, 9, 125), (4, 8, 125), (5, 7, 125), (6, 7, 250), (7, 0, 0))
)
_EU868_BYTES = {0: 51, 1: 51, 2: 51, 3: 115, 4: 242, 5: 242, 6: 242, 7: 242}

EU868 = Region(
    name="EU868",
    modulations=_EU868_RATES,
    uplink_bytes=_EU868_BYTES,
    downlink_bytes=_EU868_BYTES,
    rx1_rates={rate: rate for rate in _EU868_BYTES},
    bands=(
        Band(863_000_000, 865_000_000, 0.001),
        Band(865_000_000, 868_000_000, 0.01),
        Band(868_000_000, 868_600_000, 0.01),
        Band(868_700_000, 869_200_000, 0.001),
        Band(869_400_000, 869_650_000, 0.10),
        Band(869_700_000, 870_000_000, 0.01),
    ),
    uplink_hz=868_100_000,
)

US915 = Region(
    name="US915",
    modulations=_lora(
        *((0, 10, 125), (1, 9, 125), (2, 8, 125), (3, 7, 125), (4, 8, 500)),
        *((8, 12, 500), (9, 11, 500), (10, 10, 500), (11, 9, 500), (12, 8, 500), (13, 7, 500)),
    ),
    uplink_bytes={0: 11, 1: 53, 2: 125, 3: 242, 4: 242},
    downlink_bytes={8: 53, 9: 129, 10: 242, 11: 242, 12: 242, 13: 242},
    rx1_rates={0: 10, 1: 11, 2: 12, 3: 13, 4: 13},
    bands=(),
    uplink_hz=902_300_000,
)

AS923 = Region(
    name="AS923",
    modulations=_EU868_RATES,
    uplink_bytes=_EU868_BYTES,
    downlink_bytes=_EU868_BYTES,
    rx1_rates={rate: min(5, rate) for rate in _EU868_BYTES},
    bands=(Band(920_000_000, 928_000_000, 0.01),),
    uplink_hz=923_200_000,
)

REGIONS = {region.name: region for region in (EU868, US915, AS923)}
DEFAULT_REGION = EU868.name


def region_of(config_id: str) -> str | None:
    """The region that a ChirpStack region configuration id (`eu868`, `us915_0`, `as923-2`) stands for, if known."""
    name = re.split("[_-]", config_id)[0].upper()
    return name if name in REGIONS else None
