"""Checkpoints: whole or not there, never with a weight that is not finite, exact in what they bring back."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from command import assert_one_line, run_training
from safetensors.torch import load_file, save_file

from shards.errors import CascadenceError
from shards.schema import CodecSpec
from shards.settings import load_settings
from training.checkpoint import (
    CheckpointRecord,
    initialise_state,
    load_model,
    newest_checkpoint,
    open_checkpoint,
    restore_state,
    save_checkpoint,
)
from training.config import Config
from training.models.cascade import Cascade
from training.state import Progress, TrainState, new_state

SMALL = [
    "model.cascade.layers=1",
    "model.cascade.feedforward=1",
    "model.masking.channels=32",
    "discriminator.channels=[16, 16, 16, 16]",
]
CONFIG = load_settings(Config, None, SMALL)
GAN = load_settings(Config, None, [*SMALL, "losses.gan=0.1"])
CPU = torch.device("cpu")


def make_state(seed: int, step: int = 3, config: Config = CONFIG) -> TrainState:
    """A model that has taken a few steps, so that the optimizers have something to save."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    state = new_state(config, 128, CPU)
    for _ in range(2):
        latents = state.model(torch.randn(1, 128, 10), torch.randn(1, 128, 10)).latents
        take_step(state.optimizer, latents.square().mean())
        if state.adversary is not None:
            take_step(state.adversary.optimizer, state.adversary.discriminator(latents.detach()).square().mean())
    state.progress = Progress(step=step, epoch=1, best_loss=0.5, best_epoch=1)
    return state


def take_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def make_record(state: TrainState) -> CheckpointRecord:
    return CheckpointRecord(
        codec=CodecSpec(name="mdct", stage="transform"),
        dataset_fingerprint="f" * 64,
        frames=40,
        progress=state.progress.as_json(),
        metrics={"loss/total": 0.5},
    )


def save(path: Path, state: TrainState, config: Config = CONFIG) -> Path:
    save_checkpoint(path, state, config, make_record(state))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    state = make_state(1)
    return save(tmp_path_factory.mktemp("run") / "checkpoints" / "last", state), state


@pytest.fixture(scope="module")
def saved_gan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    state = make_state(1, config=GAN)
    return save(tmp_path_factory.mktemp("gan") / "checkpoints" / "last", state, GAN), state


def assert_same_optimizer(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    first, second = ours.state_dict(), theirs.state_dict()
    assert first["state"].keys() == second["state"].keys() != set()
    for number, slots in first["state"].items():
        assert all(torch.equal(slots[slot], second["state"][number][slot]) for slot in slots)
    assert first["param_groups"] == second["param_groups"]


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    second = theirs.state_dict()
    assert [name for name, tensor in ours.state_dict().items() if not torch.equal(tensor, second[name])] == []


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
    assert_same_weights(state.model, other.model)
    assert_same_optimizer(state.optimizer, other.optimizer)


def test_a_discriminator_and_its_optimizer_come_back_to_the_bit(saved_gan: tuple[Path, TrainState]) -> None:
    path, state = saved_gan
    other = make_state(2, step=0, config=GAN)
    assert state.adversary is not None
    assert other.adversary is not None
    restore_state(open_checkpoint(path), other)
    assert_same_weights(state.adversary.discriminator, other.adversary.discriminator)
    assert_same_optimizer(state.adversary.optimizer, other.adversary.optimizer)
    assert_same_optimizer(state.optimizer, other.optimizer)
    assert other.adversary.optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert other.adversary.optimizer.param_groups[0]["lr"] == GAN.optimizer.learning_rate / 2


def test_a_resume_with_a_lower_rate_is_one(saved: tuple[Path, TrainState]) -> None:
    path, state = saved
    slower = load_settings(Config, None, [*SMALL, "optimizer.learning_rate=1e-6", "optimizer.weight_decay=0.5"])
    other = new_state(slower, 128, CPU)
    restore_state(open_checkpoint(path), other)
    group = other.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (1e-6, 0.5)
    assert other.optimizer.state_dict()["state"].keys() == state.optimizer.state_dict()["state"].keys()


def test_no_file_of_it_needs_pickle(saved: tuple[Path, TrainState], saved_gan: tuple[Path, TrainState]) -> None:
    plain = {"COMPLETE", "checkpoint.json", "config.yaml", "model.safetensors", "optimizer.safetensors"}
    assert {p.name for p in saved[0].iterdir()} == plain
    own = {"discriminator.safetensors", "discriminator_optimizer.safetensors"}
    assert {p.name for p in saved_gan[0].iterdir()} == plain | own


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    good = save(tmp_path / "last", make_state(1))
    state = make_state(1)
    with torch.no_grad():
        state.model.get_parameter("stages.1.projection.norm.bias")[3] = bad
    with pytest.raises(CascadenceError, match=r"stages\.1\.projection\.norm\.bias is not finite; go back"):
        save(tmp_path / "last", state)
    load_model(good)
    assert [p.name for p in tmp_path.iterdir()] == ["last"], "nothing half-written is left, the good one stays"


def test_a_discriminator_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    state = make_state(1, config=GAN)
    assert state.adversary is not None
    with torch.no_grad():
        state.adversary.discriminator.get_parameter("classifier.3.bias")[0] = float("nan")
    with pytest.raises(CascadenceError, match=r"classifier\.3\.bias is not finite"):
        save(tmp_path / "last", state, GAN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["model", "optimizer", "discriminator"])
def test_weights_that_are_not_finite_are_not_loaded(tmp_path: Path, part: str) -> None:
    path = save(tmp_path / "last", make_state(1, config=GAN), GAN)
    weights = load_file(path / f"{part}.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.ndim > 0)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, path / f"{part}.safetensors")
    with pytest.raises(CascadenceError) as refused:
        restore_state(open_checkpoint(path), make_state(2, config=GAN))
    assert str(refused.value) == f"{path}: the weight {name} is not finite; go back to an earlier checkpoint"
    if part == "model":
        generate = ["generate", "--checkpoint", path, "--shards", tmp_path, "--out", tmp_path / "out"]
        with pytest.raises(CascadenceError, match="is not finite"):
            load_model(path)
        assert run_training(*generate).code == 1


def test_a_replaced_checkpoint_is_the_new_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path / "last", make_state(1, step=3))
    save(tmp_path / "last", make_state(1, step=4))
    assert open_checkpoint(tmp_path / "last").progress.step == 4
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_full_disk_is_an_error_that_names_the_checkpoint_and_keeps_the_last_one(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        path = save(disk / "last", make_state(1, step=3))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        with pytest.raises(OSError, match="No space left") as refused:
            save(path, make_state(1, step=4))
        assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(path))
        assert sorted(p.name for p in disk.iterdir()) == ["filler", "last"]
        assert open_checkpoint(path).progress.step == 3
        (disk / "filler").unlink()
    finally:
        subprocess.run(["umount", disk], check=True)


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


def test_what_is_no_checkpoint_gets_one_clear_line(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("file", "content", "code", "said"),
    [
        ("checkpoint.json", '{"version": 2}', 1, "is of version 2, this program reads 1; use the one that wrote it"),
        ("checkpoint.json", "[]", 1, "is of version None, this program reads 1"),
        ("checkpoint.json", '{"version": 1}', 1, "can't be read"),
        ("checkpoint.json", "{", 1, "not valid JSON"),
        ("config.yaml", "model: [", 1, "can't be read"),
        ("config.yaml", "models: {}", 2, "config.yaml: models"),
        ("config.yaml", "\ud800", 1, "can't be read"),
    ],
)
def test_documents_that_can_not_be_read_get_one_line(
    saved: tuple[Path, TrainState], tmp_path: Path, file: str, content: str, code: int, said: str
) -> None:
    folder = tmp_path / "last"
    folder.mkdir()
    for path in saved[0].iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / file).write_bytes(content.encode(errors="surrogatepass"))
    refused = run_training("generate", "--checkpoint", folder, "--shards", tmp_path, "--out", tmp_path / "out")
    assert_one_line(refused, code, str(folder), said)


def test_version_and_codec_lie_inside(saved: tuple[Path, TrainState]) -> None:
    document = json.loads((saved[0] / "checkpoint.json").read_text())
    assert document["version"] == 1
    assert document["codec"]["name"] == "mdct"
    assert open_checkpoint(saved[0]).config == CONFIG


def test_a_new_training_takes_what_fits_and_tells_the_rest(saved: tuple[Path, TrainState]) -> None:
    path, old = saved
    other = load_settings(Config, None, [*SMALL, "model.cascade.layers=2", "model.agent=none", "losses.gan=0.1"])
    state = new_state(other, 128, CPU)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    reports = initialise_state(open_checkpoint(path), state)
    report = reports["model"]
    after, theirs = state.model.state_dict(), old.model.state_dict()
    assert set(report.kept) | set(report.reinitialised) == set(after)
    assert all(name.startswith(("stages.0.layers.1.", "stages.1.layers.1.")) for name in report.reinitialised)
    assert set(report.reinitialised.values()) == {"is missing"}
    assert all(name.startswith("agent.") for name in report.dropped)
    assert set(report.dropped) == {name for name in theirs if name.startswith("agent.")}
    assert all(torch.equal(after[name], theirs[name]) for name in report.kept)
    assert all(torch.equal(after[name], before[name]) for name in report.reinitialised)
    kept = sum(after[name].numel() for name in report.kept)
    assert report.share == pytest.approx(kept / sum(tensor.numel() for tensor in after.values()))
    assert reports["discriminator"].kept == ()
    assert reports["discriminator"].reinitialised["classifier.3.bias"] == "is missing"
    assert state.progress == Progress()
    assert not state.optimizer.state_dict()["state"]


def test_a_tensor_of_another_shape_is_made_anew_and_named(saved: tuple[Path, TrainState]) -> None:
    wider = load_settings(Config, None, [*SMALL, "model.masking.channels=64"])
    state = new_state(wider, 128, CPU)
    report = initialise_state(open_checkpoint(saved[0]), state)["model"]
    assert report.reinitialised["agent.input_head.0.weight"] == "has [16, 32, 3], wants [32, 64, 3]"
    assert "stages.0.layers.0.qkv.weight" in report.kept
    assert report.dropped == ()
    assert isinstance(state.model, Cascade)
