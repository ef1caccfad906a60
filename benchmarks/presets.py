"""Every preset for fifty epochs on a small set: whether it stays sound, and how its numbers run.

Twenty pairs of drums and piano of 2 s to train on and four held out, `mdct`, the presets as they are but for the batch,
which is what fits so few pairs. Writes `docs/results/presets.svg` and prints a table; no gradient may be wild and no
step may be skipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.commands import run, synthesized_dataset
from benchmarks.figures import save_svg
from training.events import METRICS, Event, read_events
from training.health import History, examine

PRESETS = ("masking", "push_complementarity", "compositional")
CURVES = {
    "validation loss": "val/loss/total",
    "complementarity": "val/agent/complementarity",
    "novelty": "val/agent/novelty",
    "envelope correlation with the input": "val/likeness/input",
    "envelope correlation with the target": "val/likeness/target",
}
PAIRS, SECONDS = 24, 2


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cascadence-bench-")))
        dataset = synthesized_dataset(folder, PAIRS, SECONDS)
        runs = {preset: train(folder / preset, dataset, preset, options.epochs) for preset in options.presets}
    rows = [{"preset": preset, **summary(events)} for preset, events in runs.items()]
    if options.figure is not None:
        draw(options.figure, runs)
    print(json.dumps(rows, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--folder", type=Path, default=None, help="where the runs lie; unfinished ones go on")
    parser.add_argument("--figure", type=Path, default=None, help="an SVG of the curves")
    return parser.parse_args()


def train(run_dir: Path, dataset: Path, preset: str, epochs: int) -> list[Event]:
    """Train a preset; its events."""
    sets = (f"train.epochs={epochs}", "train.patience=null", "data.batch_size=4", "tracking.mlflow=false")
    given = [part for override in sets for part in ("--set", override)]
    launch = ["training", "launch", "--local", "--shards", dataset, "--run-dir", run_dir, "--config", preset, *given]
    run(*launch)
    return [event for event, _ in read_events(run_dir / METRICS)]


def summary(events: Sequence[Event]) -> dict[str, Any]:
    """Where a run ended, how large its gradients were, and which rules are red."""
    epochs = [event for event in events if event["event"] == "epoch"]
    steps = [event for event in events if event["event"] == "train"]
    return {
        "epochs": len(epochs),
        **{name: epochs[-1].get(key) for name, key in CURVES.items()},
        "largest gradient norm": max(event["gradient/norm_max"] for event in steps),
        "skipped": sum(event["health/skipped"] > 0 for event in steps),
        "red": [finding.rule for finding in examine(History.of(events)) if finding.verdict == "red"],
    }


def draw(path: Path, runs: Mapping[str, Sequence[Event]]) -> None:
    """Draw the curves of all runs, and the gradients' norms."""
    figure = Figure(figsize=(9, 10), layout="constrained")
    axes = figure.subplots(3, 2).flat
    for axis, (title, key) in zip(axes, CURVES.items(), strict=False):
        for preset, events in runs.items():
            points = [(e["epoch"], e[key]) for e in events if e["event"] == "epoch" and key in e]
            if points:
                axis.plot(*zip(*points, strict=True), label=preset)
        axis.set_title(title)
    last = figure.axes[-1]
    for preset, events in runs.items():
        steps = [(e["step"], e["gradient/norm_max"]) for e in events if e["event"] == "train"]
        last.semilogy(*zip(*steps, strict=True), label=preset)
    last.set_title("gradient norm")
    last.legend()
    save_svg(figure, path)


if __name__ == "__main__":
    main()
