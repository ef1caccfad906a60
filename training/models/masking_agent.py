"""The masking agent: looks at both sources and decides which places of the latents each of them keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings
from training.losses.masks import MaskLosses, mask_losses
from training.models.blocks import match_rms


class MaskingAgentConfig(Settings):
    """The masking agent's section."""

    channels: int = Field(256, ge=8)
    heads: int = Field(4, ge=1)


@dataclass(frozen=True)
class MaskingOutput:
    """What the agent decided: the masks and the masked sources, all [B, D, T], and the agent's own losses."""

    input_mask: Tensor
    target_mask: Tensor
    input: Tensor
    target: Tensor
    losses: MaskLosses

    @property
    def complementarity(self) -> Tensor:
        """1 - mean(mask_input * mask_target): 0.75 for an untrained agent, towards 1 when they share nothing."""
        return 1 - self.losses.overlap


class MaskingAgent(nn.Module):
    """Two convolutional analysers, cross-attention both ways with shared weights, and a mask head a side."""

    def __init__(self, config: MaskingAgentConfig, dim: int) -> None:
        super().__init__()
        width = config.channels
        self.input_analyser = _analyser(dim, width)
        self.target_analyser = _analyser(dim, width)
        self.cross_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.input_head = _mask_head(width, dim)
        self.target_head = _mask_head(width, dim)

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> MaskingOutput:
        """Mask both sources [B, D, T]; each keeps its RMS."""
        heard_input = self.input_analyser(input_latents).transpose(1, 2)
        heard_target = self.target_analyser(target_latents).transpose(1, 2)
        input_mask = self._mask(self.input_head, heard_input, heard_target)
        target_mask = self._mask(self.target_head, heard_target, heard_input)
        return MaskingOutput(
            input_mask,
            target_mask,
            match_rms(input_latents * input_mask, input_latents),
            match_rms(target_latents * target_mask, target_latents),
            mask_losses(input_mask, target_mask),
        )

    def _mask(self, head: nn.Module, own: Tensor, other: Tensor) -> Tensor:
        attended, _ = self.cross_attention(own, other, other, need_weights=False)
        # float32 from here on: the losses average the masks over every place.
        return torch.sigmoid(head(attended.transpose(1, 2)).float())


def _analyser(dim: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(dim, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1), nn.ReLU()
    )


def _mask_head(width: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(width, dim, 3, padding=1), nn.ReLU(), nn.Conv1d(dim, dim, 1))
