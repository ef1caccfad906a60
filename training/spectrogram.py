"""What a sound looks like, small enough to draw: peaks and spectrograms of any length in a number of columns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shards.audio import Samples

FLOOR_DB = -80.0

Picture = NDArray[np.float64]


def peaks(samples: Samples, columns: int) -> tuple[Samples, Samples]:
    """Lowest and highest of the samples [n] in each of at most `columns` equal parts."""
    edges = np.linspace(0, len(samples), min(columns, len(samples)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)


def spectrogram_db(samples: Samples, columns: int = 1200, window: int = 1024, hop: int = 256) -> Picture:
    """Hann-windowed spectrogram [window / 2 + 1, at most `columns`] in dB, 0 at its peak, down to -80.

    Where there are more frames than columns, a column is the mean power of its frames.
    """
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    edges = np.linspace(0, len(frames), min(columns, len(frames)) + 1).astype(int)
    hann = np.hanning(window)
    power = np.stack([np.square(np.abs(np.fft.rfft(frames[a:b] * hann))).mean(0) for a, b in pairwise(edges)], 1)
    relative = power / max(float(power.max()), 1e-24)
    return np.asarray(np.maximum(10 * np.log10(np.maximum(relative, 1e-24)), FLOOR_DB))


def over_octaves(levels: Picture, sample_rate: int, rows: int, low: float, high: float) -> Picture:
    """Lay a spectrogram [bins, T] in dB over `rows` bands of equal width in octaves from `low` to `high` Hz: [rows, T].

    A band shows the loudest bin in it; bands that are narrower than a bin lie between two of them.
    """
    bins = 2 * (len(levels) - 1) / sample_rate * np.geomspace(low, high, rows + 1)
    centres = np.clip((bins[:-1] + bins[1:]) / 2, 0, len(levels) - 1)
    below = np.floor(centres).astype(int)
    share = (centres - below)[:, None]
    bands: Picture = (1 - share) * levels[below] + share * levels[np.minimum(below + 1, len(levels) - 1)]
    for row, (first, last) in enumerate(zip(np.ceil(bins), np.ceil(bins[1:]), strict=False)):
        if last > first and first < len(levels):
            bands[row] = levels[int(first) : int(last)].max(0)
    return bands
