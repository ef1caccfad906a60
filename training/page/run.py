"""The page of a training: what it sounds like, its curves, its health, and what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shards.errors import CascadenceError
from shards.files import is_complete, write_bytes
from shards.page.document import set_page
from shards.settings import load_settings
from training.about import shown_config
from training.checkpoint import CHECKPOINTS, Checkpoint, open_checkpoint
from training.config import Config
from training.events import METRICS, Event, read_events
from training.health import Finding, examine, read_run
from training.page import pictures
from training.page.curves import Figure, training_figures
from training.page.views import PieceView, describe_windows, view_piece
from training.pieces import read_piece
from training.preview import SAMPLES, SOURCES

WARNINGS = 8
"""Of a run's warnings, the newest that are shown."""


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint in the page's table; `loss` on the held-out pairs, None where they were not judged for it."""

    name: str
    epoch: int
    step: int
    loss: float | None
    bytes: int


@dataclass(frozen=True)
class RunView:
    """A training as the page shows it."""

    name: str
    state: str
    epoch: int
    epochs: int | None
    tiles: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    checkpoints: tuple[CheckpointRow, ...]
    config: str | None
    pieces: tuple[PieceView, ...]
    missing: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def red(self) -> list[str]:
        """The rules of health that are red."""
        return [finding.rule for finding in self.findings if finding.verdict == "red"]


def write_run_page(page: Path, run_dir: Path) -> RunView:
    """Write the page of a training, ended or not; gives what it shows.

    Raises `MisuseError` where there is no run, and `CascadenceError` where its metrics are damaged.
    """
    run = view_run(run_dir)
    text = set_page(
        "training.page",
        title=run.name,
        eyebrow="Training report",
        pieces=run.pieces,
        left_out=0,
        facts=run.facts,
        run=run,
        frequency_marks=pictures.frequency_marks(),
        time_axis=pictures.time_axis,
    )
    write_bytes(page, text.encode())
    return run


def view_run(run_dir: Path) -> RunView:
    """Gather what a run has told and saved so far; see `write_run_page` for what it raises."""
    history = read_run(run_dir)
    events = [event for event, _ in read_events(run_dir / METRICS)]
    start = next((event for event in reversed(events) if event["event"] == "start"), {})
    checkpoints = _open_checkpoints(run_dir)
    pieces, missing = _read_samples(run_dir / SAMPLES)
    return RunView(
        name=run_dir.resolve().name,
        state=_state(events),
        epoch=history.epoch,
        epochs=start.get("epochs"),
        tiles=tuple(_tiles(events, start, checkpoints)),
        figures=tuple(training_figures(events)),
        findings=tuple(examine(history)),
        warnings=tuple(str(event["text"]) for event in events if event["event"] == "warning")[-WARNINGS:],
        checkpoints=tuple(map(_row, checkpoints)),
        config=_config(run_dir / "config.yaml"),
        pieces=tuple(pieces),
        missing=tuple(missing),
        facts=tuple(_facts(start, checkpoints)),
    )


def _state(events: Sequence[Event]) -> str:
    match events[-1]["event"] if events else None:
        case "end":
            return "ended"
        case "failed":
            return "gave up"
        case _:
            return "not ended: it goes on, or was stopped"


def _open_checkpoints(run_dir: Path) -> list[Checkpoint]:
    """Open the checkpoints that are whole, in the order of their training."""
    folder, found = run_dir / CHECKPOINTS, []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_complete(path) and not path.name.startswith("."):
            try:
                found.append(open_checkpoint(path))
            except CascadenceError:
                continue  # one that is being replaced while we look, or is damaged: the others tell
    return sorted(found, key=lambda checkpoint: checkpoint.progress.order)


def _row(checkpoint: Checkpoint) -> CheckpointRow:
    progress = checkpoint.progress
    size = sum(file.stat().st_size for file in checkpoint.path.iterdir() if file.is_file())
    loss = checkpoint.record.metrics.get("loss/total")
    return CheckpointRow(checkpoint.path.name, progress.epoch, progress.step, loss, size)


def _read_samples(folder: Path) -> tuple[list[PieceView], list[str]]:
    """Read the newest pieces of a run; gives also what is wrong with those that can't be shown."""
    epochs = [path for path in sorted(folder.glob("epoch_*")) if is_complete(path)]
    if not epochs:
        return [], []
    pieces, missing = [], []
    for pair in sorted(path for path in epochs[-1].iterdir() if path.is_dir()):
        try:
            saved = read_piece(pair, folder / SOURCES / pair.name)
            pieces.append(view_piece(saved, f"epoch {int(epochs[-1].name.removeprefix('epoch_'))}"))
        except CascadenceError as error:
            missing.append(str(error).replace(f"{folder}/", ""))
    return pieces, missing


def _config(path: Path) -> str | None:
    return shown_config(load_settings(Config, path)) if path.is_file() else None


def _tiles(events: Sequence[Event], start: Event, checkpoints: Sequence[Checkpoint]) -> list[tuple[str, str]]:
    newest = events[-1] if events else {"epoch": 0, "step": 0}
    tiles = [("Epoch", f"{newest['epoch']} of {start['epochs']}" if "epochs" in start else str(newest["epoch"]))]
    tiles.append(("Step", f"{newest['step']:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")))
    if checkpoints and (best := checkpoints[-1].progress).best_loss is not None:
        tiles.append(("Best loss", f"{best.best_loss:.4g}"))
    if "parameters" in start:
        tiles.append(("Parameters", f"{start['parameters'] / 1e6:.1f} M"))
    speeds = [event["speed/pairs_per_second"] for event in events if event.get("speed/pairs_per_second")]
    if speeds:
        tiles.append(("Pairs a second", f"{speeds[-1]:.3g}"))
    return tiles


def _facts(start: Event, checkpoints: Sequence[Checkpoint]) -> list[tuple[str, str]]:
    """Say what the run knows of its data and of itself."""
    facts = []
    if "dataset" in start:
        pairs = ", ".join(f"{count} {split}" for split, count in sorted(start["pairs"].items()))
        facts.append(("Dataset", f"{start['dataset']}, pairs: {pairs}"))
    if checkpoints:
        record: Any = checkpoints[-1].record
        if record.dataset_fingerprint is not None:
            facts.append(("Fingerprint", record.dataset_fingerprint))
        facts.append(("Codec", describe_windows(record)))
    if "world_size" in start:
        facts.append(("Workers", f"{start['world_size']}, {start['batch_size']} pairs each a step"))
    if "time" in start:
        begun = datetime.fromtimestamp(start["time"], UTC)
        facts.append(("Last begun", begun.strftime("%Y-%m-%d %H:%M UTC")))
    return facts
