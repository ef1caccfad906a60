"""Samples by the names that people give them: a key, a place in a shard, a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.schema import ShardEntry

if TYPE_CHECKING:
    from shards.dataset import Dataset


class Location(NamedTuple):
    """Where a sample is."""

    split: str
    number: int
    key: str
    shard: ShardEntry
    position: int


def find(dataset: Dataset, name: str) -> list[Location]:
    """Find the samples of a name: `shard#position`, `split:number`, a number through all splits, or a key's start."""
    return _by_number(dataset, name) or _by_key(dataset, name)


def _by_number(dataset: Dataset, name: str) -> list[Location]:
    place, mark, digits = name.rpartition("#" if "#" in name else ":")
    if not (digits.isascii() and digits.isdecimal()):
        return []
    number = int(digits)
    if mark == "#":
        return [
            found
            for split, entry in dataset.splits.items()
            for shard, one in enumerate(entry.shards)
            if place in {one.file, one.file.rpartition("/")[2]} and number < one.samples
            for found in _where(dataset, split, _is_at(dataset, split, shard, number))
        ]
    for split, entry in dataset.splits.items():
        if place and split != place:
            continue
        if number < entry.samples:
            return [dataset.location(split, number)]
        number -= entry.samples
    return []


def _is_at(dataset: Dataset, split: str, shard: int, position: int) -> NDArray[np.bool_]:
    index = dataset.index(split)
    chosen: NDArray[np.bool_] = (index["shard"] == shard) & (index["position"] == position)
    return chosen


def _by_key(dataset: Dataset, name: str) -> list[Location]:
    return [
        found
        for split in dataset.splits
        for found in _where(dataset, split, np.char.startswith(dataset.index(split)["key"], name.encode()))
    ]


def _where(dataset: Dataset, split: str, chosen: NDArray[np.bool_]) -> list[Location]:
    return [dataset.location(split, int(number)) for number in np.flatnonzero(chosen)]
