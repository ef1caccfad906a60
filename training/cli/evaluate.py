"""`evaluate`: what a trained model does with a split, in numbers, beside baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shards import console
from shards.console import Json
from training.cli.evaluation_view import show_evaluation

if TYPE_CHECKING:
    from training.evaluation import Evaluation
    from training.measures.music import Ears


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint's folder, such as RUN_DIR/checkpoints/best.")],
    shards: Annotated[str, typer.Option(help="The dataset's folder, or its URL, as s3://bucket/dataset.")],
    split: Annotated[str, typer.Option(help="The split to measure.")] = "val",
    count: Annotated[int | None, typer.Option(min=1, help="At most so many pairs, at even distances.")] = None,
    shuffle_targets: Annotated[
        bool, typer.Option("--shuffle-targets", help="Give each input another pair's target, as in training.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A JSON file for everything, the numbers of each pair too.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs that the model is given at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of random masks, shuffled targets and confidence intervals.")] = 0,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="auto: a GPU where there is one.")] = "auto",
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where a mean falls short.")] = False,
    json: Json = False,
) -> None:
    """Measure a model over a split, beside copies, a mix and masks that have learnt nothing."""
    from shards.codec import load_matching_codec
    from shards.dataset import open_dataset
    from shards.files import write_json
    from training import evaluation
    from training.checkpoint import open_checkpoint
    from training.measures.music import load_ears
    from training.runtime import local_runtime

    opened, dataset, ears = open_checkpoint(checkpoint), open_dataset(shards), load_ears()
    dataset.require_codec(opened.record.codec, "the checkpoint")  # before its weights are looked for
    choices = evaluation.choose(dataset, split, count, seed if shuffle_targets else None)
    codec = load_matching_codec(opened.record.codec, codec_weights, str(checkpoint))
    options = evaluation.Options(batch_size, seed)
    with local_runtime(device) as runtime, console.progress("pairs") as bar:
        task = bar.add_task("measuring", total=len(choices))
        found = evaluation.evaluate(
            opened, dataset, choices, codec, runtime.device, ears, options, lambda pairs: bar.advance(task, pairs)
        )
    about = {
        "checkpoint": str(checkpoint),
        "dataset": shards,
        "split": split,
        "shuffled": shuffle_targets,
        "seed": seed,
        "missing": [{"library": name, "metrics": list(gone)} for name, gone in ears.missing.items()],
    }
    if out is not None:
        write_json(out, about | evaluation.as_document(found, every_pair=True))
    for note in _notes(found, ears):
        console.err.print(console.escape(note), soft_wrap=True)
    if json:
        console.print_json(about | evaluation.as_document(found))
    else:
        show_evaluation(found, f"{checkpoint}: {len(found.pairs)} pairs of {shards}, split {split}")
    if strict and found.short:
        raise typer.Exit(1)


def _notes(found: Evaluation, ears: Ears) -> list[str]:
    """What a reader must know of numbers that are not there."""
    notes = ears.notes
    if len(found.pairs) == 1:
        notes.append("one pair: no confidence intervals, and no shares of the masks' variance; measure more pairs")
    if silent := sum(bool(pair.silent) for pair in found.pairs):
        notes.append(f"{silent} of {len(found.pairs)} pairs have a silent source: what is heard in it is left out")
    return notes
