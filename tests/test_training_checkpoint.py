"""Checkpoints: whole or not there, never with a weight that is not finite, exact in what they bring back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shards.errors import CascadenceError
from shards.schema import CodecSpec
from shards.settings import load_settings
from training.checkpoint import (
    CheckpointRecord,
    load_model,
    newest_checkpoint,
    open_checkpoint,
    restore_state,
    save_checkpoint,
)
from training.config import Config
from training.models.build import build_model
from training.optim import build_optimizer
from training.state import Progress, TrainState

CONFIG = load_settings(Config, None, ["model.cascade.layers=1"])


def make_state(seed: int, step: int = 3) -> TrainState:
    """A model that has taken a few steps, so that the optimizer has something to save."""
    torch.manual_seed(seed)
    model = build_model(CONFIG.model, 128)
    optimizer = build_optimizer(CONFIG.optimizer, model.parameters(), torch.device("cpu"))
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(1, 128, 10), torch.randn(1, 128, 10)).latents.square().mean().backward()
        optimizer.step()
    return TrainState(model, optimizer, Progress(step=step, epoch=1, best_loss=0.5, best_epoch=1))


def make_record(state: TrainState) -> CheckpointRecord:
    return CheckpointRecord(
        codec=CodecSpec(name="mdct", stage="transform"),
        dataset_fingerprint="f" * 64,
        frames=40,
        progress=state.progress.as_json(),
        metrics={"loss/total": 0.5},
    )


def save(path: Path, state: TrainState) -> Path:
    save_checkpoint(path, state, CONFIG, make_record(state))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    state = make_state(1)
    return save(tmp_path_factory.mktemp("run") / "checkpoints" / "last", state), state


def test_model_comes_back_the_same_in_eval_mode(saved: tuple[Path, TrainState]) -> None:
    path, state = saved
    model = load_model(path)
    assert not any(module.training for module in model.modules())
    source, goal = torch.randn(1, 128, 20), torch.randn(1, 128, 20)
    state.model.eval()
    with torch.no_grad():
        output = model(source, goal)
        assert torch.equal(output.latents, state.model(source, goal).latents)
    assert output.agent is not None
    assert output.agent.input_mask.shape == (1, 128, 20)


def test_training_state_comes_back_to_the_bit(saved: tuple[Path, TrainState]) -> None:
    path, state = saved
    other = make_state(2, step=0)
    restore_state(open_checkpoint(path), other)
    assert other.progress == state.progress
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor), name
    ours, theirs = (s.optimizer.state_dict()["state"] for s in (state, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n][slot], theirs[n][slot]) for n in ours for slot in ours[n])


def test_no_file_of_it_needs_pickle(saved: tuple[Path, TrainState]) -> None:
    path, _ = saved
    assert {p.name for p in path.iterdir()} == {
        "COMPLETE",
        "checkpoint.json",
        "config.yaml",
        "model.safetensors",
        "optimizer.safetensors",
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    good = save(tmp_path / "last", make_state(1))
    state = make_state(1)
    with torch.no_grad():
        state.model.get_parameter("stages.1.output_norm.bias")[3] = bad
    with pytest.raises(CascadenceError, match=r"stages\.1\.output_norm\.bias is not finite; go back"):
        save(tmp_path / "last", state)
    load_model(good)
    assert [p.name for p in tmp_path.iterdir()] == ["last"], "nothing half-written is left, the good one stays"


def test_a_replaced_checkpoint_is_the_new_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path / "last", make_state(1, step=3))
    save(tmp_path / "last", make_state(1, step=4))
    assert open_checkpoint(tmp_path / "last").progress.step == 4
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    folder = tmp_path / "checkpoints"
    for name, step in (("best", 5), ("last", 9), ("epoch_0001", 7)):
        save(folder / name, make_state(1, step=step))
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.path.name == "last"
    (folder / "last" / "COMPLETE").unlink()
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.path.name == "epoch_0001", "one without its marker is no checkpoint"


def test_a_crash_between_the_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints" / ".last.previous", make_state(1, step=8))
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.progress.step == 8


def test_what_is_no_checkpoint_gets_one_clear_line(saved: tuple[Path, TrainState], tmp_path: Path) -> None:
    with pytest.raises(CascadenceError, match=r"there is no such checkpoint; train one"):
        load_model(tmp_path / "nothing")
    (tmp_path / "half").mkdir()
    with pytest.raises(CascadenceError, match="not a complete checkpoint"):
        load_model(tmp_path / "half")
    damaged = save(tmp_path / "damaged", make_state(1))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CascadenceError, match=r"model\.safetensors: can't be read"):
        load_model(damaged)
    foreign = save(tmp_path / "foreign", make_state(1))
    text = (foreign / "config.yaml").read_text().replace("layers: 1", "layers: 2")
    (foreign / "config.yaml").write_text(text)
    with pytest.raises(CascadenceError, match=r"do not fit its config\.yaml"):
        load_model(foreign)
