"""`generate`: new audio from a trained model, and a page to listen to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shards import console
from shards.console import Json
from shards.errors import MisuseError

if TYPE_CHECKING:
    from shards.codec import Codec
    from training.checkpoint import Checkpoint
    from training.sources import SourcePair

PAGE = "listen.html"


def generate(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint's folder, such as RUN_DIR/checkpoints/best.")],
    out: Annotated[Path, typer.Option(help="Where the pieces go, one folder each, and the page listen.html.")],
    shards: Annotated[str | None, typer.Option(help="Take the sources from this dataset, a folder or a URL.")] = None,
    split: Annotated[str, typer.Option(help="The split to take them from.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="How many pieces.")] = 5,
    shuffle_targets: Annotated[bool, typer.Option(help="Each input gets another pair's target.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides which one, with --shuffle-targets.")] = 42,
    input_file: Annotated[Path | None, typer.Option("--input", help="A recording for the rhythm.")] = None,
    target_file: Annotated[Path | None, typer.Option("--target", help="A recording for the harmony.")] = None,
    length: Annotated[
        Literal["shorter", "longer", "input", "target"],
        typer.Option(help="Which of two recordings decides how long the piece is."),
    ] = "shorter",
    fill: Annotated[
        Literal["repeat", "silence"], typer.Option(help="What follows a recording that is too short for that.")
    ] = "repeat",
    notch: Annotated[bool, typer.Option(help="Attenuate what rings in the output around 2, 4 and 6 kHz.")] = False,
    sound: Annotated[Literal["wav", "flac"], typer.Option("--format", help="Of the audio files; 24 bits.")] = "wav",
    batch_size: Annotated[int, typer.Option(min=1, help="Windows that are made at a time.")] = 4,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="auto: a GPU where there is one.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Make pieces anew that are already there.")] = False,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    json: Json = False,
) -> None:
    """Make new audio, from pairs of a dataset or from two recordings of any length.

    Pieces that an earlier call has finished, of the same checkpoint, sources and settings, are kept.
    """
    from shards.codec import load_matching_codec
    from shards.dataset import open_dataset
    from shards.files import write_json
    from training.checkpoint import fingerprint, open_checkpoint
    from training.page.listening import write_listening_page
    from training.runtime import local_runtime
    from training.sources import pair_from_audio, pairs_from_shards

    from_files = input_file is not None and target_file is not None
    if from_files == (shards is not None) or (input_file is None) != (target_file is None):
        raise MisuseError("generate: give either --shards, or both --input and --target")
    if shuffle_targets and shards is None:
        raise MisuseError("generate: --shuffle-targets is for --shards; leave it out with --input and --target")
    opened = open_checkpoint(checkpoint)
    pairs: Iterable[SourcePair] = ()
    if shards is not None:
        shuffled = seed if shuffle_targets else None
        pairs = pairs_from_shards(open_dataset(shards), opened, split, count, shuffled)
    with local_runtime(device) as runtime:
        codec = load_matching_codec(opened.record.codec, codec_weights, str(checkpoint)).to(runtime.device)
        if input_file is not None and target_file is not None:
            count, quantized = 1, opened.record.codec.stage == "quantized"
            # fmt: off
            pairs = [pair_from_audio(codec, input_file, target_file, opened.record.frames, length=length, fill=fill,
                                     quantized=quantized, device=runtime.device, batch_size=batch_size)]
            # fmt: on
        recipe = {"checkpoint": fingerprint(opened), "notch": notch, "format": sound}
        pieces = _make(opened, codec, runtime.device, pairs, count, recipe, out, batch_size, overwrite=overwrite)
    write_json(out / "metrics.json", {"checkpoint": str(checkpoint), "pieces": pieces})
    page = write_listening_page(out / PAGE, [Path(piece["folder"]) for piece in pieces], opened)
    if json:
        console.print_json({"out": str(out), "page": str(page), "pieces": pieces})
    else:
        _show(pieces, page)


def _make(
    checkpoint: Checkpoint,
    codec: Codec,
    device: Any,
    pairs: Iterable[SourcePair],
    count: int,
    settings: dict[str, Any],
    out: Path,
    batch_size: int,
    *,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Make every piece that is not there yet; gives the folder, name and metrics of each."""
    from shards.heap import keep_freed_memory
    from training.checkpoint import load_model
    from training.generate import generate as make_piece
    from training.measures.music import load_ears
    from training.pieces import finished_metrics, write_piece

    if device.type == "cpu":
        keep_freed_memory()
    model, ears = load_model(checkpoint.path).to(device), load_ears()
    for note in ears.notes:
        console.err.print(console.escape(note), soft_wrap=True)
    pieces = []
    with console.progress("pieces") as bar:
        for number, pair in enumerate(bar.track(pairs, total=count, description="generating")):
            folder, recipe = out / f"piece_{number:03d}", settings | {"origin": dict(pair.origin)}
            metrics = None if overwrite else finished_metrics(folder, recipe)
            if metrics is None:
                piece = make_piece(model, codec, pair, None, ears, batch_size=batch_size, notch=settings["notch"])
                write_piece(folder, piece, codec.spec.sample_rate, recipe, settings["format"])
                metrics = {"name": piece.name, **piece.metrics}
            _tell_silence(pair, metrics)
            pieces.append({"folder": str(folder), **metrics})
    return pieces


def _tell_silence(pair: SourcePair, metrics: dict[str, Any]) -> None:
    from training.measures.music import SILENCE

    for side in ("input", "target"):
        if metrics[f"{side}_rms"] < SILENCE:
            named = console.escape(str(pair.labels.get(side, pair.name)))
            console.err.print(f"[yellow]silent:[/] {named}: the {side} can't be heard", soft_wrap=True)


def _show(pieces: Sequence[dict[str, Any]], page: Path) -> None:
    columns = ("piece", "RMS", "of input", "of target", "like input", "like target", "complementarity")
    rows = [
        (
            p["folder"],
            f"{p['output_rms']:.3f}",
            f"{p['output_rms'] / max(p['input_rms'], 1e-9):.2f}x",
            f"{p['output_rms'] / max(p['target_rms'], 1e-9):.2f}x",
            f"{p['waveform_correlation_input']:.2f}",
            f"{p['waveform_correlation_target']:.2f}",
            f"{p['complementarity']:.3f}" if "complementarity" in p else "-",
        )
        for p in pieces
    ]
    console.table(columns, rows)
    console.out.print(f"listen: {console.escape(str(page))}", soft_wrap=True)
