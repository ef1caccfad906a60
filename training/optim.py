"""The optimizer and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings

DISCRIMINATOR_BETAS = (0.5, 0.999)
"""Radford et al. 2016."""


class OptimizerConfig(Settings):
    """AdamW's section."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(10.0, gt=0, description="gradients are scaled down to this norm")

    def for_discriminator(self, learning_rate: float | None) -> OptimizerConfig:
        """Give what a discriminator is trained with: half the rate unless one is set, and little momentum."""
        rate = self.learning_rate / 2 if learning_rate is None else learning_rate
        return self.model_copy(update={"learning_rate": rate, "betas": DISCRIMINATOR_BETAS})


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter 2019), fused on a GPU."""
    return torch.optim.AdamW(
        (parameter for parameter in parameters if parameter.requires_grad),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def clip_gradients(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Scale the gradients down to `clip_norm` in place; returns their norm before that, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, config.clip_norm)
