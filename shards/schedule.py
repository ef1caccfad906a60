"""Which samples every rank sees at one step of an epoch: the loader's order, looked at without reading a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shards.dataset import Dataset
from shards.errors import MisuseError
from shards.order import OrderPlan, evaluation_steps, rank_positions, train_steps


@dataclass(frozen=True)
class Step:
    """One step: for every rank the numbers of its samples in the split, and how many rows are padding."""

    steps: int
    numbers: tuple[tuple[int, ...], ...]
    padding: tuple[int, ...]


def step_of(
    dataset: Dataset,
    split: str,
    *,
    seed: int,
    epoch: int,
    world: int,
    batch: int,
    at: int,
    window: int | None = None,
    mode: Literal["train", "evaluate"] | None = None,
) -> Step:
    """Say what the loaders of all ranks give at step `at` (from 0) of an epoch begun at its start.

    Raises `MisuseError` for a split, a step or a size that does not exist.
    """
    entry = dataset.split(split)
    if world < 1 or batch < 1 or (window is not None and window < 1):
        raise MisuseError(f"order: world {world}, batch {batch}, window {window}: give at least 1 of each")
    evaluates = (mode or ("train" if split == "train" else "evaluate")) == "evaluate"
    together = world * batch
    steps = (evaluation_steps if evaluates else train_steps)(entry.samples, 0, together)
    if not 0 <= at < steps:
        held = f"steps 0 to {steps - 1}" if steps else "no step"
        raise MisuseError(
            f"order: {split} has {entry.samples} samples, so {held} of {world} x {batch}, not step {at}; "
            "choose another --at, or a smaller --batch or --world"
        )
    if evaluates:
        order = np.arange(entry.samples, dtype=np.int64)
    else:
        order = OrderPlan(tuple(shard.samples for shard in entry.shards), window).epoch(seed, epoch).inputs
    positions = [rank_positions(at * together, batch, rank, world) for rank in range(world)]
    slices = [order[where[where < len(order)]] for where in positions]
    return Step(steps, tuple(tuple(one.tolist()) for one in slices), tuple(batch - len(one) for one in slices))
