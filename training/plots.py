"""Pictures of sound: waveforms and spectrograms of input, target and output, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shards.audio import Samples

COLOURS = {"input": "#2a6f97", "target": "#bc6c25", "output": "#386641"}
_FLOOR_DB = -80.0


def plot_waveforms(path: Path, pieces: Mapping[str, Samples], sample_rate: int) -> None:
    """Draw mono samples [n] by name, one below the other."""
    figure, axes = _rows(len(pieces), 1.6)
    for axis, (name, samples) in zip(axes, pieces.items(), strict=True):
        time = np.arange(len(samples)) / sample_rate
        axis.plot(time, samples, linewidth=0.4, color=COLOURS.get(name, "black"))
        axis.set_ylim(-1, 1)
        axis.set_ylabel(name)
        axis.margins(x=0)
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, format="png")


def plot_spectrograms(path: Path, pieces: Mapping[str, Samples], sample_rate: int) -> None:
    """Draw magnitude spectrograms of mono samples [n] by name, in dB under each piece's own peak."""
    figure, axes = _rows(len(pieces), 2.2)
    for axis, (name, samples) in zip(axes, pieces.items(), strict=True):
        levels = spectrogram_db(samples)
        extent = (0, len(samples) / sample_rate, 0, sample_rate / 2000)
        axis.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=_FLOOR_DB, vmax=0, cmap="magma")
        axis.set_ylabel(f"{name}\nkHz")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, format="png")


def spectrogram_db(
    samples: Samples, window: int = 1024, hop: int = 256
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Hann-windowed magnitude spectrogram [window / 2 + 1, frames] in dB, 0 at its peak."""
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T
    peak = max(float(magnitude.max()), 1e-12)
    levels: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.maximum(
        20 * np.log10(np.maximum(magnitude / peak, 1e-12)), _FLOOR_DB
    )
    return levels


def _rows(count: int, height: float) -> tuple[Figure, list[Axes]]:
    # The object interface: it needs no display and no global state, and works in any thread.
    figure = Figure(figsize=(10, height * count + 0.4), dpi=110, layout="constrained")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
