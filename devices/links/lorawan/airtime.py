"""How long a frame is on the air: Semtech AN1200.13 for LoRa, the LoRaWAN regional parameters for FSK."""

from __future__ import annotations

from math import ceil

# MHDR, DevAddr, FCtrl, FCnt, FPort and MIC around the application's bytes (LoRaWAN 1.0.4, 4).
MAC_BYTES = 13
PREAMBLE_SYMBOLS = 8
# From this symbol time on the low data rate optimisation is on: SF11 and SF12 at 125 kHz.
_SLOW_SYMBOL_S = 0.016
_FSK_FRAME_BYTES = 5 + 3 + 1 + 2  # preamble, sync word, length, CRC


def lora_s(phy_bytes: int, *, spreading_factor: int, bandwidth_hz: int = 125_000, crc: bool = True) -> float:
    """Seconds for `phy_bytes` of PHY payload with explicit header and coding rate 4/5. Downlinks carry no CRC.

    Raises ValueError for a negative size or a spreading factor outside 7..12.
    """
    if phy_bytes < 0:
        raise ValueError(f"size: {phy_bytes} bytes, must not be negative")
    if not 7 <= spreading_factor <= 12:
        raise ValueError(f"spreading factor: {spreading_factor}, must be 7..12")
    symbol_s = 2**spreading_factor / bandwidth_hz
    slow = 2 if symbol_s >= _SLOW_SYMBOL_S else 0
    bits = 8 * phy_bytes - 4 * spreading_factor + 28 + (16 if crc else 0)
    symbols = 8 + max(ceil(bits / (4 * (spreading_factor - slow))) * 5, 0)
    return float((PREAMBLE_SYMBOLS + 4.25 + symbols) * symbol_s)


def fsk_s(phy_bytes: int, *, bits_per_second: int = 50_000) -> float:
    """Seconds for `phy_bytes` of PHY payload. Raises ValueError for a negative size."""
    if phy_bytes < 0:
        raise ValueError(f"size: {phy_bytes} bytes, must not be negative")
    return (_FSK_FRAME_BYTES + phy_bytes) * 8 / bits_per_second
