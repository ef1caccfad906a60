"""Two datasets side by side: which samples came, went or changed, by how much, and what drifted around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import Dataset
from shards.index import INDEX_DTYPE
from shards.locate import Location
from shards.manifest import codec_fingerprint
from shards.schema import SIDES, SampleRecord

SAME_SNR_DB = 999.0
"""The ratio of arrays that are equal, as a number that JSON has."""

_PAYLOADS = tuple(name for name in INDEX_DTYPE.names or () if name.endswith(("_bytes", "_crc32")))
_OF_THE_CODEC = {"key", "codec_fingerprint", "input.cast_snr_db", "target.cast_snr_db", "input.start", "target.start"}


@dataclass(frozen=True)
class Difference:
    """One named value that is not the same in A and B; None where one side has none."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ArrayChange:
    """How far the array of a side is from A to B; no numbers where they can't be subtracted, and then why."""

    field: str
    max_abs: float | None
    snr_db: float | None
    note: str | None = None


@dataclass(frozen=True)
class Change:
    """A sample that both hold, and that is not the same."""

    key: str
    key_b: str
    place: str
    place_b: str
    arrays: tuple[ArrayChange, ...]
    record: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """What is different from A to B.

    `drift` counts as a difference, as far as the fingerprint covers it; `build` and `moved` (same sample, other shard
    or position) are told and do not count: they do not change what a sample is.
    """

    matched_by: str
    same: int
    moved: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    drift: tuple[Difference, ...]
    build: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether both hold the same samples, made in the same way."""
        return not (self.added or self.removed or self.changed or self.drift)

    def as_json(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {**asdict(self), "equal": self.equal}


def compare(a: Dataset, b: Dataset, on_sample: Callable[[], None] = lambda: None) -> Comparison:
    """Compare two datasets, A being the reference; only samples whose hashes differ are read.

    Samples are matched by key. Keys depend on the codec: where it differs, samples are matched by both sources'
    hashes and the times at which the windows start. Raises `DatasetError` for a damaged sample.
    """
    by_key = codec_fingerprint(a.codec) == codec_fingerprint(b.codec)
    identify = _by_key if by_key else _by_source
    here, there = identify(a), identify(b)
    changed: list[Change] = []
    same = moved = 0
    for identity, place in here.items():
        other = there.get(identity)
        if other is not None:
            change = _change(a, place, b, other, by_key)
            same += change is None
            moved += _where(place) != _where(other)
            changed += [change] if change else []
        on_sample()
    return Comparison(
        matched_by="key" if by_key else "source",
        same=same,
        moved=moved,
        added=tuple(place.key for identity, place in there.items() if identity not in here),
        removed=tuple(place.key for identity, place in here.items() if identity not in there),
        changed=tuple(changed),
        drift=_drift(a, b),
        build=tuple(differences(_build(a), _build(b), "build")),
    )


def _places(dataset: Dataset) -> Iterator[Location]:
    for split, entry in dataset.splits.items():
        for number in range(entry.samples):
            yield dataset.location(split, number)


def _where(place: Location) -> tuple[str, int, int]:
    return place.split, place.number, place.position


def _by_key(dataset: Dataset) -> dict[Hashable, Location]:
    return _numbered((place.key, place) for place in _places(dataset))


def _by_source(dataset: Dataset) -> dict[Hashable, Location]:
    return _numbered((_source(dataset, dataset.record(place)), place) for place in _places(dataset))


def _source(dataset: Dataset, record: SampleRecord) -> Hashable:
    rate = dataset.codec.sample_rate
    return tuple((side.sha256, Fraction(side.start, rate)) for side in (record.input, record.target))


def _numbered(named: Iterator[tuple[Hashable, Location]]) -> dict[Hashable, Location]:
    """Tell samples of one name apart by counting them, so that none hides another."""
    seen: Counter[Hashable] = Counter()
    places: dict[Hashable, Location] = {}
    for name, place in named:
        places[name, seen[name]] = place
        seen[name] += 1
    return places


def _change(a: Dataset, place: Location, b: Dataset, other: Location, by_key: bool) -> Change | None:
    row, row_b = a.index(place.split)[place.number], b.index(other.split)[other.number]
    if all(row[name] == row_b[name] for name in _PAYLOADS):
        return None
    sample, sample_b = a.read(place), b.read(other)
    arrays = [array_change(side, getattr(sample, side), getattr(sample_b, side)) for side in SIDES]
    record = [
        one
        for one in differences(sample.record.model_dump(mode="json"), sample_b.record.model_dump(mode="json"))
        if by_key or one.name not in _OF_THE_CODEC
    ]
    told = tuple(one for one in arrays if one.snr_db != SAME_SNR_DB)
    if not told and not record:
        return None
    return Change(
        place.key,
        other.key,
        f"{place.shard.file}#{place.position}",
        f"{other.shard.file}#{other.position}",
        told,
        tuple(record),
    )


def array_change(field: str, a: NDArray[Any], b: NDArray[Any]) -> ArrayChange:
    """Tell how far array B is from array A: the largest difference, and A against the difference in dB."""
    if a.shape != b.shape:
        return ArrayChange(field, None, None, f"shape {list(a.shape)} to {list(b.shape)}")
    note = None if a.dtype == b.dtype else f"{a.dtype} to {b.dtype}"
    reference, noise = a.astype(np.float64), b.astype(np.float64)
    noise -= reference
    if not np.isfinite(noise).all():
        return ArrayChange(field, None, None, "holds values that are not finite")
    power = float(np.square(noise).sum())
    signal = float(np.square(reference).sum())
    snr = SAME_SNR_DB if power == 0 else 10 * float(np.log10(max(signal, 1e-300) / power))
    return ArrayChange(field, float(np.abs(noise).max(initial=0.0)), snr, note)


def differences(a: Any, b: Any, name: str = "") -> list[Difference]:
    """Name, by its dotted path, every value of two plain documents that is not the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        dot = f"{name}." if name else ""
        return [d for key in sorted(a.keys() | b.keys()) for d in differences(a.get(key), b.get(key), f"{dot}{key}")]
    return [] if a == b else [Difference(name, _short(a), _short(b))]


def _short(value: Any) -> Any:
    return f"{len(value)} values" if isinstance(value, list) and len(value) > 8 else value


def _drift(a: Dataset, b: Dataset) -> tuple[Difference, ...]:
    kept = {"codec", "fields", "window_samples", "pairing", "schema_version"}
    first, second = (dataset.manifest.model_dump(mode="json", include=kept) for dataset in (a, b))
    for document in (first, second):
        document["fields"] = {field.pop("name"): field for field in document["fields"]}
    return tuple(differences(first, second))


def _build(dataset: Dataset) -> dict[str, Any]:
    return dataset.manifest.build.model_dump(mode="json")
