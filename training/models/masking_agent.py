"""The masking agent: looks at both sources and decides which places of the latents each of them keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from shards.settings import Settings
from training.losses.compat import Compat
from training.losses.masks import (
    channel_balance,
    loudness_ratio,
    mask_balance,
    mask_change,
    mask_overlap,
    mask_regularisation,
    mask_salience,
)
from training.measures.masks import dominance_correlation
from training.models.blocks import match_rms
from training.models.style_discriminator import StyleDiscriminator


class TemperatureSchedule(Settings):
    """Temperature of coupled masks: from `start` to `end` in equal ratios over `steps` training steps."""

    start: float = Field(1.0, gt=0)
    end: float = Field(0.2, gt=0)
    steps: int = Field(2000, ge=1)

    def at(self, step: int) -> float:
        """Temperature at a step."""
        ratio: float = (self.end / self.start) ** min(1.0, step / self.steps)
        return self.start * ratio


class MaskingAgentConfig(Settings):
    """The masking agent's section."""

    channels: int = Field(256, ge=8)
    heads: int = Field(4, ge=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="the seeds had 0.1, on a slow path")
    coupling: Literal["independent", "softmax"] = Field(
        "independent", description="softmax: both masks share each place, so that together they are one"
    )
    temperature: TemperatureSchedule = Field(TemperatureSchedule(), description="of coupling: softmax")
    loudness: float | None = Field(
        None,
        gt=0,
        description="of coupling: softmax; what the sources' loudness ratio counts at first, then learnt",
    )
    centre: Literal["none", "pair", "channel"] = Field(
        "none",
        description="of coupling: softmax; each source is preferred at half of a pair's places, or of each channel's",
    )
    hard: bool = Field(False, description="masks of 0 and 1: drawn in training (Gumbel), the larger one otherwise")

    @model_validator(mode="after")
    def _check(self) -> MaskingAgentConfig:
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} must be a multiple of heads {self.heads}")
        if self.coupling != "softmax" and (self.loudness is not None or self.centre != "none"):
            raise ValueError("loudness and centre are of masks that share each place; set coupling: softmax")
        return self


@dataclass(frozen=True)
class MaskingOutput:
    """What was decided, of which sources: the masks, the masked sources and the sources, all [B, D, T]."""

    LOSSES: ClassVar[tuple[str, ...]] = ("mask_regularisation", "balance", "channel_balance", "salience")
    pattern: ClassVar[None] = None
    """Masks compose nothing."""

    input_mask: Tensor
    target_mask: Tensor
    input: Tensor
    target: Tensor
    sources: tuple[Tensor, Tensor]

    @property
    def complementarity(self) -> Tensor:
        """1 - mean(mask_input * mask_target): 0.75 for an untrained agent, towards 1 when they share nothing."""
        return 1 - mask_overlap(self.input_mask, self.target_mask)

    def pair(self, place: int) -> Self:
        """What was decided about one pair of the batch."""
        one = slice(place, place + 1)
        batched = ("input_mask", "target_mask", "input", "target")
        sources = self.sources[0][one], self.sources[1][one]
        return replace(self, sources=sources, **{name: getattr(self, name)[one] for name in batched})

    def loss(self, name: str) -> Tensor:
        """One of `LOSSES`, a scalar."""
        masks = self.input_mask, self.target_mask
        match name:
            case "mask_regularisation":
                return mask_regularisation(*masks)
            case "balance":
                return mask_balance(*masks)
            case "channel_balance":
                return channel_balance(*masks)
            case "salience":
                return mask_salience(*masks, *self.sources)
        raise AssertionError(name)

    @property
    def losses(self) -> dict[str, Tensor]:
        """All of its losses, by name."""
        return {name: self.loss(name) for name in self.LOSSES}

    def metrics(self) -> Mapping[str, Tensor]:
        """Scalars that tell how the agent does."""
        return {
            "complementarity": self.complementarity,
            "input_mask_mean": self.input_mask.mean(),
            "target_mask_mean": self.target_mask.mean(),
            "mask_overlap": mask_overlap(self.input_mask, self.target_mask),
            "mask_change": (mask_change(self.input_mask) + mask_change(self.target_mask)) / 2,
            "dominance_correlation": dominance_correlation(self.input_mask, self.target_mask, *self.sources).mean(),
        }


class MaskingAgent(nn.Module):
    """Two convolutional analysers, cross-attention both ways with shared weights, and a mask head a side."""

    temperature: Tensor

    def __init__(self, config: MaskingAgentConfig, dim: int, compat: Compat = "none") -> None:
        super().__init__()
        self._config = config
        width = config.channels
        self.input_analyser = _analyser(dim, width)
        self.target_analyser = _analyser(dim, width)
        self.cross_attention = nn.MultiheadAttention(width, config.heads, config.attention_dropout, batch_first=True)
        # Centring takes away whatever is added to all frames of a channel alike: such a bias can't learn.
        bias = config.centre != "channel"
        self.input_head = _mask_head(width, dim, bias)
        self.target_head = _mask_head(width, dim, bias)
        if config.coupling == "softmax":
            self.register_buffer("temperature", torch.tensor(config.temperature.start))
        if config.loudness is not None:
            self.loudness = nn.Parameter(torch.tensor(config.loudness))
        if compat == "seeds":
            self.style_discriminator = StyleDiscriminator(dim).requires_grad_(False)

    def schedule(self, step: int) -> None:
        """Set what depends on how far the training is."""
        if self._config.coupling == "softmax":
            self.temperature.fill_(self._config.temperature.at(step))

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> MaskingOutput:
        """Mask both sources [B, D, T]; each keeps its RMS."""
        sources = input_latents, target_latents
        input_mask, target_mask = self._masks(*sources)
        return MaskingOutput(
            input_mask,
            target_mask,
            match_rms(input_latents * input_mask, input_latents),
            match_rms(target_latents * target_mask, target_latents),
            sources,
        )

    def _logits(self, input_latents: Tensor, target_latents: Tensor) -> tuple[Tensor, Tensor]:
        heard_input = self.input_analyser(input_latents).transpose(1, 2)
        heard_target = self.target_analyser(target_latents).transpose(1, 2)
        sides = ((self.input_head, heard_input, heard_target), (self.target_head, heard_target, heard_input))
        attended = [
            head(self.cross_attention(own, other, other, need_weights=False)[0].transpose(1, 2))
            for head, own, other in sides
        ]
        # float32 from here on: the losses average the masks over every place.
        return attended[0].float(), attended[1].float()

    def _masks(self, *sources: Tensor) -> tuple[Tensor, Tensor]:
        input_logits, target_logits = self._logits(*sources)
        coupled = self._config.coupling == "softmax"
        if not coupled and not self._config.hard:
            return torch.sigmoid(input_logits), torch.sigmoid(target_logits)
        # A softmax of two is a sigmoid of their difference.
        odds = input_logits - target_logits
        odds = self._share(odds, *sources) if coupled else odds
        mask = self._choose(odds) if self._config.hard else torch.sigmoid(odds)
        return mask, 1 - mask

    def _share(self, odds: Tensor, *sources: Tensor) -> Tensor:
        """What speaks for the input at each place, [B, D, T], by the agent's ear, loudness and temperature."""
        if self._config.loudness is not None:
            odds = odds + self.loudness * loudness_ratio(*sources)
        if self._config.centre != "none":
            places = odds.flatten(1)[:, None] if self._config.centre == "pair" else odds
            # The median, not the mean: however seldom a source is loud, it has the places where it is loudest.
            odds = odds - places.median(2, keepdim=True).values
        return odds / self.temperature

    def _choose(self, odds: Tensor) -> Tensor:
        """Zeros and ones with the gradient of the soft choice between them (Jang et al. 2017)."""
        if not self.training:
            return (odds > 0).to(odds.dtype)
        choices = torch.stack([F.logsigmoid(odds), F.logsigmoid(-odds)])
        return F.gumbel_softmax(choices, tau=1.0, hard=True, dim=0)[0]


def _analyser(dim: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(dim, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1), nn.ReLU()
    )


def _mask_head(width: int, dim: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(width, width // 2, 3, padding=1), nn.ReLU(), nn.Conv1d(width // 2, dim, 1, bias=bias)
    )
