"""The verb that holds two datasets against each other: `diff`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from shards import console
from shards.compare import ArrayChange, Change, Comparison, Difference, compare
from shards.console import Json
from shards.dataset import open_dataset


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The dataset that is compared against.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other dataset.")],
    limit: Annotated[int, typer.Option(min=0, help="At most this many lines of each kind; 0 for all.")] = 20,
    json: Json = False,
) -> None:
    """Compare two datasets; exits with 0 if equal, 1 if not.

    Equal are datasets of the same samples, made in the same way: names, the layout in shards and what built them may
    differ. Samples are matched by key and, between codecs, by their sources' hashes and offsets.
    """
    first, second = open_dataset(a), open_dataset(b)
    with console.progress("samples") as bar:
        task = bar.add_task("comparing", total=first.manifest.samples, note="")
        result = compare(first, second, on_sample=lambda: bar.advance(task))
    if json:
        console.print_json(result.as_json())
    else:
        _tell(result, limit)
    if not result.equal:
        raise typer.Exit(1)


def _tell(result: Comparison, limit: int) -> None:
    for title, drift in (("drift", result.drift), ("built differently (does not count)", result.build)):
        if drift:
            values = [(one.name, str(one.a), str(one.b)) for one in drift]
            console.table(("what", "A", "B"), _cut(values, limit), title)
    for sign, keys in (("removed", result.removed), ("added", result.added)):
        for line in _cut([(key,) for key in keys], limit):
            console.out.print(f"{sign} {console.escape(' '.join(line))}", soft_wrap=True)
    if result.changed:
        rows = [_row(change) for change in result.changed]
        console.table(("key", "A", "B", "arrays", "record"), _cut(rows, limit), "changed")
    verdict = "[green]equal[/]" if result.equal else "[red]different[/]"
    counts = f"{result.same} the same, {len(result.added)} added, {len(result.removed)} removed"
    console.out.print(
        f"{verdict}: {counts}, {len(result.changed)} changed, {result.moved} at another place; "
        f"matched by {result.matched_by}",
        soft_wrap=True,
    )


def _cut(rows: Sequence[tuple[str, ...]], limit: int) -> list[tuple[str, ...]]:
    if not limit or len(rows) <= limit:
        return list(rows)
    filled = ("",) * (len(rows[0]) - 1)
    return [*rows[:limit], (f"... and {len(rows) - limit} more; --limit 0 shows all", *filled)]


def _row(change: Change) -> tuple[str, ...]:
    record = ", ".join(_record(one) for one in change.record) or "same"
    return change.key, change.place, change.place_b, "; ".join(map(_array, change.arrays)) or "same", record


def _array(one: ArrayChange) -> str:
    numbers = "" if one.max_abs is None else f"max {one.max_abs:.3g}, SNR {one.snr_db:.1f} dB"
    return f"{one.field}: {', '.join(filter(None, (numbers, one.note)))}"


def _record(one: Difference) -> str:
    return f"{one.name} {one.a} to {one.b}"
