"""What a composed pattern and the weights of its components should be like: the compositional agent's own losses."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.compat import Compat

BALANCE_WEIGHT = 0.1
EVENNESS = 0.5
"""Entropy, over that of even weights, at which a preference is clear enough: two of six at 0.48 each have 0.49."""


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


def component_entropy(weights: Tensor) -> Tensor:
    """Entropy of the mean weights of components [B, C, T] over that of even ones: 0 one alone, 1 all alike."""
    mean = weights.float().mean((0, 2))
    share: Tensor = torch.special.entr(mean).sum() / math.log(len(mean))
    return share


def component_evenness(weights: Tensor) -> Tensor:
    """Say by how much the entropy of the mean weights [B, C, T] is over 0.5 of that of even ones; a scalar."""
    return F.relu(component_entropy(weights) - EVENNESS)
