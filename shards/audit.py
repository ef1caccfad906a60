"""Verification of a dataset, or of a single shard: every problem found, each with its place and its mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.audit_documents import add_found, check_files, check_receipt, check_totals, read_receipts
from shards.audit_sample import Found, check_sample
from shards.dataset import Dataset, check_size
from shards.errors import DatasetError
from shards.files import sha256_file
from shards.findings import ENCODE_AGAIN, LEVELS, PAIR_AGAIN, RESTORE, Level, Problem, reaches
from shards.index import Index, column, load_index
from shards.latents import add_sums
from shards.manifest import read_manifest
from shards.parallel import in_order
from shards.schema import SIDES, ChannelSums, Manifest, Receipt, ShardEntry
from shards.wire import map_shard, samples, walk

__all__ = ["LEVELS", "Audit", "Level", "Problem", "verify"]


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
    walk of every shard, member names and order, records, array headers, keys, counts, leaks across splits. `crc`:
    every payload against the index, finite values, codes in their range. `sha256`: every shard against the
    manifest. `full`: audio decoded and compared with its record, keys hashed again, receipts and statistics
    compared with what the shards hold. One shard alone has no index or manifest to be compared with. Raises
    `DatasetError` where there is no dataset at all.
    """
    if path.is_file():
        return _verify_alone(path, level, on_shard)
    dataset = Dataset(path, read_manifest(path))
    problems: list[Problem] = list(check_files(dataset))
    receipts = read_receipts(dataset, problems) if reaches(level, "full") else {}
    seen, total, count = _Seen({}, {}), _Total(dataset.codec.stage == "quantized"), 0
    for split, entry in dataset.splits.items():
        index = _index(dataset, split, level, problems)
        if not reaches(level, "structure"):
            for shard in entry.shards:
                problems += _check_size(dataset, shard)
                count += shard.samples
                on_shard()
            continue
        examined = in_order(lambda shard: _examine(dataset, shard, level), entry.shards)
        for number, (shard, found, own) in enumerate(examined):
            problems += own
            if index is not None:
                problems += _against_index(shard, found, index[index["shard"] == number])
            if shard.file in receipts:
                problems += check_receipt(receipts[shard.file], split, number, shard, index, found)
            problems += _repeated(shard.file, split, found, seen)
            total.add(found, shard)
            count += len(found)
            on_shard()
    if reaches(level, "full"):
        problems += _check_totals(dataset, receipts, total)
    return Audit(level, sum(len(e.shards) for e in dataset.splits.values()), count, tuple(problems))


def _verify_alone(path: Path, level: Level, on_shard: Callable[[], None]) -> Audit:
    found: list[Found] = []
    problems = list(_walk_shard(path, path.name, level, None, found))
    problems += _repeated(path.name, None, found, _Seen({}, {}))
    on_shard()
    return Audit(level, 1, len(found), tuple(problems))


@dataclass(frozen=True)
class _Seen:
    """What was met so far: the shard of every key, and the split of every track."""

    keys: dict[str, str]
    groups: dict[str, str]


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
        for side, own in own_sums.items():
            self.sums[side] = add_sums(self.sums[side], own) if side in self.sums else own


def _check_totals(dataset: Dataset, receipts: dict[str, Receipt], total: _Total) -> Iterator[Problem]:
    if total.whole:  # else what is missing was named, and no sum can be right
        yield from check_totals(dataset, receipts, total.sums)


def _index(dataset: Dataset, split: str, level: Level, problems: list[Problem]) -> Index | None:
    file = dataset.index_path(split)
    name = str(file.relative_to(dataset.path))
    if not reaches(level, "structure"):
        if not file.is_file():
            problems.append(Problem(name, "the index is missing", ENCODE_AGAIN))
        return None
    try:
        index = load_index(file)
    except DatasetError as error:
        problems.append(Problem(name, str(error).removeprefix(f"{file}: ").rpartition("; ")[0], ENCODE_AGAIN))
        return None
    if sha256_file(file) != dataset.splits[split].index_sha256:
        problems.append(Problem(name, "its sha256 is not the manifest's", ENCODE_AGAIN))
    return index


def _examine(dataset: Dataset, shard: ShardEntry, level: Level) -> tuple[ShardEntry, list[Found], list[Problem]]:
    """Look at one shard for itself; several are looked at at a time."""
    found: list[Found] = []
    return shard, found, list(_verify_shard(dataset, shard, level, found))


def _check_size(dataset: Dataset, shard: ShardEntry) -> Iterator[Problem]:
    try:
        check_size(dataset.path, shard)
    except DatasetError as error:
        what = str(error).removeprefix(f"{dataset.path / shard.file}: ").rpartition("; ")[0]
        yield Problem(shard.file, what, RESTORE)


def _verify_shard(dataset: Dataset, shard: ShardEntry, level: Level, found: list[Found]) -> Iterator[Problem]:
    path = dataset.path / shard.file
    yield from _check_size(dataset, shard)
    if not path.is_file():
        return
    yield from _walk_shard(path, shard.file, level, dataset.manifest, found)
    if len(found) != shard.samples:
        yield Problem(shard.file, f"holds {len(found)} whole samples, the manifest says {shard.samples}", RESTORE)
    if reaches(level, "sha256") and sha256_file(path) != shard.sha256:
        yield Problem(shard.file, "its sha256 is not the manifest's", RESTORE)


def _walk_shard(
    path: Path, name: str, level: Level, manifest: Manifest | None, found: list[Found]
) -> Iterator[Problem]:
    if path.stat().st_size == 0:
        yield Problem(name, "is empty", RESTORE)
        return
    if not reaches(level, "structure"):
        return
    with map_shard(path) as content:
        try:
            for members in samples(walk(content)):
                yield from check_sample(content, name, members, level, manifest, found)
        except DatasetError as error:
            yield Problem(name, str(error), RESTORE)


def _against_index(shard: ShardEntry, found: list[Found], rows: Index) -> Iterator[Problem]:
    by_key = {row["key"].decode(): row for row in rows}
    for sample in found:
        record = sample.record
        row = by_key.get(record.key)
        if row is None:
            yield Problem(shard.file, "the index does not know it", ENCODE_AGAIN, record.key)
            continue
        for suffix, member in sample.members.items():
            part = column(suffix)
            if (member.offset, member.size) != (row[f"{part}_offset"], row[f"{part}_bytes"]):
                what = f"{suffix} lies at byte {member.offset}, the index says {row[f'{part}_offset']}"
                yield Problem(shard.file, what, RESTORE, record.key)
            elif sample.crc32 and sample.crc32[suffix] != row[f"{part}_crc32"]:
                what = f"{suffix} at byte {member.offset}: its crc32 is not the index's"
                yield Problem(shard.file, what, RESTORE, record.key)
        for side in SIDES:
            if row[f"{side}_rms"] != np.float32(getattr(record, side).rms):
                yield Problem(shard.file, f"its json's RMS of {side} is not the index's", RESTORE, record.key)
    whole = {sample.record.key for sample in found}
    for key in (key for key in by_key if key not in whole):
        yield Problem(shard.file, "the index lists it, the shard does not hold it whole", RESTORE, key)


def _repeated(file: str, split: str | None, found: list[Found], seen: _Seen) -> Iterator[Problem]:
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
