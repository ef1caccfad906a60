"""A run's curves: which of its numbers are drawn together, and how they are gathered from its events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from shards.page.charts import Point, curves, number
from training.criteria import COMPONENTS
from training.events import Event

MOST_POINTS = 300
"""Of a line; of more, means of equal stretches are drawn."""

Lines = dict[str, list[Point]]
"""Points over epochs by metric; `train/` and `val/` stand before those of whole epochs."""


@dataclass(frozen=True)
class Figure:
    """A chart with its caption: classes of the style sheet and text."""

    title: str
    notes: tuple[tuple[str, str], ...]
    svg: Markup


@dataclass(frozen=True)
class _Plan:
    """What a chart shows: for each metric a class of the style sheet and a word."""

    title: str
    lines: Mapping[str, tuple[str, str]]
    logarithmic: bool = False


def training_figures(events: Sequence[Event]) -> list[Figure]:
    """Draw a run's losses, its agent, how it copies, its levels and its gradients, as far as it has told of them."""
    lines = gather(events)
    losses = sorted(name.removeprefix("val/loss/") for name in lines if name.startswith("val/loss/"))
    losses = losses or sorted(name.removeprefix("train/loss/") for name in lines if name.startswith("train/loss/"))
    plans = [_loss("total", "Loss")] if "total" in losses else []
    plans += [*_OVERVIEW, *(_loss(name, _titled(name)) for name in losses if name != "total")]
    return [figure for plan in plans if (figure := _draw(plan, lines)) is not None]


def gather(events: Sequence[Event]) -> Lines:
    """Collect every number of a run over its epochs, in order; of what it told twice, after going back, the newest."""
    per_epoch = next((event["steps_per_epoch"] for event in reversed(events) if event["event"] == "start"), 1)
    found: dict[str, dict[float, float]] = {}
    for event in events:
        if event["event"] == "train":
            _take(found, "", event["step"] / max(per_epoch, 1), event)
        elif event["event"] == "epoch":
            _take(found, "", event["epoch"], event)  # their names begin with val/
            _take(found, "train/", event["epoch"], event.get("train") or {})
    return {name: sorted(line.items()) for name, line in found.items()}


def _take(found: dict[str, dict[float, float]], prefix: str, place: float, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        if "/" in name and isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(prefix + name, {})[float(place)] = float(value)


def _draw(plan: _Plan, lines: Lines) -> Figure | None:
    known = {name: how for name, how in plan.lines.items() if lines.get(name)}
    if not known:
        return None
    notes = tuple((kind, f"{word} {number(lines[name][-1][1], 3)}".strip()) for name, (kind, word) in known.items())
    label = f"{plan.title} over the epochs; at the end: " + ", ".join(text for _, text in notes)
    series = {kind: _thin(lines[name]) for name, (kind, _) in known.items()}
    return Figure(plan.title, notes, curves(series, "epochs", label, logarithmic=plan.logarithmic))


def _thin(line: Sequence[Point]) -> list[Point]:
    """Means of equal stretches where there are too many points."""
    if len(line) <= MOST_POINTS:
        return list(line)
    edges = [len(line) * place // MOST_POINTS for place in range(MOST_POINTS + 1)]
    return [_mean(line[first:last]) for first, last in pairwise(edges)]


def _mean(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _loss(name: str, title: str) -> _Plan:
    return _Plan(title, {f"train/loss/{name}": ("trained", "training"), f"val/loss/{name}": ("judged", "held out")})


def _titled(name: str) -> str:
    words = name.replace("_", " ").replace("rms", "RMS")
    return words[0].upper() + words[1:]


def _sides(title: str, pattern: str) -> _Plan:
    return _Plan(title, {pattern.format(side): (side, side) for side in ("input", "target")})


def _components() -> Iterable[tuple[str, tuple[str, str]]]:
    for name in COMPONENTS:
        words = name.replace("_", " ")
        yield f"val/agent/{name}_weight", (words, words)


_OVERVIEW = (
    _Plan("Complementarity of the masks", {"val/agent/complementarity": ("judged", "held out")}),
    _sides("Mean of the masks", "val/agent/{}_mask_mean"),
    _Plan("Novelty", {"val/agent/novelty": ("judged", "held out")}),
    _Plan("Weights of the components", dict(_components())),
    _sides("Envelope correlation with the sources", "val/likeness/{}"),
    _Plan("RMS over that of the sources", {"val/level/rms_ratio": ("judged", "held out")}),
    _Plan(
        "Gradient norm",
        {"gradient/norm_max": ("peak", "largest"), "gradient/norm": ("judged", "mean")},
        logarithmic=True,
    ),
    _Plan("Learning rate", {"optimizer/learning_rate": ("judged", "")}),
    _Plan(
        "Discriminator right about",
        {"train/gan/real_accuracy": ("target", "real"), "train/gan/fake_accuracy": ("output", "made")},
    ),
)
