"""Ray Train: workers that die are followed by others, in any number that there is room for, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import run_training
from make_data import make_dataset

from training.checkpoint import newest_checkpoint, open_checkpoint
from training.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
SMALL = [
    "model.cascade.layers=1",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "train.checkpoint_steps=1",
    "losses.gan=0.1",
    "discriminator.channels=[32,32]",
    "tracking.mlflow=off",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [8, 8], "val": [3]})


def launch(dataset: Path, run_dir: Path, workers: str, epochs: int) -> Any:
    sets = [part for override in (*SMALL, f"train.epochs={epochs}") for part in ("--set", override)]
    return run_training("launch", "--shards", dataset, "--run-dir", run_dir, "--workers", workers, *sets)


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [event for event, _ in read_events(run_dir / "metrics.jsonl")]


@contextmanager
def once(reached: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Act once, in a thread, as soon as something is reached while the body runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if reached():
                act()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def steps_told(run_dir: Path) -> list[int]:
    return [event["step"] for event in events(run_dir) if event["event"] == "train"]


def test_a_worker_that_is_killed_is_followed_by_one_that_knows_what_it_knew(dataset: Path, tmp_path: Path) -> None:
    assert launch(dataset, tmp_path / "undisturbed", "2", 3).code == 0
    run_dir = tmp_path / "killed"

    def kill_rank_0() -> None:
        os.kill(events(run_dir)[0]["process"], signal.SIGKILL)

    with once(lambda: steps_told(run_dir)[-1:] >= [6], kill_rank_0):
        done = launch(dataset, run_dir, "2", 3)
    assert done.code == 0, done.err
    starts = [event for event in events(run_dir) if event["event"] == "start"]
    assert len(starts) == 2
    assert starts[1]["step"] >= 5, "it went on, and did not begin anew"
    assert steps_told(run_dir) == list(range(1, 13)), "each step is told once"
    ends = [open_checkpoint(run / "checkpoints" / "last") for run in (run_dir, tmp_path / "undisturbed")]
    assert ends[0].progress == ends[1].progress
    for part in ("model", "discriminator", "optimizer"):
        ours, theirs = (end.weights(part) for end in ends)
        assert all((ours[name] == theirs[name]).all() for name in ours), part


def test_as_many_workers_as_there_is_room_for_and_another_number_when_it_goes_on(dataset: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with once(lambda: steps_told(run_dir)[-1:] >= [2], (run_dir / "STOP").touch):
        assert launch(dataset, run_dir, "1:2", 1).code == 143
    assert events(run_dir)[0]["world_size"] == 2
    kept = newest_checkpoint(run_dir)
    assert kept is not None
    assert kept.path.name == "interrupted"
    assert kept.progress.loader is not None
    seen = kept.progress.loader["samples_done"]
    assert launch(dataset, run_dir, "1", 1).code == 0
    last = open_checkpoint(run_dir / "checkpoints" / "last").progress
    assert last.step == kept.progress.step + (16 - seen) // 2, "the pairs that were left, two a step"


def test_a_worker_that_keeps_dying_ends_the_run_with_one_line(dataset: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    over = threading.Event()

    def kill_whoever_starts() -> None:
        killed: set[int] = set()
        while not over.wait(0.05):
            for event in events(run_dir):
                if event["event"] == "start" and event["process"] not in killed:
                    killed.add(event["process"])
                    os.kill(event["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill_whoever_starts)
    killer.start()
    began = time.monotonic()
    sets = [part for override in (*SMALL, "train.epochs=500", "train.max_failures=1") for part in ("--set", override)]
    done = run_training("launch", "--shards", dataset, "--run-dir", run_dir, "--workers", "1", *sets)
    over.set()
    killer.join()
    assert done.code == 1, time.monotonic() - began
    assert "a training worker failed" in done.err
    assert "the same command goes on" in done.err
