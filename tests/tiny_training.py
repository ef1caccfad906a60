"""The smallest training: 16 pairs, 8 steps an epoch with one worker, 4 with two; and waiting until it trains."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from make_data import make_dataset

from training.events import read_events

PATIENCE_SECONDS = 300
SETTINGS = {
    "model.cascade.layers": 1,
    "data.batch_size": 2,
    "optimizer.learning_rate": 1e-6,  # noise can't be learnt, and what tries is soon unwell
    "train.audio_crop_seconds": 0.25,
    "train.log_steps": 1,
    "train.patience": "null",
    "tracking.mlflow": "off",
}
ENDLESS = 100_000
"""Epochs that no test waits for."""


def tiny_dataset(folder: Path) -> Path:
    """Publish the dataset at `folder`; returns `folder`."""
    return make_dataset(folder, {"train": [10, 6], "val": [3]})


def tiny_options(epochs: int) -> list[str]:
    """Options of `training launch`."""
    settings = SETTINGS | {"train.epochs": epochs}
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def until(happened: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Wait for something that a running process does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_it_trains(run_dir: Path, process: subprocess.Popen[Any]) -> None:
    """Wait for the first step of a training that has just been started."""
    until(lambda: len(read_events(run_dir / "metrics.jsonl")) > 1, process)


def steps_told(run_dir: Path) -> list[int]:
    """The steps in the metrics of a run, in their order."""
    return [event["step"] for event, _ in read_events(run_dir / "metrics.jsonl") if event["event"] == "train"]


def workers_told(run_dir: Path) -> list[int]:
    """How many workers each launch of a run had."""
    return [event["world_size"] for event, _ in read_events(run_dir / "metrics.jsonl") if event["event"] == "start"]
