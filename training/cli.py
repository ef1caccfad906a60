"""`python -m training`: launch, generate."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards import console
from shards.console import Json, SetOptions
from shards.errors import MisuseError

if TYPE_CHECKING:
    from training.generate import SourcePair

app = console.make_app("From shards to a model to new audio.")


@app.command()
def launch(
    shards: Annotated[str, typer.Option(help="The dataset's folder, or its URL, as s3://bucket/dataset.")],
    run_dir: Annotated[Path, typer.Option(help="Everything about the run goes here.")],
    config: Annotated[str | None, typer.Option(help="A configuration's name or file.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Ray Train workers: one a GPU, or CPU processes.")] = 1,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    resume: Annotated[str, typer.Option(metavar="auto|never|PATH", help="auto goes on where RUN_DIR stands.")] = "auto",
    set_: SetOptions = None,
    json: Json = False,
) -> None:
    """Train a model; the same command again goes on from the last checkpoint."""
    from shards.settings import find_config, load_settings
    from training.checkpoint import CHECKPOINTS, newest_checkpoint
    from training.config import CONFIGS, Config
    from training.launch import Request, launch_local, launch_ray
    from training.progress import ProgressView

    # As JSON, which is YAML, so that a path with ` #` in it stays what it is.
    given = [f"data.codec_weights={jsonlib.dumps(str(codec_weights))}"] if codec_weights is not None else []
    settings = load_settings(Config, find_config(CONFIGS, config) if config else None, given + (set_ or []))
    request = Request(shards, run_dir, settings, workers, resume)
    with ProgressView(run_dir):
        resumed = (launch_local if local else launch_ray)(request)
    newest = newest_checkpoint(run_dir)
    assert newest is not None, "a finished run has a checkpoint"
    progress = newest.progress
    checkpoints = run_dir / CHECKPOINTS
    if json:
        facts = {"best_loss": progress.best_loss, "best_epoch": progress.best_epoch, "checkpoints": str(checkpoints)}
        went_on = str(resumed.path) if resumed else None
        console.print_json({"epoch": progress.epoch, "step": progress.step, "resumed_from": went_on, **facts})
        return
    if resumed is not None and resumed.progress.epoch >= settings.train.epochs:
        console.out.print(f"already trained to epoch {progress.epoch}; more with --set train.epochs=N", soft_wrap=True)
    best = f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch}" if progress.best_loss else ""
    console.out.print(f"{checkpoints}: epoch {progress.epoch}, step {progress.step}, {best}", soft_wrap=True)


@app.command()
def generate(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint's folder, such as RUN_DIR/checkpoints/best.")],
    out: Annotated[Path, typer.Option(help="Where the pieces go, one folder each.")],
    shards: Annotated[str | None, typer.Option(help="Take the sources from this dataset, a folder or a URL.")] = None,
    split: Annotated[str, typer.Option(help="The split to take them from.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="How many pieces.")] = 5,
    input_file: Annotated[Path | None, typer.Option("--input", help="A recording for the rhythm.")] = None,
    target_file: Annotated[Path | None, typer.Option("--target", help="A recording for the harmony.")] = None,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    json: Json = False,
) -> None:
    """Make new audio, from pairs of a dataset or from two recordings."""
    from shards.codec import load_matching_codec
    from shards.dataset import open_dataset
    from shards.files import write_json
    from training.checkpoint import load_model, open_checkpoint
    from training.generate import generate as make_piece
    from training.generate import pair_from_audio, pairs_from_shards, write_piece

    from_files = input_file is not None and target_file is not None
    if from_files == (shards is not None) or (input_file is None) != (target_file is None):
        raise MisuseError("generate: give either --shards, or both --input and --target")
    opened = open_checkpoint(checkpoint)
    spec = opened.record.codec
    pairs: Iterable[SourcePair] = ()
    if shards is not None:
        pairs = pairs_from_shards(open_dataset(shards), opened, split, count)
    codec = load_matching_codec(spec, codec_weights, str(checkpoint))
    if input_file is not None and target_file is not None:
        quantized = spec.stage == "quantized"
        pairs, count = [pair_from_audio(codec, input_file, target_file, quantized=quantized)], 1
    model = load_model(checkpoint)
    pieces = []
    with console.progress("pieces") as bar:
        for number, pair in enumerate(bar.track(pairs, total=count, description="generating")):
            piece = make_piece(model, codec, pair)
            folder = out / f"piece_{number:03d}"
            write_piece(folder, piece, spec.sample_rate)
            pieces.append({"folder": str(folder), "name": piece.name, **piece.metrics})
    write_json(out / "metrics.json", {"checkpoint": str(checkpoint), "pieces": pieces})
    if json:
        console.print_json({"out": str(out), "pieces": pieces})
        return
    columns = ("piece", "RMS", "of input", "of target", "like input", "like target", "complementarity")
    rows = [
        (
            p["folder"],
            f"{p['output_rms']:.3f}",
            f"{p['rms_ratio_input']:.2f}x",
            f"{p['rms_ratio_target']:.2f}x",
            f"{p['waveform_correlation_input']:.2f}",
            f"{p['waveform_correlation_target']:.2f}",
            f"{p['complementarity']:.3f}" if "complementarity" in p else "-",
        )
        for p in pieces
    ]
    console.table(columns, rows)
