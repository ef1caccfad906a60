"""The verb that looks ahead into an epoch: `order`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shards import console
from shards.cli.arguments import DatasetAddress
from shards.console import Json
from shards.dataset import open_dataset
from shards.schedule import step_of


def order(
    dataset: DatasetAddress,
    split: Annotated[str, typer.Option(help="`train` is shuffled; others are read in shard order.")] = "train",
    seed: Annotated[int, typer.Option(help="The training's seed.")] = 0,
    epoch: Annotated[int, typer.Option(min=0, help="From 0.")] = 0,
    world: Annotated[int, typer.Option(help="Ranks.")] = 1,
    batch: Annotated[int, typer.Option(help="Samples a rank and step.")] = 16,
    at: Annotated[int, typer.Option(metavar="STEP", help="Step of the epoch, from 0.")] = 0,
    window: Annotated[int | None, typer.Option(help="Shards that are shuffled together; all unless given.")] = None,
    json: Json = False,
) -> None:
    """Say which keys each rank sees at a step of an epoch."""
    opened = open_dataset(dataset)
    step = step_of(opened, split, seed=seed, epoch=epoch, world=world, batch=batch, at=at, window=window)
    ranks: list[dict[str, Any]] = []
    for rank, (numbers, padding) in enumerate(zip(step.numbers, step.padding, strict=True)):
        places = [opened.location(split, number) for number in numbers]
        samples = [
            {"key": place.key, "number": place.number, "shard": place.shard.file, "position": place.position}
            for place in places
        ]
        ranks.append({"rank": rank, "padding": padding, "samples": samples})
    if json:
        console.print_json({"split": split, "epoch": epoch, "step": at, "steps": step.steps, "ranks": ranks})
        return
    rows = [
        (entry["rank"], one["key"], f"{split}:{one['number']}", f"{one['shard']}#{one['position']}")
        for entry in ranks
        for one in entry["samples"]
    ]
    title = f"epoch {epoch}, step {at} of 0 to {step.steps - 1}"
    console.table(("rank", "key", "split:number", "shard#position"), rows, title)
    for entry in ranks:
        if entry["padding"]:
            console.out.print(f"rank {entry['rank']}: {entry['padding']} rows of padding, weight 0", style="dim")
