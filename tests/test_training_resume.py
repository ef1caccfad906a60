"""Nothing is lost: signals, kills at any step, and every option that has a state, each resumed to the bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run_training
from make_data import make_dataset

from training.checkpoint import newest_checkpoint, open_checkpoint
from training.events import read_events
from training.stopping import STOP

ROOT = Path(__file__).parents[1]
SMALL = [
    "model.cascade.layers=1",
    "model.cascade.heads=4",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "train.epochs=3",
    "tracking.mlflow=off",
]
# Everything that has a state of its own, at once.
STATEFUL = [
    "losses.gan=0.1",
    "schedule.kind=plateau",
    "schedule.plateau_patience=1",
    "schedule.warmup_steps=3",
    "train.average=0.9",
    "model.masking.coupling=softmax",
    "model.masking.temperature.steps=8",
    "model.cascade.anti_cheating=0.1",
    "data.shuffle_targets=true",
    "discriminator.every=2",
    "discriminator.channels=[32,32]",
]
COMPOSITIONAL = [
    "model.agent=compositional",
    "model.compositional.width=64",
    "model.compositional.layers=1",
    "schedule.kind=cosine",
    "data.batch_size=1",
    "train.accumulate=2",
]


pytestmark = pytest.mark.usefixtures("one_thread")  # as in the processes that are started: OMP_NUM_THREADS says it


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [5, 3], "val": [3]})


def arguments(dataset: Path, run_dir: Path, *overrides: str) -> list[str]:
    sets = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
    return ["launch", "--local", "--shards", str(dataset), "--run-dir", str(run_dir), *sets]


def start(dataset: Path, run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training", *arguments(dataset, run_dir, *overrides)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(dataset: Path, run_dir: Path, *overrides: str) -> None:
    done = run_training(*arguments(dataset, run_dir, *overrides))
    assert done.code == 0, done.err


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [event for event, _ in read_events(run_dir / "metrics.jsonl")]


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not reached():
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[1]


def steps_told(run_dir: Path) -> list[int]:
    return [event["step"] for event in events(run_dir) if event["event"] == "train"]


def assert_same_end(ours: Path, theirs: Path, *, events_too: bool = True) -> None:
    """Every tensor of the last checkpoint, the numbers of the progress, and all that was logged but times."""
    first, second = (open_checkpoint(run / "checkpoints" / "last") for run in (ours, theirs))
    assert first.record.progress == second.record.progress
    parts = sorted(path.stem for path in first.path.glob("*.safetensors"))
    assert parts == sorted(path.stem for path in second.path.glob("*.safetensors"))
    for part in parts:
        left, right = first.weights(part), second.weights(part)
        assert left.keys() == right.keys()
        assert [name for name in left if not torch.equal(left[name], right[name])] == []

    def told(run: Path) -> list[dict[str, Any]]:
        # `dead` is what was looked at in this launch: an epoch that was only judged had no look.
        unsteady = ("speed/pairs_per_second", "speed/wait_fraction", "memory/", "time", "dead")
        kept = [e for e in events(run) if e["event"] in {"train", "epoch"}]
        return [{name: x for name, x in event.items() if not name.startswith(unsteady)} for event in kept]

    if events_too:
        assert told(ours) == told(theirs)


@pytest.fixture(scope="module", params=["stateful", "compositional"])
def undisturbed(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    overrides = STATEFUL if request.param == "stateful" else COMPOSITIONAL
    run_dir = tmp_path_factory.mktemp(request.param) / "undisturbed"
    finish(dataset, run_dir, *overrides)
    return run_dir, overrides


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(
    dataset: Path, undisturbed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    reference, overrides = undisturbed
    run_dir, places = tmp_path / "killed", random.Random(7)
    for kill_after in (3, 6, 10):
        process = start(dataset, run_dir, *overrides, "train.checkpoint_steps=1")
        wait_for(process, lambda at=kill_after: steps_told(run_dir)[-1:] >= [at])  # type: ignore[misc]
        time.sleep(0.05 * places.random())  # somewhere within a step, or a save
        process.kill()
        process.communicate()
        newest = newest_checkpoint(run_dir)
        assert newest is not None
        assert newest.progress.step >= kill_after - 1
    finish(dataset, run_dir, *overrides, "train.checkpoint_steps=1")
    assert_same_end(run_dir, reference)
    assert steps_told(run_dir) == list(range(1, 13)), "each step is told once"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_within_a_step_and_the_same_command_goes_on(
    dataset: Path, undisturbed: tuple[Path, list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    reference, overrides = undisturbed
    run_dir = tmp_path / "stopped"
    process = start(dataset, run_dir, *overrides)
    wait_for(process, lambda: steps_told(run_dir)[-1:] >= [6])
    process.send_signal(number)
    before = steps_told(run_dir)[-1]
    errors = process.communicate()[1]
    assert process.returncode == 143
    progress = open_checkpoint(run_dir / "checkpoints" / "interrupted").progress
    assert before <= progress.step <= before + 2
    assert errors.splitlines()[-1] == (
        f"stopped; the same command goes on from epoch {progress.epoch}, step {progress.step}"
    )
    assert not (run_dir / STOP).exists()
    finish(dataset, run_dir, *overrides)
    assert_same_end(run_dir, reference)


def test_a_note_in_the_run_directory_stops_it_from_anywhere(dataset: Path, tmp_path: Path) -> None:
    process = start(dataset, tmp_path / "run", "train.epochs=500")
    wait_for(process, lambda: len(steps_told(tmp_path / "run")) > 0)
    (tmp_path / "run" / STOP).touch()
    process.communicate()
    assert process.returncode == 143


@pytest.mark.slow
def test_a_stop_during_the_validation_keeps_the_epoch(dataset: Path, tmp_path: Path) -> None:
    overrides = ["train.epochs=1", "data.batch_size=8"]
    finish(dataset, tmp_path / "whole", *overrides)
    # A stop that is asked for before the first step is met after it, and after the last step of this epoch of one.
    process = start(dataset, tmp_path / "run", *overrides)
    wait_for(process, lambda: (tmp_path / "run" / "checkpoints" / "last").is_dir())
    process.send_signal(signal.SIGTERM)
    process.communicate()
    if process.returncode == 143:
        kept = newest_checkpoint(tmp_path / "run")
        assert kept is not None
        assert kept.progress.step == 1
        assert kept.progress.epoch == 0
        finish(dataset, tmp_path / "run", *overrides)
    assert_same_end(tmp_path / "run", tmp_path / "whole", events_too=False)


def test_time_is_a_reason_to_save(dataset: Path, tmp_path: Path) -> None:
    process = start(dataset, tmp_path / "run", "train.save_minutes=1e-6", "train.epochs=500")
    wait_for(process, lambda: steps_told(tmp_path / "run")[-1:] >= [3])
    process.kill()
    process.communicate()
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert newest.progress.step >= 2
    assert newest.progress.loader is not None, "within an epoch"


def test_patience_ends_a_run_that_no_longer_gets_better(dataset: Path, tmp_path: Path) -> None:
    finish(dataset, tmp_path / "run", "train.epochs=50", "train.patience=2", "optimizer.learning_rate=1e-9")
    epochs = [event for event in events(tmp_path / "run") if event["event"] == "epoch"]
    assert len(epochs) < 50
    assert [epoch["best"] for epoch in epochs][-2:] == [False, False]
    finish(dataset, tmp_path / "run", "train.epochs=50", "train.patience=2", "optimizer.learning_rate=1e-9")
    assert len([event for event in events(tmp_path / "run") if event["event"] == "epoch"]) == len(epochs)


def test_the_average_of_the_weights_is_what_a_checkpoint_gives(dataset: Path, tmp_path: Path) -> None:
    from training.checkpoint import load_model

    finish(dataset, tmp_path / "run", "train.average=0.5", "train.epochs=1")
    checkpoint = open_checkpoint(tmp_path / "run" / "checkpoints" / "last")
    loaded = load_model(checkpoint.path).state_dict()
    trained, average = checkpoint.weights(), checkpoint.weights("average")
    name = "stages.0.layers.0.qkv.weight"
    assert torch.equal(loaded[name], average[name])
    assert not torch.equal(loaded[name], trained[name])


def test_the_rate_warms_up_and_falls(dataset: Path, tmp_path: Path) -> None:
    finish(dataset, tmp_path / "run", "schedule.kind=cosine", "schedule.warmup_steps=4", "schedule.lowest=0.1")
    factors = [
        event["optimizer/learning_rate"] / 1e-4 for event in events(tmp_path / "run") if event["event"] == "train"
    ]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert 0.1 <= factors[-1] < 0.2
