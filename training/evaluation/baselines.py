"""What a model is measured against: copies, a mix, and masks that have learnt nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.blocks import match_rms, rms
from training.models.cascade import AgentOutput
from training.models.fixed_masks import FixedMaskingOutput, spectral_masks

COPY_INPUT, COPY_TARGET = "copy_input", "copy_target"
BASELINES = {
    COPY_INPUT: "copy of input",
    COPY_TARGET: "copy of target",
    "mix": "half and half",
    "random_masks": "random masks",
    "fixed_pattern": "fixed pattern",
}
"""All baselines by name, as people read them."""
PATTERN_SEED = 7


@dataclass(frozen=True)
class Made:
    """Latents [B, D, T] that somebody made of a batch, and what an agent decided where there was one."""

    latents: Tensor
    agent: AgentOutput | None = None


@torch.no_grad()
def make_baselines(source: Tensor, goal: Tensor, seeds: Sequence[int]) -> dict[str, Made]:
    """Make all baselines of latents [B, D, T] of input and target, with a seed for each pair.

    The copies are the sources as they are. `mix` is half of each; `random_masks` masks them by uniform numbers m at
    each place, and 1 - m; `fixed_pattern` gives one half of the channels to the input and the other to the target, the
    same for all pairs. Masked sources get their RMS back, and the mean of both is brought to their level, as in the
    cascade.
    """
    drawn = torch.stack([_uniform(source[0].shape, seed) for seed in seeds]).to(source.device)
    order = torch.randperm(source.shape[1], generator=torch.Generator().manual_seed(PATTERN_SEED))
    fixed, _ = spectral_masks(order.to(source.device), 0.5)
    return {
        COPY_INPUT: Made(source),
        COPY_TARGET: Made(goal),
        "mix": Made(_mean(source, goal)),
        "random_masks": _masked(source, goal, drawn),
        "fixed_pattern": _masked(source, goal, fixed.expand_as(source)),
    }


def _masked(source: Tensor, goal: Tensor, mask: Tensor) -> Made:
    kept = match_rms(source * mask, source), match_rms(goal * (1 - mask), goal)
    return Made(_mean(*kept), FixedMaskingOutput(mask, 1 - mask, *kept, (source, goal)))


def _mean(source: Tensor, goal: Tensor) -> Tensor:
    """Mean of two [B, D, T], at the level of both."""
    mean = (source + goal) / 2
    wanted: Tensor = ((rms(source).square() + rms(goal).square()) / 2).sqrt() / rms(mean)
    return mean * wanted


def _uniform(shape: torch.Size, seed: int) -> Tensor:
    # Drawn on the CPU: a GPU would draw others.
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed % 2**63))
