"""Pictures of stored samples: latents as heatmaps under the envelopes of the audio they came from."""

from __future__ import annotations

import io
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shards.schema import SIDES, CodecSpec, Side
from shards.writer import Sample

Kind = Literal["png", "svg"]
COLOURS = {"input": "#2a6f97", "target": "#bc6c25"}
ROLES = {"input": "rhythm", "target": "harmony"}
_QUIET = "#5c6370"
_STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": "#b8bcc4",
    "axes.linewidth": 0.7,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "axes.labelcolor": _QUIET,
    "svg.hashsalt": "cascadence",  # names inside the file that do not change from run to run
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a file's name is a dollar
}


def plot_sample(sample: Sample, codec: CodecSpec, kind: Kind) -> bytes:
    """Draw both sides of a sample, latents [D, T] and envelope; the same sample gives the same bytes."""
    with mpl.rc_context(_STYLE):
        # The object interface: it needs no display and no global state, and works in any thread.
        figure = Figure(figsize=(11, 7.2), dpi=130, layout="constrained")
        grid = figure.add_gridspec(5, 2, height_ratios=[1, 2.6, 0.08, 1, 2.6], width_ratios=[60, 1])
        first: Axes | None = None
        for row, side in enumerate(SIDES):
            envelope = figure.add_subplot(grid[3 * row, 0], sharex=first)
            heatmap = figure.add_subplot(grid[3 * row + 1, 0], sharex=first or envelope)
            bar = figure.add_subplot(grid[3 * row + 1, 1])
            first = first or envelope
            latents = getattr(sample, side)
            seconds = latents.shape[1] / codec.frame_rate
            _draw_envelope(envelope, side, getattr(sample.record, side), seconds)
            image = _draw_latents(heatmap, latents, seconds)
            steps = image.norm.inverse(np.linspace(0, 1, 5))
            scale = figure.colorbar(image, cax=bar, ticks=steps, format=_number)
            scale.minorticks_off()
            scale.outline.set_visible(False)
            bar.tick_params(length=2, labelsize=7)
            envelope.tick_params(labelbottom=False)
            heatmap.tick_params(labelbottom=row == len(SIDES) - 1)
        heatmap.set_xlabel("seconds")
        figure.suptitle(f"{sample.record.key}   {sample.record.split} · {sample.record.group}", fontsize=10, x=0.01,
                        ha="left")  # fmt: skip
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _number(value: float, _: int | None = None) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _draw_envelope(axis: Axes, name: str, side: Side, seconds: float) -> None:
    """Fill a side's envelope, mirrored about zero, over time in seconds."""
    peaks = np.asarray(side.envelope)
    edges = np.linspace(0, seconds, len(peaks) + 1)
    axis.stairs(peaks, edges, baseline=-peaks, fill=True, color=COLOURS[name], linewidth=0)
    top = max(float(peaks.max(initial=0.0)) * 1.1, 1e-3)
    axis.set_ylim(-top, top)
    axis.margins(x=0)
    axis.set_yticks([-float(peaks.max(initial=0.0)), 0, float(peaks.max(initial=0.0))])
    axis.yaxis.set_major_formatter("{x:.2g}")
    axis.grid(axis="x", color="#e4e6ea", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylabel("peak")
    axis.set_title(f"{name} · {ROLES[name]}", loc="left", color=COLOURS[name], fontweight="bold", fontsize=10)
    axis.set_title(f"{side.path}   RMS {side.rms:.3f}, peak {side.peak:.3f}", loc="right", color=_QUIET, fontsize=8)


def _draw_latents(axis: Axes, latents: NDArray[Any], seconds: float) -> Any:
    """Draw latents [D, T], or codes, in colours; a few extreme values do not wash out the rest."""
    values = latents.astype(np.float32)
    extent = (0.0, seconds, -0.5, latents.shape[0] - 0.5)
    axis.set_ylabel("channel" if np.issubdtype(latents.dtype, np.floating) else "codebook")
    axis.spines[:].set_visible(False)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    if not np.issubdtype(latents.dtype, np.floating):
        return axis.imshow(values, cmap="viridis", **style)
    sizes = np.abs(values[np.isfinite(values)])
    limit = max(float(np.percentile(sizes, 99.5)), 1e-6) if sizes.size else 1.0
    # Even steps near zero, logarithmic ones beyond the median: quiet channels show beside loud ones.
    width = max(float(np.median(sizes)), limit / 50) if sizes.size else 1.0
    return axis.imshow(values, cmap="RdBu_r", norm=AsinhNorm(width, -limit, limit), **style)
