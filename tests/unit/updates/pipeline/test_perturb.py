from __future__ import annotations

import numpy as np
import pytest

from updates.pipeline.perturb import PERTURBATIONS, perturbed
from updates.pipeline.types import Signal

RATE = 400.0
TIMED = Signal(time_axis=1, sample_rate_hz=RATE)


def tones(n: int = 6, *, channels: int = 2, steps: int = 400, hertz: float = 20.0) -> np.ndarray:
    phase = np.linspace(0, 3, n)[:, None, None]
    wave = np.sin(2 * np.pi * hertz * np.arange(steps) / RATE + phase)
    return np.broadcast_to(wave, (n, channels, steps)).astype(np.float32).copy()


def strongest(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples[0, 0] * np.hanning(samples.shape[-1]), 8192))
    return float(spectrum.argmax() * RATE / 8192)


def test_every_slice_has_the_shape_of_the_clean_one_and_differs_from_it() -> None:
    clean = tones()
    made = perturbed(clean, TIMED)
    assert set(made) == {one.name for one in PERTURBATIONS}
    for name, slice_ in made.items():
        assert slice_.shape == clean.shape and slice_.dtype == np.float32 and np.isfinite(slice_).all(), name
        assert not np.array_equal(slice_, clean), name


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (perturbed(tones(), TIMED, seed=seed)["noise-10db"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("decibels", [20, 10, 5])
def test_noise_has_the_power_that_its_name_says(decibels: int) -> None:
    clean = tones()
    noise = perturbed(clean, TIMED)[f"noise-{decibels}db"] - clean
    assert 10 * np.log10(clean.var() / noise.var()) == pytest.approx(decibels, abs=0.5)


@pytest.mark.parametrize(("name", "factor"), [("clock+3%", 1 / 1.03), ("clock-3%", 1 / 0.97)])
def test_a_fast_clock_hears_a_slower_tone(name: str, factor: float) -> None:
    clean = tones(hertz=20)
    assert strongest(perturbed(clean, TIMED)[name]) == pytest.approx(strongest(clean) * factor, rel=0.005)


def test_hum_adds_the_mains_frequency_alone() -> None:
    added = perturbed(tones(), TIMED)["mains-hum"] - tones()
    assert strongest(added) == pytest.approx(50, rel=0.02)


def test_without_a_time_axis_nothing_is_resampled_or_hums() -> None:
    made = perturbed(tones(), Signal())
    assert {"clock+3%", "clock-3%", "mains-hum"}.isdisjoint(made)
    assert "dropouts" in made


def test_hum_above_half_the_sample_rate_is_left_out() -> None:
    assert "mains-hum" not in perturbed(tones(), Signal(time_axis=1, sample_rate_hz=100.0))


def test_dropouts_take_all_channels_for_a_twentieth_of_the_time() -> None:
    lost = perturbed(tones(n=60) + 2, TIMED)["dropouts"] == 0
    assert np.array_equal(lost[:, 0], lost[:, 1])
    assert lost.mean() == pytest.approx(0.05, abs=0.01)


def test_clipping_ends_at_seven_tenths_of_the_peak() -> None:
    assert np.abs(perturbed(tones(), TIMED)["clipping"]).max() == pytest.approx(0.7, abs=0.01)


def test_a_silent_sample_stays_finite() -> None:
    assert all(np.isfinite(made).all() for made in perturbed(np.zeros((2, 2, 50), np.float32), TIMED).values())


def test_a_time_axis_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="time_axis: 2"):
        perturbed(tones(), Signal(time_axis=2))
