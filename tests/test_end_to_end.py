"""The whole line on four pairs of two seconds: real Ray, real Ray Train, real MLflow, audio at the end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

import shards.cli.app
import training.cli.app
from pipeline.cli.app import app as pipeline_app
from shards import open_dataset
from shards.console import run
from training.checkpoint import load_model
from training.events import read_events

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def call(app: typer.Typer, *arguments: object) -> None:
    with pytest.raises(SystemExit) as done:
        run(app, "cascadence", [str(argument) for argument in arguments])
    assert done.value.code in {0, None}


@pytest.fixture(scope="module")
def line(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every command once; each test looks at one part of what they left."""
    assert ray_cluster.is_initialized()
    folder = tmp_path_factory.mktemp("line")
    call(pipeline_app, "synthesize", folder / "wav", "--pairs", 4, "--seconds", 2)
    pair = ["pair", folder / "wav", "--out", folder / "pairs.jsonl"]
    call(pipeline_app, *pair, "--mode", "suffix", "--seconds", 2)
    encode = ["encode", folder / "pairs.jsonl", "--out", folder / "ds", "--codec", "mdct"]
    call(pipeline_app, *encode, "--set", "output.samples_per_shard=2")
    call(shards.cli.app.app, "verify", folder / "ds")
    launch = ["launch", "--shards", folder / "ds", "--run-dir", folder / "run", "--config", "smoke", "--workers", 2]
    call(training.cli.app.app, *launch, "--set", "train.epochs=3", "--set", "train.checkpoint_epochs=2")
    best = folder / "run" / "checkpoints" / "best"
    generate = ["generate", "--checkpoint", best, "--shards", folder / "ds", "--split", "train", "--count", 2]
    call(training.cli.app.app, *generate, "--out", folder / "music")
    return folder


def test_shards_hold_all_pairs(line: Path) -> None:
    dataset = open_dataset(line / "ds")
    assert {split: entry.samples for split, entry in dataset.splits.items()} == {"train": 3, "val": 1}
    assert [len(entry.shards) for entry in dataset.splits.values()] == [2, 1]
    assert dataset.frames == 150


def test_training_leaves_a_complete_run(line: Path) -> None:
    run_dir = line / "run"
    assert {p.name for p in (run_dir / "checkpoints").iterdir()} == {"best", "last", "epoch_0002"}
    events = [event for event, _ in read_events(run_dir / "metrics.jsonl")]
    assert events[0]["world_size"] == 2
    assert events[0]["batch_size"] == 1, "three pairs over two workers"
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2, 3]
    assert all(np.isfinite(event["val/loss/total"]) for event in epochs)
    assert (run_dir / "config.yaml").is_file()
    load_model(run_dir / "checkpoints" / "best")


def test_mlflow_holds_one_finished_run_with_its_curves(line: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{line / 'run' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cascadence")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["losses.balance"] == "15.0"
    assert found.data.params["dataset"] == open_dataset(line / "ds").manifest.fingerprint
    history = client.get_metric_history(found.info.run_id, "val/loss/total")
    told = [e["val/loss/total"] for e, _ in read_events(line / "run" / "metrics.jsonl") if e["event"] == "epoch"]
    assert [point.value for point in history] == pytest.approx(told)
    kept = [artifact.path for artifact in client.list_artifacts(found.info.run_id)]
    assert kept == ["config.yaml", "health.json", "samples"]


def test_generated_audio_is_music_and_no_copy(line: Path) -> None:
    pieces = json.loads((line / "music" / "metrics.json").read_text())["pieces"]
    assert len(pieces) == 2
    for number, piece in enumerate(pieces):
        audio = {}
        for name in ("input", "target", "output"):
            audio[name], rate = soundfile.read(line / "music" / f"piece_{number:03d}" / f"{name}.wav")
            assert rate == 24_000
            assert len(audio[name]) == 48_000
            assert np.isfinite(audio[name]).all()
        level = {name: float(np.sqrt(np.mean(samples**2))) for name, samples in audio.items()}
        for source in ("input", "target"):
            assert 0.5 < level["output"] / level[source] < 2
            likeness = float(np.corrcoef(audio["output"], audio[source])[0, 1])
            assert abs(likeness) < 0.95, "not a copy"
            assert likeness == pytest.approx(piece[f"waveform_correlation_{source}"], abs=0.01)


def test_the_same_launch_again_changes_nothing(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (line / "run" / "metrics.jsonl").read_bytes()
    launch = ["launch", "--shards", line / "ds", "--run-dir", line / "run", "--config", "smoke", "--workers", 2]
    call(training.cli.app.app, *launch, "--set", "train.epochs=3", "--set", "train.checkpoint_epochs=2")
    assert "already trained to epoch 3" in capsys.readouterr().out
    assert (line / "run" / "metrics.jsonl").read_bytes() == before


def test_commands_show_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """What is drawn for a person is drawn by other code than what a pipe gets."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "pipeline", "synthesize", str(tmp_path / "wav"), "--pairs", "2", "--seconds", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:
        pass  # Linux says EIO at the end of a terminal
    finally:
        os.close(master)
    assert process.wait() == 0, shown.decode(errors="replace")
    assert b"composing" in shown
    assert b"2/2" in shown
    assert b"1 train and 1 val pairs" in shown
