"""Tensors on disk and in a model: safetensors, always finite, loaded whole or as far as they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from shards.errors import CascadenceError

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a model, and of those that it has no place for; names with a reason or a shape.

    `share` is how much of the model, counted in values, was kept.
    """

    kept: tuple[str, ...]
    reinitialised: dict[str, str]
    dropped: tuple[str, ...]
    share: float

    def as_json(self) -> dict[str, object]:
        """Give the report as plain data."""
        return {
            "kept": list(self.kept),
            "reinitialised": self.reinitialised,
            "dropped": list(self.dropped),
            "share": self.share,
        }


def write_weights(path: Path, weights: Weights) -> None:
    """Write tensors as safetensors.

    Raises `CascadenceError`, naming the first that is not finite, and `OSError` where the disk refuses them: the
    library's own writer hides a full disk in an error of its own.
    """
    for name in not_finite(weights):
        raise CascadenceError(f"{path.parent}: the weight {name} is not finite; go back to an earlier checkpoint")
    path.write_bytes(save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors. Raises `CascadenceError` where the file is missing or damaged, or a tensor is not finite."""
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CascadenceError(f"{path}: can't be read ({error}); use another one of {path.parent.parent}") from None
    for name in not_finite(weights):
        raise CascadenceError(f"{path.parent}: the weight {name} is not finite; go back to an earlier checkpoint")
    return weights


def not_finite(weights: Weights) -> Iterator[str]:
    """Name the tensors with a value that is not finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield name


def load_exactly(model: nn.Module, weights: Weights, owner: Path) -> None:
    """Copy weights into a model that has just these. Raises `CascadenceError`, naming the first that does not fit."""
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        first = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise CascadenceError(f"{owner}: its weights do not fit its config.yaml: {first}") from None


def load_partially(model: nn.Module, weights: Weights) -> LoadReport:
    """Copy what fits by name and shape; the rest of the model stays as it was initialised."""
    own = model.state_dict()
    kept = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    model.load_state_dict(kept, strict=False)
    anew = {
        name: f"has {list(weights[name].shape)}, wants {list(tensor.shape)}" if name in weights else "is missing"
        for name, tensor in own.items()
        if name not in kept
    }
    values = sum(tensor.numel() for tensor in own.values())
    share = sum(tensor.numel() for tensor in kept.values()) / max(values, 1)
    return LoadReport(tuple(kept), anew, tuple(sorted(weights.keys() - own.keys())), share)
