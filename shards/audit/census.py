"""What may be in a dataset once, or in one split: keys, tracks and source recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.audit.findings import Problem
from shards.audit.sample import Found
from shards.mends import PAIR_AGAIN


class _Home(NamedTuple):
    """Where a track or a recording was met first."""

    split: str
    file: str


class Census:
    """Takes in the samples of one shard after another: 16 bytes a sample, and a line for each track and recording."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._tracks: dict[str, _Home] = {}
        self._recordings: dict[str, _Home] = {}
        self._told: set[tuple[str, str]] = set()

    def add(self, file: str, split: str | None, found: Sequence[Found]) -> Iterator[Problem]:
        """Take in a shard; names each track and recording that lies in another split too, once for a pair of splits.

        Without a `split`, samples lie in those that their records name.
        """
        self._files.append(file)
        keys = bytes.fromhex("".join(sample.key for sample in found))
        self._keys.append(np.frombuffer(keys, np.uint64).reshape(-1, 2))
        for sample in found:
            here = _Home(split or sample.split, file)
            if there := self._elsewhere(self._tracks, sample.group, here):
                yield Problem(file, f"its track {sample.group!r} {_lies(there)}", PAIR_AGAIN, sample.key)
            for source in sample.sources.values():
                if there := self._elsewhere(self._recordings, source.sha256, here):
                    yield Problem(file, f"the recording {source.path!r} {_lies(there)}", PAIR_AGAIN, sample.key)

    def repeated(self) -> Iterator[Problem]:
        """Name every sample whose key another one had before."""
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *self._keys])
        order = np.lexsort(keys.T)  # stable: samples of one key stay in their order
        shards = np.repeat(np.arange(len(self._files)), [len(own) for own in self._keys])
        same = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
        before = dict(zip(order[1:][same].tolist(), order[:-1][same].tolist(), strict=True))
        for number in sorted(before):
            first, file = self._files[shards[before[number]]], self._files[shards[number]]
            what = "is there twice" if first == file else f"is there in {first} as well"
            yield Problem(file, what, PAIR_AGAIN, keys[number].tobytes().hex())

    def _elsewhere(self, homes: dict[str, _Home], name: str, here: _Home) -> _Home | None:
        """Say where something is at home, if that is another split that was not told yet."""
        home = homes.setdefault(name, here)
        if home.split == here.split or (name, here.split) in self._told:
            return None
        self._told.add((name, here.split))
        return home


def _lies(home: _Home) -> str:
    return f"lies in the split {home.split} as well, in {home.file}"
