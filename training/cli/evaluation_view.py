"""What a person sees of an evaluation: metrics with their verdicts, baselines beside them, and the worst pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from rich.text import Text

from shards import console
from training.criteria import CRITERIA, Criterion

if TYPE_CHECKING:
    from training.evaluation import Estimate, Evaluation

Column = Callable[[str], object]
"""From a metric's name to a cell."""
COLOURS = {None: "", "success": "green", "short": "bold red"}
WIDE = 150
"""Characters from which all columns fit beside each other; with fewer, the baselines get a table of their own."""
_PLAIN = Criterion("", digits=3)
"""How a metric is written that has no criterion."""


def show_evaluation(found: Evaluation, title: str) -> None:
    """Print the tables."""
    metric: Mapping[str, Column] = {"metric": _title}
    judged: Mapping[str, Column] = {
        "model": lambda name: _interval(name, found.model[name]),
        "": lambda name: _verdict(name, found.model[name]),
        "wanted": _wanted,
    }
    beside = {heading: _column(found.columns[baseline]) for baseline, heading in _baselines().items()}
    if console.out.width >= WIDE:
        _table(found.model, {**metric, **judged, **beside}, title)
    else:
        _table(found.model, {**metric, **judged}, title)
        _table(found.model, {**metric, "model": _column(found.model), **beside})
    if found.worst:
        rows = [
            (
                one.measured.keys["input"][:12],
                " + ".join(one.measured.files.values()),
                ", ".join(f"{_title(fault.metric)} {_text(fault.metric, fault.value)}" for fault in one.faults[:3]),
            )
            for one in found.worst
        ]
        console.table(("worst pairs", "of", "what they lack most"), rows)


def _table(metrics: Iterable[str], columns: Mapping[str, Column], title: str | None = None) -> None:
    console.table(tuple(columns), [[cell(name) for cell in columns.values()] for name in metrics], title)


def _baselines() -> Mapping[str, str]:
    from training.evaluation import BASELINES  # which needs torch

    return BASELINES


def _column(estimates: Mapping[str, Estimate]) -> Column:
    def cell(name: str) -> Text:
        if name not in estimates:
            return Text("-", "dim")
        value = estimates[name].mean
        return Text(_text(name, value), COLOURS[_criterion(name).judge(value)])

    return cell


def _verdict(name: str, estimate: Estimate) -> Text:
    verdict = _criterion(name).judge(estimate.mean)
    return Text(verdict or "", COLOURS[verdict])


def _wanted(name: str) -> str:
    criterion = _criterion(name)
    beside = f" (seeds: {criterion.seeds_text})" if criterion.origin == "ours" and criterion.seeds_text else ""
    return (criterion.range_text or "") + beside


def _interval(name: str, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _text(name, estimate.mean)
    number = _criterion(name).number
    return f"{_text(name, estimate.mean)} ({number(estimate.low)} to {number(estimate.high)})"


def _title(name: str) -> str:
    return _criterion(name).title or name.replace("_", " ")


def _text(name: str, value: float) -> str:
    return _criterion(name).text(value)


def _criterion(name: str) -> Criterion:
    return CRITERIA.get(name, _PLAIN)
