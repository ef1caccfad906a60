"""What a piece looks like on the page: waves, spectrograms and decisions, all over the same width of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from shards.audio import Samples
from shards.page.charts import number, ticks
from shards.page.images import WIDTH, picture, pool
from training.spectrogram import over_octaves, peaks, spectrogram_db

COLUMNS = 480
"""Of a wave."""
BANDS = 96
LOWEST, HIGHEST = 60.0, 12_000.0
"""Hz, of a spectrogram's lower and upper edge."""
RANGE_DB = 66.0
CONTRAST = 1.4
"""What is quiet is darker than in proportion, so that notes stand out from what rings on."""
MARKED = ((100, "100 Hz"), (1_000, "1 kHz"), (5_000, "5 kHz"))


def wave(samples: Samples, full: float, label: str) -> Markup:
    """Draw mono samples [n] as a wave editor does; an amplitude of `full` fills the height."""
    lowest, highest = (49 / full * edge for edge in peaks(samples, COLUMNS))
    upper = " ".join(f"{i},{50 - v:.1f}" for i, v in enumerate(highest))
    lower = " ".join(f"{len(lowest) - 1 - i},{50 - v:.1f}" for i, v in enumerate(lowest[::-1]))
    return _stretched(
        "wave-strip",
        len(highest) - 1,
        Markup('<polygon class="wave" points="{} {}"/>').format(upper, lower),
        label,
    )


def spectrogram(samples: Samples, sample_rate: int, side: str) -> bytes:
    """Draw mono samples [n] over octaves from 60 Hz to 12 kHz as a PNG in the side's colours, over 66 dB."""
    levels = spectrogram_db(samples, WIDTH, 2048, 512)
    bands = over_octaves(levels, sample_rate, BANDS, LOWEST, HIGHEST)
    return picture((np.clip(1 + bands / RANGE_DB, 0, 1) ** CONTRAST).astype(np.float32), side)


def frequency_marks() -> Markup:
    """Write round frequencies where a spectrogram has them."""
    places = [(100 * (1 - np.log(hz / LOWEST) / np.log(HIGHEST / LOWEST)), text) for hz, text in MARKED]
    lines = [Markup('<text x="100%" dx="-6" y="{:.1f}%" dy="3">{}</text>').format(y, text) for y, text in places]
    return Markup('<svg class="marks" aria-hidden="true">{}</svg>').format(Markup("").join(lines))


def time_axis(seconds: float) -> Markup:
    """Write round times below all strips: seconds, or minutes and seconds of what is longer than 90 s."""
    if seconds > 90:
        step = next(step for step in (15, 30, 60, 120, 300) if seconds / step < 10 or step == 300)
        marks = {float(time): f"{time // 60}:{time % 60:02d}" for time in range(0, int(seconds) + 1, step)}
    else:
        marks = {time: f"{number(time)} s" for time in ticks(0, seconds, 8)}
    texts = [
        Markup('<text x="{:.2f}%" y="13" text-anchor="{}">{}</text>').format(
            100 * time / seconds, "middle" if time else "start", text
        )
        for time, text in marks.items()
        if time < 0.97 * seconds
    ]
    return Markup('<svg class="time-axis" aria-hidden="true">{}</svg>').format(Markup("").join(texts))


def balance(masks: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Draw which source two masks [D, T] keep at each place, as a PNG: the input's colour, the target's, or neither."""
    difference = pool(masks["input"] - masks["target"])
    return picture(np.clip((difference + 1) / 2, 0, 1).astype(np.float32), "balance")


def shares(masks: Mapping[str, NDArray[np.float32]], label: str) -> Markup:
    """Draw how much of each source its mask [D, T] keeps over time, from nothing at the foot to all at the top."""
    lines = {side: pool(mask.mean(0, keepdims=True), COLUMNS)[0] for side, mask in masks.items()}
    width = max(len(next(iter(lines.values()))) - 1, 1)
    drawn = [
        Markup('<polyline class="curve {}" points="{}"/>').format(
            side, " ".join(f"{i},{100 - 100 * v:.1f}" for i, v in enumerate(line))
        )
        for side, line in lines.items()
    ]
    half = Markup('<line class="grid" x1="0" x2="{}" y1="50" y2="50"/>').format(width)
    return _stretched("share-strip", width, Markup("").join([half, *drawn]), label)


def stacked(components: Mapping[str, NDArray[np.float32]], label: str) -> Markup:
    """Draw the weights [T] of components over time, one above the other; together they fill the height."""
    lines = [pool(weights[None], COLUMNS)[0] for weights in components.values()]
    edges = np.vstack([np.zeros_like(lines[0]), np.cumsum(lines, 0)])
    width = max(edges.shape[1] - 1, 1)
    drawn = [
        Markup('<polygon class="stack {}" points="{}"/>').format(
            name.replace("_", " "), _area(edges[place + 1], edges[place])
        )
        for place, name in enumerate(components)
    ]
    return _stretched("stack-strip", width, Markup("").join(drawn), label)


def _area(upper: Sequence[float] | NDArray[np.float32], lower: Sequence[float] | NDArray[np.float32]) -> str:
    there = [f"{i},{100 - 100 * v:.1f}" for i, v in enumerate(upper)]
    back = [f"{i},{100 - 100 * v:.1f}" for i, v in reversed(list(enumerate(lower)))]
    return " ".join([*there, *back])


def _stretched(kind: str, width: int, drawn: Markup, label: str) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(kind, max(width, 1), label, drawn)
