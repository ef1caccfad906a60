"""Pictures of a piece, as PNG: waveforms and spectrograms of its sound, and what the agent decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shards.audio import Samples
from training.spectrogram import FLOOR_DB, peaks, spectrogram_db

COLOURS = {"input": "#2a6f97", "target": "#bc6c25", "output": "#386641"}
_SHADES = {"rhythm": 1.0, "harmony": 0.65, "timbre": 0.35}
"""Of a component, in the colour of its source."""
_COLUMNS = 1000
"""About as many as a picture has pixels."""


def plot_waveforms(path: Path, pieces: Mapping[str, Samples], sample_rate: int) -> None:
    """Draw mono samples [n] by name, one below the other."""
    figure, axes = _rows(len(pieces), 1.6)
    for axis, (name, samples) in zip(axes, pieces.items(), strict=True):
        lowest, highest = peaks(samples, _COLUMNS)
        time = np.linspace(0, len(samples) / sample_rate, len(lowest))
        axis.fill_between(time, lowest, highest, linewidth=0.4, color=COLOURS.get(name, "black"))
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
        axis.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=FLOOR_DB, vmax=0, cmap="magma")
        axis.set_ylabel(f"{name}\nkHz")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, format="png")


def plot_masks(path: Path, masks: Mapping[str, NDArray[np.float32]], seconds: float) -> None:
    """Draw masks [D, T] between 0 and 1 by name, over time and channels, one below the other."""
    figure, axes = _rows(len(masks), 2.4)
    for axis, (name, mask) in zip(axes, masks.items(), strict=True):
        extent = (0, seconds, -0.5, len(mask) - 0.5)
        drawn = axis.imshow(
            mask, origin="lower", aspect="auto", extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="nearest"
        )
        axis.set_ylabel(f"{name}\nchannel")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(drawn, ax=axes, label="share that is kept", fraction=0.03, pad=0.01)
    figure.savefig(path, format="png")


def plot_components(path: Path, weights: Mapping[str, NDArray[np.float32]], seconds: float) -> None:
    """Draw the weights [T] of components over time, stacked; at each frame they add up to 1."""
    figure, (axis,) = _rows(1, 3.2)
    time = (np.arange(len(next(iter(weights.values())))) + 0.5) * seconds / len(next(iter(weights.values())))
    names = [name.partition("_") for name in weights]
    axis.stackplot(
        time,
        *weights.values(),
        labels=[f"{source} {component}" for source, _, component in names],
        colors=[(COLOURS[source], _SHADES[component]) for source, _, component in names],
    )
    axis.set(xlabel="seconds", ylabel="weight", ylim=(0, 1), xlim=(0, seconds))
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)  # as stacked
    figure.savefig(path, format="png")


def _rows(count: int, height: float) -> tuple[Figure, list[Axes]]:
    # The object interface: it needs no display and no global state, and works in any thread.
    figure = Figure(figsize=(10, height * count + 0.4), dpi=110, layout="constrained")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
