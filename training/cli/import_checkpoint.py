"""`import-checkpoint`: a checkpoint of the seeds becomes one of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from shards import console
from shards.console import Json
from training.cli.loading import show_loading


def import_checkpoint(
    seed_checkpoint: Annotated[Path, typer.Argument(help="The .pt file.", metavar="SEED_CHECKPOINT.pt")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write; must not exist.")],
    compat: Annotated[
        Literal["seeds", "none"], typer.Option(help="seeds: the agent's losses stay their numbers, mistakes included.")
    ] = "seeds",
    codec_sha256: Annotated[
        str | None,
        typer.Option(help="SHA-256 of the EnCodec weights it was trained with; the published ones unless set."),
    ] = None,
    json: Json = False,
) -> None:
    """Read a checkpoint of the seeds and write one that generates, evaluates and trains here."""
    from shards.codec.weights import WEIGHTS_SHA256
    from training.import_checkpoint import import_seed_checkpoint

    imported = import_seed_checkpoint(seed_checkpoint, out, compat, codec_sha256 or WEIGHTS_SHA256)
    if json:
        parts = {part: report.as_json() for part, report in imported.parts.items()}
        console.print_json({"checkpoint": str(out), "epoch": imported.epoch, "agent": imported.agent, "parts": parts})
        return
    show_loading(seed_checkpoint, imported.parts)
    when = "" if imported.epoch is None else f" of epoch {imported.epoch}"
    console.out.print(f"{out}: the seeds' model{when}, agent: {imported.agent}", soft_wrap=True)
