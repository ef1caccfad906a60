"""The cascade: stages of transformers, each refining what the one before it made of the two sources."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from shards.settings import Settings
from training.models.blocks import EPSILON, SinusoidalPositions, TransformerLayer, rms
from training.models.masking_agent import MaskingAgent, MaskingOutput


class CascadeConfig(Settings):
    """The cascade's section."""

    stages: int = Field(2, ge=2, description="two are the stable choice")
    layers: int = Field(6, ge=1, description="transformer layers a stage")
    heads: int = Field(8, ge=1)
    feedforward: int = Field(4, ge=1, description="width of the feed-forward path, in widths of the stage")
    dropout: float = Field(0.1, ge=0, lt=1, description="feed-forward and residual paths; attention has none")
    anti_cheating: float = Field(0.0, ge=0, description="noise on the sources in training, in their own deviations")
    initial_gain: float = Field(0.1, gt=0, le=1, description="of what a stage adds to its sources, before training")
    scale_clamp: tuple[float, float] = Field((0.7, 1.5), description="bounds of the RMS scaling after each stage")

    @model_validator(mode="after")
    def _check(self) -> CascadeConfig:
        low, high = self.scale_clamp
        if not 0 < low <= high:
            raise ValueError(f"scale_clamp {self.scale_clamp}: the bounds must be positive and in order")
        return self


@dataclass(frozen=True)
class CascadeOutput:
    """What the model made: latents [B, D, T], what its agent did, and the last stage's RMS factor [B, 1, 1]."""

    latents: Tensor
    agent: MaskingOutput | None
    scale: Tensor


class Stage(nn.Module):
    """Positions, LayerNorm, transformer layers, LayerNorm, and a spectrally normalised projection to D channels."""

    def __init__(self, config: CascadeConfig, width: int, dim: int) -> None:
        super().__init__()
        self.positions = SinusoidalPositions(width)
        self.input_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, config.feedforward * width, config.dropout)
            for _ in range(config.layers)
        )
        self.output_norm = nn.LayerNorm(width)
        projection = nn.Linear(width, dim)
        # A stage starts near silence and learns what to add. At full gain an untrained stage adds the same loud hum to
        # every frame, in channels where music has next to nothing, and a short training never gets rid of it.
        nn.init.constant_(self.output_norm.weight, config.initial_gain)
        nn.init.zeros_(projection.bias)
        self.projection = spectral_norm(projection)

    def forward(self, *sources: Tensor) -> Tensor:
        """Map sources [B, D, T], together `width` channels, to [B, D, T] in float32."""
        x = self.input_norm(self.positions(torch.cat(sources, 1).transpose(1, 2)))
        for layer in self.layers:
            x = layer(x)
        projected: Tensor = self.projection(self.output_norm(x))
        return projected.transpose(1, 2).float()


class Cascade(nn.Module):
    """N stages over [input, previous output, target], behind an agent that decides what each source gives.

    Every stage adds the mean of its sources to what its transformer says, and is scaled to the sources' RMS.
    """

    def __init__(self, config: CascadeConfig, dim: int, agent: MaskingAgent | None) -> None:
        super().__init__()
        self._dim, self._anti_cheating, self._clamp = dim, config.anti_cheating, config.scale_clamp
        self.agent = agent
        self.stages = nn.ModuleList(Stage(config, (2 if k == 0 else 3) * dim, dim) for k in range(config.stages))

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> CascadeOutput:
        """Combine input and target latents [B, D, T] of any float type.

        Raises `ValueError` unless both have the same shape, with the model's D channels.
        """
        if input_latents.shape != target_latents.shape or input_latents.shape[1:2] != (self._dim,):
            raise ValueError(
                f"input {list(input_latents.shape)} and target {list(target_latents.shape)} must both be "
                f"[B, {self._dim}, T]"
            )
        source, goal = input_latents.float(), target_latents.float()
        masked = None if self.agent is None else self.agent(source, goal)
        if masked is not None:
            source, goal = masked.input, masked.target
        noisy_source = self._noisy(source)
        output, scale = self._level(self.stages[0](noisy_source, goal) + (source + goal) / 2, source, goal)
        for stage in self.stages[1:]:
            refined = stage(noisy_source, output, self._noisy(goal)) + (source + output + goal) / 3
            output, scale = self._level(refined, source, goal)
        return CascadeOutput(output, masked, scale)

    def _level(self, output: Tensor, source: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        wanted = ((rms(source).square() + rms(goal).square()) / 2).sqrt()
        scale = (wanted / (rms(output) + EPSILON)).clamp(*self._clamp)
        return output * scale, scale

    def _noisy(self, latents: Tensor) -> Tensor:
        """Keep the model from passing a source through: noise in training, nothing otherwise."""
        if not self.training or self._anti_cheating == 0:
            return latents
        return latents + self._anti_cheating * latents.std() * torch.randn_like(latents)
