"""All that is measured of one pair: what was made beside what it was made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from shards.audio import Samples
from training.measures.likeness import likeness
from training.measures.music import Ears, Heard
from training.measures.rhythm import WINDOW, rhythm_transfer


@dataclass(frozen=True)
class Sound:
    """A sound: latents [1, D, T], mono audio [n], and what is heard in it."""

    latents: Tensor
    audio: Samples
    heard: Heard


def listen(latents: Tensor, audio: Samples, sample_rate: int, ears: Ears | None) -> Sound:
    """Make a sound of latents [1, D, T] and their audio [n]; nothing is heard without ears."""
    return Sound(latents, audio, Heard() if ears is None else ears.hear(audio, sample_rate))


def measure_pair(output: Sound, source: Sound, goal: Sound, sample_rate: int, ears: Ears | None) -> dict[str, float]:
    """Compare an output with its input and target: rhythm, likeness and, with ears, music. Every number is finite.

    What can't be measured is left out: rhythm in 25 frames or fewer, what can't be heard in a source, and distances
    that no float holds.
    """
    found = likeness(output.audio, source.audio, goal.audio, sample_rate)
    if output.latents.shape[2] > WINDOW // 2:
        rhythm = rhythm_transfer(source.latents, goal.latents, output.latents)
        found["rhythm_correlation_input"] = rhythm.input_correlation
        found["rhythm_correlation_target"] = rhythm.target_correlation
    if ears is not None:
        found |= ears.compare(output.heard, source.heard, goal.heard)
    return {name: value for name, value in found.items() if math.isfinite(value)}
