"""The index of a split: one fixed-size row a sample, memory-mapped, rebuildable from the shards."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamageError, DatasetError
from shards.files import write_bytes
from shards.mends import mend_shard
from shards.scan import Payload, Scan
from shards.schema import IndexRow, SampleRecord
from shards.wire import array_header, is_whole

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

_REBUILD = "make it anew with `python -m shards index --rebuild DATASET`"


def column(suffix: str) -> str:
    """Name the columns of the member with this suffix."""
    return suffix.removesuffix(".npy").replace(".", "_")


def make_row(places: Mapping[str, tuple[int, int, int]], sample: SampleRecord) -> IndexRow:
    """Describe one sample from the offset, size and CRC-32 of its payloads, by suffix."""
    columns = {
        f"{column(suffix)}_{what}": value
        for suffix, place in places.items()
        for what, value in zip(("offset", "bytes", "crc32"), place, strict=True)
    }
    return IndexRow.model_validate(
        {"key": sample.key, "input_rms": sample.input.rms, "target_rms": sample.target.rms, **columns}
    )


def rows_from_shard(path: Path) -> list[IndexRow]:
    """Rebuild the rows of a shard from the shard alone. Raises `DatasetError` where it is damaged."""
    with path.open("rb") as file:
        try:
            return [row_of(sample) for sample in Scan(file, whole=True).samples()]
        except DatasetError as error:
            raise DamageError(path, str(error), mend_shard(path.name)) from None


def row_of(sample: Sequence[Payload]) -> IndexRow:
    """Describe a sample that a scan met. Raises `DatasetError` where it is not whole, or its record is none of its."""
    members = {payload.suffix: payload for payload in sample}
    key = sample[0].key
    if not is_whole(sample):
        raise DatasetError(f"sample {key} at byte {sample[0].offset} is incomplete")
    record = SampleRecord.parse(members["json"].head)
    if record.key != key:
        raise DatasetError(f"the json of sample {key} at byte {members['json'].offset} belongs to {record.key!r}")
    return make_row({p.suffix: (p.offset, p.size, p.crc32 or 0) for p in sample}, record)


def build_index(shards: Iterable[Iterable[IndexRow]]) -> Index:
    """Lay the rows of a split's shards, in shard order, into one structured array."""
    columns = (INDEX_DTYPE.names or ())[3:]
    rows = [
        (row.key.encode(), number, position, *(getattr(row, column) for column in columns))
        for number, shard in enumerate(shards)
        for position, row in enumerate(shard)
    ]
    return np.array(rows, dtype=INDEX_DTYPE)


def serialise(index: Index) -> bytes:
    """Make the bytes of an index file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def save_index(path: Path, index: Index) -> bytes:
    """Write an index atomically; returns the bytes written."""
    content = serialise(index)
    write_bytes(path, content)
    return content


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
        raise DamageError(path, "the index is missing", _REBUILD) from None
    except OSError as error:
        raise DamageError(path, f"the index can't be read ({error.strerror})", "check the disk") from None
    if sound:
        empty: Index = np.zeros(0, INDEX_DTYPE)
        index = np.memmap(path, INDEX_DTYPE, "r", values, (rows,)) if rows else empty
    if not sound or not _keys_are_ascii(index):
        raise DamageError(path, "the index has another layout", _REBUILD)
    return index
