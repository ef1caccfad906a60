"""The seeds' style discriminator: part of their masking agent, trained by nothing, kept so that nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StyleScores:
    """Probabilities [B, 1] that a pattern is real, and that its style is good."""

    real: Tensor
    style: Tensor


class StyleDiscriminator(nn.Module):
    """Three strided convolutions, a score of their mean, and a score of their mean and deviation."""

    def __init__(self, dim: int, width: int = 256) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(dim, width // 4, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width // 4, width // 2, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width // 2, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.real = nn.Linear(width, 1)
        self.style = nn.Linear(2 * width, 1)

    def forward(self, latents: Tensor) -> StyleScores:
        """Judge latents [B, D, T], of 16 frames or more."""
        heard = self.encoder(latents)
        mean, deviation = heard.mean(2), heard.std(2)
        style = torch.sigmoid(self.style(torch.cat([mean, deviation], 1)))
        return StyleScores(torch.sigmoid(self.real(mean)), style)
