"""EU868 (LoRaWAN regional parameters RP002, EN 300 220): what one frame may carry, how long it is on air, and where."""

from __future__ import annotations

import math

SPREADING = (12, 11, 10, 9, 8, 7)  # by data rate DR0..DR5, all at 125 kHz
BANDWIDTH_HZ = 125_000
FRM_PAYLOAD_MAX = (51, 51, 51, 115, 242, 242)  # bytes by data rate, without a repeater
UPLINK_CHANNELS = (868_100_000, 868_300_000, 868_500_000)
RX2_FREQUENCY = 869_525_000
RX1_DELAY_S, RX2_DELAY_S = 1.0, 2.0
JOIN_DELAY1_S, JOIN_DELAY2_S = 5.0, 6.0

# Octets around FRMPayload: MHDR 1, FHDR 7 without options, FPort 1 (absent in an empty frame), MIC 4.
FRAME_OVERHEAD, EMPTY_FRAME = 13, 12
JOIN_REQUEST, JOIN_ACCEPT = 23, 33  # the accept with its list of channels

_PREAMBLE = 8

# name: (first Hz, last Hz, share of an hour)
SUB_BANDS = {"868.0-868.6": (868_000_000, 868_600_000, 0.01), "869.4-869.65": (869_400_000, 869_650_000, 0.10)}


def sub_band(frequency: int) -> str:
    """The name in SUB_BANDS. Raises ValueError where there is none."""
    for name, (first, last, _) in SUB_BANDS.items():
        if first <= frequency <= last:
            return name
    raise ValueError(f"frequency: {frequency} Hz, is in no sub-band of {', '.join(SUB_BANDS)} MHz")


def airtime_s(size: int, data_rate: int, *, uplink: bool) -> float:
    """Seconds on air of a PHYPayload of `size` bytes. Uplinks carry a CRC, downlinks do not (Semtech AN1200.13)."""
    spreading = SPREADING[data_rate]
    symbol_s = 2**spreading / BANDWIDTH_HZ
    slow = 2 if spreading >= 11 else 0  # low data rate optimisation
    bits = 8 * size - 4 * spreading + 28 + (16 if uplink else 0)
    symbols = 8 + max(math.ceil(bits / (4 * (spreading - slow))) * 5, 0)
    return (_PREAMBLE + 4.25 + symbols) * symbol_s


def frame_bytes(payload: bytes | None) -> int:
    """PHYPayload of a data frame; None: a frame without port and payload."""
    return EMPTY_FRAME if payload is None else FRAME_OVERHEAD + len(payload)


def rx1_data_rate(uplink_data_rate: int, offset: int) -> int:
    return max(0, uplink_data_rate - offset)
