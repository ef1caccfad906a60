"""How a training hears that it should stop: by signals in this process, and as one of torchrun's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command import assert_one_line, run_pipeline, run_training
from deployment import ROOT
from tiny_training import ENDLESS, steps_told, tiny_dataset, tiny_options, until_it_trains, workers_told

from training.checkpoint import open_checkpoint
from training.stopping import StopNote


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM,), 143),
        ((signal.SIGUSR1,), 143),
        ((signal.SIGINT,), 130),
        ((signal.SIGTERM, signal.SIGTERM), 143),
        ((signal.SIGUSR1, signal.SIGTERM), 143),
        ((signal.SIGINT, signal.SIGTERM), 130),
    ],
)
def test_the_first_signal_leaves_the_note(tmp_path: Path, numbers: tuple[signal.Signals, ...], code: int) -> None:
    note, before = StopNote(tmp_path), signal.getsignal(signal.SIGTERM)
    with note.on_signals():
        assert note.read() == 0
        send(*numbers)
    assert note.read() == code
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_signal_stops_at_once_only_where_it_may(tmp_path: Path, first: signal.Signals) -> None:
    note = StopNote(tmp_path)
    with pytest.raises(KeyboardInterrupt), note.on_signals():
        send(first, signal.SIGINT)
    with note.on_signals(impatient=False):
        send(first, signal.SIGINT)


def test_a_signal_in_the_middle_of_the_note_does_no_harm(tmp_path: Path) -> None:
    """SLURM and its script both send SIGTERM, at nearly the same time."""

    class Disturbed(StopNote):
        def write(self, exit_code: int) -> None:
            send(signal.SIGTERM)
            super().write(exit_code)

    note = Disturbed(tmp_path)
    with note.on_signals():
        send(signal.SIGTERM)
    assert note.read() == 143
    assert [path.name for path in tmp_path.iterdir()] == ["STOP"]


@pytest.mark.parametrize(("content", "code"), [("", 143), ("130\n", 130), ("please\n", 143)])
def test_anybody_may_leave_the_note(tmp_path: Path, content: str, code: int) -> None:
    (tmp_path / "STOP").write_text(content)
    note = StopNote(tmp_path)
    assert note.read() == code
    note.clear()
    note.clear()
    assert note.read() == 0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "ds")


@pytest.mark.slow
def test_torchrun_trains_and_is_stopped_and_only_rank_0_speaks(dataset: Path, tmp_path: Path) -> None:
    """As docs/operations.md types it; Ctrl-C reaches torchrun and its ranks, and once more through torchrun."""
    run_dir = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--"]
    command = [*torchrun, "training", "launch", "--shards", dataset, "--run-dir", run_dir, "--local"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}

    job = subprocess.Popen([*command, *tiny_options(ENDLESS)], start_new_session=True, **pipes)
    until_it_trains(run_dir, job)
    os.killpg(job.pid, signal.SIGINT)
    out, errors = job.communicate()
    with suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)  # nothing of it may be left, whatever went wrong
    assert job.returncode != 0
    saved = open_checkpoint(run_dir / "checkpoints" / "interrupted").progress
    assert saved.step > 0
    assert not (run_dir / "STOP").exists()
    assert out == ""
    assert errors.count(f"stopped; the same command goes on from epoch {saved.epoch}, step {saved.step}") == 1

    ended = subprocess.run([*command, *tiny_options(saved.epoch + 1)], check=False, **pipes)
    assert ended.returncode == 0, ended.stderr
    assert workers_told(run_dir) == [2, 2]
    steps = steps_told(run_dir)
    assert steps == list(range(1, steps[-1] + 1)), "each step is told once, in two runs"
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"{run_dir / 'checkpoints'}: epoch {saved.epoch + 1}, step {steps[-1]}, ")


def test_torchrun_without_local_is_refused(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its processes would start a cluster of its own, and all would train one run."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    outcome = run_training("launch", "--shards", dataset, "--run-dir", tmp_path / "run")
    assert_one_line(outcome, 2, "torchrun has started the workers; add --local")


def test_in_a_ray_job_what_is_made_gets_an_absolute_path(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    mend = "give an absolute path that all its machines see"
    outcome = run_training("launch", "--shards", dataset, "--run-dir", "runs/first")
    assert_one_line(outcome, 2, "--run-dir runs/first: a job's own folder goes with the job", mend)
    outcome = run_pipeline("encode", "/data/pairs.jsonl", "--out", "dataset")
    assert_one_line(outcome, 2, "--out dataset: a job's own folder goes with the job", mend)


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_one_line(
    ray_cluster: Any, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    launch = ["launch", "--shards", dataset, "--run-dir", tmp_path / "run", "--device", "gpu"]
    assert_one_line(run_training(*launch, "--local"), 2, "--device gpu: this machine has no GPU that torch can use")
    assert_one_line(run_training(*launch, "--workers", "8"), 2, "--workers 8: each takes a GPU, and there are ")
    assert not (tmp_path / "run").exists()
