"""What is in a dataset, in numbers: channel statistics, loudness of the sources, windows that are used repeatedly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.dataset import Dataset
from shards.errors import CascadenceError, DatasetError
from shards.files import read_json
from shards.latents import add_by_side, channel_sums, statistics_by_side
from shards.manifest import STATISTICS
from shards.parallel import in_order
from shards.schema import SIDES, ChannelSums, SampleRecord

Statistics = dict[str, dict[str, list[float]]]
"""By side, then by name, one value a channel."""

NAMES = ("mean", "std", "min", "max", "rms")
PERCENTILES = {"min": 0, "p1": 1, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "p99": 99, "max": 100}
SILENT_RMS = 1e-3
"""A source under this, -60 dB, is as good as silent."""


class Window(NamedTuple):
    """A piece of a source file: the file's hash, and its first sample at the codec's rate."""

    sha256: str
    start: int


class Use(NamedTuple):
    """One sample's key and the windows that it was made from."""

    key: str
    input: Window
    target: Window


@dataclass(frozen=True)
class Survey:
    """What a walk over the samples gathered; None and empty where it was not asked for."""

    statistics: Statistics | None
    uses: tuple[Use, ...]


def survey(dataset: Dataset, *, arrays: bool, records: bool, on_sample: Callable[[], None] = lambda: None) -> Survey:
    """Walk all shards in parallel threads, checking every byte that is read, and gather what is asked for.

    Sums are added in the writer's order, so that statistics of a sound dataset are those of `stats.json` to the last
    digit. Raises `DatasetError` at the first damaged sample.
    """
    sums: dict[str, ChannelSums] = {}
    uses: list[Use] = []
    for own_sums, own_uses in in_order(
        lambda numbers: _walk(dataset, *numbers, arrays, records, on_sample), list(_shards(dataset))
    ):
        sums = add_by_side(sums, own_sums)
        uses += own_uses
    return Survey(statistics_by_side(sums) if arrays else None, tuple(uses))


def _shards(dataset: Dataset) -> Iterator[tuple[str, int, int]]:
    """Give split, first number and end of every shard, in the order of their names."""
    for split in sorted(dataset.splits):
        dataset.index(split)  # mapped once, before threads ask for it
        first = 0
        for shard in dataset.splits[split].shards:
            yield split, first, first + shard.samples
            first += shard.samples


def _walk(
    dataset: Dataset, split: str, first: int, end: int, arrays: bool, records: bool, on_sample: Callable[[], None]
) -> tuple[dict[str, ChannelSums], list[Use]]:
    sums: dict[str, ChannelSums] = {}
    uses: list[Use] = []
    for number in range(first, end):
        place = dataset.location(split, number)
        if arrays:
            sample = dataset.read(place)
            sums = add_by_side(sums, {side: channel_sums(getattr(sample, side)) for side in SIDES})
            uses += [_use(sample.record)] if records else []
        elif records:
            uses.append(_use(dataset.record(place)))
        on_sample()
    return sums, uses


def _use(record: SampleRecord) -> Use:
    windows = (Window(side.sha256, side.start) for side in (record.input, record.target))
    return Use(record.key, *windows)


def saved_statistics(dataset: Dataset) -> Statistics:
    """Read `stats.json`. Raises `DatasetError` where it is missing or not what the format says."""
    path = dataset.path / STATISTICS
    mend = f"`python -m shards stats {dataset.address} --recompute` computes them from the shards"
    try:
        content: Any = read_json(path)
    except CascadenceError as error:
        raise DatasetError(f"{str(error).rpartition('; ')[0] or error}; {mend}") from None
    try:
        found: Statistics = {side: {name: [float(v) for v in content[side][name]] for name in NAMES} for side in SIDES}
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise DatasetError(f"{path}: it does not hold {', '.join(NAMES)} of both sides; {mend}") from None
    if len({len(values) for side in found.values() for values in side.values()}) != 1:
        raise DatasetError(f"{path}: its statistics are not of equally many channels; {mend}")
    return found


def deviation(saved: Statistics, computed: Statistics) -> float:
    """Tell how far saved statistics are from computed ones, relative to the largest value of their kind."""
    worst = 0.0
    for side in SIDES:
        for name in NAMES:
            a, b = np.asarray(saved[side][name]), np.asarray(computed[side][name])
            if a.shape != b.shape or not np.isfinite(a).all():
                return float("inf")
            worst = max(worst, float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30)))
    return worst


class Unusual(NamedTuple):
    """A channel that is not like the others of its side, and how far out it is."""

    side: str
    channel: int
    score: float


def unusual_channels(found: Statistics, count: int) -> list[Unusual]:
    """Name the channels whose mean or spread lies furthest from the others', `count` of each side.

    The score is the larger distance from the median, in median absolute deviations scaled to standard deviations of
    a normal distribution: above about 4, a channel is truly unlike its neighbours.
    """
    ranked: list[Unusual] = []
    for side in SIDES:
        scores = np.maximum(_outlying(found[side]["mean"]), _outlying(found[side]["std"]))
        order = np.argsort(-scores, kind="stable")[:count]
        ranked += [Unusual(side, int(channel), float(scores[channel])) for channel in order]
    return ranked


def _outlying(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    distance: NDArray[np.float64] = np.abs(array - np.median(array))
    spread = 1.4826 * float(np.median(distance))
    return distance / max(spread, 1e-12 * max(float(np.abs(array).max(initial=0)), 1.0))


def rms_distribution(values: NDArray[Any]) -> dict[str, float | int]:
    """Describe the RMS of sources [n] by percentiles, mean, and how many are as good as silent."""
    if not len(values):
        return {"count": 0, "silent": 0}
    points = np.percentile(values.astype(np.float64), list(PERCENTILES.values()))
    return {
        "count": len(values),
        "silent": int((values < SILENT_RMS).sum()),
        "mean": float(values.astype(np.float64).mean()),
        **dict(zip(PERCENTILES, points.tolist(), strict=True)),
    }


def duplicates(uses: Iterable[Use]) -> dict[str, Any]:
    """Count the windows that are used repeatedly.

    `pairs`: the same two windows in several samples. `inputs` and `targets`: how many different windows of a side
    there are, how many samples share theirs, and `partners`: how many windows have 1, 2, ... different partners.
    """
    found = tuple(uses)
    pairs: dict[tuple[Window, Window], list[str]] = defaultdict(list)
    for use in found:
        pairs[use.input, use.target].append(use.key)
    return {
        "pairs": [
            {"input": given._asdict(), "target": wanted._asdict(), "keys": keys}
            for (given, wanted), keys in pairs.items()
            if len(keys) > 1
        ],
        "inputs": _sharing([(use.input, use.target, use.key) for use in found]),
        "targets": _sharing([(use.target, use.input, use.key) for use in found]),
    }


def _sharing(uses: Sequence[tuple[Window, Window, str]]) -> dict[str, Any]:
    partners: dict[Window, set[Window]] = defaultdict(set)
    keys: dict[Window, list[str]] = defaultdict(list)
    for window, partner, key in uses:
        partners[window].add(partner)
        keys[window].append(key)
    shared = {window: own for window, own in keys.items() if len(own) > 1}
    most = sorted(shared.items(), key=lambda one: -len(one[1]))[:10]
    counts = Counter(len(own) for own in partners.values())
    return {
        "windows": len(keys),
        "shared": len(shared),
        "samples_that_share": sum(map(len, shared.values())),
        "partners": {str(count): windows for count, windows in sorted(counts.items())},
        "most": [{**window._asdict(), "samples": len(own), "keys": own[:10]} for window, own in most],
    }
