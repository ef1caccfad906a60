"""The game between the model and the discriminator of latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """How well a discriminator tells real from generated: its loss, and its share of right answers for each."""

    loss: Tensor
    real_accuracy: Tensor
    fake_accuracy: Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Cross-entropy of generated latents passing as real, from logits [B, 1]; a scalar (Goodfellow et al. 2014)."""
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Verdict:
    """Cross-entropy of telling real from generated latents, from logits [B, 1] each."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return Verdict(real + fake, (real_logits > 0).float().mean(), (fake_logits < 0).float().mean())


def roll_targets(target_latents: Tensor) -> Tensor:
    """Give each pair of a batch [B, D, T] the target of the one before it: real music, but not this pair's."""
    return target_latents.roll(1, 0)
