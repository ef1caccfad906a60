"""What all benchmarks share: alternating rounds, medians, ratios to a baseline, a table or JSON.

Contenders take turns in every round, so that a slow minute of a shared machine falls on all of them. Medians and
ratios are reported, because absolute times belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

ROUNDS = 5

Work = Callable[[], object]


def measure(contenders: Mapping[str, Work], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Time every contender once a round, in turns, after one round that does not count; seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            taken = time.perf_counter() - began
            if number:
                seconds[name].append(taken)
    return seconds


def use_one_thread() -> None:
    """Compute on one thread: on a shared machine, threads that wait for each other measure the neighbours."""
    torch.set_num_threads(1)


def compare(seconds: Mapping[str, Sequence[float]], baseline: str) -> list[dict[str, Any]]:
    """Summarise: median, fastest and slowest time, and how many times faster than the baseline the median is."""
    reference = statistics.median(seconds[baseline])
    return [
        {
            "name": name,
            "seconds": statistics.median(taken),
            "fastest": min(taken),
            "slowest": max(taken),
            "ratio": reference / statistics.median(taken),
        }
        for name, taken in seconds.items()
    ]


def wants_json(description: str) -> bool:
    """Read the command line of a benchmark: it knows `--json` and nothing else."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return bool(parser.parse_args().json)


def report(
    title: str, baseline: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool, rounds: int = ROUNDS
) -> None:
    """Print rows of equal keys, with what they were measured on."""
    measured_on = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rounds": rounds,
    }
    if as_json:
        print(json.dumps({"title": title, "baseline": baseline, "measured_on": measured_on, "rows": rows}, indent=2))
        return
    print(title)
    print(f"medians of {rounds} rounds in turns; ratio 1.00 is: {baseline}")
    print(", ".join(f"{name} {value}" for name, value in measured_on.items() if name != "rounds"))
    cells = [[_cell(value) for value in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    for line in [heads, *cells]:
        first, *others = (cell.ljust(width) if i == 0 else cell.rjust(width)
                          for i, (cell, width) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *others]))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
