"""A plan of `shards.derive` carried out: samples copied, shard by shard, into a new dataset that appears whole."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.build import make_build
from shards.dataset import Dataset
from shards.derive import Picks, Splits, keys_of
from shards.errors import DatasetError, MisuseError
from shards.files import canonical_json, sha256_bytes
from shards.latents import LatentsType, cast
from shards.manifest import partial_folder
from shards.publish import DatasetHeader, publish
from shards.receipt import shard_file, write_with_receipt
from shards.schema import SIDES, Manifest, Receipt
from shards.writer import Sample

LOCK = ".rewrite"
"""Marks a partial folder as this module's own: a copy can be made again, hours of encoding should not be lost."""


@dataclass(frozen=True)
class Rewrite:
    """A new dataset to make: whose samples, in which splits and order, and how they are stored."""

    verb: str
    sources: tuple[Dataset, ...]
    splits: Splits
    options: Mapping[str, object]
    pairing: dict[str, object]
    samples_per_shard: int
    latents: LatentsType | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """Fingerprints of the sources."""
        return tuple(source.manifest.fingerprint for source in self.sources)

    @property
    def samples(self) -> int:
        """Samples that the new dataset will have."""
        return sum(map(len, self.splits.values()))


def check_output(out: Path) -> None:
    """Raise `MisuseError` where `out` exists: datasets are immutable."""
    if out.exists():
        raise MisuseError(f"{out}: exists already, and datasets are immutable; choose another --out, or remove it")


def check_latents(source: Dataset, latents: LatentsType | None) -> None:
    """Raise `MisuseError` where the stored arrays can't be cast to `latents`."""
    held = {field.dtype for field in source.manifest.fields}
    if latents is not None and not held <= {"float16", "float32"}:
        raise MisuseError(
            f"{source.address}: holds codes, which no cast makes {latents}; encode the sources again with "
            f"`python -m pipeline encode --latents {latents}`"
        )


def rewrite(job: Rewrite, out: Path, on_receipt: Callable[[Receipt], object]) -> Manifest:
    """Make the dataset `out`; the same job gives the same bytes, and one shard at a time is in memory.

    After an error nothing is left. Raises `MisuseError` where `out` exists or something else is being made there,
    and `DatasetError`, naming the sample, where a source is damaged.
    """
    check_output(out)
    name = out.absolute().name
    receipts: list[Receipt] = []
    with _staging(out) as staging:
        for split, picks in sorted(job.splits.items()):
            for number, first in enumerate(range(0, len(picks), job.samples_per_shard)):
                own = picks[first : first + job.samples_per_shard]
                receipts.append(_write(job, staging, shard_file(name, split, number), split, own))
                on_receipt(receipts[-1])
        return publish(out, _header(job, name), receipts)


def _write(job: Rewrite, staging: Path, file: str, split: str, picks: Picks) -> Receipt:
    keys = [key.decode() for key in keys_of(job.sources, picks)]
    plan = [job.verb, list(job.parents), file, split, keys, job.latents]
    samples = [_adapted(job, pick, split) for pick in picks]
    return write_with_receipt(staging, file, split, sha256_bytes(canonical_json(plan)), samples)


def _adapted(job: Rewrite, pick: Any, split: str) -> Sample:
    source = job.sources[int(pick["source"])]
    place = source.location(sorted(source.splits)[pick["split"]], int(pick["number"]))
    sample = source.read(place)
    if sample.record.split != split:
        sample = dataclasses.replace(sample, record=sample.record.model_copy(update={"split": split}))
    if job.latents is None or all(getattr(sample, side).dtype == job.latents for side in SIDES):
        return sample
    try:
        return recast(sample, job.latents)
    except ValueError as error:
        raise DatasetError(f"{source.path / place.shard.file}: sample {place.key}: {error}") from None


def recast(sample: Sample, latents: LatentsType) -> Sample:
    """Store a sample's latents [D, T] as another type. Raises `ValueError` as `shards.latents.cast` does.

    `cast_snr_db` never grows: a wider type does not bring back what a narrower one lost.
    """
    changes: dict[str, Any] = {}
    sides: dict[str, Any] = {}
    for side in SIDES:
        changes[side], snr = cast(getattr(sample, side).astype(np.float32), latents)
        about = getattr(sample.record, side)
        sides[side] = about.model_copy(update={"cast_snr_db": min(about.cast_snr_db, round(snr, 2))})
    return dataclasses.replace(sample, record=sample.record.model_copy(update=sides), **changes)


def _header(job: Rewrite, name: str) -> DatasetHeader:
    """Carry over from the first source whatever a header and a manifest share; all sources are alike in it."""
    manifest = job.sources[0].manifest
    shared: dict[str, Any] = {
        field.name: getattr(manifest, field.name)
        for field in dataclasses.fields(DatasetHeader)
        if field.name in Manifest.model_fields
    }
    config = {"verb": job.verb, **job.options, "samples_per_shard": job.samples_per_shard}
    return DatasetHeader(
        **shared
        | {
            "name": name,
            "dtype": job.latents or manifest.fields[0].dtype,
            "pairing": job.pairing,
            "build": make_build(["cascadence", "numpy"], config),
            "parents": job.parents,
        }
    )


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give an empty partial folder for `out`, alone; what a killed run left there is replaced."""
    staging = partial_folder(out)
    lock = staging / LOCK
    if staging.exists() and not lock.exists() and (not staging.is_dir() or any(staging.iterdir())):
        raise MisuseError(
            f"{staging}: holds an unfinished encoding; finish it with the same `python -m pipeline encode`, remove it, "
            "or choose another --out"
        )
    staging.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MisuseError(
                f"{staging}: another process is writing it; wait for it, or choose another --out"
            ) from None
        try:
            _empty(staging)
            yield staging
            (out / LOCK).unlink()
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _empty(staging: Path) -> None:
    leftovers: Sequence[Path] = [path for path in staging.iterdir() if path.name != LOCK]
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
