"""What all pairs come to: means with their confidence intervals, verdicts, and the pairs that fall short the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.criteria import CRITERIA, Criterion, Verdict
from training.evaluation.baselines import BASELINES
from training.evaluation.walk import MODEL, Measured
from training.measures.masks import VarianceShares
from training.measures.rhythm import rhythm_balance

RESAMPLINGS = 2000
WORST = 5
_INTERVAL = 2.5, 97.5
"""Percentiles between which the mean lies with a confidence of 95 %."""
_OF_ALL = ("pattern", "channel", "position", "content")


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over `pairs` pairs, and its 95 % confidence interval; none for fewer than two pairs."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Fault:
    """What is wrong with a pair: a metric, its value, and how far that lies outside the range."""

    metric: str
    value: float
    shortfall: float


@dataclass(frozen=True)
class WorstPair:
    """A pair that is far from the criteria, and what is wrong with it, the worst first."""

    measured: Measured
    faults: tuple[Fault, ...]

    @property
    def shortfall(self) -> float:
        """All that it lacks."""
        return sum(fault.shortfall for fault in self.faults)


@dataclass(frozen=True)
class Evaluation:
    """A split measured: estimates by column and metric, and the worst pairs."""

    columns: dict[str, dict[str, Estimate]]
    worst: tuple[WorstPair, ...]
    pairs: tuple[Measured, ...]

    @property
    def model(self) -> dict[str, Estimate]:
        """The model's estimates by metric."""
        return self.columns[MODEL]

    @property
    def short(self) -> list[str]:
        """The metrics whose mean is outside of its range."""
        return [name for name, found in self.model.items() if verdict(name, found) == "short"]


def verdict(metric: str, found: Estimate) -> Verdict | None:
    """Judge an estimate by its mean."""
    criterion = CRITERIA.get(metric)
    return None if criterion is None else criterion.judge(found.mean)


def summarise(pairs: Sequence[Measured], shares: Mapping[str, VarianceShares | None], seed: int) -> Evaluation:
    """Sum up measured pairs, and the shares of variance of each column's masks."""
    columns = {}
    for column in (MODEL, *BASELINES):
        found = estimate([pair.columns[column] for pair in pairs], seed)
        if (parts := shares.get(column)) is not None:
            found |= {f"{part}_share": Estimate(getattr(parts, part), None, None, len(pairs)) for part in _OF_ALL}
        columns[column] = {name: found[name] for name in _ordered(found)}
    return Evaluation(columns, find_worst(pairs), tuple(pairs))


def estimate(rows: Sequence[Mapping[str, float]], seed: int) -> dict[str, Estimate]:
    """Average each metric over the rows that have it, with the interval of a bootstrap over rows.

    Percentile bootstrap (Efron 1979), 2000 resamplings, the same ones for every metric and column, so that columns can
    be compared. `rhythm_balance` is that of the mean correlations, as the seeds have it: that of one pair is a quotient
    whose divisor may be almost nothing.
    """
    names = sorted({name for row in rows for name in row})
    values = np.array([[row.get(name, np.nan) for name in names] for row in rows]).reshape(len(rows), len(names))
    there = ~np.isnan(values)
    counts = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLINGS)
    # A resampling may miss all pairs that have a metric: it says nothing of that one.
    drawn = counts @ there
    sums = counts @ np.where(there, values, 0)
    means = np.divide(sums, drawn, out=np.full_like(sums, np.nan), where=drawn > 0)
    found = {
        name: _estimate(float(values[there[:, place], place].mean()), means[:, place], int(there[:, place].sum()))
        for place, name in enumerate(names)
    }
    if {"rhythm_correlation_input", "rhythm_correlation_target"} <= found.keys():
        sides = [f"rhythm_correlation_{side}" for side in ("input", "target")]
        balance = rhythm_balance(*(found[name].mean for name in sides))
        resampled = np.array([rhythm_balance(*row) for row in means[:, [names.index(name) for name in sides]]])
        found["rhythm_balance"] = _estimate(balance, resampled, found[sides[0]].pairs)
    return found


def find_worst(pairs: Sequence[Measured]) -> tuple[WorstPair, ...]:
    """Find the five pairs that are furthest from the criteria of a pair, as far as any of them lacks something."""
    found = [WorstPair(pair, _faults(pair.columns[MODEL])) for pair in pairs]
    ordered = sorted(found, key=lambda one: -one.shortfall)  # stable: of equal ones the first stays the first
    return tuple(one for one in ordered[:WORST] if one.shortfall > 0)


def as_document(evaluation: Evaluation, *, every_pair: bool = False) -> dict[str, Any]:
    """Make a document for programs: the model's metrics, the baselines', and the worst pairs; or every pair, too."""
    columns = {
        column: {name: _judged(name, found) for name, found in metrics.items()}
        for column, metrics in evaluation.columns.items()
    }
    document = {
        "metrics": columns.pop(MODEL),
        "baselines": columns,
        "worst": [_worst(one) for one in evaluation.worst],
        "pairs": len(evaluation.pairs),
    }
    return document | ({"every_pair": [asdict(pair) for pair in evaluation.pairs]} if every_pair else {})


def _estimate(mean: float, resampled: NDArray[np.float64], pairs: int) -> Estimate:
    known = resampled[~np.isnan(resampled)]
    if pairs < 2:
        return Estimate(mean, None, None, pairs)
    low, high = np.percentile(known, _INTERVAL)
    return Estimate(mean, float(low), float(high), pairs)


def _ordered(found: Mapping[str, object]) -> list[str]:
    """Names in the order of the criteria, those without one at the end."""
    return [name for name in CRITERIA if name in found] + sorted(found.keys() - CRITERIA.keys())


def _faults(metrics: Mapping[str, float]) -> tuple[Fault, ...]:
    faults = [
        Fault(name, metrics[name], criterion.shortfall(metrics[name]))
        for name, criterion in CRITERIA.items()
        if name in metrics and criterion.of_pair
    ]
    return tuple(sorted((one for one in faults if one.shortfall > 0), key=lambda one: -one.shortfall))


def _judged(name: str, found: Estimate) -> dict[str, Any]:
    return asdict(found) | {"verdict": verdict(name, found), "range": _range(CRITERIA.get(name))}


def _range(criterion: Criterion | None) -> dict[str, Any] | None:
    if criterion is None or criterion.range is None:
        return None
    seeds = None if criterion.seeds is None else asdict(criterion.seeds)
    return asdict(criterion.range) | {"origin": criterion.origin, "seeds": seeds}


def _worst(one: WorstPair) -> dict[str, Any]:
    return {
        "keys": one.measured.keys,
        "files": one.measured.files,
        "shortfall": one.shortfall,
        "faults": [asdict(fault) for fault in one.faults],
    }
