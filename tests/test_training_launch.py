"""Launching without Ray: resume to the bit after a kill, run directories, and clear words for what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import assert_one_line, run_training
from make_data import make_dataset

from shards.console import run
from shards.schema import CodecSpec
from training.checkpoint import load_model, newest_checkpoint, open_checkpoint
from training.cli.app import app
from training.events import read_events

ROOT = Path(__file__).parents[1]
GAME = ("losses.gan=0.1", "discriminator.channels=[16, 16, 16, 16]", "discriminator.learning_rate=1e-3")
SMALL = [
    "model.cascade.layers=1",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "tracking.mlflow=off",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [5, 3], "val": [3]})


def options(dataset: Path | str, run_dir: Path, *overrides: str) -> list[str]:
    sets = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
    return ["launch", "--shards", str(dataset), "--run-dir", str(run_dir), "--local", *sets]


def launch(dataset: Path | str, run_dir: Path, *overrides: str, extra: tuple[str, ...] = ()) -> int:
    with pytest.raises(SystemExit) as done:
        run(app, "python -m training", [*options(dataset, run_dir, *overrides), *extra])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs of four steps each, never interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert launch(dataset, run_dir, "train.epochs=3", "train.checkpoint_epochs=2") == 0
    return run_dir


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_model(run_dir / "checkpoints" / name).state_dict()


def assert_equal_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


def test_a_dataset_behind_a_url_trains_and_generates_as_its_folder_does(
    dataset: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the cache lies
    assert launch(dataset.as_uri(), tmp_path / "run", "train.epochs=1") == 0
    losses = [
        [event["loss/total"] for event, _ in read_events(run / "metrics.jsonl") if event["event"] == "train"]
        for run in (tmp_path / "run", undisturbed)
    ]
    assert losses[0] == losses[1][: len(losses[0])]
    assert len(losses[0]) == 4
    assert len(list((tmp_path / "home").rglob("ds-*.tar"))) == 3
    best = ["generate", "--checkpoint", str(undisturbed / "checkpoints" / "best"), "--count", "1"]
    with pytest.raises(SystemExit) as done:
        run(app, "python -m training", [*best, "--shards", dataset.as_uri(), "--out", str(tmp_path / "music")])
    assert done.value.code == 0
    assert (tmp_path / "music" / "piece_000" / "output.wav").is_file()


def test_a_run_directory_holds_what_it_should(undisturbed: Path) -> None:
    found = {p.name for p in undisturbed.iterdir()}
    assert found == {"checkpoints", "config.yaml", "health.json", "metrics.jsonl", "samples"}
    assert {p.name for p in (undisturbed / "checkpoints").iterdir()} == {"best", "last", "epoch_0002"}
    events = [event for event, _ in read_events(undisturbed / "metrics.jsonl")]
    assert [e["event"] for e in events].count("epoch") == 3
    steps = [e["step"] for e in events if e["event"] == "train"]
    assert steps == list(range(1, 13))
    losses = [e["val/loss/total"] for e in events if e["event"] == "epoch"]
    newest = newest_checkpoint(undisturbed)
    assert newest is not None
    assert newest.progress.best_loss == min(losses)
    assert newest.progress.best_epoch == losses.index(min(losses)) + 1


def start_and_signal(
    dataset: Path, run_dir: Path, number: signal.Signals, *overrides: str
) -> subprocess.CompletedProcess[str]:
    """Launch in another process, and signal it once it has told of its seventh step."""
    arguments = [sys.executable, "-m", "training", *options(dataset, run_dir, *overrides)]
    # Sums in another number of threads differ in the last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(event["step"] >= 7 for event, _ in read_events(run_dir / "metrics.jsonl")):
            break
        time.sleep(0.02)
    process.send_signal(number)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def test_a_killed_run_goes_on_to_the_same_weights(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "killed"
    overrides = ("train.epochs=3", "train.checkpoint_epochs=2", "train.checkpoint_steps=1")
    stopped = start_and_signal(dataset, run_dir, signal.SIGKILL, *overrides)
    assert stopped.returncode == -signal.SIGKILL
    newest = newest_checkpoint(run_dir)
    assert newest is not None
    assert 6 <= newest.progress.step < 12, "it was killed in the middle"
    assert launch(dataset, run_dir, *overrides) == 0
    assert_equal_weights(run_dir, undisturbed)
    events = [event for event, _ in read_events(run_dir / "metrics.jsonl")]
    assert [e["step"] for e in events if e["event"] == "train"] == list(range(1, 13)), "each step is told once"


def test_a_game_goes_on_to_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    overrides = (*GAME, "model.cascade.feedforward=1", "train.checkpoint_epochs=1")
    assert launch(dataset, tmp_path / "whole", "train.epochs=2", *overrides) == 0
    start = str(tmp_path / "whole" / "checkpoints" / "epoch_0001")
    assert launch(dataset, tmp_path / "again", "train.epochs=2", *overrides, extra=("--resume", start)) == 0
    whole, again = (open_checkpoint(tmp_path / name / "checkpoints" / "last") for name in ("whole", "again"))
    for part in ("model", "optimizer", "discriminator", "discriminator_optimizer"):
        ours, theirs = whole.weights(part), again.weights(part)
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    events = [event for event, _ in read_events(tmp_path / "whole" / "metrics.jsonl") if event["event"] == "train"]
    assert all({"loss/gan", "gan/real_accuracy", "gan/fake_accuracy"} <= set(event) for event in events)


def test_a_new_run_begins_with_the_weights_of_another(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    start = undisturbed / "checkpoints" / "last"
    # With a rate of next to nothing the weights after an epoch are those it began with.
    still = ("train.epochs=1", "optimizer.learning_rate=1e-30", "optimizer.weight_decay=0", *GAME)
    outcome = run_training(*options(dataset, tmp_path / "run", *still), "--init-from", start)
    assert outcome.code == 0, outcome.err
    said = outcome.err.splitlines()
    before, after = load_model(start).state_dict(), weights(tmp_path / "run")
    assert said[0] == f"{start}: 100.0% of the model: {len(before)} tensors kept, 0 re-initialised, 0 dropped"
    assert said[1] == f"{start}: 0.0% of the discriminator: 0 tensors kept, 12 re-initialised, 0 dropped"
    assert said[2] == "  re-initialised: convolutions.0.weight (is missing)"
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # The power iteration of the spectral norm goes on with every forward pass.
    assert {name.rpartition(".")[2] for name in moved} <= {"_u", "_v"}
    first = open_checkpoint(tmp_path / "run" / "checkpoints" / "last").progress
    assert (first.step, first.epoch) == (4, 1), "a run of its own, from its first step"
    assert first.best_epoch == 1


def test_a_run_that_goes_on_asks_no_other_checkpoint(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert launch(dataset, run_dir, "train.epochs=1") == 0
    again = run_training(
        *options(dataset, run_dir, "train.epochs=3"), "--init-from", undisturbed / "checkpoints" / "last"
    )
    assert again.code == 0
    assert "of the model" not in again.err
    assert_equal_weights(run_dir, undisturbed)


def test_what_does_not_fit_a_new_run_is_named(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    start = undisturbed / "checkpoints" / "last"
    other = ("train.epochs=1", "model.cascade.layers=2", "model.masking.channels=128")
    outcome = run_training(*options(dataset, tmp_path / "run", *other), "--init-from", start, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["epoch"] == 1
    assert "  re-initialised: stages.0.layers.1.qkv.weight (is missing)" in outcome.err
    assert "  re-initialised: agent.input_head.0.weight (has [128, 256, 3], wants [64, 128, 3])" in outcome.err
    refused = run_training(*options(dataset, tmp_path / "other"), "--init-from", tmp_path / "nothing")
    assert_one_line(refused, 1, "nothing: there is no such checkpoint")
    assert not (tmp_path / "other").exists()


def test_ctrl_c_keeps_the_last_checkpoint_and_says_how_to_go_on(dataset: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "stopped"
    stopped = start_and_signal(dataset, run_dir, signal.SIGINT, "train.epochs=500")
    assert stopped.returncode == 130
    newest = newest_checkpoint(run_dir)
    assert newest is not None
    kept = f"epoch {newest.progress.epoch}, step {newest.progress.step}"
    assert stopped.stderr.splitlines()[-1] == f"stopped; the same command goes on from {kept}"
    assert not any(path.name.startswith(".") for path in (run_dir / "checkpoints").iterdir())


def test_more_epochs_go_on_where_the_run_ended(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "longer"
    assert launch(dataset, run_dir, "train.epochs=1") == 0
    assert launch(dataset, run_dir, "train.epochs=3") == 0
    assert_equal_weights(run_dir, undisturbed)


def test_a_finished_run_is_left_as_it_is(dataset: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (undisturbed / "metrics.jsonl").read_bytes()
    assert launch(dataset, undisturbed, "train.epochs=3", "train.checkpoint_epochs=2") == 0
    assert "already trained to epoch 3" in capsys.readouterr().out
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


def test_resume_never_and_from_a_path(
    dataset: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(dataset, undisturbed, "train.epochs=4", extra=("--resume", "never")) == 2
    assert "holds a run already" in capsys.readouterr().err
    start = str(undisturbed / "checkpoints" / "epoch_0002")
    assert launch(dataset, tmp_path / "branch", "train.epochs=3", extra=("--resume", start, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["resumed_from"].endswith("epoch_0002")
    assert_equal_weights(tmp_path / "branch", undisturbed)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--set", "train.epoch=3"), 2, "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        (("--set", "losses.rms_inptu=1"), 2, "did you mean 'losses.rms_input'?"),
        (("--set", "train.epochs=none"), 2, "train.epochs"),
        (("--set", "model.agent=masking+compositional"), 2, "model.agent: 2 agents are asked for"),
        (("--set", "losses.gan=0.1", "--set", "data.batch_size=1"), 2, "losses.gan 0.1 with data.batch_size 1"),
        (("--config", "smok"), 2, "did you mean 'smoke'?"),
        (("--workers", "2"), 2, "--local trains in this one process"),
        (("--resume", "/nowhere"), 1, "/nowhere: there is no such checkpoint"),
    ],
)
def test_misuse_is_one_line(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert launch(dataset, tmp_path / "run", extra=arguments) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists(), "nothing half-written is left behind"


def test_missing_and_damaged_data_are_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(tmp_path / "nothing", tmp_path / "run") == 1
    assert "nothing: there is no such dataset" in capsys.readouterr().err
    cut = make_dataset(tmp_path / "cut", {"train": [4]})
    shard = cut / "train" / "cut-train-000000.tar"
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert launch(cut, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "cut-train-000000.tar" in said
    assert "make it again with `python -m pipeline encode" in said
    assert not (tmp_path / "run").exists()


def test_a_model_is_not_trained_on_with_another_codecs_shards(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encodec = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=6.0, weights_sha256="a" * 64)
    other = make_dataset(tmp_path / "other", {"train": [4]}, codec=encodec)
    assert launch(other, undisturbed, "train.epochs=4") == 1
    said = capsys.readouterr().err
    assert "made by the codec encodec" in said
    assert "--codec mdct" in said


def test_a_run_is_not_gone_on_with_as_another_model(
    dataset: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(dataset, undisturbed, "train.epochs=4", "model.cascade.dropout=0.2") == 2
    assert "another `model` section" in capsys.readouterr().err


def test_a_small_dataset_trains_with_smaller_batches(dataset: Path, tmp_path: Path) -> None:
    assert launch(dataset, tmp_path / "run", "train.epochs=1", "data.batch_size=64") == 0
    events = [event for event, _ in read_events(tmp_path / "run" / "metrics.jsonl")]
    assert events[0]["batch_size"] == 8, "all that there is, in one step"
    assert [e["step"] for e in events if e["event"] == "train"] == [1]


def test_a_game_needs_two_pairs_a_rank(tmp_path: Path) -> None:
    lonely = make_dataset(tmp_path / "lonely", {"train": [1]})
    refused = run_training(*options(lonely, tmp_path / "run", *GAME))
    assert_one_line(refused, 1, "1 pairs to train on are not 2 for each of 1 workers, which losses.gan needs")
    assert not (tmp_path / "run").exists()


def test_without_validation_pairs_the_training_loss_decides(tmp_path: Path) -> None:
    plain = make_dataset(tmp_path / "plain", {"train": [4]})
    assert launch(plain, tmp_path / "run", "train.epochs=1") == 0
    assert (tmp_path / "run" / "checkpoints" / "best" / "COMPLETE").is_file()


def test_local_training_needs_neither_ray_nor_mlflow(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['ray'] = sys.modules['mlflow'] = None  # as if they were not installed\n"
        "from shards.console import run\n"
        "from training.cli.app import app\n"
        f"run(app, 'training', {options(dataset, tmp_path / 'run', 'train.epochs=1', 'tracking.mlflow=on')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [event for event, _ in read_events(tmp_path / "run" / "metrics.jsonl")]
    assert events[-1]["event"] == "end"
    assert "loss/total" in events[1]
    assert not (tmp_path / "run" / "mlflow.db").exists()
