"""A pairing in figures: what each split holds, what it was made of, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from pipeline.pairing.records import Pair, Pairs
from pipeline.pairing.sources import LeftOut


def summarize(pairs: Pairs, left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Give the figures of a pairing as a document: splits, sources, and every file left out with its reason.

    `tracks` counts source files, `windows` different windows, `hours` the length of all pairs.
    """
    seconds = pairs.header.window_samples / pairs.header.sample_rate
    by_split: dict[str, list[Pair]] = {}
    for pair in pairs.pairs:
        by_split.setdefault(pair.split, []).append(pair)
    splits = {split: _split(own, seconds) for split, own in sorted(by_split.items())}
    if pairs.header.mode == "cross":
        for split, own in by_split.items():
            splits[split]["fewest_partners"] = _fewest_partners(own)
    return {
        "mode": pairs.header.mode,
        "splits": splits,
        "sources": {
            "files": len(pairs.files),
            "hours": sum(file.seconds for file in pairs.files) / 3600,
            "formats": dict(Counter(_format(file.source) for file in pairs.files)),
            "sample_rates": {str(rate): n for rate, n in sorted(Counter(f.sample_rate for f in pairs.files).items())},
        },
        "left_out": [out._asdict() for out in left_out],
    }


def _split(pairs: Sequence[Pair], seconds: float) -> dict[str, Any]:
    return {
        "groups": len({pair.group for pair in pairs}),
        "tracks": len({cut.path for pair in pairs for cut in (pair.input, pair.target)}),
        "windows": len({cut for pair in pairs for cut in (pair.input, pair.target)}),
        "pairs": len(pairs),
        "hours": len(pairs) * seconds / 3600,
    }


def _fewest_partners(pairs: Sequence[Pair]) -> int:
    counts = Counter(name for name, _ in {(pair.input.path, pair.target.path) for pair in pairs})
    return min(counts.values())


def _format(name: str) -> str:
    extension = PurePosixPath(name).suffix.lower().removeprefix(".")
    return "aiff" if extension == "aif" else extension
