"""What a pair of complementary masks should be like: the masking agent's own losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

OVERLAP_WEIGHT, COVERAGE_WEIGHT, DIVERSITY_WEIGHT = 10.0, 0.5, 5.0
MINIMUM_VARIANCE = 0.05


def mask_overlap(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Mean product of two masks [B, D, T] in [0, 1]; a scalar. Complementarity is 1 less this."""
    return (input_mask * target_mask).mean()


def mask_regularisation(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Judge two masks [B, D, T] in [0, 1]; a scalar.

    10 * overlap, 0.5 * squared distance of their sum from one, and 5 * what each one's variance over time lacks to
    0.05 (the seeds' weights).
    """
    coverage = (input_mask + target_mask - 1).square().mean()
    diversity = sum(
        (F.relu(MINIMUM_VARIANCE - mask.var(2).mean()) for mask in (input_mask, target_mask)),
        start=coverage.new_zeros(()),
    )
    overlap = mask_overlap(input_mask, target_mask)
    return OVERLAP_WEIGHT * overlap + COVERAGE_WEIGHT * coverage + DIVERSITY_WEIGHT * diversity


def mask_balance(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Squared distance of each mask's mean from one half, for masks [B, D, T]; a scalar (the seeds' balance loss)."""
    return (input_mask.mean() - 0.5).square() + (target_mask.mean() - 0.5).square()
