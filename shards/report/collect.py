"""Everything that the page shows of a dataset, gathered as plain records; damage is noted, never raised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shards.audit import Audit
from shards.errors import CascadenceError
from shards.files import read_json
from shards.locate import Location
from shards.report.images import heatmap
from shards.report.players import Decode, Player, make_player
from shards.report.salvage import UNREADABLE, SalvagedDataset, spread
from shards.schema import SIDES, Manifest, Receipt, Reject, SampleRecord, Side
from shards.survey import Statistics, saved_statistics

MEASURED = 20_000
"""Records that the histograms are drawn from at most; of more, that many are chosen, evenly spread."""

REJECTS = 12
"""Rejected pairs that are shown one by one at most."""

EXACT_SNR_DB = 999.0
"""What a record says of a cast that lost nothing."""


@dataclass(frozen=True)
class Measured:
    """What the histograms need of a sample: its place, its levels by side, the likeness of its envelopes."""

    place: Location
    rms: dict[str, float]
    peak: dict[str, float]
    snr: dict[str, float]
    correlation: float | None


@dataclass(frozen=True)
class SideView:
    """One side of a pair in the gallery."""

    name: str
    source: Side
    png: bytes
    player: Player | None


@dataclass(frozen=True)
class Card:
    """A pair in the gallery; `problem` says why its sides are not there."""

    place: Location
    why: tuple[str, ...]
    record: SampleRecord | None
    sides: tuple[SideView, ...]
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """A dataset as the page shows it."""

    manifest: Manifest
    audit: Audit
    measured: tuple[Measured, ...]
    unreadable: int
    total: int
    statistics: Statistics | None
    rejects: tuple[Reject, ...]
    gallery: tuple[Card, ...]
    silent: bool


def collect(
    dataset: SalvagedDataset,
    audit: Audit,
    wanted: int,
    decode: Decode | None,
    on_card: Callable[[], None] = lambda: None,
) -> Report:
    """Gather a page with a gallery of at most `wanted` pairs; `decode` is None where nothing can be heard."""
    places = dataset.places(MEASURED)
    found = [measured for place in places if (measured := _measure(dataset, place))]
    cards = []
    for place, why in choose(found, wanted):
        cards.append(_card(dataset, place, why, decode))
        on_card()
    return Report(
        manifest=dataset.manifest,
        audit=audit,
        measured=tuple(found),
        unreadable=len(places) - len(found),
        total=dataset.manifest.samples,
        statistics=_statistics(dataset),
        rejects=_rejects(dataset),
        gallery=tuple(cards),
        silent=decode is None,
    )


def choose(found: Sequence[Measured], wanted: int) -> list[tuple[Location, tuple[str, ...]]]:
    """Choose `wanted` pairs, in the dataset's order: evenly spread, and with them the quietest and the loudest."""
    if not found or not wanted:
        return []
    levels = [[value for value in sample.rms.values() if math.isfinite(value)] or [0.0] for sample in found]
    extremes: dict[int, list[str]] = {}
    if wanted > 1:
        extremes.setdefault(min(range(len(found)), key=lambda i: min(levels[i])), []).append("quietest")
        extremes.setdefault(max(range(len(found)), key=lambda i: max(levels[i])), []).append("loudest")
    others = [i for i in range(len(found)) if i not in extremes]
    even = [others[i] for i in spread(len(others), wanted - len(extremes))]
    return [(found[i].place, tuple(extremes.get(i, ()))) for i in sorted({*extremes, *even})]


def _measure(dataset: SalvagedDataset, place: Location) -> Measured | None:
    try:
        record = dataset.record(place)
    except UNREADABLE:
        return None
    sides = {"input": record.input, "target": record.target}
    return Measured(
        place=place,
        rms={name: side.rms for name, side in sides.items()},
        peak={name: side.peak for name, side in sides.items()},
        snr={name: side.cast_snr_db for name, side in sides.items()},
        correlation=correlation(record.input.envelope, record.target.envelope),
    )


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation of two envelopes; None where one of them does not move, or they can't be compared."""
    if len(first) != len(second) or len(first) < 2:
        return None
    a, b = np.asarray(first, float), np.asarray(second, float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return None if scale < 1e-12 else float(a @ b) / scale


def _card(dataset: SalvagedDataset, place: Location, why: tuple[str, ...], decode: Decode | None) -> Card:
    try:
        sample = dataset.read(place)
        signed = dataset.codec.stage != "transform"
        sides = tuple(
            SideView(
                name=name,
                source=getattr(sample.record, name),
                png=heatmap(getattr(sample, name), name, signed=signed),
                player=None
                if decode is None
                else make_player(decode(getattr(sample, name)), dataset.codec.sample_rate),
            )
            for name in SIDES
        )
    except (*UNREADABLE, CascadenceError) as error:
        return Card(place, why, None, (), dataset.explain(error))
    return Card(place, why, sample.record, sides)


def _statistics(dataset: SalvagedDataset) -> Statistics | None:
    """Read `stats.json`; None where it is missing, or not a finite number of each kind for each channel."""
    try:
        found = saved_statistics(dataset)
    except UNREADABLE:
        return None
    columns = [values for side in found.values() for values in side.values()]
    whole = all(len(values) == dataset.codec.dim and all(map(math.isfinite, values)) for values in columns)
    return found if whole else None


def _rejects(dataset: SalvagedDataset) -> tuple[Reject, ...]:
    """Read the first rejected pairs from the receipts, where there are any."""
    rejects: list[Reject] = []
    for file in sorted((dataset.path / "receipts").glob("*.json")) if dataset.manifest.rejected else ():
        try:
            rejects += Receipt.model_validate(read_json(file)).rejected
        except (CascadenceError, OSError, ValueError):
            continue
        if len(rejects) >= REJECTS:
            break
    return tuple(rejects[:REJECTS])
