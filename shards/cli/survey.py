"""The verb that counts and measures: `stats`."""

from __future__ import annotations

from math import log10
from typing import Annotated, Any

import typer

from shards import console
from shards.cli.arguments import DatasetAddress
from shards.console import Json
from shards.dataset import Dataset, open_dataset
from shards.manifest import STATISTICS
from shards.schema import SIDES
from shards.survey import (
    NAMES,
    Statistics,
    deviation,
    duplicates,
    rms_distribution,
    saved_statistics,
    survey,
    unusual_channels,
)

TOLERANCE = 1e-6
"""Sums may be added in another order by another version; more than this is another dataset's statistics."""


def stats(
    dataset: DatasetAddress,
    recompute: Annotated[bool, typer.Option("--recompute", help="From the shards, and hold stats.json to it.")] = False,
    repeats: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Read every record to find windows used repeatedly.")
    ] = True,
    channels: Annotated[int, typer.Option(min=0, help="How many unusual channels of each side to show.")] = 5,
    json: Json = False,
) -> None:
    """Measure: channel statistics, source levels, duplicates.

    With --recompute it exits with 1 where stats.json is not what the shards say.
    """
    opened = open_dataset(dataset)
    with console.progress("samples") as bar:
        total = opened.manifest.samples if recompute or repeats else 0
        task = bar.add_task("measuring", total=total, note="")
        walked = survey(opened, arrays=recompute, records=repeats, on_sample=lambda: bar.advance(task))
    found = walked.statistics or saved_statistics(opened)
    problem = _deviation(opened, found) if recompute else None
    content: dict[str, Any] = {
        "source": "shards" if recompute else "stats.json",
        "problem": problem,
        "channels": found,
        "unusual": [one._asdict() for one in unusual_channels(found, channels)],
        "rms": {
            split: {side: rms_distribution(opened.index(split)[f"{side}_rms"]) for side in SIDES}
            for split in opened.splits
        },
        "duplicates": duplicates(walked.uses) if repeats else None,
    }
    if json:
        console.print_json(content)
    else:
        _tell(content)
    if problem:
        if not json:
            console.err.print(f"[red]bad[/] {console.escape(problem)}", soft_wrap=True)
        raise typer.Exit(1)


def _deviation(dataset: Dataset, computed: Statistics) -> str | None:
    off = deviation(saved_statistics(dataset), computed) if (dataset.path / STATISTICS).is_file() else None
    if off is None:
        return "stats.json: it is missing; restore it from a copy"
    return f"stats.json: it is {off:.2g} off what the shards say; restore it from a copy" if off > TOLERANCE else None


def _tell(content: dict[str, Any]) -> None:
    found: Statistics = content["channels"]
    rows = [
        (side, f"all {len(found[side]['mean'])}", *(_span(found[side][name]) for name in NAMES), "") for side in SIDES
    ]
    rows += [
        (
            one["side"],
            str(one["channel"]),
            *(f"{found[one['side']][name][one['channel']]:.4g}" for name in NAMES),
            f"{one['score']:.1f}",
        )
        for one in content["unusual"]
    ]
    columns = ("side", "channel", *NAMES, "deviations")
    console.table(columns, rows, f"channels, from {content['source']}; the most unusual ones")
    levels = [
        (split, side, own["count"], *(_level(own.get(p)) for p in ("min", "p5", "median", "p95", "max")), own["silent"])
        for split, sides in content["rms"].items()
        for side, own in sides.items()
    ]
    console.table(
        ("split", "side", "pairs", "min", "p5", "median", "p95", "max", "silent"), levels, "RMS of the sources, dBFS"
    )
    if content["duplicates"] is not None:
        _tell_duplicates(content["duplicates"])


def _span(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if values else "-"


def _level(rms: float | None) -> str:
    if rms is None:
        return "-"
    return f"{20 * log10(rms):.1f}" if rms > 0 else "silent"


def _tell_duplicates(found: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [("same pair under several keys", len(found["pairs"]))]
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        own = found[f"{side}s"]
        partners = ", ".join(f"{windows} with {count}" for count, windows in own["partners"].items())
        rows.append((f"{side} windows", f"{own['windows']}, {own['shared']} in several samples"))
        rows.append((f"{other}s of an {side}" if side == "input" else f"{other}s of a {side}", partners))
    console.facts("duplicates", rows)
    for pair in found["pairs"][:10]:
        console.out.print(f"same pair: {console.escape(', '.join(pair['keys']))}", soft_wrap=True)
