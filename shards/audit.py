"""Verification of a dataset, or of a single shard: every problem found, each with its place and its mend."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from shards.dataset import Dataset, check_size
from shards.errors import DatasetError
from shards.files import sha256_file
from shards.index import Index, load_index
from shards.manifest import read_manifest
from shards.schema import Manifest, SampleRecord, ShardEntry
from shards.wire import SUFFIXES, Member, array_header, decode_array, walk

Level = Literal["structure", "crc", "sha256"]
LEVELS: tuple[Level, ...] = ("structure", "crc", "sha256")
REENCODE = "restore the shard from a copy, or encode the dataset again"


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
        return f"{where}: {self.what}; {self.mend}"


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

    `structure`: manifest, sizes, strict walk of every shard, member names and order, record and array headers, keys,
    counts, unlisted files, leaks across splits. `crc`: every payload against the index, and finite values.
    `sha256`: every shard and index against the manifest. Raises `DatasetError` where there is no dataset at all.
    """
    if path.is_file():
        samples: list[_Found] = []
        problems = tuple(_walk_shard(path, path.name, None, samples))
        on_shard()
        return Audit(level, 1, len(samples), problems)
    manifest = read_manifest(path)
    problems_found: list[Problem] = []
    keys: dict[str, str] = {}
    groups: dict[str, str] = {}
    count = 0
    for split, entry in manifest.splits.items():
        index = _index(path, split, entry.index_sha256, problems_found)
        for number, shard in enumerate(entry.shards):
            found: list[_Found] = []
            problems_found += _verify_shard(path, manifest, shard, level, found)
            if index is not None:
                problems_found += _against_index(shard, found, index[index["shard"] == number], level)
            problems_found += _leaks(shard.file, split, found, keys, groups)
            count += len(found)
            on_shard()
    problems_found += _unlisted(path, manifest)
    return Audit(level, sum(len(e.shards) for e in manifest.splits.values()), count, tuple(problems_found))


@dataclass(frozen=True)
class _Found:
    """A sample that a walk found whole."""

    record: SampleRecord
    members: dict[str, Member]
    crc32: dict[str, int]


def _index(path: Path, split: str, sha256: str, problems: list[Problem]) -> Index | None:
    file = Dataset(path, read_manifest(path)).index_path(split)
    name = str(file.relative_to(path))
    try:
        index = load_index(file)
    except DatasetError as error:
        problems.append(Problem(name, str(error).rpartition("; ")[0], "encode the dataset again"))
        return None
    if sha256_file(file) != sha256:
        problems.append(Problem(name, "its sha256 is not the manifest's", "encode the dataset again"))
    return index


def _verify_shard(
    path: Path, manifest: Manifest, shard: ShardEntry, level: Level, found: list[_Found]
) -> Iterator[Problem]:
    try:
        check_size(path, shard)
    except DatasetError as error:
        yield Problem(shard.file, str(error).partition(": ")[2].rpartition("; ")[0], REENCODE)
    if not (path / shard.file).is_file():
        return
    yield from _walk_shard(path / shard.file, shard.file, manifest, found)
    if len(found) != shard.samples:
        yield Problem(shard.file, f"holds {len(found)} whole samples, the manifest says {shard.samples}", REENCODE)
    if level == "sha256" and sha256_file(path / shard.file) != shard.sha256:
        yield Problem(shard.file, "its sha256 is not the manifest's", REENCODE)


def _walk_shard(path: Path, name: str, manifest: Manifest | None, found: list[_Found]) -> Iterator[Problem]:
    if path.stat().st_size == 0:
        yield Problem(name, "is empty", REENCODE)
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        members: list[Member] = []
        try:
            with memoryview(content) as view:
                for member in walk(view):
                    members.append(member)
                    if len(members) == len(SUFFIXES):
                        yield from _check_sample(content, name, members, manifest, found)
                        members = []
        except DatasetError as error:
            key = members[0].key if members else None
            yield Problem(name, str(error), REENCODE, key)
            members = []
        if members:
            yield Problem(name, "the last sample is incomplete", REENCODE, members[0].key)


def _check_sample(
    content: mmap.mmap, name: str, members: list[Member], manifest: Manifest | None, found: list[_Found]
) -> Iterator[Problem]:
    key = members[0].key
    if [m.suffix for m in members] != list(SUFFIXES) or any(m.key != key for m in members):
        listed = ", ".join(f"{m.key}.{m.suffix}" for m in members)
        yield Problem(name, f"members out of order or of different samples: {listed}", REENCODE, key)
        return
    payloads = {m.suffix: content[m.offset : m.offset + m.size] for m in members}
    try:
        record = SampleRecord.model_validate_json(payloads["json"])
    except pydantic.ValidationError as error:
        yield Problem(name, f"its json is no sample record ({error.errors()[0]['msg']})", REENCODE, key)
        return
    if record.key != key:
        yield Problem(name, f"its json belongs to the key {record.key}", REENCODE, key)
    for side in ("input", "target"):
        yield from _check_array(name, key, side, payloads[f"{side}.npy"], manifest)
    crc32 = {suffix: zlib.crc32(payload) for suffix, payload in payloads.items()}
    found.append(_Found(record, {m.suffix: m for m in members}, crc32))


def _check_array(name: str, key: str, side: str, payload: bytes, manifest: Manifest | None) -> Iterator[Problem]:
    try:
        array = decode_array(payload)
    except (ValueError, EOFError, SyntaxError) as error:
        yield Problem(name, f"{side}.npy can't be read ({error})", REENCODE, key)
        return
    if manifest is not None:
        field = next(f for f in manifest.fields if f.name == side)
        header = array_header(np.dtype(field.dtype), field.shape)
        if not payload.startswith(header):
            what = f"{side}.npy is {array.dtype} {list(array.shape)}, not {field.dtype} {list(field.shape)}"
            yield Problem(name, what, REENCODE, key)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        yield Problem(name, f"{side}.npy holds values that are not finite", REENCODE, key)


def _against_index(shard: ShardEntry, found: list[_Found], rows: Index, level: Level) -> Iterator[Problem]:
    by_key = {row["key"].decode(): row for row in rows}
    for sample in found:
        row = by_key.pop(sample.record.key, None)
        if row is None:
            yield Problem(shard.file, "the index does not know it", "encode the dataset again", sample.record.key)
            continue
        for suffix, member in sample.members.items():
            part = suffix.split(".")[0]
            if (member.offset, member.size) != (row[f"{part}_offset"], row[f"{part}_bytes"]):
                what = f"{suffix} lies at byte {member.offset}, the index says {row[f'{part}_offset']}"
                yield Problem(shard.file, what, REENCODE, sample.record.key)
            elif level != "structure" and sample.crc32[suffix] != row[f"{part}_crc32"]:
                what = f"{suffix} at byte {member.offset}: its crc32 is not the index's"
                yield Problem(shard.file, what, REENCODE, sample.record.key)
    for key in by_key:
        yield Problem(shard.file, "the index lists it, the shard does not hold it whole", REENCODE, key)


def _leaks(
    file: str, split: str, found: list[_Found], keys: dict[str, str], groups: dict[str, str]
) -> Iterator[Problem]:
    for sample in found:
        record = sample.record
        if record.key in keys:
            yield Problem(file, f"is in {keys[record.key]} as well", "pair the sources again", record.key)
        keys[record.key] = file
        if record.split != split or groups.setdefault(record.group, split) != split:
            yield Problem(file, f"track {record.group!r} lies in two splits", "pair the sources again", record.key)


def _unlisted(path: Path, manifest: Manifest) -> Iterator[Problem]:
    listed = {shard.file for entry in manifest.splits.values() for shard in entry.shards}
    for file in sorted(path.rglob("*.tar*")):
        name = str(file.relative_to(path))
        if name not in listed and not name.startswith("receipts/"):
            yield Problem(name, "is not in the manifest", "delete it")
