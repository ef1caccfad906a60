"""`launch`: a training run, begun or gone on with."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shards import console
from shards.console import Json, SetOptions
from shards.errors import MisuseError
from training.cli.loading import show_loading
from training.cli.profile import show_account

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.progress import Progress


def launch(
    shards: Annotated[str, typer.Option(help="The dataset's folder, or its URL, as s3://bucket/dataset.")],
    run_dir: Annotated[Path, typer.Option(help="Everything about the run goes here.")],
    config: Annotated[str | None, typer.Option(help="A configuration's name or file.")] = None,
    workers: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="Ray Train workers: one a GPU, or CPU processes.")
    ] = "1",
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, without Ray, or as one of torchrun's.")
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "gpu"] | None, typer.Option(help="auto unless set: GPUs where there are any.")
    ] = None,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    resume: Annotated[str, typer.Option(metavar="auto|never|PATH", help="auto goes on where RUN_DIR stands.")] = "auto",
    init_from: Annotated[
        Path | None, typer.Option(help="Begin a new run with the weights of this checkpoint, as far as they fit.")
    ] = None,
    set_: SetOptions = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile some steps into RUN_DIR/profile, and show where their time goes.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model; the same command again goes on from the last checkpoint."""
    from shards.settings import find_config, load_settings
    from training.checkpoint import CHECKPOINTS, newest_checkpoint
    from training.config import CONFIGS, Config
    from training.health import red_rules, require_well
    from training.launch import Request, launch_local, launch_ray, preview_initialisation
    from training.profiling import PROFILE, read_account
    from training.progress_view import ProgressView
    from training.runtime import local_rank

    # As JSON, which is YAML, so that a path with ` #` in it stays what it is.
    given = [f"data.codec_weights={jsonlib.dumps(str(codec_weights))}"] if codec_weights is not None else []
    given += [f"train.device={device}"] if device is not None else []
    settings = load_settings(Config, find_config(CONFIGS, config) if config else None, given + (set_ or []))
    request = Request(shards, run_dir, settings, _worker_count(workers), resume, init_from, profile)
    if local and local_rank() > 0:
        launch_local(request)  # rank 0 speaks for all
        return
    show_loading(init_from, preview_initialisation(request))
    with ProgressView(run_dir):
        resumed = (launch_local if local else launch_ray)(request)
    newest = newest_checkpoint(run_dir)
    assert newest is not None, "a finished run has a checkpoint"
    progress, red = newest.progress, red_rules(run_dir)
    account = read_account(run_dir) if profile else None
    facts: dict[str, object] = {"epoch": progress.epoch, "step": progress.step, "red": [one.rule for one in red]}
    if json:
        facts |= {"best_loss": progress.best_loss, "best_epoch": progress.best_epoch}
        facts |= {"checkpoints": str(run_dir / CHECKPOINTS), "resumed_from": str(resumed.path) if resumed else None}
        facts |= {"profile": str(run_dir / PROFILE)} if account else {}
        console.print_json(facts)
    else:
        _say_result(run_dir / CHECKPOINTS, progress, resumed, settings.train.epochs)
        if account is not None:
            show_account(account, run_dir / PROFILE)
        elif profile:
            _say("--profile: the run ended before a step was measured; train longer")
        if red:
            names = ", ".join(one.rule for one in red)
            _say(f"health: red at the end: {names}; see `python -m training health {run_dir}`")
    require_well(run_dir, red)


def _say_result(checkpoints: Path, progress: Progress, resumed: Checkpoint | None, epochs: int) -> None:
    if resumed is not None and resumed.progress.epoch >= epochs:
        _say(f"already trained to epoch {progress.epoch}; more with --set train.epochs=N")
    best = f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch}" if progress.best_loss else ""
    _say(f"{checkpoints}: epoch {progress.epoch}, step {progress.step}, {best}")


def _say(line: str) -> None:
    console.out.print(console.escape(line), soft_wrap=True)


def _worker_count(text: str) -> int | tuple[int, int]:
    """Read `N` or `MIN:MAX`. Raises `MisuseError`."""
    numbers = [int(part) if part.isdigit() else 0 for part in text.split(":")]
    if len(numbers) > 2 or min(numbers) < 1 or numbers[0] > numbers[-1]:
        raise MisuseError(f"--workers {text}: give a number, as 4, or the fewest and the most, as 2:8")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
