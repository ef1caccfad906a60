"""What trainings come to: both agents and the seeds' weights, on the same pairs, with one budget, judged alike.

Composes 200 pairs of drums and piano of 8 s, trains every run, measures it on the held-out pairs beside the baselines,
and writes the outcome's part of `docs/results.md` with its figure and its sounds. Everything lies in `--folder`: what
is there is kept, and a training that was cut goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.commands import run, synthesized_dataset
from benchmarks.outcome import Outcome, draw, write_tables
from shards.settings import load_settings
from training.config import Config
from training.events import METRICS, read_events

DOCS = Path("docs")
PAIRS, SECONDS = 200, 8
LAYERS = 2
"""Transformer layers a stage, of the presets' six: what two cores train within the budget."""
SOUNDS = 2
"""Held-out pairs that can be listened to."""


@dataclass(frozen=True)
class Run:
    """A training: a preset, a seed, and what is set apart from that."""

    name: str
    preset: str
    seed: int = 42
    sets: tuple[str, ...] = ()


MUSICAL = [Run(f"musical-{seed}", "musical", seed) for seed in (1, 2, 3)]
COMPOSING = [Run(f"composing-{seed}", "composing", seed, ("optimizer.learning_rate=1e-3",)) for seed in (1, 2, 3)]
SEEDS = [Run("seeds-weights", "masking", 1, ("optimizer.learning_rate=3e-4", "data.shuffle_targets=false"))]
TRADE_OFF = [Run(f"envelope-{most}", "musical", 1, (f"losses.envelope_range=[0.25, {most}]",)) for most in (0.4, 0.75)]
RUNS = [MUSICAL[0], COMPOSING[0], *SEEDS, *MUSICAL[1:], *COMPOSING[1:], *TRADE_OFF]


def main() -> None:
    options = _options()
    folder: Path = options.folder.resolve()
    dataset = synthesized_dataset(folder, PAIRS, SECONDS)
    outcomes = {}
    for one in RUNS:
        if options.runs is None or one.name in options.runs:
            _train(folder / one.name, dataset, one, options.epochs)
            outcomes[one.name] = _outcome(folder / one.name, dataset)
    if len(outcomes) < len(RUNS):
        return
    groups = {
        "musical": [outcomes[one.name] for one in MUSICAL],
        "composing": [outcomes[one.name] for one in COMPOSING],
        "seeds' weights": [outcomes[one.name] for one in SEEDS],
    }
    curve = {_envelope_range(folder / one.name): outcomes[one.name] for one in (TRADE_OFF[0], MUSICAL[0], TRADE_OFF[1])}
    sounds = _sounds(folder, dataset, options.docs / "results")
    write_tables(options.docs / "results.md", groups, curve, sounds)
    draw(options.docs / "results" / "outcome.svg", groups, curve)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="where data and runs lie")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of results.md")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", nargs="*", choices=[one.name for one in RUNS], help="only these, and no tables")
    return parser.parse_args()


def _train(run_dir: Path, dataset: Path, one: Run, epochs: int) -> None:
    sets = (
        f"model.cascade.layers={LAYERS}",
        f"model.compositional.layers={LAYERS}",
        "model.compositional.width=256",
        "data.batch_size=4",
        f"train.epochs={epochs}",
        f"train.seed={one.seed}",
        "train.patience=null",
        "train.log_steps=5",
        "tracking.mlflow=off",
        *one.sets,
    )
    given = [part for override in sets for part in ("--set", override)]
    print(one.name, flush=True)
    run("training", "launch", "--local", "--shards", dataset, "--run-dir", run_dir, "--config", one.preset, *given)


def _outcome(run_dir: Path, dataset: Path) -> Outcome:
    """Measure a run's last checkpoint; what was measured is kept."""
    measured = run_dir / "evaluation.json"
    if not measured.is_file():
        where = ["--checkpoint", run_dir / "checkpoints" / "last", "--shards", dataset]
        run("training", "evaluate", *where, "--out", measured, "--json")
    document: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
    return Outcome(document, [event for event, _ in read_events(run_dir / METRICS)])


def _envelope_range(run_dir: Path) -> str:
    low, high = load_settings(Config, run_dir / "config.yaml").losses.envelope_range
    return f"[{low}, {high}]"


def _sounds(folder: Path, dataset: Path, out: Path) -> list[dict[str, str]]:
    """Make the first held-out pairs with both agents; gives, a pair, the files of its sounds by title."""
    rows: list[dict[str, str]] = [{} for _ in range(SOUNDS)]
    out.mkdir(parents=True, exist_ok=True)
    for one in (MUSICAL[0], COMPOSING[0]):
        made = folder / one.name / "sounds"
        checkpoint = folder / one.name / "checkpoints" / "last"
        run("training", "generate", "--checkpoint", checkpoint, "--shards", dataset, "--out", made, "--count", SOUNDS)
        pieces = json.loads((made / "metrics.json").read_text(encoding="utf-8"))["pieces"]
        for place, (row, piece) in enumerate(zip(rows, pieces, strict=True), 1):
            for title, file in {"input": "input.wav", "target": "target.wav", one.preset: "output.wav"}.items():
                sound = out / f"{place}-{title}.mp3"
                samples, rate = soundfile.read(Path(piece["folder"]) / file, dtype="float32")
                soundfile.write(sound, samples, rate)
                row[title] = f"results/{sound.name}"
    return rows


if __name__ == "__main__":
    main()
