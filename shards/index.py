"""The index of a split: one fixed-size row a sample, memory-mapped, rebuildable from the shards."""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.errors import DatasetError
from shards.files import write_bytes
from shards.schema import IndexRow, SampleRecord
from shards.wire import Member, array_header, is_whole, map_shard, samples, walk

INDEXED_MEMBERS = ("input", "json", "target", "input_flac", "target_flac")
"""The members by the names of their columns: the suffix `input.npy` is `input`, `input.flac` is `input_flac`."""

INDEX_DTYPE = np.dtype(
    [
        ("key", "S32"),
        ("shard", "<u4"),
        ("position", "<u4"),
        *((f"{member}_{what}", code) for member in INDEXED_MEMBERS for what, code in
          (("offset", "<u8"), ("bytes", "<u4"), ("crc32", "<u4"))),
        ("input_rms", "<f4"),
        ("target_rms", "<f4"),
    ]
)  # fmt: skip
Index = NDArray[np.void]


def column(suffix: str) -> str:
    """Name the columns of the member with this suffix."""
    return suffix.removesuffix(".npy").replace(".", "_")


def make_row(members: Mapping[str, Member], payloads: Mapping[str, bytes], sample: SampleRecord) -> IndexRow:
    """Describe one sample from its members and payloads, both by suffix."""
    places: dict[str, Any] = {}
    for suffix, member in members.items():
        name = column(suffix)
        places[f"{name}_offset"] = member.offset
        places[f"{name}_bytes"] = member.size
        places[f"{name}_crc32"] = crc32(payloads[suffix])
    return IndexRow(key=sample.key, input_rms=sample.input.rms, target_rms=sample.target.rms, **places)


def rows_from_shard(path: Path) -> list[IndexRow]:
    """Rebuild the rows of a shard from the shard alone. Raises `DatasetError` where it is damaged."""
    with map_shard(path) as shard:
        try:
            return [_row(shard, sample) for sample in samples(walk(shard))]
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}; restore it from a copy, or encode the dataset again") from None


def _row(shard: mmap.mmap, sample: tuple[Member, ...]) -> IndexRow:
    key = sample[0].key
    if not is_whole(sample):
        raise DatasetError(f"sample {key} is incomplete")
    payloads = {member.suffix: shard[member.offset : member.offset + member.size] for member in sample}
    record = SampleRecord.parse(payloads["json"])
    if record.key != key:
        raise DatasetError(f"the json of sample {key} belongs to {record.key}")
    return make_row({member.suffix: member for member in sample}, payloads, record)


def build_index(shards: Iterable[Iterable[IndexRow]]) -> Index:
    """Lay the rows of a split's shards, in shard order, into one structured array."""
    columns = (INDEX_DTYPE.names or ())[3:]
    rows = [
        (row.key.encode(), number, position, *(getattr(row, column) for column in columns))
        for number, shard in enumerate(shards)
        for position, row in enumerate(shard)
    ]
    return np.array(rows, dtype=INDEX_DTYPE)


def save_index(path: Path, index: Index) -> bytes:
    """Write an index atomically; returns the bytes written."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, version=(1, 0), allow_pickle=False)
    write_bytes(path, buffer.getvalue())
    return buffer.getvalue()


def _keys_are_ascii(index: Index, rows: int = 65536) -> bool:
    """Look at every key, `rows` at a time, so that no copy of all of them is made."""
    parts = (np.ascontiguousarray(index["key"][first : first + rows]) for first in range(0, len(index), rows))
    return all(int(part.view(np.uint8).max(initial=0)) < 128 for part in parts)


def load_index(path: Path) -> Index:
    """Memory-map an index. Raises `DatasetError` where it is missing or of another layout.

    Its header must be, byte for byte, what `save_index` writes: none is parsed, so nothing in one is evaluated.
    """
    try:
        with path.open("rb") as file:
            start = file.read(10)
            values = 10 + int.from_bytes(start[8:], "little")
            rows, rest = divmod(max(path.stat().st_size - values, 0), INDEX_DTYPE.itemsize)
            sound = start + file.read(values - 10) == array_header(INDEX_DTYPE, (rows,)) and rest == 0
    except FileNotFoundError:
        raise DatasetError(f"{path}: the index is missing; make it with `python -m shards index --rebuild`") from None
    except OSError as error:
        raise DatasetError(f"{path}: the index can't be read ({error.strerror}); check the disk") from None
    if sound:
        empty: Index = np.zeros(0, INDEX_DTYPE)
        index = np.memmap(path, INDEX_DTYPE, "r", values, (rows,)) if rows else empty
    if not sound or not _keys_are_ascii(index):
        raise DatasetError(
            f"{path}: the index has another layout; make it anew with `python -m shards index --rebuild`"
        )
    return index
