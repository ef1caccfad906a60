"""What may be wrong with one shard: its size, its bytes, its samples, and how they lie beside the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.audit.findings import Level, Problem, reaches
from shards.audit.sample import Examination, Expected, Found, check_sample
from shards.dataset import Dataset, check_size
from shards.errors import DamageError, DatasetError
from shards.index import INDEX_DTYPE, Index, column
from shards.mends import mend_index, mend_shard
from shards.scan import Payload, Scan
from shards.schema import SIDES, ShardEntry


TOGETHER = 16
"""Samples that are looked at in a row: what passes through the processor's cache in between costs each look its own."""


@dataclass
class Examined:
    """What was found in a shard; `sha256` where it was asked for and the shard could be read to its end."""

    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sha256: str | None = None


def examine(dataset: Dataset, shard: ShardEntry, level: Level, expected: Expected) -> Examined:
    """Compare a shard with the manifest and, from `structure` on, look into it."""
    path, mend = dataset.path / shard.file, mend_shard(shard.file)
    try:
        check_size(dataset.path, shard)
        wrong = []
    except DamageError as error:
        wrong = [Problem(shard.file, error.what, error.mend)]
    if not path.is_file() or not reaches(level, "structure"):
        return Examined(problems=wrong)
    seen = look_into(path, shard.file, level, expected, mend, hashed=reaches(level, "sha256"))
    if len(seen.found) != shard.samples:
        what = f"holds {len(seen.found)} whole samples, the manifest says {shard.samples}"
        seen.problems.append(Problem(shard.file, what, mend))
    if seen.sha256 not in (None, shard.sha256):
        seen.problems.append(Problem(shard.file, "its sha256 is not the manifest's", mend))
    seen.problems[:0] = wrong
    return seen


def look_into(path: Path, name: str, level: Level, expected: Expected, mend: str, *, hashed: bool = False) -> Examined:
    """Look at all that a shard tells of itself, in one pass over it."""
    seen = Examined()
    if path.stat().st_size == 0:
        seen.problems.append(Problem(name, "is empty", mend))
    if seen.problems or not reaches(level, "structure"):
        return seen
    try:
        with path.open("rb", buffering=0) as file:
            scan = Scan(file, whole=reaches(level, "crc"), hashed=hashed)
            at = Examination(name, level, expected, mend, scan.read)
            for samples, error in _batches(scan):
                for sample in samples:
                    seen.problems += check_sample(sample, at, seen.found)
                if error:
                    seen.problems.append(Problem(name, error, mend))
            seen.sha256 = scan.sha256() if hashed else None
    except (OSError, DatasetError) as error:
        seen.problems.append(Problem(name, f"can't be read ({getattr(error, 'strerror', None) or error})", mend))
    return seen


def _batches(scan: Scan) -> Iterator[tuple[list[tuple[Payload, ...]], str | None]]:
    """Give a scan's samples `TOGETHER` at a time, and at the end what is wrong with the shard, if anything is."""
    batch: list[tuple[Payload, ...]] = []
    problem = None
    try:
        for sample in scan.samples():
            batch.append(sample)
            if len(batch) == TOGETHER:
                yield batch, None
                batch = []
    except DatasetError as error:
        problem = str(error)
    yield batch, problem


def against_index(shard: ShardEntry, number: int, seen: Examined, rows: Index, *, trusted: bool) -> Iterator[Problem]:
    """Compare a shard's samples with its rows of the index, which is `trusted` where its hash is the manifest's."""
    if np.array_equal(_rows(number, seen.found, rows), rows):
        return
    restore, rebuild = mend_shard(shard.file), mend_index()
    mend = restore if trusted and seen.sha256 != shard.sha256 else rebuild
    by_key = {row["key"].decode(): row for row in rows}
    wrong = [problem for sample in seen.found for problem in _against_row(shard.file, sample, by_key, mend)]
    whole = {sample.key for sample in seen.found}
    for key in (key for key in by_key if key not in whole):
        wrong.append(Problem(shard.file, "the index lists it, the shard does not hold it whole", mend, key))
    yield from wrong or [Problem(shard.file, "the index has its samples in another order", mend)]


def _rows(number: int, found: list[Found], saved: Index) -> Index:
    """Make the rows that the index should have; of checksums that were not taken, the saved ones."""
    rows = np.zeros(len(found), INDEX_DTYPE)
    rows["shard"], rows["position"], rows["key"] = number, np.arange(len(found)), [sample.key for sample in found]
    for suffix in found[0].places if found else ():
        part, places = column(suffix), [sample.places[suffix] for sample in found]
        rows[f"{part}_offset"] = [place.offset for place in places]
        rows[f"{part}_bytes"] = [place.size for place in places]
        if places[0].crc32 is not None:
            rows[f"{part}_crc32"] = [place.crc32 for place in places]
        elif len(saved) == len(found):
            rows[f"{part}_crc32"] = saved[f"{part}_crc32"]
    for side in SIDES:
        rows[f"{side}_rms"] = [sample.sources[side].rms for sample in found]
    return rows


def _against_row(file: str, sample: Found, by_key: dict[str, np.void], mend: str) -> Iterator[Problem]:
    row = by_key.get(sample.key)
    if row is None:
        yield Problem(file, "the index does not know it", mend, sample.key)
        return
    for suffix, place in sample.places.items():
        part = column(suffix)
        if (place.offset, place.size) != (row[f"{part}_offset"], row[f"{part}_bytes"]):
            what = f"{suffix} lies at byte {place.offset}, the index says {row[f'{part}_offset']}"
            yield Problem(file, what, mend, sample.key)
        elif place.crc32 not in (None, row[f"{part}_crc32"]):
            yield Problem(file, f"{suffix}: its crc32 is not the index's", mend, sample.key, place.offset)
    for side in SIDES:
        if row[f"{side}_rms"] != np.float32(sample.sources[side].rms):
            what = f"its json's RMS of {side} is not the index's"
            yield Problem(file, what, mend, sample.key, sample.places["json"].offset)
