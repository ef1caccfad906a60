"""What the weights of components say: whether some are preferred."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def component_entropy(weights: Tensor) -> Tensor:
    """Entropy of the mean weights of components [B, C, T] over that of even ones: 0 for one alone, 1 for all alike."""
    mean = weights.float().mean((0, 2))
    share: Tensor = torch.special.entr(mean).sum() / math.log(len(mean))
    return share
