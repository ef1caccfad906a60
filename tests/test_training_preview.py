"""What a training sounds like: when it is made, of what, and that making it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from make_data import make_dataset

from shards import open_dataset
from shards.codec import load_codec
from shards.settings import load_settings
from training.checkpoint import load_model
from training.config import Config
from training.events import Event, MemorySink, read_events
from training.generate import generate, soft_limit
from training.preview import PairPreview, held_out_pairs
from training.runtime import Runtime
from training.state import TrainState, new_state
from training.worker import WorkerSpec, train_rank

ALONE = Runtime(0, 1, torch.device("cpu"))

SMALL = (
    "model.cascade.layers=1",
    "model.cascade.feedforward=1",
    "model.masking.channels=16",
    "model.compositional.channels=4",
    "model.compositional.selector=8",
    "model.compositional.width=16",
    "model.compositional.layers=1",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "tracking.mlflow=off",
    "tracking.samples=1",
)
SINGLE = ("model.agent=none", "model.cascade.stages=1")
"""A small model without an agent: for what does not depend on the model."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [4], "val": [5, 1]})


def train(dataset: Path, run_dir: Path, *overrides: str) -> list[Event]:
    """Train in this process; gives the events."""
    config = load_settings(Config, None, [*SMALL, *overrides])
    told = MemorySink()
    run_dir.mkdir()
    train_rank(WorkerSpec(config, str(dataset), run_dir, None, None, None), ALONE, [told])
    return told.events


@pytest.fixture(scope="module")
def heard(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A run of three epochs with pieces of every second one."""
    run_dir = tmp_path_factory.mktemp("runs") / "heard"
    return run_dir, train(dataset, run_dir, "train.epochs=3", "tracking.sample_epochs=2")


def test_pieces_come_every_so_many_epochs_and_after_the_last_one(heard: tuple[Path, list[Event]]) -> None:
    run_dir, events = heard
    told = {event["epoch"]: event["folders"] for event in events if event["event"] == "samples"}
    assert told == {
        2: ["samples/sources", "samples/epoch_0002"],
        3: ["samples/sources", "samples/epoch_0003"],
    }
    (pair,) = (run_dir / "samples" / "sources").glob("0*")
    for folder, files in (
        ("sources", {"input.wav", "target.wav", "piece.json"}),
        (
            "epoch_0003",
            {"output.wav", "waveforms.png", "spectrograms.png", "masks.png", "masks.npz", "metrics.json"},
        ),
    ):
        assert {file.name for file in (run_dir / "samples" / folder / pair.name).iterdir()} == files
    for picture in (run_dir / "samples" / "epoch_0003" / pair.name).glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_last_pieces_are_what_the_last_checkpoint_makes(heard: tuple[Path, list[Event]], dataset: Path) -> None:
    run_dir, _ = heard
    (pair,) = held_out_pairs(open_dataset(dataset), 1)
    made = generate(load_model(run_dir / "checkpoints" / "last"), load_codec("mdct"), pair)
    for name, folder in (("input", "sources"), ("target", "sources"), ("output", "epoch_0003")):
        samples, rate = soundfile.read(run_dir / "samples" / folder / pair.name / f"{name}.wav", dtype="float32")
        assert rate == 24_000
        assert abs(samples - soft_limit(made.audio[name])).max() < 2 / 32768, name
    assert (samples**2).mean() > 0, "it is no silence"


def test_listening_changes_no_weight(heard: tuple[Path, list[Event]], dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "deaf", "train.epochs=3", "tracking.sample_epochs=null")
    assert not (tmp_path / "deaf" / "samples").exists()
    ours, theirs = (load_model(run / "checkpoints" / "last").state_dict() for run in (heard[0], tmp_path / "deaf"))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def preview(dataset: Path, run_dir: Path, *overrides: str) -> tuple[TrainState, PairPreview]:
    """An untrained model, and what makes pieces of it."""
    state = new_state(load_settings(Config, None, [*SMALL, *overrides]), 128, torch.device("cpu"))
    return state, PairPreview(run_dir, open_dataset(dataset), load_codec("mdct"), state, 1, 1)


@pytest.mark.parametrize("training", [True, False])
def test_a_preview_leaves_random_numbers_and_mode_alone(dataset: Path, tmp_path: Path, training: bool) -> None:
    state, pieces = preview(dataset, tmp_path, "model.masking.hard=on")  # in training these masks are drawn
    state.model.train(training)
    before = torch.get_rng_state()
    assert pieces.make(1, last=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert state.model.training is training


def test_another_agent_shows_its_components_instead_of_masks(dataset: Path, tmp_path: Path) -> None:
    _, pieces = preview(dataset, tmp_path, "model.agent=compositional")
    (pair,) = pieces.make(1, last=False)[1].glob("0*")
    assert {file.name for file in pair.glob("*.png")} == {"waveforms.png", "spectrograms.png", "components.png"}


def test_a_moving_average_is_what_is_heard(dataset: Path, tmp_path: Path) -> None:
    state, pieces = preview(dataset, tmp_path, "train.average=0.9")
    with torch.no_grad():
        for weight in state.model.parameters():
            weight.add_(1.0)
    folders = pieces.make(1, last=False)
    (pair,) = held_out_pairs(open_dataset(dataset), 1)
    samples, _ = soundfile.read(folders[1] / pair.name / "output.wav", dtype="float32")
    for model, alike in ((state.judged, True), (state.model, False)):
        expected = generate(model.eval(), load_codec("mdct"), pair).audio["output"]
        assert bool(abs(samples - expected).max() < 2 / 32768) is alike


def test_pairs_are_taken_from_all_over_the_split(dataset: Path, tmp_path: Path) -> None:
    opened = open_dataset(dataset)
    rows = opened.index("val")
    assert [pair.name for pair in held_out_pairs(opened, 2)] == [
        f"{number:04d}_{rows[number]['key'].decode()[:12]}" for number in (0, 3)
    ]
    assert len(held_out_pairs(opened, 99)) == 6, "as many as there are"
    plain = open_dataset(make_dataset(tmp_path / "plain", {"train": [2]}))
    assert len(held_out_pairs(plain, 1)) == 1, "no other split is there"


def test_a_preview_that_fails_is_a_line_and_the_training_goes_on(dataset: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = load_settings(Config, None, [*SMALL, *SINGLE, "train.epochs=2", "tracking.sample_epochs=1"])
    run_dir.mkdir()
    (run_dir / "samples").write_text("a file where the folder should be")
    told = MemorySink()
    train_rank(WorkerSpec(config, str(dataset), run_dir, None, None, None), ALONE, [told])
    warnings = [event["text"] for event in told.events if event["event"] == "warning"]
    assert [text.partition(": ")[0] for text in warnings] == ["no samples of epoch 1", "no samples of epoch 2"]
    assert all(text.count("\n") == 0 and "samples" in text.partition(": ")[2] for text in warnings)
    assert told.events[-1]["event"] == "end"
    assert told.closed
    assert [event for event, _ in read_events(run_dir / "metrics.jsonl")] == told.events
