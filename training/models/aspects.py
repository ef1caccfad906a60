"""Rhythm, harmony and timbre of latents: what is left of them once the other two are taken away."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from training.models.blocks import rms

BANDS = 3
"""Low, middle, high: bass drum, snare and cymbal, and too coarse for a spectrum."""
_QUIET = 0.05
"""Of a window's RMS: quieter frames have no harmony."""


def rhythm_aspect(latents: Tensor) -> Tensor:
    """When it sounds, and not what: [B, D, T] to [B, 3, T], loudness of bands of channels over their own RMS."""
    energy = latents.float().square().transpose(1, 2)
    bands = F.adaptive_avg_pool1d(energy, BANDS).transpose(1, 2)
    return ((bands + 1e-8) / (bands.mean(2, keepdim=True) + 1e-8)).sqrt()


def harmony_aspect(latents: Tensor) -> Tensor:
    """What sounds, and not how loud: each frame of [B, D, T] brought to RMS 1; silence stays silent."""
    frames = (latents.float().square().mean(1, keepdim=True) + 1e-8).sqrt()
    return latents.float() / frames.clamp(min=_QUIET * rms(latents))


def timbre_aspect(latents: Tensor) -> Tensor:
    """How it sounds on the whole: each channel's RMS over the window of [B, D, T], the same in every frame."""
    channels = (latents.float().square().mean(2, keepdim=True) + 1e-8).sqrt() / rms(latents)
    return channels.expand_as(latents)
