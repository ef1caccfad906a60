"""What the seeds' own implementation computes: its numbers, the weights and inputs that gave them, and its files.

Weights and inputs are drawn by a formula from their names, so that next to nothing has to be stored.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.build import ModelConfig
from training.models.cascade import CascadeConfig

DATA = Path(__file__).parent / "data"
FACTS: dict[str, Any] = json.loads((DATA / "seed_outputs.json").read_text())
MODELS = ("single", "cascade", "cascade_masking", "cascade_compositional")
AGENTS = {"cascade_masking": "masking", "cascade_compositional": "compositional"}
EPOCH = 41


@cache
def outputs() -> dict[str, NDArray[np.float32]]:
    """All arrays that the seeds gave, by name."""
    with np.load(DATA / "seed_outputs.npz") as archive:
        return dict(archive)


def draw(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """The formula: normal numbers of a name."""
    seed = (zlib.crc32(name.encode()) + FACTS["seed"]) % 2**32
    return torch.from_numpy(np.float32(np.random.RandomState(seed).standard_normal(shape) * scale))


def latents() -> tuple[Tensor, Tensor]:
    """Input and target [2, 128, 75]."""
    shape = (2, 128, FACTS["frames"])
    return draw("encoded_input", shape, 5.6), draw("encoded_target", shape, 5.6)


@cache
def audio() -> tuple[Tensor, Tensor, Tensor]:
    """Output, input and target [2, 1, 48000]."""
    source, goal = draw("input_audio", (2, 1, 48_000), 0.1), draw("target_audio", (2, 1, 48_000), 0.1)
    rising = torch.from_numpy(np.linspace(0, 1, 48_000))
    noise = 0.05 * draw("output_audio", (2, 1, 48_000), 1.0)
    return (0.6 * source * rising + 0.3 * goal + noise).float(), source, goal


def model_config(name: str) -> ModelConfig:
    """Our configuration of one of the seeds' models."""
    cascade = CascadeConfig(stages=1 if name == "single" else 2, layers=FACTS["layers"])
    return ModelConfig(agent=AGENTS.get(name, "none"), cascade=cascade)


def state_dict(model: str) -> dict[str, Tensor]:
    """The seeds' state dict of a model, under their keys; the caller's own, to change."""
    return {key: weight.clone() for key, weight in _state_dict(model).items()}


@cache
def _state_dict(model: str) -> dict[str, Tensor]:
    kinds = FACTS["state_dicts"][model]
    weights = {key: _drawn(key, tuple(shape), kind) for key, (shape, kind) in kinds.items() if kind != "svd"}
    for key, (_, kind) in kinds.items():
        if kind == "svd":
            left, _, right = torch.linalg.svd(weights[key.rpartition("_")[0] + "_orig"])
            weights[key] = (left[:, 0] if key.endswith("_u") else right[0]).contiguous()
    return {key: weights[key] for key in kinds}


def _drawn(key: str, shape: tuple[int, ...], kind: str) -> Tensor:
    if kind == "0.05*":
        return draw(key, shape, 0.05)
    if kind == "1+0.05*":
        return 1 + draw(key, shape, 0.05)
    if kind == "abs+0.5":
        return draw(key, shape, 1).abs() + 0.5
    assert kind == "keep"
    return torch.zeros(shape, dtype=torch.int64) if key.endswith("num_batches_tracked") else _positions(*shape)


def _positions(batch: int, frames: int, dim: int) -> Tensor:
    place = torch.arange(frames)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], 2).reshape(batch, frames, dim)


def content(model: str, *, gan: bool = False, args: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What a checkpoint file of the seeds holds; `args` are put over theirs, `changes` over everything."""
    stages = 1 if model == "single" else 2
    arguments = {
        "encoding_dim": 128,
        "nhead": 8,
        "num_layers": FACTS["layers"],
        "num_transformer_layers": stages,
        "dropout": 0.1,
        "anti_cheating": 0.0,
        "use_creative_agent": model in AGENTS,
        "use_compositional_agent": model == "cascade_compositional",
        "mask_type": "none",
        "loss_weight_input": 0.25,
        "loss_weight_target": 0.35,
        "mask_reg_weight": 0.5,
        "balance_loss_weight": 5.0,
        "corr_weight": 0.4,
        "gan_weight": 0.15 if gan else 0.0,
        "lr": 2e-4,
        "batch_size": 16,
        "epochs": 200,
        "shuffle_targets": True,
    }
    found = {
        "epoch": EPOCH,
        "model_state_dict": state_dict(model),
        "optimizer_state_dict": _optimizer(),
        "train_loss": 0.5,
        "val_loss": 0.75,
        "best_val_loss": 0.625,
        "args": arguments | (args or {}),
    }
    if gan:
        found |= {"discriminator_state_dict": state_dict("discriminator"), "disc_optimizer_state_dict": _optimizer()}
    return found | changes


def write(path: Path, saved: object) -> Path:
    """Save as the seeds did."""
    torch.save(saved, path)
    return path


def _optimizer() -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=1e-4)
    weight.grad = torch.ones(3)
    optimizer.step()
    return optimizer.state_dict()
