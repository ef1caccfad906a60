"""Checkpoints: directories that are whole or not there, without pickle.

A checkpoint holds `model.safetensors`, `config.yaml` and `checkpoint.json`, from a training `optimizer.safetensors`
too, with a GAN `discriminator.safetensors` and `discriminator_optimizer.safetensors`, and the marker `COMPLETE`,
written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import Field, ValidationError
from torch import Tensor

from shards.errors import CascadenceError, DatasetError
from shards.files import atomic_directory, is_complete, read_json, sha256_bytes, sha256_file, write_json
from shards.schema import CodecSpec, Record
from shards.settings import dump_yaml, validate
from training.config import Config
from training.models.build import Model, build_model
from training.models.discriminator import Discriminator
from training.progress import Progress
from training.state import TrainState
from training.weights import LoadReport, Weights, load_exactly, load_partially, read_weights, write_weights

CHECKPOINTS = "checkpoints"
VERSION = 1
MODEL, AVERAGE, OPTIMIZER = "model", "average", "optimizer"
DISCRIMINATOR, DISCRIMINATOR_OPTIMIZER = "discriminator", "discriminator_optimizer"


class CheckpointRecord(Record):
    """`checkpoint.json`: what a checkpoint is of; `origin` tells where an imported one comes from."""

    version: Literal[1] = 1
    codec: CodecSpec
    dataset_fingerprint: str | None
    frames: int
    progress: dict[str, Any]
    metrics: dict[str, float]
    optimizer_groups: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    origin: dict[str, Any] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk, its documents read."""

    path: Path
    config: Config
    record: CheckpointRecord

    @property
    def progress(self) -> Progress:
        """How far the run had come."""
        return Progress.from_json(self.record.progress)

    def has(self, part: str) -> bool:
        """Whether it holds `model`, `optimizer`, `discriminator` or `discriminator_optimizer`."""
        return self._file(part).is_file()

    def weights(self, part: str = MODEL) -> dict[str, Tensor]:
        """Read a part's tensors; see `read_weights`."""
        return read_weights(self._file(part))

    def _file(self, part: str) -> Path:
        return self.path / f"{part}.safetensors"


def save_checkpoint(path: Path, state: TrainState, config: Config, record: CheckpointRecord) -> None:
    """Write the checkpoint of a training; see `write_checkpoint`."""
    parts: dict[str, Weights] = {MODEL: state.model.state_dict()}
    groups = {}
    parts[OPTIMIZER], groups[OPTIMIZER] = _flatten_optimizer(state.optimizer)
    if state.average is not None:
        parts[AVERAGE] = state.average.state_dict()
    if state.adversary is not None:
        parts[DISCRIMINATOR] = state.adversary.discriminator.state_dict()
        parts[DISCRIMINATOR_OPTIMIZER], groups[DISCRIMINATOR_OPTIMIZER] = _flatten_optimizer(state.adversary.optimizer)
    write_checkpoint(path, parts, config, record.model_copy(update={"optimizer_groups": groups}))


def write_checkpoint(path: Path, parts: Mapping[str, Weights], config: Config, record: CheckpointRecord) -> None:
    """Write a checkpoint directory atomically, in place of an older one.

    Raises `CascadenceError`, naming the first tensor, where a weight is not finite: such a checkpoint would only
    hide the last good one.
    """
    with atomic_directory(path) as folder:
        for part, weights in parts.items():
            write_weights(folder / f"{part}.safetensors", weights)
        (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
        write_json(folder / "checkpoint.json", record.model_dump(mode="json"))


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint's documents. Raises `CascadenceError`, with the mend, where it is missing or incomplete."""
    folder = Path(path)
    if not folder.is_dir():
        mend = "train one with `python -m training launch`"
        if folder.suffix in {".pt", ".pth"}:
            mend = "a file of the seeds is read by `python -m training import-checkpoint`"
        raise CascadenceError(f"{folder}: there is no such checkpoint; {mend}")
    if not is_complete(folder):
        raise CascadenceError(f"{folder}: not a complete checkpoint; use another one of {folder.parent}")
    content = read_json(folder / "checkpoint.json")
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise CascadenceError(
            f"{folder}: is of version {version}, this program reads {VERSION}; use the one that wrote it"
        )
    try:
        record = CheckpointRecord.model_validate(content)
        Progress.from_json(record.progress)
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        config = validate(Config, yaml.safe_load(text), str(folder / "config.yaml"))
    except (ValidationError, KeyError, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise CascadenceError(f"{folder}: can't be read ({what}); use another one of {folder.parent}") from None
    return Checkpoint(folder, config, record)


def load_model(ckpt_dir: Path | str) -> Model:
    """Load a checkpoint's model, in eval mode on the CPU.

    `model(input_latents, target_latents)`, both [B, D, T], returns an object with `.latents` [B, D, T] and `.agent`.
    Raises `CascadenceError` where the checkpoint is missing, incomplete or holds weights that are not finite.
    """
    checkpoint = open_checkpoint(ckpt_dir)
    model = build_model(checkpoint.config.model, checkpoint.record.codec.dim, checkpoint.config.compat)
    load_exactly(model, judged_weights(checkpoint), checkpoint.path)
    return model.eval()


def load_discriminator(checkpoint: Checkpoint) -> Discriminator | None:
    """Load a checkpoint's discriminator, in eval mode on the CPU; None where it was trained without."""
    if not checkpoint.has(DISCRIMINATOR):
        return None
    discriminator = Discriminator(checkpoint.config.discriminator, checkpoint.record.codec.dim)
    load_exactly(discriminator, checkpoint.weights(DISCRIMINATOR), checkpoint.path)
    return discriminator.eval()


def judged_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read the weights that validation judged: the moving average where the training kept one."""
    return checkpoint.weights(AVERAGE if checkpoint.has(AVERAGE) else MODEL)


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256, in hex, of what decides what a checkpoint's model makes: its judged weights and its settings."""
    part = AVERAGE if checkpoint.has(AVERAGE) else MODEL
    files = (checkpoint.path / f"{part}.safetensors", checkpoint.path / "config.yaml")
    return sha256_bytes("".join(map(sha256_file, files)).encode())


def restore_state(checkpoint: Checkpoint, state: TrainState) -> None:
    """Bring model, optimizers and progress to where the checkpoint was saved.

    What it does not hold stays as it is: an imported one has no optimizers, one without a GAN no discriminator.
    """
    load_exactly(state.model, checkpoint.weights(), checkpoint.path)
    _restore_optimizer(checkpoint, OPTIMIZER, state.optimizer)
    if state.average is not None and checkpoint.has(AVERAGE):
        load_exactly(state.average, checkpoint.weights(AVERAGE), checkpoint.path)
    if state.adversary is not None and checkpoint.has(DISCRIMINATOR):
        load_exactly(state.adversary.discriminator, checkpoint.weights(DISCRIMINATOR), checkpoint.path)
        _restore_optimizer(checkpoint, DISCRIMINATOR_OPTIMIZER, state.adversary.optimizer)
    state.progress = checkpoint.progress


def initialise_state(checkpoint: Checkpoint, state: TrainState) -> dict[str, LoadReport]:
    """Begin a new training with what fits of a checkpoint's weights; returns what became of each part's tensors."""
    reports = {MODEL: load_partially(state.model, judged_weights(checkpoint))}
    if state.average is not None:
        load_partially(state.average, state.model.state_dict())
    if state.adversary is not None:
        judge = checkpoint.weights(DISCRIMINATOR) if checkpoint.has(DISCRIMINATOR) else {}
        reports[DISCRIMINATOR] = load_partially(state.adversary.discriminator, judge)
    return reports


def require_same_data(checkpoint: Checkpoint, fingerprint: str) -> None:
    """Raise `DatasetError` where an epoch that was begun can't go on because the dataset is another one."""
    if checkpoint.progress.loader is not None and checkpoint.record.dataset_fingerprint != fingerprint:
        raise DatasetError(
            f"{checkpoint.path}: was saved within an epoch of another dataset; resume with the same --shards, or from "
            "a checkpoint at the end of an epoch"
        )


def newest_checkpoint(run_dir: Path, before: int | None = None) -> Checkpoint | None:
    """Find the complete checkpoint of a run that is furthest on, of those before a step; None where there is none."""
    every = [open_checkpoint(path) for path in _complete(run_dir / CHECKPOINTS)]
    found = [checkpoint for checkpoint in every if before is None or checkpoint.progress.step < before]
    return max(found, key=lambda checkpoint: checkpoint.progress.order, default=None)


def _complete(folder: Path) -> Iterator[Path]:
    # Hidden ones too: a crash between the two renames of a replacement leaves the older one as `.NAME.previous`.
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and is_complete(path):
            yield path


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    content = optimizer.state_dict()
    tensors = {f"{number}.{slot}": value for number, slots in content["state"].items() for slot, value in slots.items()}
    return tensors, content["param_groups"]


def _restore_optimizer(checkpoint: Checkpoint, part: str, optimizer: torch.optim.Optimizer) -> None:
    if not checkpoint.has(part):
        return
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.weights(part).items():
        number, _, slot = name.partition(".")
        slots.setdefault(int(number), {})[slot] = tensor
    own = optimizer.state_dict()["param_groups"]
    # What the configuration says, and `fused`, which the device decides, are of now: a resume with a lower rate has it.
    groups = [
        saved | {name: now[name] for name in ("lr", "weight_decay", "betas", "fused")}
        for saved, now in zip(checkpoint.record.optimizer_groups[part], own, strict=True)
    ]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
