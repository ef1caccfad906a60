"""Tempo of a recording. The door to librosa, an optional library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shards.audio import Samples
from shards.errors import MisuseError

_SHORTEST_SECONDS = 2
_FEWEST_BEATS = 8
_AGREEMENT = 0.04
"""The tracker's first guess lies on a grid of whole frames, up to 3 % beside the tempo of the beats that it finds."""

Estimator = Callable[[Samples, int], float | None]
"""Mono samples [n] and their rate (Hz) to beats a minute; None where no beat is heard, as in less than 2 s."""


def load_estimator() -> Estimator:
    """Load the beat tracker (D. Ellis, "Beat Tracking by Dynamic Programming", 2007).

    Raises `MisuseError` where it is not installed.
    """
    try:
        import librosa.beat
    except ImportError:
        raise MisuseError("librosa, which hears tempos, is not installed; install cascadence[music]") from None

    def estimate(samples: Samples, sample_rate: int) -> float | None:
        # What is not finite is no sound; screening will say so of it.
        if len(samples) < _SHORTEST_SECONDS * sample_rate or not np.isfinite(samples).all():
            return None
        guess, beats = librosa.beat.beat_track(y=samples, sr=sample_rate, units="time")
        tempo = float(np.max(guess))
        if tempo <= 0 or len(beats) < _FEWEST_BEATS:
            return tempo if tempo > 0 else None
        fitted = 60 / float(np.polyfit(np.arange(len(beats)), beats, 1)[0])
        return fitted if abs(fitted / tempo - 1) < _AGREEMENT else tempo

    return estimate
