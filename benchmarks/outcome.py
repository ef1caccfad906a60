"""The outcome of trainings for people: the tables of `docs/results.md` between their marks, and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import save_svg
from shards.files import write_bytes
from training.criteria import CRITERIA, WANTED_COMPONENTS, judge
from training.evaluation.baselines import BASELINES as ALL_BASELINES
from training.events import Event

BEGIN, END = "<!-- made by `make results`: begin -->", "<!-- end -->"
BASELINES = {name: ALL_BASELINES[name] for name in ("mix", "fixed_pattern", "random_masks")}
METRICS = (
    "onset_f1",
    "rhythm_correlation_input",
    "chroma_similarity_target",
    "envelope_correlation_input",
    "envelope_correlation_target",
    "waveform_correlation_input",
    "waveform_correlation_target",
    "rms_ratio",
    "complementarity",
    "input_mask_mean",
    "target_mask_mean",
    "dominance_correlation",
    "content_share",
    "novelty",
    *(f"{name}_weight" for name in WANTED_COMPONENTS),
    "component_entropy",
)
CURVES = {
    "onsets of the input (loss)": "val/loss/onsets",
    "pitch classes of the target (loss)": "val/loss/chroma",
    "masks follow the louder source": "val/agent/dominance_correlation",
    "complementarity": "val/agent/complementarity",
}


@dataclass(frozen=True)
class Outcome:
    """A training's evaluation, as `training evaluate --json` gives it, and its events."""

    evaluation: Mapping[str, Any]
    events: Sequence[Event]

    def value(self, metric: str, column: str | None = None) -> float | None:
        """A mean over the held-out pairs, of the model or of a baseline; None where it has none."""
        where = self.evaluation["metrics"] if column is None else self.evaluation["baselines"][column]
        return float(where[metric]["mean"]) if metric in where else None

    @property
    def minutes(self) -> float:
        """How long the training took, from its first event to its last."""
        return float(self.events[-1]["time"] - self.events[0]["time"]) / 60

    @property
    def norms(self) -> list[float]:
        """Gradient norms after the first epoch, each the largest one since the line before."""
        return [float(event["gradient/norm_max"]) for event in self._steps if event["epoch"] > 0]

    @property
    def skipped(self) -> int:
        """Steps whose loss or gradient was no number."""
        return sum(event["health/skipped"] > 0 for event in self._steps)

    @property
    def _steps(self) -> list[Event]:
        return [event for event in self.events if event["event"] == "train"]


def write_tables(
    path: Path,
    groups: Mapping[str, Sequence[Outcome]],
    curve: Mapping[str, Outcome],
    sounds: Sequence[Mapping[str, str]],
) -> None:
    """Put the tables between their marks into a document, in place of what stands there."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = "\n\n".join(
        "\n".join(part) for part in (_main(groups), _trainings(groups), _trade_off(curve), _listen(sounds))
    )
    write_bytes(path, f"{before}{BEGIN}\n\n{parts}\n\n{END}{after}".encode())


def _main(groups: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    """One row a metric: each group's mean over its seeds, with the lowest and highest, and the baselines."""
    baseline = next(iter(groups.values()))[0]
    yield _row("held-out pairs", "wanted", *groups, *BASELINES.values())
    yield _row(*["---"] * (2 + len(groups) + len(BASELINES)))
    for metric in METRICS:
        criterion = CRITERIA[metric]
        cells = [_cell(metric, [outcome.value(metric) for outcome in outcomes]) for outcomes in groups.values()]
        cells += [_cell(metric, [baseline.value(metric, column)]) for column in BASELINES]
        yield _row(criterion.title, criterion.range_text or "", *cells)


def _trainings(groups: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    yield _row("training", "minutes", "steps skipped", "largest gradient norm after the first epoch", "usual one")
    yield _row(*["---"] * 5)
    for name, outcomes in groups.items():
        minutes = ", ".join(f"{outcome.minutes:.0f}" for outcome in outcomes)
        largest, usual = (", ".join(f"{of(outcome.norms):.1f}" for outcome in outcomes) for of in (max, median))
        yield _row(name, minutes, sum(outcome.skipped for outcome in outcomes), largest, usual)


def _trade_off(curve: Mapping[str, Outcome]) -> Iterator[str]:
    shown = METRICS[:8]
    yield _row("`envelope_range`", *(CRITERIA[metric].title for metric in shown))
    yield _row(*["---"] * (1 + len(shown)))
    for most, outcome in curve.items():
        yield _row(most, *(_cell(metric, [outcome.value(metric)]) for metric in shown))


def _listen(sounds: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield _row("to listen to", *sounds[0])
    yield _row(*["---"] * (1 + len(sounds[0])))
    for number, row in enumerate(sounds, 1):
        yield _row(f"pair {number}", *(f"[{title}]({file})" for title, file in row.items()))


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(metric: str, values: Sequence[float | None]) -> str:
    """Write the mean of what there is, its bounds where there are several, and bold where it is a success."""
    found = [value for value in values if value is not None]
    if not found:
        return ""
    criterion, middle = CRITERIA[metric], mean(found)
    text = criterion.number(middle)
    if len(found) > 1:
        text += f" ({criterion.number(min(found))} to {criterion.number(max(found))})"
    return f"**{text}**" if judge(metric, middle) == "success" else text


def _likeness(outcome: Outcome, column: str | None = None) -> float:
    """How much the loudness follows that of the sources: the larger one of both correlations."""
    sides = (outcome.value(f"envelope_correlation_{side}", column) for side in ("input", "target"))
    return max(value for value in sides if value is not None)


def draw(path: Path, groups: Mapping[str, Sequence[Outcome]], curve: Mapping[str, Outcome]) -> None:
    """Draw how the held-out numbers run over the epochs, and what less likeness costs."""
    figure = Figure(figsize=(9, 10), layout="constrained")
    axes = list(figure.subplots(3, 2).flat)
    for axis, (title, key) in zip(axes, CURVES.items(), strict=False):
        _draw_epochs(axis, groups, key)
        axis.set(title=title, xlabel="epoch")
    for axis in (axes[0], axes[3]):  # the agents have not all curves in one
        if axis.lines:
            axis.legend()
    for axis, metric in zip(axes[4:], ("onset_f1", "chroma_similarity_target"), strict=True):
        _draw_likeness(axis, groups, curve, metric)
        axis.set(title=CRITERIA[metric].title, xlabel="envelope correlation, the larger one of both")
    axes[5].legend(loc="lower left", ncols=2, fontsize="small")
    save_svg(figure, path)


def _draw_epochs(axis: Axes, groups: Mapping[str, Sequence[Outcome]], key: str) -> None:
    for place, (name, outcomes) in enumerate(groups.items()):
        for number, outcome in enumerate(outcomes):
            points = [(e["epoch"], e[key]) for e in outcome.events if e["event"] == "epoch" and key in e]
            if points:
                axis.plot(*zip(*points, strict=True), color=f"C{place}", label=name if number == 0 else None)


def _draw_likeness(
    axis: Axes, groups: Mapping[str, Sequence[Outcome]], curve: Mapping[str, Outcome], metric: str
) -> None:
    """Place every run and baseline by how much it copies loudness, and join the runs of the trade-off."""

    def place_of(outcome: Outcome, column: str | None = None) -> tuple[float, float]:
        value = outcome.value(metric, column)  # None where a library of music is missing
        return _likeness(outcome, column), math.nan if value is None else value

    axis.plot(*zip(*sorted(map(place_of, curve.values())), strict=True), "o-", color="C0")
    for number, (name, outcomes) in enumerate(groups.items()):
        axis.plot(*zip(*map(place_of, outcomes), strict=True), "o", color=f"C{number}", label=name)
    reference = next(iter(groups.values()))[0]
    for number, (column, title) in enumerate(BASELINES.items(), len(groups)):
        axis.plot(*place_of(reference, column), "x", color=f"C{number}", label=title)
    wanted = CRITERIA["envelope_correlation_input"].range
    assert wanted is not None
    assert wanted.high is not None
    axis.axvline(wanted.high, color="grey", linewidth=0.8)
