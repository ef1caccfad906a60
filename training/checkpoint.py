"""Checkpoints: directories that are whole or not there, without pickle.

A checkpoint holds `model.safetensors`, `optimizer.safetensors`, `config.yaml` and `checkpoint.json`, and the marker
`COMPLETE`, written last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shards.errors import CascadenceError, DatasetError
from shards.files import atomic_directory, is_complete, read_json, write_json
from shards.schema import CodecSpec, Record
from shards.settings import dump_yaml, validate
from training.config import Config
from training.models.build import build_model
from training.models.cascade import Cascade
from training.state import Progress, TrainState

CHECKPOINTS = "checkpoints"


class CheckpointRecord(Record):
    """`checkpoint.json`: what a checkpoint is of."""

    version: Literal[1] = 1
    codec: CodecSpec
    dataset_fingerprint: str
    frames: int
    progress: dict[str, Any]
    metrics: dict[str, float]


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


def save_checkpoint(path: Path, state: TrainState, config: Config, record: CheckpointRecord) -> None:
    """Write a checkpoint directory atomically, in place of an older one.

    Raises `CascadenceError`, naming the first tensor, where a weight is not finite: such a checkpoint would only
    hide the last good one.
    """
    weights = state.model.state_dict()
    _check_finite(path, weights)
    tensors, groups = _flatten_optimizer(state.optimizer)
    with atomic_directory(path) as folder:
        save_file(_portable(weights), str(folder / "model.safetensors"))
        save_file(_portable(tensors), str(folder / "optimizer.safetensors"))
        (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
        write_json(folder / "checkpoint.json", {**record.model_dump(mode="json"), "optimizer_groups": groups})


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint's documents. Raises `CascadenceError`, with the mend, where it is missing or incomplete."""
    folder = Path(path)
    if not folder.is_dir():
        raise CascadenceError(f"{folder}: there is no such checkpoint; train one with `python -m training launch`")
    if not is_complete(folder):
        raise CascadenceError(f"{folder}: not a complete checkpoint; use another one of {folder.parent}")
    content = read_json(folder / "checkpoint.json")
    try:
        assert isinstance(content, dict)
        content.pop("optimizer_groups", None)
        record = CheckpointRecord.model_validate(content)
        config = validate(Config, yaml.safe_load((folder / "config.yaml").read_text()), str(folder / "config.yaml"))
    except (ValidationError, AssertionError, OSError, yaml.YAMLError) as error:
        raise CascadenceError(f"{folder}: can't be read ({error}); use another one of {folder.parent}") from None
    return Checkpoint(folder, config, record)


def load_model(ckpt_dir: Path | str) -> Cascade:
    """Load a checkpoint's model, in eval mode on the CPU.

    `model(input_latents, target_latents)`, both [B, D, T], returns an object with `.latents` [B, D, T] and `.agent`.
    Raises `CascadenceError` where the checkpoint is missing, incomplete or holds weights that are not finite.
    """
    checkpoint = open_checkpoint(ckpt_dir)
    model = build_model(checkpoint.config.model, checkpoint.record.codec.dim)
    load_weights(checkpoint, model)
    return model.eval()


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Copy a checkpoint's weights into a model of the same configuration. Raises `CascadenceError` unless they fit."""
    weights = _load(checkpoint.path / "model.safetensors")
    _check_finite(checkpoint.path, weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise CascadenceError(f"{checkpoint.path}: its weights do not fit its config.yaml: {first}") from None


def restore_state(checkpoint: Checkpoint, state: TrainState) -> None:
    """Bring model, optimizer and progress to where the checkpoint was saved."""
    load_weights(checkpoint, state.model)
    content = read_json(checkpoint.path / "checkpoint.json")
    assert isinstance(content, dict)
    tensors = _load(checkpoint.path / "optimizer.safetensors")
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, slot = name.partition(".")
        slots.setdefault(int(number), {})[slot] = tensor
    own = state.optimizer.state_dict()["param_groups"]
    # The rates are the configuration's, the rest is the checkpoint's: a resume with a lower rate is a lower rate.
    groups = [
        {**saved, "lr": now["lr"], "weight_decay": now["weight_decay"]}
        for saved, now in zip(content["optimizer_groups"], own, strict=True)
    ]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    state.progress = checkpoint.progress


def require_same_data(checkpoint: Checkpoint, fingerprint: str) -> None:
    """Raise `DatasetError` where an epoch that was begun can't go on because the dataset is another one."""
    if checkpoint.progress.loader is not None and checkpoint.record.dataset_fingerprint != fingerprint:
        raise DatasetError(
            f"{checkpoint.path}: was saved within an epoch of another dataset; resume with the same --shards, or from "
            "a checkpoint at the end of an epoch"
        )


def newest_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Find the complete checkpoint of a run that is furthest on; None where there is none."""
    found = [open_checkpoint(path) for path in _complete(run_dir / CHECKPOINTS)]
    return max(found, key=lambda checkpoint: (checkpoint.progress.step, checkpoint.progress.epoch), default=None)


def _complete(folder: Path) -> Iterator[Path]:
    # Hidden ones too: a crash between the two renames of a replacement leaves the older one as `.NAME.previous`.
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and is_complete(path):
            yield path


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    content = optimizer.state_dict()
    tensors = {f"{number}.{slot}": value for number, slots in content["state"].items() for slot, value in slots.items()}
    return tensors, content["param_groups"]


def _portable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _check_finite(path: Path, weights: dict[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CascadenceError(f"{path}: the weight {name} is not finite; go back to an earlier checkpoint")


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CascadenceError(f"{path}: can't be read ({error}); use another one of {path.parent.parent}") from None
