"""How fast a dataset is read here: each back end in turn, in one process, page cache warm."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from shards.dataset import Dataset


@dataclass(frozen=True)
class Reading:
    """What one way of reading reached: medians over the rounds; `memory_mb` is the process's peak up to then."""

    name: str
    samples_per_second: float
    mb_per_second: float
    ratio: float
    memory_mb: float

    def as_json(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return asdict(self)


def bench(
    dataset: Dataset, split: str, batch_size: int, rounds: int, on_round: Callable[[], None] = lambda: None
) -> list[Reading]:
    """Read a split `rounds` times in each way, in turns; ratios are to the first one, the default."""
    ways: dict[str, dict[str, Any]] = {"direct, crc": {}, "direct, no crc": {"check_crc": False}}
    if find_spec("webdataset") is not None:
        ways["webdataset"] = {"backend": "webdataset", "window": 1}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for counted in range(-1, rounds):  # the first round warms the page cache
        for name, how in ways.items():
            began = time.perf_counter()
            samples = sum(len(batch.keys) for batch in dataset.loader(split, batch_size, mode="train", **how))
            if counted >= 0:
                seconds[name].append(time.perf_counter() - began)
            memory[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            on_round()
    row = dataset.index(split)[0]
    megabytes = samples * int(row["input_bytes"] + row["target_bytes"]) / 1e6
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    fastest = medians["direct, crc"]
    return [
        Reading(name, samples / taken, megabytes / taken, fastest / taken, memory[name])
        for name, taken in medians.items()
    ]
