"""What planning many pairs costs, and a resume that finds nothing to do. Part of `benchmarks.encode`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_mb
from pipeline.config import CodecConfig, EncodeConfig, OutputConfig
from pipeline.destination import open_destination
from pipeline.encode import encode_dataset, encode_locally, plan_dataset
from pipeline.pairing import Pairs, read_pairs
from pipeline.plan import plan_sha256
from pipeline.resume import finished_shards

WINDOW = 16 * 24_000
PAIRS_A_TRACK = 15


def measure_planning(count: int) -> dict[str, Any]:
    """Read and plan `count` pairs of a pairs file in a process of its own; seconds and its peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="cascadence-bench-") as folder:
        path = Path(folder) / "pairs.jsonl"
        _write_pairs(path, count)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.planning", str(path)], capture_output=True, text=True, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_resume(folder: Path, pairs: Pairs) -> dict[str, Any]:
    """Find every shard of a job finished, one pair a shard, before its publication, and then after it."""
    config = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(samples_per_shard=1))
    encode_dataset(pairs, folder / "resumed", config, encode_locally)
    runs: list[int] = []

    def refuse(*_: Any) -> Iterator[Any]:
        runs.append(1)
        yield from ()

    began = time.perf_counter()
    outcome = encode_dataset(pairs, folder / "resumed", config, refuse)
    published = time.perf_counter() - began
    (folder / "resumed").rename(folder / "resumed.partial")
    plans = plan_dataset(pairs, config, config.codec.load(), "resumed")
    began = time.perf_counter()
    done = finished_shards(plans, open_destination(folder / "resumed"))
    return {
        "shards": outcome.shards,
        "seconds": published,
        "seconds_to_read_the_receipts": time.perf_counter() - began,
        "receipts": len(done),
        "runs": len(runs),
    }


def _write_pairs(path: Path, count: int) -> None:
    header = {"mode": "continuation", "root": "/music", "window_samples": WINDOW, "seed": 0, "val_fraction": 0.1}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header | {"pairs_sha256": ""}) + "\n")
        for number in range(count):
            track, place = divmod(number, PAIRS_A_TRACK)
            name = f"artist {track % 977:03d}/album {track % 31:02d}/track {track:06d}.flac"
            windows = ({"path": name, "start": (place + later) * WINDOW} for later in (0, 1))
            pair = dict(zip(("input", "target"), windows, strict=True))
            file.write(json.dumps({"split": "train" if track % 10 else "val", "group": name, **pair}) + "\n")


def _plan(path: Path) -> dict[str, Any]:
    config = EncodeConfig(codec=CodecConfig(name="mdct"))
    codec = config.codec.load()
    began = time.perf_counter()
    pairs = read_pairs(path)
    read = time.perf_counter() - began
    plans = plan_dataset(pairs, config, codec, "planned")
    plan_sha256(plans)
    return {
        "pairs": len(pairs.pairs),
        "shards": len(plans),
        "seconds": time.perf_counter() - began,
        "seconds_to_read": read,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(_plan(Path(sys.argv[1]))))
