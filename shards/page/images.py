"""Pictures as PNG files, in pure numpy: 64 colours of one palette, from the page's ink to a side's own colour."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

LEVELS = 64
WIDTH = 600
"""Pixels at most; what is longer is pooled over time."""

Stops = tuple[tuple[int, int, int], ...]
INK = (20, 18, 24)
PALETTES: dict[str, Stops] = {
    "input": (INK, (22, 44, 72), (36, 94, 132), (98, 166, 204), (222, 240, 250)),
    "target": (INK, (70, 40, 30), (152, 82, 34), (222, 140, 66), (255, 230, 190)),
    "output": (INK, (26, 52, 40), (48, 104, 66), (124, 178, 116), (230, 246, 214)),
    "balance": ((188, 108, 37), (108, 68, 38), INK, (30, 66, 96), (74, 146, 192)),
}
"""By side, from silent to loud; `balance` from the target's colour over nothing to the input's."""


def picture(unit: NDArray[np.float32], palette: str) -> bytes:
    """Draw values [rows, columns] in [0, 1] as a PNG, row 0 at the bottom, in one of `PALETTES`."""
    pixels = np.round(unit * (LEVELS - 1)).astype(np.uint8)
    return _png(pixels[::-1], _colours(PALETTES[palette]))


def pool(values: NDArray[np.float32], width: int = WIDTH) -> NDArray[np.float32]:
    """Mean over equal stretches of time: [D, T] to [D, at most `width`]."""
    frames = values.shape[1]
    if frames <= width:
        return values
    starts = np.arange(width) * frames // width
    sums = np.add.reduceat(values, starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=frames), np.float32)


def _colours(stops: Stops) -> bytes:
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
