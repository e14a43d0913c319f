"""What an anomaly detector hears: log-mel frames of machines, as MLPerf Tiny's reference makes them from recordings.

16 kHz, windows of 1024 samples every 512, 128 mel bands (Slaney's scale and norm), power in dB, five windows in a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_RATE_HZ, _WINDOW, _STEP, _BANDS, _WINDOWS = 16_000, 1024, 512, 128, 5
_HARMONICS = 24
_LEAST_POWER = 1e-9


def log_mel_frames(n: int, *, seed: int) -> npt.NDArray[np.float32]:
    """(n, 640) dB, about -60 to 5: a hum of 40 to 120 Hz with its harmonics over noise that falls towards high tones."""
    random = np.random.default_rng(seed)
    length = (_WINDOWS - 1) * _STEP + _WINDOW
    time, tones = np.arange(length) / _RATE_HZ, np.fft.rfftfreq(length, 1 / _RATE_HZ)
    bands, window = _mel_bands(), np.hanning(_WINDOW + 1)[:-1]
    frames = np.empty((n, _WINDOWS * _BANDS), np.float32)
    harmonic = np.arange(1, _HARMONICS + 1)[:, None]
    for index in range(n):
        hum_hz, corner_hz, slope = random.uniform(40, 120), random.uniform(300, 1500), random.uniform(0.2, 0.6)
        loud, phase = random.uniform(0.2, 1, harmonic.shape), random.uniform(0, 2 * np.pi, harmonic.shape)
        hum = (loud / harmonic * np.sin(2 * np.pi * hum_hz * harmonic * time + phase)).sum(0)
        noise = np.fft.irfft(np.fft.rfft(random.normal(size=length)) * (1 + (tones / corner_hz) ** 2) ** -slope, length)
        sound = hum * random.uniform(0.005, 0.03) + noise * random.uniform(0.003, 0.03)
        heard = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_STEP] * window
        frames[index] = (10 * np.log10(np.abs(np.fft.rfft(heard)) ** 2 @ bands.T + _LEAST_POWER)).reshape(-1)
    return frames


def _mel_bands() -> npt.NDArray[np.float64]:
    """(bands, tones): triangles, evenly spaced in mel (linear below 1 kHz, logarithmic above), each of area 1."""
    above = 27 / np.log(6.4)
    mel = np.linspace(0, 15 + above * np.log(_RATE_HZ / 2 / 1000), _BANDS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) / above))
    tones = np.fft.rfftfreq(_WINDOW, 1 / _RATE_HZ)
    rising = (tones - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - tones) / np.diff(edges)[1:, None]
    triangles: npt.NDArray[np.float64] = (
        np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    )
    return triangles
