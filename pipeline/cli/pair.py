"""The command that decides which recordings go together: `pair`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.pairing.records import Choose, Mode
from shards import console
from shards.console import Json

if TYPE_CHECKING:
    from pipeline.pairing import LeftOut

NAMED_FILES = 3
"""Of the files left out for one reason, so many are named to people."""


def pair(
    source_dir: Annotated[Path, typer.Argument(metavar="SOURCE_DIR", help="A folder of recordings.")],
    out: Annotated[Path, typer.Option(help="The pairs file to write.")],
    mode: Annotated[
        Mode, typer.Option(help="By file name, each window with the one after it, or inputs with targets.")
    ],
    val_fraction: Annotated[float, typer.Option(min=0, max=0.9, help="Share of tracks held out.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a window.")] = 16.0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the held-out tracks and the partners.")] = 0,
    max_per_track: Annotated[
        int | None, typer.Option(min=1, help="At most this many pairs of a track, evenly over it; all unless set.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(metavar="PATTERN", help="cross: folder or pattern of inputs.")] = None,
    targets: Annotated[str | None, typer.Option(metavar="PATTERN", help="cross: folder or pattern of targets.")] = None,
    partners: Annotated[int | None, typer.Option(min=1, help="cross: targets for each input; 1 unless set.")] = None,
    choose: Annotated[
        Choose | None, typer.Option(help="cross: each target in turn, by tempo, or drawn; seeded unless set.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that can't be used.")] = False,
    json: Json = False,
) -> None:
    """Decide which recordings go together; the result is text that one can read and edit."""
    from pipeline.pairing import ModeOptions, make_pairs, summarize, write_pairs

    options = ModeOptions(max_per_track=max_per_track, inputs=inputs, targets=targets, partners=partners, choose=choose)
    with console.progress("files") as bar:
        tasks: dict[str, Any] = {}

        def progress(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=total)
            bar.update(tasks[doing], completed=done)

        pairs, left_out = make_pairs(
            source_dir, mode, seconds, seed, val_fraction, options, strict=strict, progress=progress
        )
    write_pairs(out, pairs)
    summary = summarize(pairs, left_out)
    if json:
        console.print_json({"out": str(out), **summary})
        return
    _tell_left_out(left_out)
    _tell(out, summary, pairs.header.partners)


def _tell(out: Path, summary: dict[str, Any], partners: int | None) -> None:
    console.out.print(f"[bold]{console.escape(str(out))}[/]", soft_wrap=True)  # whole: a table folds its title
    columns = ("groups", "tracks", "windows", "pairs")
    rows = [
        (split, *(figures[column] for column in columns), f"{figures['hours']:.3f}")
        for split, figures in summary["splits"].items()
    ]
    console.table(("split", *columns, "hours"), rows)
    sources = summary["sources"]
    formats = ", ".join(f"{count} {name}" for name, count in sources["formats"].items())
    rates = ", ".join(f"{count} at {rate} Hz" for rate, count in sources["sample_rates"].items())
    console.out.print(f"from {sources['files']} files of {sources['hours']:.3f} h: {formats}; {rates}", soft_wrap=True)
    for split, figures in summary["splits"].items():
        if partners and (fewest := figures["fewest_partners"]) < partners:
            console.err.print(
                f"[yellow]{split}[/] has too few targets: some inputs got {fewest} of {partners} partners",
                soft_wrap=True,
            )


def _tell_left_out(left_out: Sequence[LeftOut]) -> None:
    """Say what was left out, by reason, the first few by name."""
    by_reason: dict[str, list[str]] = {}
    for file in left_out:
        by_reason.setdefault(file.reason, []).append(file.message)
    for reason, messages in by_reason.items():
        for message in messages[:NAMED_FILES]:
            console.err.print(f"[yellow]left out[/] {console.escape(message)}", soft_wrap=True)
        if len(messages) > NAMED_FILES:
            word = reason.replace("_", " ")
            console.err.print(
                f"[yellow]left out[/] {len(messages)} files in all: {word} (--json names them)", soft_wrap=True
            )
