"""What a pair of complementary masks should be like: the masking agent's own losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP_WEIGHT, COVERAGE_WEIGHT, DIVERSITY_WEIGHT = 10.0, 0.5, 5.0
MINIMUM_VARIANCE = 0.05
_QUIET = 1e-4
"""Of the mean energy of a pair: what is quieter says nothing of which source is louder."""


def mask_overlap(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Mean product of two masks [B, D, T] in [0, 1]; a scalar. Complementarity is 1 less this."""
    return (input_mask * target_mask).mean()


def mask_change(mask: Tensor) -> Tensor:
    """Variance over time of each channel of a mask [B, D, T], averaged; a scalar."""
    return mask.var(2).mean()


def mask_regularisation(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Judge two masks [B, D, T] in [0, 1]; a scalar.

    10 * overlap, 0.5 * squared distance of their sum from one, and 5 * what each one's variance over time lacks to
    0.05 (the seeds' weights).
    """
    coverage = (input_mask + target_mask - 1).square().mean()
    diversity = sum(
        (F.relu(MINIMUM_VARIANCE - mask_change(mask)) for mask in (input_mask, target_mask)),
        start=coverage.new_zeros(()),
    )
    overlap = mask_overlap(input_mask, target_mask)
    return OVERLAP_WEIGHT * overlap + COVERAGE_WEIGHT * coverage + DIVERSITY_WEIGHT * diversity


def mask_balance(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Squared distance of each mask's mean from one half, for masks [B, D, T]; a scalar (the seeds' balance loss)."""
    return (input_mask.mean() - 0.5).square() + (target_mask.mean() - 0.5).square()


def channel_balance(input_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Squared distance from one half of each channel's mean in each pair, for masks [B, D, T]; a scalar.

    `mask_balance` is content with masks that give half of the channels to either source, whatever the music.
    """
    return ((input_mask.mean(2) - 0.5).square() + (target_mask.mean(2) - 0.5).square()).mean()


def loudness_ratio(input_latents: Tensor, target_latents: Tensor) -> Tensor:
    """Natural logarithm of the energy of input over target at each place, both [B, D, T]: [B, D, T].

    Energies under 1e-4 of the pair's mean count as that much, so that silence beside silence gives 0.
    """
    source, goal = input_latents.float().square(), target_latents.float().square()
    floor = _QUIET * (source + goal).mean((1, 2), keepdim=True) + 1e-12
    return (source + floor).log() - (goal + floor).log()


def mask_salience(input_mask: Tensor, target_mask: Tensor, input_latents: Tensor, target_latents: Tensor) -> Tensor:
    """Share of the louder source's energy that masks leave out, 0 to 1, for four [B, D, T]; a scalar.

    At each place one source is louder; a mask that follows the music keeps it.
    """
    source, goal = input_latents.float().square(), target_latents.float().square()
    kept = torch.where(source > goal, input_mask * source, target_mask * goal).sum((1, 2))
    return (1 - kept / (torch.maximum(source, goal).sum((1, 2)) + 1e-12)).mean()
