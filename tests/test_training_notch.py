"""The notch filter: takes what rings, and leaves music as it is."""

from __future__ import annotations

import numpy as np
import pytest

from shards.audio import Samples
from training.notch import ALLOWED_DB, notch_outliers

RATE = 24_000


def noise(seconds: float = 4.0) -> Samples:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def tone(frequency: float, level: float, seconds: float = 4.0) -> Samples:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def power_at(samples: Samples, frequency: float, width: float = 20.0) -> float:
    """Mean power within `width` Hz on either side."""
    spectrum = np.square(np.abs(np.fft.rfft(samples)))
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(spectrum[np.abs(frequencies - frequency) < width].mean())


@pytest.mark.parametrize("frequency", [1_900.0, 2_000.0, 4_050.0, 6_100.0])
def test_a_tone_in_a_ringing_band_is_brought_down(frequency: float) -> None:
    music, ringing = noise(), tone(frequency, 0.05)
    filtered, deepest = notch_outliers(music + ringing, RATE)
    assert 10 < deepest <= 24
    left = 10 * np.log10(power_at(filtered, frequency) / power_at(music, frequency))
    before = 10 * np.log10(power_at(music + ringing, frequency) / power_at(music, frequency))
    assert left < ALLOWED_DB + 2 < before - 6
    assert len(filtered) == len(music)
    assert filtered.dtype == np.float32


def test_everything_beside_the_tone_stays() -> None:
    music = noise()
    filtered, _ = notch_outliers(music + tone(2_000.0, 0.05), RATE)
    for frequency in (200.0, 1_000.0, 1_700.0, 2_400.0, 3_000.0, 4_000.0, 8_000.0):
        assert power_at(filtered, frequency) == pytest.approx(power_at(music, frequency), rel=0.01), frequency


@pytest.mark.parametrize("frequency", [440.0, 1_000.0, 3_000.0, 5_000.0])
def test_a_tone_elsewhere_is_music(frequency: float) -> None:
    samples = noise() + tone(frequency, 0.2)
    filtered, deepest = notch_outliers(samples, RATE)
    assert deepest == 0
    np.testing.assert_array_equal(filtered, samples)


@pytest.mark.parametrize("samples", [noise(), noise(0.01), np.zeros(RATE, np.float32), np.zeros(10, np.float32)])
def test_noise_and_silence_stay_as_they_are(samples: Samples) -> None:
    filtered, deepest = notch_outliers(samples, RATE)
    assert deepest == 0
    np.testing.assert_array_equal(filtered, samples)


def test_the_filter_does_not_move_an_attack() -> None:
    attack = np.zeros(2 * RATE, np.float32)
    attack[RATE] = 0.5
    filtered, deepest = notch_outliers(attack + tone(2_000.0, 0.05, 2.0), RATE)
    assert deepest > 0
    assert int(np.abs(filtered).argmax()) == RATE
    assert abs(filtered[RATE + 200 : RATE + 220]).max() < 0.02
