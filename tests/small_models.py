"""One small model of every kind: what holds for all of them is asserted for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.models.build import Model, ModelConfig, build_model

DIM = 16
_SMALL: dict[str, Any] = {
    "cascade": {"layers": 1, "heads": 2, "feedforward": 2},
    "masking": {"channels": 16, "heads": 2},
    "compositional": {"channels": 4, "selector": 8, "width": 16, "layers": 1, "heads": 2, "feedforward": 2},
}
KINDS: dict[str, dict[str, Any]] = {
    "single": {"agent": "none", "cascade": {"stages": 1}},
    "plain": {"agent": "none"},
    "plain local": {"agent": "none", "cascade": {"units": "local"}},
    "unstable": {
        "agent": "none",
        "cascade": {"stages": 3, "residual_weights": (1, 1, 0.1), "scale_clamp": None, "spectral_norm": False},
    },
    "masking": {"agent": "masking"},
    "masking softmax": {"agent": "masking", "masking": {"coupling": "softmax"}},
    "masking by loudness": {
        "agent": "masking",
        "masking": {"coupling": "softmax", "loudness": 1.0, "centre": "channel"},
    },
    "masking hard": {"agent": "masking", "masking": {"hard": True}},
    "compositional": {"agent": "compositional"},
    "compositional focused": {"agent": "compositional", "compositional": {"ears": "focused", "units": "components"}},
    **{
        f"{kind} masks": {"agent": "none", "fixed_masks": {"kind": kind, "segment": 5}}
        for kind in ("temporal", "frequency", "spectral", "energy", "hybrid")
    },
}


def small_config(kind: str, **cascade: Any) -> ModelConfig:
    """The configuration of a kind; `cascade` is put over that section."""
    own = KINDS[kind]
    merged = {name: {**section, **own.get(name, {})} for name, section in _SMALL.items()}
    merged["cascade"] |= cascade
    return ModelConfig.model_validate({**own, **merged})


def small_model(kind: str, **cascade: Any) -> Model:
    """A model of a kind, for latents of `DIM` channels, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(small_config(kind, **cascade), DIM)


def latents(seed: int, batch: int = 2, dim: int = DIM, frames: int = 30) -> Tensor:
    """Latents [batch, dim, frames] as loud as music's."""
    return 5.7 * torch.randn(batch, dim, frames, generator=torch.Generator().manual_seed(seed))


def total_loss(model: Model, source: Tensor, goal: Tensor) -> Tensor:
    """Something that depends on all that a model does."""
    output = model(source, goal)
    losses = output.agent.losses.values() if output.agent is not None else ()
    return sum(losses, start=(output.latents - goal.roll(3, 2)).square().mean())
