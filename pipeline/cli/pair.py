"""The command that decides which recordings go together: `pair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.pairing import Mode
from shards import console
from shards.console import Json


def pair(
    source_dir: Annotated[Path, typer.Argument(metavar="SOURCE_DIR", help="A folder of recordings.")],
    out: Annotated[Path, typer.Option(help="The pairs file to write.")],
    mode: Annotated[Mode, typer.Option(help="By file name, or each window with the one after it.")],
    val_fraction: Annotated[float, typer.Option(min=0, max=0.9, help="Share of tracks held out.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a window.")] = 16.0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the held-out tracks.")] = 0,
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Leave out files that have no partner or can't be read.")
    ] = False,
    json: Json = False,
) -> None:
    """Decide which recordings go together; the result is text that one can read and edit."""
    from pipeline.pairing import make_pairs, write_pairs

    pairs, left_out = make_pairs(source_dir, mode, seconds, seed, val_fraction, skip_unusable)
    write_pairs(out, pairs)
    splits: dict[str, dict[str, Any]] = {}
    for split in sorted({p.split for p in pairs.pairs}):
        own = [p for p in pairs.pairs if p.split == split]
        splits[split] = {"pairs": len(own), "tracks": len({p.group for p in own}), "hours": len(own) * seconds / 3600}
    if json:
        console.print_json({"out": str(out), "splits": splits, "left_out": list(left_out)})
        return
    for message in left_out:
        console.err.print(f"[yellow]left out[/] {console.escape(message)}", soft_wrap=True)
    rows = [(split, s["pairs"], s["tracks"], f"{s['hours']:.3f}") for split, s in splits.items()]
    console.out.print(f"[bold]{console.escape(str(out))}[/]", soft_wrap=True)  # whole: a table folds its title
    console.table(("split", "pairs", "tracks", "hours"), rows)
