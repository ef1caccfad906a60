"""How loud a piece is: as loud as its sources, and never over full scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shards.audio import Samples, rms
from training.measures.likeness import sources_level

MAXIMUM_GAIN = 3.0
SOFT_LIMIT = 0.9


def matching_gain(output: Samples, input_audio: Samples, target_audio: Samples) -> float:
    """By how much to scale an output so that it is as loud as its sources; 3 at most."""
    return min(MAXIMUM_GAIN, sources_level(input_audio, target_audio) / max(rms(output), 1e-9))


def soft_limit(samples: Samples) -> Samples:
    """Leave samples up to 0.9 as they are and bend what lies above towards 1.0, which is never reached."""
    over = np.abs(samples) - SOFT_LIMIT
    room = 1.0 - SOFT_LIMIT
    bent = np.sign(samples) * (SOFT_LIMIT + room * np.tanh(over / room) * (1 - 1e-6))
    return np.where(over > 0, bent, samples).astype(np.float32)


def levels(audio: Mapping[str, Samples]) -> dict[str, float]:
    """RMS of each track of a piece, as it is heard, and the output's peak."""
    return {f"{name}_rms": rms(samples) for name, samples in audio.items()} | {
        "output_peak": float(np.abs(audio["output"]).max())
    }
