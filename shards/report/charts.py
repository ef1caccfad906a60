"""Charts as inline SVG: pure functions from numbers to markup, coloured by the page's style sheet.

Nothing in a chart comes from a dataset but numbers, and titles that are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

BINS = 24
WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 10, 26


@dataclass(frozen=True)
class Frame:
    """The plot area of a chart, and how values become places in it."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = WIDTH
    height: int = HEIGHT

    def across(self, value: float) -> float:
        """Place a value on the x axis."""
        low, high = self.x
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """Place a value on the y axis."""
        low, high = self.y
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Choose about `wanted` round values within [low, high]."""
    rough = (high - low) / wanted
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough * 0.999)
    return [round(i * step, 10) + 0.0 for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float, digits: int = 6) -> str:
    """Write a number for people: at most that many significant digits, and a true minus sign."""
    text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 or not value else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


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
    parts = [_x_axis(frame, unit), _count_axis(frame, tallest, mirrored)]
    for sign, (name, count) in zip((1, -1), counts.items(), strict=False):
        parts += [_bar(frame, name, edges[i], edges[i + 1], sign * int(n), unit) for i, n in enumerate(count) if n]
    parts.append(_line(frame, 0, "axis"))
    return _svg(frame, parts, label)


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
    low, high = _margin(float((mean - std).min()), float((mean + std).max()))
    frame = Frame((0, max(len(mean) - 1, 1)), (low, high))
    band = [*enumerate(mean + std), *reversed(list(enumerate(mean - std)))]
    parts = [
        _x_axis(frame, "channel"),
        _y_axis(frame),
        Markup('<polygon class="band {}" points="{}"/>').format(side, _points(frame, band)),
        Markup('<polyline class="curve {}" points="{}"/>').format(side, _points(frame, list(enumerate(mean)))),
    ]
    return _svg(frame, parts, label)


def channel_levels(statistics: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> Markup:
    """Draw the RMS of each channel, both sides, in dB."""
    levels = {side: 20 * np.log10(np.maximum(np.asarray(s["rms"], float), 1e-6)) for side, s in statistics.items()}
    low, high = _margin(min(float(v.min()) for v in levels.values()), max(float(v.max()) for v in levels.values()))
    frame = Frame((0, max(max(len(v) for v in levels.values()) - 1, 1)), (low, high))
    parts = [_x_axis(frame, "channel"), _y_axis(frame)]
    parts += [
        Markup('<polyline class="curve {}" points="{}"/>').format(side, _points(frame, list(enumerate(v))))
        for side, v in levels.items()
    ]
    return _svg(frame, parts, label)


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


def _margin(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _points(frame: Frame, pairs: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in pairs)


def _line(frame: Frame, y: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
        kind, LEFT, frame.width - RIGHT, frame.up(y), frame.up(y)
    )


def _text(x: float, y: float, anchor: str, content: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, content)


def _x_axis(frame: Frame, unit: str) -> Markup:
    marks = ticks(*frame.x)
    base = frame.height - BOTTOM + 16
    texts = [_text(frame.across(v), base, "middle", number(v)) for v in marks if frame.across(v) < frame.width - 60]
    return Markup("").join([*texts, _text(frame.width - RIGHT, base, "end", unit)])


def _y_axis(frame: Frame) -> Markup:
    marks = ticks(*frame.y, wanted=4)
    return Markup("").join(
        part for v in marks for part in (_line(frame, v, "grid"), _text(LEFT - 6, frame.up(v) + 3.5, "end", number(v)))
    )


def _count_axis(frame: Frame, tallest: int, mirrored: bool) -> Markup:
    marks = [v for v in ticks(0, tallest, 2 if mirrored else 4) if v == int(v) and v > 0]
    both = [*marks, *(-v for v in marks)] if mirrored else marks
    return Markup("").join(
        part
        for v in both
        for part in (_line(frame, v, "grid"), _text(LEFT - 6, frame.up(v) + 3.5, "end", number(abs(v))))
    )


def _svg(frame: Frame, parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        frame.width, frame.height, escape(label), Markup("").join(parts)
    )
