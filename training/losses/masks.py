"""What a pair of complementary masks should be like: the masking agent's own losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

OVERLAP_WEIGHT, COVERAGE_WEIGHT, DIVERSITY_WEIGHT = 10.0, 0.5, 5.0
MINIMUM_VARIANCE = 0.05


@dataclass(frozen=True)
class MaskLosses:
    """Scalars of a pair of masks."""

    overlap: Tensor
    regularisation: Tensor
    balance: Tensor


def mask_losses(input_mask: Tensor, target_mask: Tensor) -> MaskLosses:
    """Judge two masks [B, D, T] in [0, 1].

    Regularisation: 10 * overlap, 0.5 * squared distance of the masks' sum from one, and 5 * what the variance over
    time lacks to 0.05. Balance: squared distance of each mask's mean from one half.
    """
    overlap = (input_mask * target_mask).mean()
    coverage = (input_mask + target_mask - 1).square().mean()
    diversity = sum(
        (F.relu(MINIMUM_VARIANCE - mask.var(2).mean()) for mask in (input_mask, target_mask)),
        start=overlap.new_zeros(()),
    )
    balance = (input_mask.mean() - 0.5).square() + (target_mask.mean() - 0.5).square()
    regularisation = OVERLAP_WEIGHT * overlap + COVERAGE_WEIGHT * coverage + DIVERSITY_WEIGHT * diversity
    return MaskLosses(overlap, regularisation, balance)
