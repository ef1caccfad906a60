"""Sounds for losses to judge."""

from __future__ import annotations

import torch
from torch import Tensor


def audio(seed: int, samples: int = 48_000) -> Tensor:
    """Noise [2, 1, n] at 24 kHz that swells and fades, as music does."""
    generator = torch.Generator().manual_seed(seed)
    swell = torch.rand(2, 1, samples // 1000, generator=generator).repeat_interleave(1000, 2)
    return 0.2 * swell * torch.randn(2, 1, samples, generator=generator)
