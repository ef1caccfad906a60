"""The verb that measures: `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from shards import console
from shards.cli.arguments import DatasetAddress
from shards.console import Json
from shards.dataset import open_dataset


def bench_dataset(
    dataset: DatasetAddress,
    split: Annotated[str, typer.Option(help="The split to read.")] = "train",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs a batch; lowered to what the split has.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count; medians are printed.")] = 5,
    json: Json = False,
) -> None:
    """Read the dataset in each way there is, and say how fast each one was here."""
    from shards.bench import bench

    opened = open_dataset(dataset)
    batch_size = min(batch_size, opened.split(split).samples)
    with console.progress("readings") as bar:
        task = bar.add_task("reading", total=None)
        readings = bench(opened, split, batch_size, rounds, lambda: bar.advance(task))
    if json:
        console.print_json({"batch_size": batch_size, "split": split, "readings": [r.as_json() for r in readings]})
        return
    columns = ("way", "pairs/s", "MB/s", "ratio", "peak memory MB")
    rows = [
        (r.name, f"{r.samples_per_second:.0f}", f"{r.mb_per_second:.0f}", f"{r.ratio:.2f}", f"{r.memory_mb:.0f}")
        for r in readings
    ]
    console.table(columns, rows, title=f"{dataset}, split {split}, batch {batch_size}, page cache warm")
