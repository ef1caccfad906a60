"""The cascade: stages of transformers, each refining what the one before it made of the two sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from shards.settings import Settings
from training.models.blocks import SinusoidalPositions, TransformerLayer, channel_level, local_level, rms
from training.models.compositional_agent import CompositionalAgent, CompositionalOutput
from training.models.fixed_masks import FixedMasks
from training.models.masking_agent import MaskingAgent, MaskingOutput

Agent = MaskingAgent | CompositionalAgent
AgentOutput = MaskingOutput | CompositionalOutput
SCALE_CLAMP = (0.7, 1.5)
"""Bounds of the RMS scaling that keep two stages stable."""


class CascadeConfig(Settings):
    """The cascade's section."""

    stages: int = Field(2, ge=1, description="two are the stable choice; one hears the input alone")
    layers: int = Field(6, ge=1, description="transformer layers a stage")
    heads: int = Field(8, ge=1)
    feedforward: int = Field(4, ge=1, description="width of the feed-forward path, in widths of the stage")
    dropout: float = Field(0.1, ge=0, lt=1, description="of positions, feed-forward and residual paths")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="the seeds had `dropout` here, on a slow path")
    anti_cheating: float = Field(0.0, ge=0, description="noise on the sources in training, in their own deviations")
    units: Literal["absolute", "local"] = Field(
        "absolute", description="local: stages hear channels alike, and add in proportion to the music at each place"
    )
    initial_gain: float = Field(0.1, gt=0, le=1, description="of what a stage adds to its sources, before training")
    residual_weights: tuple[float, ...] = Field((), description="of the sources that each stage adds to; empty: all 1")
    scale_clamp: tuple[float, float] | None = Field(SCALE_CLAMP, description="bounds of the RMS scaling; null: none")
    spectral_norm: bool = Field(True, description="bound the gain of each stage's projection")

    @model_validator(mode="after")
    def _check(self) -> CascadeConfig:
        if self.scale_clamp is not None and not 0 < self.scale_clamp[0] <= self.scale_clamp[1]:
            raise ValueError(f"scale_clamp {self.scale_clamp}: the bounds must be positive and in order")
        if self.residual_weights and len(self.residual_weights) != self.stages:
            raise ValueError(f"residual_weights {self.residual_weights}: give one for each of the {self.stages} stages")
        if self.stages == 1 and self.units != "absolute":
            raise ValueError(f"units {self.units}: one stage alone has no music around it; give it two stages")
        return self


@dataclass(frozen=True)
class ModelOutput:
    """What a model made: latents [B, D, T] and what its agent did.

    `scale` is the last stage's RMS factor, and `clamped` whether it, or one before it, was at a bound: [B, 1, 1]. Where
    a model has no bounds, those that are usual tell.
    """

    latents: Tensor
    agent: AgentOutput | None
    scale: Tensor
    clamped: Tensor


class Projection(nn.Module):
    """LayerNorm and a linear map to D channels, spectrally normalised (Miyato et al. 2018) where that is asked for."""

    def __init__(self, config: CascadeConfig, width: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        linear = nn.Linear(width, dim)
        # A stage starts near silence and learns what to add. At full gain an untrained stage adds the same loud hum to
        # every frame, in channels where music has next to nothing, and a short training never gets rid of it.
        nn.init.constant_(self.norm.weight, config.initial_gain)
        nn.init.zeros_(linear.bias)
        self.linear = spectral_norm(linear) if config.spectral_norm else linear

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, width] to [B, D, T] in float32."""
        projected: Tensor = self.linear(self.norm(x))
        return projected.transpose(1, 2).float()


def make_layers(config: CascadeConfig, width: int) -> nn.ModuleList:
    """Make the transformer layers of a stage of that width."""
    sizes = config.heads, config.feedforward * width, config.dropout, config.attention_dropout
    return nn.ModuleList(TransformerLayer(width, *sizes) for _ in range(config.layers))


class Stage(nn.Module):
    """Positions, LayerNorm, transformer layers, and a projection."""

    def __init__(self, config: CascadeConfig, width: int, dim: int) -> None:
        super().__init__()
        self.positions = SinusoidalPositions(width)
        self.dropout = nn.Dropout(config.dropout)
        self.input_norm = nn.LayerNorm(width)
        self.layers = make_layers(config, width)
        self.projection = Projection(config, width, dim)

    def forward(self, *sources: Tensor) -> Tensor:
        """Map sources [B, D, T], together `width` channels, to [B, D, T] in float32."""
        x = self.input_norm(self.dropout(self.positions(torch.cat(sources, 1).transpose(1, 2))))
        for layer in self.layers:
            x = layer(x)
        projected: Tensor = self.projection(x)
        return projected


class Cascade(nn.Module):
    """N stages over [input, previous output, target], behind an agent that decides what each source gives.

    Every stage adds the mean of its sources to what its transformer says, and is scaled to the sources' RMS.
    """

    def __init__(
        self, config: CascadeConfig, dim: int, agent: Agent | None = None, masks: FixedMasks | None = None
    ) -> None:
        super().__init__()
        self._dim, self._config = dim, config
        self._residuals = config.residual_weights or (1.0,) * config.stages
        self.masks = masks
        self.agent = agent
        self.stages = nn.ModuleList(Stage(config, (2 if k == 0 else 3) * dim, dim) for k in range(config.stages))

    def compiled_parts(self) -> list[nn.Module]:
        """What is worth compiling, and compiles as a whole."""
        return [*self.stages, *([self.agent] if self.agent is not None else [])]

    def schedule(self, step: int) -> None:
        """Set what depends on how far the training is."""
        if isinstance(self.agent, MaskingAgent):
            self.agent.schedule(step)

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> ModelOutput:
        """Combine input and target latents [B, D, T] of any float type.

        Raises `ValueError` unless both have the same shape, with the model's D channels, and, outside training, only
        finite values.
        """
        check_latents(self, self._dim, input=input_latents, target=target_latents)
        source, goal = input_latents.float(), target_latents.float()
        decided: AgentOutput | None = None
        for part in (self.masks, self.agent):
            if part is not None:
                decided = part(source, goal)
                source, goal = decided.input, decided.target
        heard, unit = self._units(source, goal)
        noisy_source = self._noisy(source) / heard
        output = scale = goal
        lowest, highest = self._config.scale_clamp or SCALE_CLAMP
        clamped = torch.zeros(len(goal), 1, 1, dtype=torch.bool, device=goal.device)
        for place, stage in enumerate(self.stages):
            if place == 0:
                added, mean = stage(noisy_source, goal / heard), (source + goal) / 2
            else:
                sides = output / heard, self._noisy(goal) / heard
                added, mean = stage(noisy_source, *sides), (source + output + goal) / 3
            output = unit * added + self._residuals[place] * mean
            wanted = ((rms(source).square() + rms(goal).square()) / 2).sqrt() / rms(output)
            scale = wanted if self._config.scale_clamp is None else wanted.clamp(lowest, highest)
            output, clamped = output * scale, clamped | (wanted < lowest) | (wanted > highest)
        return ModelOutput(output, decided, scale, clamped)

    def _units(self, source: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Tell what latents are divided by to be heard, and what is added is multiplied with."""
        if self._config.units == "absolute":
            return goal.new_ones(()), goal.new_ones(())
        energy = (source.square() + goal.square()) / 2
        return channel_level(energy), local_level(energy)

    def _noisy(self, latents: Tensor) -> Tensor:
        """Keep the model from passing a source through: noise in training, nothing otherwise."""
        if not self.training or self._config.anti_cheating == 0:
            return latents
        return latents + self._config.anti_cheating * latents.std() * torch.randn_like(latents)


def check_latents(model: nn.Module, dim: int, **latents: Tensor) -> None:
    """Raise `ValueError` unless all are [B, dim, T] of one shape and, outside training, finite.

    In training a step that is not finite shows in its loss; looking at every batch would wait for the device.
    """
    if len({tuple(x.shape) for x in latents.values()}) > 1 or any(
        x.shape[1:2] != (dim,) or x.ndim != 3 for x in latents.values()
    ):
        given = " and ".join(f"{name} {list(x.shape)}" for name, x in latents.items())
        raise ValueError(f"{given}: must be [B, {dim}, T]" + (", equal for both" if len(latents) > 1 else ""))
    if model.training or torch.compiler.is_compiling():
        return
    for name, x in latents.items():
        bad = int((~x.isfinite()).sum())
        if bad:
            raise ValueError(f"{name} {list(x.shape)} has {bad} values that are not finite; latents must be numbers")
