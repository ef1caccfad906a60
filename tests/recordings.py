"""Folders of small recordings to pair. Each file sounds different: equal ones would be one recording."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import soundfile

from pipeline.pairing import Mode, ModeOptions, Pairs, make_pairs

RATE = 24_000


def write(path: Path, seconds: float = 1.0, rate: int = RATE) -> Path:
    """A quiet tone: pairing reads headers and hashes, so what is in a file matters little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pitch = 0.05 + zlib.crc32(str(path).encode()) / 2**32
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) * pitch), rate)
    return path


def sides(root: Path, *stems: str, seconds: float = 1.0) -> None:
    for stem in stems:
        write(root / f"{stem}_input.wav", seconds)
        write(root / f"{stem}_target.wav", seconds)


def paired(
    root: Path,
    mode: Mode = "suffix",
    seconds: float = 1.0,
    seed: int = 0,
    val_fraction: float = 0.1,
    options: ModeOptions | None = None,
) -> Pairs:
    """Pairs of files that can all be used."""
    return make_pairs(root, mode, seconds, seed, val_fraction, options, strict=True)[0]


def cuts(pairs: Pairs) -> list[tuple[str, int, str, int]]:
    return [(p.input.path, p.input.start, p.target.path, p.target.start) for p in pairs.pairs]


def split_of(pairs: Pairs) -> dict[str, str]:
    """The split of each group; asserts that no group and no file is in two."""
    found: dict[str, str] = {}
    files: dict[str, str] = {}
    for pair in pairs.pairs:
        assert found.setdefault(pair.group, pair.split) == pair.split
        for cut in (pair.input, pair.target):
            assert files.setdefault(cut.path, pair.split) == pair.split
    return found
