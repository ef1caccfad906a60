"""The charts of a dataset: histograms, channels, envelopes. Pure functions from numbers to SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from shards.page.charts import LEFT, Frame, margin, number, points, rule, svg, text, ticks, x_axis, y_axis

BINS = 24


def histogram(series: Mapping[str, Sequence[float]], unit: str, label: str) -> Markup:
    """Draw how often values occur: the first side above the axis, a second one below it, mirrored.

    `series` maps a class of the style sheet (`input`, `target`, `both`) to finite values; at least one is not empty.
    """
    everything = np.concatenate([np.asarray(v, float) for v in series.values()])
    edges = _edges(float(everything.min()), float(everything.max()))
    counts = {name: np.histogram(np.asarray(v, float), edges)[0] for name, v in series.items()}
    tallest = max(1, *(int(c.max()) for c in counts.values()))
    mirrored = len(series) > 1
    top = 1.08 * tallest
    frame = Frame((float(edges[0]), float(edges[-1])), (-top if mirrored else 0, top))
    parts = [x_axis(frame, unit), _count_axis(frame, tallest, mirrored)]
    for sign, (name, count) in zip((1, -1), counts.items(), strict=False):
        parts += [_bar(frame, name, edges[i], edges[i + 1], sign * int(n), unit) for i, n in enumerate(count) if n]
    parts.append(rule(frame, 0, "axis"))
    return svg(frame, parts, label)


def _edges(low: float, high: float) -> NDArray[np.float64]:
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _bar(frame: Frame, name: str, low: float, high: float, count: int, unit: str) -> Markup:
    left, right = frame.across(low), frame.across(high)
    top, foot = sorted((frame.up(count), frame.up(0)))
    title = f"{number(low, 4)} to {number(high, 4)} {unit}: {abs(count):,}".replace(" :", ":")
    return Markup(
        '<rect class="fill {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(name, left + 0.5, top, max(right - left - 1, 0.5), foot - top, title)


def channels(statistics: Mapping[str, Sequence[float]], side: str, label: str) -> Markup:
    """Draw a side's mean of each channel as a line, with a band of one standard deviation around it."""
    mean, std = np.asarray(statistics["mean"], float), np.asarray(statistics["std"], float)
    frame = Frame((0, max(len(mean) - 1, 1)), margin([*(mean - std), *(mean + std)]))
    band = [*enumerate(mean + std), *reversed(list(enumerate(mean - std)))]
    parts = [
        x_axis(frame, "channel"),
        y_axis(frame),
        Markup('<polygon class="band {}" points="{}"/>').format(side, points(frame, band)),
        Markup('<polyline class="curve {}" points="{}"/>').format(side, points(frame, enumerate(mean))),
    ]
    return svg(frame, parts, label)


def channel_levels(statistics: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> Markup:
    """Draw the RMS of each channel, both sides, in dB."""
    levels = {side: 20 * np.log10(np.maximum(np.asarray(s["rms"], float), 1e-6)) for side, s in statistics.items()}
    bounds = margin(float(v) for line in levels.values() for v in line)
    frame = Frame((0, max(max(len(v) for v in levels.values()) - 1, 1)), bounds)
    parts = [x_axis(frame, "channel"), y_axis(frame)]
    parts += [
        Markup('<polyline class="curve {}" points="{}"/>').format(side, points(frame, enumerate(v)))
        for side, v in levels.items()
    ]
    return svg(frame, parts, label)


def envelope(values: Sequence[float], side: str, label: str) -> Markup:
    """Draw an amplitude envelope, mirrored around its middle as a wave editor does; full scale fills the height."""
    heights = np.clip(np.nan_to_num(np.asarray(values, float)), 0, 1)
    upper = " ".join(f"{i},{50 - 49 * h:.1f}" for i, h in enumerate(heights))
    lower = " ".join(f"{i},{50 + 49 * h:.1f}" for i, h in reversed(list(enumerate(heights))))
    return Markup(
        '<svg class="envelope" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<line class="axis" x1="0" x2="{}" y1="50" y2="50"/>'
        '<polygon class="wave {}" points="{} {}"/></svg>'
    ).format(len(heights) - 1, label, len(heights) - 1, side, upper, lower)


def _count_axis(frame: Frame, tallest: int, mirrored: bool) -> Markup:
    marks = [v for v in ticks(0, tallest, 2 if mirrored else 4) if v == int(v) and v > 0]
    both = [*marks, *(-v for v in marks)] if mirrored else marks
    return Markup("").join(
        part
        for v in both
        for part in (rule(frame, v, "grid"), text(LEFT - 6, frame.up(v) + 3.5, "end", number(abs(v))))
    )
