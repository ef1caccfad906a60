"""The discriminator: tells latents of real music from those that the model makes."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings


class DiscriminatorConfig(Settings):
    """The discriminator's section; it is built where `losses.gan` has a weight."""

    channels: tuple[int, ...] = Field((256, 512, 512, 256), min_length=1, description="of its convolutions, in order")
    dropout: float = Field(0.3, ge=0, lt=1)
    learning_rate: float | None = Field(None, gt=0, description="null: half of the model's")
    every: int = Field(1, ge=1, description="steps of the model for each of the discriminator's")


class Discriminator(nn.Module):
    """Convolutions of widening kernels (3, 5, 7, 9), all but the last of stride 2, their mean, and two layers.

    3,802,881 parameters at its defaults for 128 channels.
    """

    def __init__(self, config: DiscriminatorConfig, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = dim
        for place, width in enumerate(config.channels):
            kernel, stride = 3 + 2 * place, 1 if place == len(config.channels) - 1 else 2
            layers += [
                nn.Conv1d(before, width, kernel, stride, padding=kernel // 2),
                nn.LeakyReLU(0.2),
                nn.Dropout(config.dropout),
            ]
            before = width
        self.convolutions = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(before, 128), nn.LeakyReLU(0.2), nn.Dropout(config.dropout), nn.Linear(128, 1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Judge latents [B, D, T]: logits [B, 1], positive for real."""
        logits: Tensor = self.classifier(self.convolutions(latents).mean(2))
        return logits.float()
