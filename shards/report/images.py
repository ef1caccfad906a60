"""Heatmaps as PNG files, in pure numpy: one palette for each side, from the page's ink to the side's colour."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 600
"""Pixels at most; longer latents are pooled over time."""

LEVELS = 64
RANGE_DB = 60.0
"""What a magnitude heatmap shows below its loudest value."""

RANGE_DEVIATIONS = 2.5
"""What a signed heatmap shows on either side of a channel's mean."""

Stops = tuple[tuple[int, int, int], ...]
PALETTES: dict[str, Stops] = {
    "input": ((20, 18, 24), (74, 36, 38), (158, 66, 40), (226, 128, 62), (255, 226, 180)),
    "target": ((20, 18, 24), (26, 46, 74), (28, 96, 118), (62, 168, 160), (208, 246, 226)),
}


def heatmap(latents: NDArray[Any], side: str, *, signed: bool) -> bytes:
    """Draw latents [D, T] as a PNG, channel 0 at the bottom, time to the right.

    `signed` shows each channel around its own mean, in its own standard deviations, so that channels that hardly
    change do not outshine those that do; without it the colours are the magnitude in dB. Values that are not finite
    are drawn as zeros.
    """
    values = np.nan_to_num(latents.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    unit = _deviations(_pool(values)) if signed else _decibels(_pool(np.abs(values)))
    pixels = np.round(unit * (LEVELS - 1)).astype(np.uint8)
    return _png(pixels[::-1], _palette(PALETTES[side]))


def _pool(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over equal stretches of time: [D, T] to [D, at most `WIDTH`]."""
    frames = values.shape[1]
    if frames <= WIDTH:
        return values
    starts = np.arange(WIDTH) * frames // WIDTH
    sums = np.add.reduceat(values, starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=frames), np.float32)


def _deviations(values: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = values - values.mean(axis=1, keepdims=True)
    scaled = centred / np.maximum(values.std(axis=1, keepdims=True), 1e-9)
    return np.asarray(np.clip(0.5 + scaled / (2 * RANGE_DEVIATIONS), 0, 1), np.float32)


def _decibels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    level = 20 * np.log10(np.maximum(values, 1e-9) / max(float(values.max()), 1e-9))
    return np.asarray(np.clip(1 + level / RANGE_DB, 0, 1), np.float32)


def _palette(stops: Stops) -> bytes:
    place = np.linspace(0, len(stops) - 1, LEVELS)
    colours = np.array(stops, dtype=np.float64)
    channels = [np.interp(place, np.arange(len(stops)), colours[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()


def _png(pixels: NDArray[np.uint8], palette: bytes) -> bytes:
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of a row says: no filter
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
