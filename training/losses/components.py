"""What a composed pattern and the weights of its components should be like: the compositional agent's own losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from training.losses.compat import Compat

BALANCE_WEIGHT = 0.1


def novelty(composed: Tensor, input_latents: Tensor, target_latents: Tensor, compat: Compat = "none") -> Tensor:
    """How much a pattern is like its sources, all [B, D, T]: 0 new, 1 a copy; a scalar.

    The cosine over the channels at each frame, as an absolute value, averaged over frames and both sources. The seeds
    averaged first, so that being like a source here and its opposite there cost nothing.
    """
    likeness = [F.cosine_similarity(composed, source, dim=1, eps=1e-12) for source in (input_latents, target_latents)]
    if compat == "seeds":
        return (likeness[0].mean().abs() + likeness[1].mean().abs()) / 2
    return (likeness[0].abs().mean() + likeness[1].abs().mean()) / 2


def component_balance(weights: Tensor) -> Tensor:
    """0.1 * |what the input's three components get - what the target's three get|, of [B, 6, T]; a scalar."""
    mean = weights.mean((0, 2))
    return BALANCE_WEIGHT * (mean[:3].sum() - mean[3:].sum()).abs()
