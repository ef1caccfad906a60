"""Charts as inline SVG: pure functions from numbers to markup, coloured by the page's style sheet.

Nothing in a chart comes from files but numbers, and titles that are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 10, 26

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The plot area of a chart, and how values become places in it; a logarithmic y axis counts in decades."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = WIDTH
    height: int = HEIGHT
    logarithmic: bool = False

    def across(self, value: float) -> float:
        """Place a value on the x axis."""
        low, high = self.x
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """Place a value on the y axis, by its logarithm to base 10 where the axis is logarithmic."""
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


def curves(
    series: Mapping[str, Sequence[Point]], unit: str, label: str, *, logarithmic: bool = False, width: int = WIDTH
) -> Markup:
    """Draw lines over a common axis; a line of one point is a dot.

    `series` maps classes of the style sheet to points (x, y), finite and in the order of x; at least one is not empty.
    Values of a logarithmic axis under 1e-12 count as that much.
    """
    if logarithmic:
        series = {name: [(x, math.log10(max(y, 1e-12))) for x, y in line] for name, line in series.items()}
    everything = [point for line in series.values() for point in line]
    across = [x for x, _ in everything]
    low, high = min(across), max(across)
    frame = Frame((low, high if high > low else low + 1), margin(y for _, y in everything), width, HEIGHT, logarithmic)
    lines = [_curve(frame, name, line) for name, line in series.items() if line]
    return svg(frame, [x_axis(frame, unit), y_axis(frame), *lines], label)


def _curve(frame: Frame, kind: str, line: Sequence[Point]) -> Markup:
    if len(line) == 1:
        ((x, y),) = line
        return Markup('<circle class="mark {}" r="2.5" cx="{:.1f}" cy="{:.1f}"/>').format(
            kind, frame.across(x), frame.up(y)
        )
    return Markup('<polyline class="curve {}" points="{}"/>').format(kind, points(frame, line))


def margin(values: Iterable[float]) -> tuple[float, float]:
    """Give bounds for an axis that holds finite values, with some room at both ends."""
    known = list(values)
    low, high = min(known), max(known)
    room = 0.06 * (high - low)
    if room <= 1e-9 * max(1.0, abs(high)):
        room = 0.5 * abs(high) or 0.5
    return low - room, high + room


def points(frame: Frame, line: Iterable[Point]) -> str:
    """Write points as an SVG attribute."""
    return " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in line)


def rule(frame: Frame, y: float, kind: str) -> Markup:
    """Draw a horizontal line over the whole width."""
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
        kind, LEFT, frame.width - RIGHT, frame.up(y), frame.up(y)
    )


def text(x: float, y: float, anchor: str, content: str) -> Markup:
    """Write a text at a place of the picture."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, content)


def x_axis(frame: Frame, unit: str) -> Markup:
    """Write round values below the plot, and their unit at its right end."""
    marks = ticks(*frame.x)
    base = frame.height - BOTTOM + 16
    texts = [text(frame.across(v), base, "middle", number(v)) for v in marks if frame.across(v) < frame.width - 60]
    return Markup("").join([*texts, text(frame.width - RIGHT, base, "end", unit)])


def y_axis(frame: Frame) -> Markup:
    """Write round values beside the plot, each with a line through it."""
    digits = 3 if frame.logarithmic else 6
    return Markup("").join(
        part
        for place, value in _y_marks(frame)
        for part in (rule(frame, place, "grid"), text(LEFT - 6, frame.up(place) + 3.5, "end", number(value, digits)))
    )


def _y_marks(frame: Frame) -> list[Point]:
    """Places on the y axis and the values there."""
    if not frame.logarithmic or frame.y[1] - frame.y[0] < 1:  # within a decade there may be no power of ten
        return [(v, 10**v if frame.logarithmic else v) for v in ticks(*frame.y, wanted=4)]
    every = max(1, round((frame.y[1] - frame.y[0]) / 4))
    powers = range(math.ceil(frame.y[0]), math.floor(frame.y[1]) + 1)
    return [(p, 10.0**p) for p in powers if p % every == 0]


def svg(frame: Frame, parts: Sequence[Markup], label: str) -> Markup:
    """Put the parts of a chart together; `label` tells those who can't see it."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        frame.width, frame.height, escape(label), Markup("").join(parts)
    )
