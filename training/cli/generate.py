"""`generate`: new audio from a trained model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards import console
from shards.console import Json
from shards.errors import MisuseError

if TYPE_CHECKING:
    from training.generate import SourcePair


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
            f"{p['output_rms'] / max(p['input_rms'], 1e-9):.2f}x",
            f"{p['output_rms'] / max(p['target_rms'], 1e-9):.2f}x",
            f"{p['waveform_correlation_input']:.2f}",
            f"{p['waveform_correlation_target']:.2f}",
            f"{p['complementarity']:.3f}" if "complementarity" in p else "-",
        )
        for p in pieces
    ]
    console.table(columns, rows)
