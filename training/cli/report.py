"""`report`: a training as one page to listen to and to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards import console
from shards.console import Json
from shards.errors import MisuseError


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The --run-dir of a training.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; RUN_DIR/report.html unless given.")] = None,
    json: Json = False,
) -> None:
    """Write one HTML page about a training, running or ended: its newest pieces, curves, health and settings."""
    from training.page.run import write_run_page

    page = run_dir / "report.html" if out is None else out
    if page.is_dir():
        raise MisuseError(f"{page}: is a folder; name the page, as in --out {page / 'report.html'}")
    run = write_run_page(page, run_dir)
    size = page.stat().st_size
    for text in run.missing:
        console.err.print(f"[yellow]left out:[/] {console.escape(text)}", soft_wrap=True)
    if json:
        console.print_json({"out": str(page), "bytes": size, "pieces": len(run.pieces), "red": run.red})
        return
    verdict = f"[red]red: {console.escape(', '.join(run.red))}[/]" if run.red else "no rule of health is red"
    console.out.print(
        f"{console.escape(str(page))}: {len(run.pieces)} pieces, {size / 1e6:.1f} MB; {verdict}", soft_wrap=True
    )
