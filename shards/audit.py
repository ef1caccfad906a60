"""Verification of a dataset, or of a single shard: every problem found, each with its place and its mend."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.dataset import Dataset, check_size
from shards.errors import DatasetError, printable
from shards.files import sha256_file
from shards.index import Index, load_index
from shards.latents import all_finite
from shards.manifest import codec_fingerprint, read_manifest
from shards.parallel import in_order
from shards.schema import SIDES, Manifest, SampleRecord, ShardEntry
from shards.wire import (
    HEAD_BYTES,
    SUFFIXES,
    Member,
    array_header,
    array_layout,
    decode_array,
    is_whole,
    map_shard,
    samples,
    walk,
)

Level = Literal["structure", "crc", "sha256"]
LEVELS: tuple[Level, ...] = ("structure", "crc", "sha256")
RESTORE = "restore the shard from a copy, or encode the dataset again"
ENCODE_AGAIN = "encode the dataset again"
PAIR_AGAIN = "pair the sources again"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do."""

    file: str
    what: str
    mend: str
    key: str | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        where = f"{self.file}: sample {self.key}" if self.key else self.file
        return printable(f"{where}: {self.what}; {self.mend}")


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

    `structure`: manifest, sizes, strict walk of every shard, member names and order, records, array headers, keys,
    counts, unlisted files, leaks across splits. `crc`: every payload against the index, and finite values.
    `sha256`: every shard and index against the manifest. One shard alone has no index or manifest to be compared
    with. Raises `DatasetError` where there is no dataset at all.
    """
    seen = _Seen({}, {})
    problems: list[Problem] = []
    if path.is_file():
        alone: list[_Found] = []
        problems += _walk_shard(path, path.name, level, None, alone)
        problems += _repeated(path.name, None, alone, seen)
        on_shard()
        return Audit(level, 1, len(alone), tuple(problems))
    dataset = Dataset(path, read_manifest(path))
    count = 0
    for split, entry in dataset.splits.items():
        index = _index(dataset, split, problems)
        examined = in_order(lambda shard: _examine(dataset, shard, level), entry.shards)
        for number, (shard, found, own) in enumerate(examined):
            problems += own
            if index is not None:
                problems += _against_index(shard, found, index[index["shard"] == number])
            problems += _repeated(shard.file, split, found, seen)
            count += len(found)
            on_shard()
    problems += _unlisted(dataset)
    return Audit(level, sum(len(e.shards) for e in dataset.splits.values()), count, tuple(problems))


@dataclass(frozen=True)
class _Found:
    """A sample that a walk found whole; `crc32` is empty at the level `structure`, which reads no payload."""

    record: SampleRecord
    members: dict[str, Member]
    crc32: dict[str, int]


@dataclass(frozen=True)
class _Seen:
    """What was met so far: the shard of every key, and the split of every track."""

    keys: dict[str, str]
    groups: dict[str, str]


def _index(dataset: Dataset, split: str, problems: list[Problem]) -> Index | None:
    file = dataset.index_path(split)
    name = str(file.relative_to(dataset.path))
    try:
        index = load_index(file)
    except DatasetError as error:
        problems.append(Problem(name, str(error).removeprefix(f"{file}: ").rpartition("; ")[0], ENCODE_AGAIN))
        return None
    if sha256_file(file) != dataset.splits[split].index_sha256:
        problems.append(Problem(name, "its sha256 is not the manifest's", ENCODE_AGAIN))
    return index


def _examine(dataset: Dataset, shard: ShardEntry, level: Level) -> tuple[ShardEntry, list[_Found], list[Problem]]:
    """Look at one shard for itself; several are looked at at a time."""
    found: list[_Found] = []
    return shard, found, list(_verify_shard(dataset, shard, level, found))


def _verify_shard(dataset: Dataset, shard: ShardEntry, level: Level, found: list[_Found]) -> Iterator[Problem]:
    path = dataset.path / shard.file
    try:
        check_size(dataset.path, shard)
    except DatasetError as error:
        yield Problem(shard.file, str(error).removeprefix(f"{path}: ").rpartition("; ")[0], RESTORE)
    if not path.is_file():
        return
    yield from _walk_shard(path, shard.file, level, dataset.manifest, found)
    if len(found) != shard.samples:
        yield Problem(shard.file, f"holds {len(found)} whole samples, the manifest says {shard.samples}", RESTORE)
    if level == "sha256" and sha256_file(path) != shard.sha256:
        yield Problem(shard.file, "its sha256 is not the manifest's", RESTORE)


def _walk_shard(
    path: Path, name: str, level: Level, manifest: Manifest | None, found: list[_Found]
) -> Iterator[Problem]:
    if path.stat().st_size == 0:
        yield Problem(name, "is empty", RESTORE)
        return
    with map_shard(path) as content:
        try:
            for members in samples(walk(content)):
                yield from _check_sample(content, name, members, level, manifest, found)
        except DatasetError as error:
            yield Problem(name, str(error), RESTORE)


def _check_sample(
    content: mmap.mmap,
    name: str,
    members: tuple[Member, ...],
    level: Level,
    manifest: Manifest | None,
    found: list[_Found],
) -> Iterator[Problem]:
    key = members[0].key
    if not is_whole(members):
        held = ", ".join(member.suffix for member in members)
        yield Problem(name, f"holds {held}, not {', '.join(SUFFIXES)}", RESTORE, key)
        return
    places = {member.suffix: member for member in members}
    try:
        record = SampleRecord.parse(_read(content, places["json"]))
    except DatasetError as error:
        yield Problem(name, f"its json is {error}", RESTORE, key)
        return
    if record.key != key:
        yield Problem(name, f"its json belongs to the key {record.key}", RESTORE, key)
    if manifest is not None and record.codec_fingerprint != codec_fingerprint(manifest.codec):
        yield Problem(name, "was made by another codec than the manifest names", ENCODE_AGAIN, key)
    for side in SIDES:
        what = _wrong_with_array(content, places[f"{side}.npy"], side, level, manifest)
        if what:
            yield Problem(name, f"{side}.npy {what}", RESTORE, key)
    crc32 = {} if level == "structure" else {m.suffix: _crc32(content, m) for m in members}
    found.append(_Found(record, places, crc32))


def _read(content: mmap.mmap, member: Member) -> bytes:
    return content[member.offset : member.offset + member.size]


def _crc32(content: mmap.mmap, member: Member) -> int:
    with memoryview(content) as shard, shard[member.offset : member.offset + member.size] as payload:
        return zlib.crc32(payload)


def _wrong_with_array(
    content: mmap.mmap, member: Member, side: str, level: Level, manifest: Manifest | None
) -> str | None:
    head = content[member.offset : member.offset + min(member.size, HEAD_BYTES)]
    try:
        layout = array_layout(head, member.size)
    except ValueError as error:
        return f"can't be read: {error}"
    if manifest is not None:
        field = next(field for field in manifest.fields if field.name == side)
        if not head.startswith(array_header(np.dtype(field.dtype), field.shape)):
            return f"is {layout.dtype} {list(layout.shape)}, not {field.dtype} {list(field.shape)}"
    if level == "structure":
        return None
    with memoryview(content) as shard, shard[member.offset : member.offset + member.size] as payload:
        return None if all_finite(decode_array(payload)) else "holds values that are not finite"


def _against_index(shard: ShardEntry, found: list[_Found], rows: Index) -> Iterator[Problem]:
    by_key = {row["key"].decode(): row for row in rows}
    for sample in found:
        row = by_key.get(sample.record.key)
        if row is None:
            yield Problem(shard.file, "the index does not know it", ENCODE_AGAIN, sample.record.key)
            continue
        for suffix, member in sample.members.items():
            part = suffix.split(".")[0]
            if (member.offset, member.size) != (row[f"{part}_offset"], row[f"{part}_bytes"]):
                what = f"{suffix} lies at byte {member.offset}, the index says {row[f'{part}_offset']}"
                yield Problem(shard.file, what, RESTORE, sample.record.key)
            elif sample.crc32 and sample.crc32[suffix] != row[f"{part}_crc32"]:
                what = f"{suffix} at byte {member.offset}: its crc32 is not the index's"
                yield Problem(shard.file, what, RESTORE, sample.record.key)
    whole = {sample.record.key for sample in found}
    for key in (key for key in by_key if key not in whole):
        yield Problem(shard.file, "the index lists it, the shard does not hold it whole", RESTORE, key)


def _repeated(file: str, split: str | None, found: list[_Found], seen: _Seen) -> Iterator[Problem]:
    for sample in found:
        record = sample.record
        own = split or record.split
        if record.key in seen.keys:
            where = "twice" if seen.keys[record.key] == file else f"in {seen.keys[record.key]} as well"
            yield Problem(file, f"is there {where}", PAIR_AGAIN, record.key)
        if record.split != own:
            yield Problem(file, f"belongs to the split {record.split}, not {own}", PAIR_AGAIN, record.key)
        if seen.groups.setdefault(record.group, own) != own:
            what = f"its track {record.group!r} lies in the split {seen.groups[record.group]} as well"
            yield Problem(file, what, PAIR_AGAIN, record.key)
        seen.keys.setdefault(record.key, file)


def _unlisted(dataset: Dataset) -> Iterator[Problem]:
    listed = {shard.file for entry in dataset.splits.values() for shard in entry.shards}
    for file in sorted(dataset.path.rglob("*.tar*")):
        name = str(file.relative_to(dataset.path))
        if name not in listed and not name.startswith("receipts/"):
            yield Problem(name, "is not in the manifest", "delete it")
