"""What may be wrong with a dataset, or with one shard: the walk that gathers every problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.audit.census import Census
from shards.audit.documents import add_found, check_files, check_receipt, check_totals, read_receipts
from shards.audit.findings import Level, Problem, reaches
from shards.audit.sample import Expected, Found
from shards.audit.shard import Examined, against_index, examine, look_into
from shards.dataset import Dataset
from shards.errors import DamageError
from shards.files import sha256_file
from shards.index import Index, load_index
from shards.latents import add_by_side
from shards.manifest import index_file, read_manifest
from shards.mends import mend_index, mend_shard
from shards.parallel import in_order
from shards.schema import ChannelSums, ShardEntry


@dataclass(frozen=True)
class Audit:
    """What a verification looked at, and what it found."""

    level: Level
    shards: int
    samples: int
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {**asdict(self), "ok": not self.problems}


def verify(path: Path, level: Level, on_shard: Callable[[], None] = lambda: None) -> Audit:
    """Verify a dataset, or one shard file, to a level; each level includes those before it.

    `size`: manifest, sizes of all shards, missing and stray files; no shard is opened. `structure`: indexes, strict
    walk of every shard, member names and order, records, array headers, keys, counts, tracks and recordings in two
    splits. `crc`: every payload against the index, finite values, codes in their range. `sha256`: every shard against
    the manifest. `full`: audio decoded and compared with its record, keys hashed again, receipts and statistics
    compared with what the shards hold. One shard alone has no index or manifest to be compared with. Raises
    `DatasetError` where there is no dataset at all.
    """
    if path.is_file():
        return _verify_alone(path, level, on_shard)
    dataset = Dataset(path, read_manifest(path))
    walk = _Walk(dataset, level)
    shards = [(split, *one) for split, entry in dataset.splits.items() for one in enumerate(entry.shards)]
    # Headers and records are looked at in Python, of which one thread runs at a time: several would only wait.
    threads = None if reaches(level, "crc") else 1
    looks = in_order(lambda one: examine(dataset, one[2], level, walk.expected[one[0]]), shards, threads)
    for (split, number, shard), seen in zip(shards, looks, strict=True):
        walk.take(split, number, shard, seen)
        on_shard()
    walk.finish()
    return Audit(level, len(shards), walk.samples, tuple(walk.problems))


def _verify_alone(path: Path, level: Level, on_shard: Callable[[], None]) -> Audit:
    seen, census = look_into(path, path.name, level, Expected(), mend_shard(path.name)), Census()
    problems = [*seen.problems, *census.add(path.name, None, seen.found), *census.repeated()]
    on_shard()
    return Audit(level, 1, len(seen.found), tuple(problems))


class _Walk:
    """All that a verification knows beside the shard at hand: documents, and what it met in the shards before."""

    def __init__(self, dataset: Dataset, level: Level) -> None:
        self.problems: list[Problem] = list(check_files(dataset))
        self.samples = 0
        self.expected = {split: Expected.of(dataset.manifest, split) for split in dataset.splits}
        self._dataset, self._level = dataset, level
        self._indexes = {split: self._open_index(split) for split in dataset.splits} if self._looks_inside else {}
        self._receipts = read_receipts(dataset, self.problems) if reaches(level, "full") else {}
        self._census, self._total = Census(), _Total(dataset.codec.stage == "quantized")

    @property
    def _looks_inside(self) -> bool:
        return reaches(self._level, "structure")

    def take(self, split: str, number: int, shard: ShardEntry, seen: Examined) -> None:
        """Take in what was seen of one shard, number `number` of a split; they come in the manifest's order."""
        self.problems += seen.problems
        if not self._looks_inside:
            self.samples += shard.samples
            return
        self.samples += len(seen.found)
        index = self._indexes[split]
        rows = index.rows(number) if index is not None else None
        if index is not None and rows is not None:
            self.problems += against_index(shard, number, seen, rows, trusted=index.trusted)
        if shard.file in self._receipts:
            self.problems += check_receipt(self._receipts[shard.file], split, number, shard, rows, seen.found)
        self.problems += self._census.add(shard.file, split, seen.found)
        self._total.add(seen.found, shard)

    def finish(self) -> None:
        """Say what only all shards together tell."""
        self.problems += self._census.repeated()
        if reaches(self._level, "full") and self._total.whole:  # else what lacks was named, and no sum can be right
            self.problems += check_totals(self._dataset, self._receipts, self._total.sums)

    def _open_index(self, split: str) -> _SavedIndex | None:
        name = index_file(split)
        file = self._dataset.path / name
        if not file.is_file():  # which was said
            return None
        try:
            index = load_index(file)
        except DamageError as error:
            self.problems.append(Problem(name, error.what, mend_index()))
            return None
        trusted = sha256_file(file) == self._dataset.splits[split].index_sha256
        if not trusted:
            self.problems.append(Problem(name, "its sha256 is not the manifest's", mend_index()))
        return _SavedIndex(index, trusted)


@dataclass
class _Total:
    """Sums over all samples so far, in the order of the receipts; `whole` until a sample can't be read.

    Codes have no sums.
    """

    quantized: bool
    sums: dict[str, ChannelSums] = field(default_factory=dict)
    whole: bool = True

    def add(self, found: list[Found], shard: ShardEntry) -> None:
        """Add a shard's samples."""
        own_sums = add_found(found)
        self.whole &= len(found) == shard.samples and (self.quantized or bool(own_sums))
        self.sums = add_by_side(self.sums, own_sums)


class _SavedIndex:
    """A split's index as it was saved, by shard; `trusted` where its hash is the manifest's."""

    def __init__(self, index: Index, trusted: bool) -> None:
        self.trusted = trusted
        self._index = index
        self._order = np.argsort(index["shard"], kind="stable")
        self._sorted = index["shard"][self._order]

    def rows(self, shard: int) -> Index:
        """Give the rows of a shard, in their order."""
        first, end = np.searchsorted(self._sorted, [shard, shard + 1])
        return self._index[self._order[first:end]]
