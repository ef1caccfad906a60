"""Reading a dataset that may be damaged: whatever can be read is given, and nothing stops at the first problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from shards.dataset import Dataset
from shards.errors import DatasetError
from shards.files import sha256_file
from shards.index import Index, build_index, load_index, row_of
from shards.locate import Location
from shards.manifest import read_manifest
from shards.scan import Scan
from shards.schema import IndexRow

UNREADABLE = (DatasetError, OSError, ValueError)
"""What reading a damaged sample may raise."""


class SalvagedDataset(Dataset):
    """A dataset whose lost or changed indexes are rebuilt, in memory, from what the shards still hold."""

    def index(self, split: str) -> Index:
        """Give a split's index: the one on the disk where it is the manifest's, else what the shards tell."""
        if split not in self._indexes:
            self._indexes[split] = self._load(split)
        return self._indexes[split]

    def places(self, limit: int) -> list[Location]:
        """Places of all samples, in the manifest's order; of more than `limit`, that many, evenly spread."""
        return [self._place(number) for number in spread(sum(len(self.index(split)) for split in self.splits), limit)]

    def explain(self, error: Exception) -> str:
        """Say what is wrong with a sample, without the folder that this dataset happens to lie in."""
        if isinstance(error, OSError):
            return f"{Path(str(error.filename)).name}: {error.strerror}"
        return str(error).replace(f"{self.path}/", "")

    def _place(self, number: int) -> Location:
        """Place sample `number`, counted through all splits."""
        for split in self.splits:
            if number < len(self.index(split)):
                return self.location(split, number)
            number -= len(self.index(split))
        raise AssertionError("a number is chosen among those that there are")

    def _load(self, split: str) -> Index:
        file = self.index_path(split)
        if file.is_file() and sha256_file(file) == self.split(split).index_sha256:
            return load_index(file)
        return build_index(list(_rows(self.path / shard.file)) for shard in self.split(split).shards)


def open_damaged(path: Path) -> SalvagedDataset:
    """Open a dataset without checking more than its manifest. Raises `DatasetError` where even that is not whole."""
    return SalvagedDataset(path, read_manifest(path))


def spread(count: int, wanted: int) -> list[int]:
    """Choose `wanted` of `count` numbers, evenly, each from the middle of its part; all where there are no more."""
    if wanted >= count:
        return list(range(count))
    if wanted == 0:
        return []
    edges = [part * count // wanted for part in range(wanted + 1)]
    return [(first + last) // 2 for first, last in pairwise(edges)]


def _rows(shard: Path) -> Iterator[IndexRow]:
    """Rows of the whole samples of a shard, up to the first place where it can't be walked any further."""
    try:
        with shard.open("rb") as file:
            for sample in Scan(file, whole=True).samples():
                with suppress(DatasetError):  # of this sample alone
                    yield row_of(sample)
    except UNREADABLE:
        return
