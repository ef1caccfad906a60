"""What masks say of the music: whether they follow it, or are a pattern that any music would get."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.masks import loudness_ratio


@torch.no_grad()
def dominance_correlation(
    input_mask: Tensor, target_mask: Tensor, input_latents: Tensor, target_latents: Tensor
) -> Tensor:
    """Correlation of a pair's masks with which source is louder: [B], from four [B, D, T].

    Pearson of `input_mask - target_mask` against `loudness_ratio` over all places; 0 for masks that are constant.
    """
    preference = (input_mask.float() - target_mask.float()).flatten(1)
    ratio = loudness_ratio(input_latents, target_latents).flatten(1)
    preference, ratio = (x - x.mean(1, keepdim=True) for x in (preference, ratio))
    scale = torch.linalg.vector_norm(preference, dim=1) * torch.linalg.vector_norm(ratio, dim=1)
    correlation: Tensor = (preference * ratio).sum(1) / scale.clamp(min=1e-12)
    return correlation


@dataclass(frozen=True)
class VarianceShares:
    """Where the variance of `input_mask - target_mask` over many pairs comes from, as shares of all of it.

    `channel` and `position` are what a pattern over the channels alone, or over time alone, explains; `pattern` what
    any pattern over both does, the same for every pair; `content` is the rest, which differs with the pair.
    """

    channel: float
    position: float
    pattern: float
    content: float


class MaskVariance:
    """Adds up the masks of many pairs of one length, and tells where their variance comes from."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._squares: Tensor | None = None

    @torch.no_grad()
    def add(self, input_mask: Tensor, target_mask: Tensor) -> None:
        """Add masks [B, D, T]. Raises `ValueError` where they are longer or shorter than those before them."""
        preference = (input_mask - target_mask).double().cpu()
        if self._sum is None:
            self._sum = self._squares = torch.zeros_like(preference[0])
        if preference.shape[1:] != self._sum.shape:
            raise ValueError(f"masks {list(preference.shape[1:])} after masks {list(self._sum.shape)}")
        assert self._squares is not None
        self._count += len(preference)
        self._sum = self._sum + preference.sum(0)
        self._squares = self._squares + preference.square().sum(0)

    def shares(self) -> VarianceShares | None:
        """Split the variance; None for fewer than two pairs, and for masks that never vary.

        The mean over N pairs holds a share 1/N of what differs between them; that is taken from the pattern, so that
        few pairs do not make content look like a pattern.
        """
        if self._count < 2 or self._sum is None or self._squares is None:
            return None
        mean = self._sum / self._count
        within = (self._squares / self._count - mean.square()).clamp(min=0).mean() * self._count / (self._count - 1)
        noise = within / self._count
        channels, frames = mean.shape

        def explained(part: Tensor, averaged: int) -> Tensor:
            return (part.var(correction=0) - noise / averaged).clamp(min=0)

        pattern = explained(mean.flatten(), 1)
        total = within + pattern
        if total < 1e-12:
            return None
        shares = (explained(mean.mean(1), frames), explained(mean.mean(0), channels), pattern, within)
        return VarianceShares(*(float(share / total) for share in shares))
