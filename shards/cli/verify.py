"""The verb that trusts nothing: `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards import audit, console
from shards.console import Json
from shards.manifest import read_manifest
from shards.store import local_path


def verify_dataset(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", parser=local_path, help="A dataset's folder, or one shard.")
    ],
    level: Annotated[audit.Level, typer.Option(help="How deep; each level includes those before it.")] = "sha256",
    json: Json = False,
) -> None:
    """Find and name all that is wrong; exits with 1 if any is."""
    shards = 1 if dataset.is_file() else len(read_manifest(dataset).shards)
    with console.progress("shards") as bar:
        task = bar.add_task("verifying", total=shards, note="")
        result = audit.verify(dataset, level, on_shard=lambda: bar.advance(task))
    if json:
        console.print_json(result.as_json())
    else:
        for problem in result.problems:
            console.err.print(f"[red]bad[/] {console.escape(str(problem))}", soft_wrap=True)
        verdict = "[green]sound[/]" if not result.problems else f"[red]{len(result.problems)} problems[/]"
        seen = f"level {level}: {result.shards} shards, {result.samples} samples"
        console.out.print(f"{console.escape(str(dataset))}: {verdict}, {seen}", soft_wrap=True)
    if result.problems:
        raise typer.Exit(1)
