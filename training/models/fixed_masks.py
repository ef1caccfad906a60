"""Fixed complementary masks: rules that say which places of the latents each source keeps, without learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings
from training.models.masking_agent import MaskingOutput

Kind = Literal["none", "temporal", "frequency", "spectral", "energy", "hybrid"]
Masks = tuple[Tensor, Tensor]
FADE_FRAMES = 10


class FixedMasksConfig(Settings):
    """The fixed masks' section; they apply before the agent."""

    kind: Kind = Field("none", description="which rule")
    segment: int = Field(150, ge=1, description="temporal, hybrid: frames of a segment; 150 are 2 s")
    split: float = Field(0.3, ge=0, le=1, description="frequency, hybrid: share of the channels that count as low")
    keep: float = Field(0.5, ge=0, le=1, description="spectral: share of the channels that the input keeps")
    quantile: float = Field(0.7, ge=0, le=1, description="energy: frames above it are attacks")


@dataclass(frozen=True)
class FixedMaskingOutput(MaskingOutput):
    """What a rule decided: no loss can change it."""

    LOSSES: ClassVar[tuple[str, ...]] = ()


class FixedMasks(nn.Module):
    """Applies one rule to both sources."""

    def __init__(self, config: FixedMasksConfig, dim: int) -> None:
        super().__init__()
        self._config, self._dim = config, dim

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> FixedMaskingOutput:
        """Mask both sources [B, D, T]. In training `spectral` draws its channels; else they are fixed."""
        config = self._config
        frames, device = input_latents.shape[2], input_latents.device
        match config.kind:
            case "temporal":
                masks = temporal_masks(frames, config.segment, device)
            case "frequency":
                masks = frequency_masks(self._dim, config.split, 0.2, device)
            case "spectral":
                masks = spectral_masks(self._channels(device), config.keep)
            case "energy":
                masks = energy_masks(input_latents, target_latents, config.quantile)
            case "hybrid":
                masks = hybrid_masks(self._dim, frames, config.segment, config.split, device)
            case "none":
                one = torch.ones((), device=device)
                masks = one, one
        input_mask, target_mask = (mask.expand_as(input_latents) for mask in masks)
        return FixedMaskingOutput(
            input_mask,
            target_mask,
            input_latents * input_mask,
            target_latents * target_mask,
            (input_latents, target_latents),
        )

    def _channels(self, device: torch.device) -> Tensor:
        if self.training:
            return torch.randperm(self._dim, device=device)
        # A full cycle over the channels that mixes neighbours: the same for every run and device.
        return torch.arange(self._dim, device=device).mul(2_654_435_761).remainder(2**32).argsort()


def temporal_masks(frames: int, segment: int, device: torch.device) -> Masks:
    """Give segments of frames to the input and the target in turns, with short fades: [1, 1, T] each."""
    place = torch.arange(frames, device=device)
    mask = _alternate(place, segment)
    fade = min(FADE_FRAMES, segment // 15)
    if fade:
        within = place % segment
        left = segment - within  # frames to the next border
        fading_in = (within < fade) & (place >= segment)
        fading_out = (left <= fade) & (place + left < frames)
        mask = torch.where(fading_in, mask * within / fade, mask)
        mask = torch.where(fading_out, mask * left / fade, mask)
    return mask[None, None], 1 - mask[None, None]


def frequency_masks(dim: int, split: float, outside: float, device: torch.device) -> Masks:
    """Low channels to the input and high ones to the target; the others at `outside`: [1, D, 1] each."""
    low = torch.arange(dim, device=device)[None, :, None] < int(dim * split)
    full, weak = torch.ones((), device=device), torch.full((), outside, device=device)
    return torch.where(low, full, weak), torch.where(low, weak, full)


def spectral_masks(channels: Tensor, keep: float) -> Masks:
    """Give the first `keep` of an order of channels [D] to the input, the others to the target: [1, D, 1] each."""
    rank = channels.argsort()[None, :, None]
    mask = (rank < int(len(channels) * keep)).float()
    return mask, 1 - mask


def energy_masks(input_latents: Tensor, target_latents: Tensor, quantile: float) -> Masks:
    """Keep the input's loud frames, its attacks, and the target's others: [B, 1, T] each."""
    energies = [latents.float().square().sum(1, keepdim=True) for latents in (input_latents, target_latents)]
    borders = [_quantile(energy, quantile) for energy in energies]
    return (energies[0] > borders[0]).float(), (energies[1] <= borders[1]).float()


def hybrid_masks(dim: int, frames: int, segment: int, split: float, device: torch.device) -> Masks:
    """Segments in turns, without fades, and in them low channels against high ones, the others at 0.3: [1, D, T]."""
    turns = _alternate(torch.arange(frames, device=device), segment)
    low, high = frequency_masks(dim, split, 0.3, device)
    return low * turns, high * (1 - turns)


def _alternate(place: Tensor, segment: int) -> Tensor:
    """1 in the first, third, ... segment, 0 in the others: [T]."""
    return 1.0 - (place // segment % 2)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The quantile over the frames of [B, 1, T], interpolated: [B, 1, 1]. torch.quantile can't be compiled."""
    ordered = values.sort(2).values
    place = share * (values.shape[2] - 1)
    low = int(place)
    high = min(low + 1, values.shape[2] - 1)
    return torch.lerp(ordered[..., low, None], ordered[..., high, None], place - low)
