"""Which samples of which datasets make a new one, and in which order. Pure: plans are made from indexes and records.

A plan is a few numbers a sample; the samples themselves are read when it is carried out (`shards.rewrite`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import Dataset, describe_codec
from shards.errors import DatasetError, MisuseError
from shards.files import canonical_json, sha256_bytes
from shards.index import INDEX_DTYPE
from shards.order import derive, permutation

PICK = np.dtype([("source", "<u4"), ("split", "<u4"), ("number", "<u8")])
"""One sample: the source's number, its split's place in sorted order, and the sample's number in that split."""

Picks = NDArray[np.void]
Splits = dict[str, Picks]
"""The samples of each split of the new dataset, in order."""

Step = Callable[[], None]
"""Called after each sample that was looked at."""

_CONTENT = [name for name in INDEX_DTYPE.names or () if name.endswith(("_bytes", "_crc32"))]
_OWN = {"name", "fingerprint", "schema_version", "splits", "pairing", "rejected", "parents", "build"}
"""What two datasets that may be merged need not have in common."""


def all_samples(sources: Sequence[Dataset]) -> Splits:
    """Take every sample: the splits of the sources joined by name, in the order of the sources."""
    names = sorted({split for source in sources for split in source.splits})
    return {name: np.concatenate([_whole_split(sources, number, name) for number in range(len(sources))])
            for name in names}  # fmt: skip


def _whole_split(sources: Sequence[Dataset], source: int, split: str) -> Picks:
    own = sorted(sources[source].splits)
    if split not in own:
        return np.zeros(0, PICK)
    return _picks(source, own.index(split), np.arange(sources[source].splits[split].samples))


def _picks(source: int, split: int, numbers: NDArray[Any]) -> Picks:
    picks = np.zeros(len(numbers), PICK)
    picks["source"], picks["split"], picks["number"] = source, split, numbers
    return picks


def keys_of(sources: Sequence[Dataset], picks: Picks) -> NDArray[np.bytes_]:
    """Keys [n] of picked samples."""
    keys = np.zeros(len(picks), INDEX_DTYPE["key"])
    for number, source in enumerate(sources):
        for place, split in enumerate(sorted(source.splits)):
            own = (picks["source"] == number) & (picks["split"] == place)
            if own.any():
                keys[own] = source.index(split)["key"][picks["number"][own]]
    return keys


# repack


def shuffled(splits: Splits, seed: int) -> Splits:
    """Permute the samples of each split, each split by itself."""
    return {
        split: picks[permutation(len(picks), derive(seed, number))]
        for number, (split, picks) in enumerate(sorted(splits.items()))
    }


# subset


def subset(source: Dataset, keep: Collection[str] | None, drop: Collection[str], split: str | None) -> Splits:
    """Keep the samples with the keys `keep` (None: all), of one split (None: all), without those of `drop`.

    Raises `MisuseError` where a key or the split is not in the dataset, or no sample is left.
    """
    if split is not None:
        source.split(split)
    splits = all_samples([source])
    keys = {name: keys_of([source], picks) for name, picks in splits.items()}
    for asked in (keep or (), drop):
        _require_keys(source, asked, keys.values())
    kept: Splits = {}
    for name, picks in splits.items():
        chosen = ~np.isin(keys[name], _as_keys(drop))
        if keep is not None:
            chosen &= np.isin(keys[name], _as_keys(keep))
        if chosen.any() and split in (None, name):
            kept[name] = picks[chosen]
    if not kept:
        raise MisuseError(f"{source.address}: no sample is left; keep more keys, or drop fewer")
    return kept


def _as_keys(keys: Collection[str]) -> NDArray[np.bytes_]:
    return np.array([key.encode() for key in keys], dtype=INDEX_DTYPE["key"])


def _require_keys(source: Dataset, asked: Collection[str], present: Collection[NDArray[np.bytes_]]) -> None:
    # Looked up as text: as fixed-width bytes, a key with something behind it would be cut to a known one.
    known = {key.decode() for keys in present for key in keys} if asked else set()
    unknown = sorted(set(asked) - known)
    if unknown:
        raise MisuseError(
            f"{source.address}: no sample has the key {unknown[0]!r} ({len(unknown)} of {len(set(asked))} are "
            f"unknown); `python -m shards list {source.address} --limit 0` shows the keys"
        )


# split


@dataclass(frozen=True)
class Tracks:
    """The tracks of a dataset: their names, and for each split the number of each sample's track [n]."""

    names: tuple[str, ...]
    numbers: dict[str, NDArray[np.int32]]


def read_tracks(source: Dataset, step: Step = lambda: None) -> Tracks:
    """Read the track of every sample from its record. Raises `DatasetError` where one is damaged."""
    known: dict[str, int] = {}
    numbers: dict[str, NDArray[np.int32]] = {}
    for split in sorted(source.splits):
        numbers[split] = np.zeros(source.splits[split].samples, np.int32)
        for number in range(len(numbers[split])):
            record = source.record(source.location(split, number))
            numbers[split][number] = known.setdefault(record.group, len(known))
            step()
    return Tracks(tuple(known), numbers)


def by_track(source: Dataset, tracks: Tracks, fractions: Mapping[str, float], seed: int) -> Splits:
    """Divide all samples anew, whole tracks at a time; what no fraction asks for is `train`.

    Raises `MisuseError` where there are fewer tracks than splits.
    """
    counts = np.zeros(len(tracks.names), np.int64)
    for numbers in tracks.numbers.values():
        counts += np.bincount(numbers, minlength=len(counts))
    try:
        homes = assign(dict(zip(tracks.names, counts.tolist(), strict=True)), fractions, seed)
    except ValueError as error:
        raise MisuseError(f"{source.address}: {error}; ask for fewer splits") from None
    home_of = np.array([homes[name] for name in tracks.names])
    own = sorted(source.splits)
    return {
        home: np.concatenate(
            [_picks(0, own.index(name), np.flatnonzero(home_of[tracks.numbers[name]] == home)) for name in own]
        )
        for home in sorted(set(homes.values()))
    }


def assign(sizes: Mapping[str, int], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Give each track (name to number of samples) a split, by fractions of the samples; the rest is `train`.

    Tracks are drawn in an order of their own hashes, so that it does not depend on the order of the samples. A split
    takes tracks as long as that brings it nearer to its share, and at least one. Raises `ValueError` where that
    leaves a split without a track.
    """
    waiting = sorted(sizes, key=lambda name: sha256_bytes(canonical_json([seed, name])))
    shares = {split: fraction for split, fraction in fractions.items() if split != "train"}
    whole = sum(fractions.values()) > 1 - 1e-9 and "train" not in fractions
    total = sum(sizes.values())
    homes: dict[str, str] = {}
    for place, (split, fraction) in enumerate(shares.items()):
        later = len(shares) - place - 1 + (not whole)  # each of them needs a track, too
        filled = 0
        last = whole and place == len(shares) - 1
        while len(waiting) > later:
            size = sizes[waiting[0]]
            if filled and not last and abs(filled + size - fraction * total) >= abs(filled - fraction * total):
                break
            homes[waiting.pop(0)] = split
            filled += size
        if not filled:
            raise ValueError(f"has {len(sizes)} tracks, too few for {len(shares) + (not whole)} splits")
    if not whole and not waiting:
        raise ValueError(f"has {len(sizes)} tracks, too few for {len(shares) + 1} splits")
    return homes | dict.fromkeys(waiting, "train")


# merge


def check_alike(sources: Sequence[Dataset]) -> None:
    """Raise `DatasetError` unless all sources hold latents of one codec, type, shape and window."""
    first, *others = sources
    for other in others:
        if other.codec != first.codec:
            raise DatasetError(
                f"{other.address}: its codec is {describe_codec(other.codec)}, that of {first.address} is "
                f"{describe_codec(first.codec)}; encode one of them again with the other's codec"
            )
        if other.frames != first.frames:
            raise DatasetError(
                f"{other.address}: its windows are {other.frames} frames long, those of {first.address} "
                f"{first.frames}; pair and encode one of them again with the other's --seconds"
            )
        for mine, its in zip(first.manifest.fields, other.manifest.fields, strict=True):
            if mine.shape == its.shape and mine.dtype != its.dtype:
                raise DatasetError(
                    f"{other.address}: {its.name} is {its.dtype}, in {first.address} it is {mine.dtype}; make them "
                    f"alike with `python -m shards repack --latents {mine.dtype}`"
                )
        wanted, held = first.manifest.model_dump(exclude=_OWN), other.manifest.model_dump(exclude=_OWN)
        for name in (name for name in wanted if wanted[name] != held[name]):
            raise DatasetError(
                f"{other.address}: its {name} is not that of {first.address} ({held[name]}, not {wanted[name]}); "
                "encode one of them again with the other's settings"
            )


def check_tracks(sources: Sequence[Dataset], tracks: Sequence[Tracks]) -> None:
    """Raise `DatasetError` where a track would lie in two splits."""
    seen: dict[str, tuple[str, Dataset]] = {}
    for source, own in zip(sources, tracks, strict=True):
        for split, numbers in own.numbers.items():
            for number in np.unique(numbers):
                group = own.names[number]
                there, first = seen.setdefault(group, (split, source))
                if there != split:
                    raise DatasetError(
                        f"{source.address}: track {group!r} lies in its split {split}, and in the split {there} of "
                        f"{first.address}; leave it out of one of them with `python -m shards subset --drop`"
                    )


def deduplicated(sources: Sequence[Dataset], splits: Splits) -> tuple[Splits, int]:
    """Leave out samples that were there before, byte for byte; returns what is left and how many were left out.

    Raises `DatasetError` where two samples of one key differ.
    """
    names = sorted(splits)
    picks = np.concatenate([splits[name] for name in names])
    keys = keys_of(sources, picks)
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(picks), np.bool_)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    before = np.zeros(len(picks), np.int64)
    before[order[1:]] = order[:-1]
    for place in np.flatnonzero(again):
        _check_equal(sources, picks[before[place]], picks[place], keys[place].decode())
    edges = np.cumsum([len(splits[name]) for name in names])[:-1]
    parts = zip(names, np.split(picks, edges), np.split(again, edges), strict=True)
    return {name: own[~dropped] for name, own, dropped in parts}, int(again.sum())


def _check_equal(sources: Sequence[Dataset], first: Any, second: Any, key: str) -> None:
    rows = []
    for pick in (first, second):
        source = sources[pick["source"]]
        rows.append(source.index(sorted(source.splits)[pick["split"]])[int(pick["number"])])
    different = sorted({name.rpartition("_")[0] for name in _CONTENT if rows[0][name] != rows[1][name]})
    if different:
        raise DatasetError(
            f"{sources[second['source']].address}: sample {key} has another {', '.join(different)} than in "
            f"{sources[first['source']].address}; leave it out of one of them with `python -m shards subset --drop`"
        )


def merged_pairing(sources: Sequence[Dataset]) -> dict[str, object]:
    """Join the accounts of the pairing: what all sources share, and the whole of each where they differ."""
    accounts = [source.manifest.pairing for source in sources]
    if all(account == accounts[0] for account in accounts):
        return accounts[0]
    shared = {k: v for k, v in accounts[0].items() if all(k in other and other[k] == v for other in accounts)}
    return {**shared, "merged": accounts}
