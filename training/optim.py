"""The optimizer and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings


class OptimizerConfig(Settings):
    """AdamW's section."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(10.0, gt=0, description="gradients are scaled down to this norm")


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter 2019), fused on a GPU."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def clip_gradients(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Scale the gradients down to `clip_norm` in place; returns their norm before that, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, config.clip_norm)
