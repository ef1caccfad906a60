"""One piano: struck strings as sums of damped partials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.synthesize.signal import SAMPLE_RATE, Audio, band_noise, damped_sines

_PARTIALS = 40
_HIGHEST_PARTIAL = 10_500.0


@dataclass(frozen=True)
class Piano:
    """What tells one instrument from another; every field but `detune` is a factor around 1.

    `detune` is the distance in cents between the strings of a note.
    """

    brightness: float
    stiffness: float
    damping: float
    hammer: float
    detune: float


def draw_piano(rng: np.random.Generator) -> Piano:
    """Draw an instrument."""
    return Piano(
        brightness=rng.uniform(0.7, 1.5),
        stiffness=rng.uniform(0.6, 1.5),
        damping=rng.uniform(0.7, 1.3),
        hammer=rng.uniform(0.5, 1.5),
        detune=rng.uniform(0.4, 1.6),
    )


def frequency_of(note: int) -> float:
    """Frequency in Hz of a MIDI note number, A4 = 69 = 440 Hz."""
    return float(440 * 2 ** ((note - 69) / 12))


def strike(rng: np.random.Generator, piano: Piano, note: int, velocity: float, seconds: float) -> Audio:
    """Sound of one key held for `seconds`: [round(seconds * SAMPLE_RATE)], its partials of power 1 at first.

    A harder stroke (`velocity` in (0, 1]) is brighter, not louder: the caller scales it. Every partial has
    two strings, slightly apart: one that gives its energy to the bridge fast, one that keeps ringing.
    """
    pitch = frequency_of(note)
    order = np.arange(1, _PARTIALS + 1)
    stiffness = piano.stiffness * 1.5e-4 * 2 ** (abs(note - 48) / 14)
    frequencies = pitch * order * np.sqrt(1 + stiffness * order**2)
    heard = frequencies < _HIGHEST_PARTIAL
    order, frequencies = order[heard], frequencies[heard]

    cutoff = piano.brightness * (350 + 1900 * velocity) + 0.9 * pitch
    strike_point = 0.15 + np.abs(np.sin(np.pi * order / 7.6))
    powers = strike_point * order**-0.7 * np.exp(-frequencies / cutoff)
    powers /= np.sqrt(np.sum(powers**2))
    decays = piano.damping * (0.6 * (pitch / 110) ** 0.75 * order**0.55 + 1.5e-7 * frequencies**2)

    apart = 2 ** (piano.detune * rng.uniform(0.5, 1.5, len(order)) / 2400)
    tone = damped_sines(
        np.concatenate((frequencies / apart, frequencies * apart)),
        np.concatenate((2.8 * decays, 0.6 * decays)),
        np.concatenate((0.8 * powers, 0.3 * powers)) * np.exp(2j * np.pi * rng.random(2 * len(order))),
        round(seconds * SAMPLE_RATE),
    )
    ramp = min(len(tone), round((0.004 - 0.0025 * velocity) * SAMPLE_RATE))
    tone[:ramp] *= np.sin(np.linspace(0, np.pi / 2, ramp, dtype=np.float32)) ** 2
    knock = _hammer_knock(rng, piano, velocity)[: len(tone)]
    tone[: len(knock)] += knock
    return tone


def _hammer_knock(rng: np.random.Generator, piano: Piano, velocity: float) -> Audio:
    """Give the felt's thud and the key bed's knock: a short noise [n], harder strokes reaching higher."""
    length = round(0.06 * SAMPLE_RATE)
    fade = np.linspace(1, 0, length, dtype=np.float32) ** 6 * np.minimum(1, np.arange(length) / 24)
    noise = band_noise(rng, length, 90, 500 + 2200 * velocity)
    return (0.09 * piano.hammer * velocity * noise * fade).astype(np.float32)
