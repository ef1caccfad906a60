"""The parts that all models are made of: positions, transformer layers, levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOCAL_FRAMES = 5
"""67 ms: longer than a period of the phase that a frame happens to have, shorter than what smears an attack."""
_EPSILON = 1e-8


def rms(latents: Tensor) -> Tensor:
    """RMS of each sample of [B, D, T], as [B, 1, 1], in float32; never quite 0, so that silence has a gradient."""
    return (latents.float().square().mean((1, 2), keepdim=True) + _EPSILON).sqrt()


def match_rms(latents: Tensor, reference: Tensor) -> Tensor:
    """Scale each sample of [B, D, T] to the RMS of `reference` [B, D, T]."""
    return latents * (rms(reference) / rms(latents))


def channel_level(energy: Tensor) -> Tensor:
    """RMS of each channel, as [B, D, 1], of energies [B, D, T]; at least 1e-3 of the sample's, and never 0."""
    floor = 1e-6 * energy.mean((1, 2), keepdim=True) + _EPSILON
    return (energy.mean(2, keepdim=True) + floor).sqrt()


def local_level(energy: Tensor) -> Tensor:
    """RMS around each place, over five frames, of energies [B, D, T]: [B, D, T], never quite 0."""
    around = F.avg_pool1d(energy, LOCAL_FRAMES, stride=1, padding=LOCAL_FRAMES // 2, count_include_pad=False)
    return (around + _EPSILON).sqrt()


class SinusoidalPositions(nn.Module):
    """Adds sinusoidal positions to [B, T, D] (Vaswani et al. 2017); the table grows with the longest T seen."""

    table: Tensor

    def __init__(self, dim: int, frames: int = 2000) -> None:
        super().__init__()
        self._dim = dim
        self.register_buffer("table", self._make(frames), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to [B, T, D]."""
        if x.shape[1] > self.table.shape[0]:
            self.table = self._make(2 * x.shape[1]).to(x.device)
        return x + self.table[: x.shape[1]].to(x.dtype)

    def _make(self, frames: int) -> Tensor:
        position = torch.arange(frames).float()[:, None]
        rate = torch.exp(torch.arange(0, self._dim, 2).float() * (-math.log(10_000.0) / self._dim))
        table = torch.zeros(frames, self._dim)
        table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        return table


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual and a LayerNorm after it (Vaswani et al. 2017).

    Dropout stays in the feed-forward and residual paths. The seeds had it on the attention's weights, too
    (`attention_dropout`): that forces the slow path that keeps all weights, 3 times slower a step on a CPU.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self._heads, self._attention_dropout = heads, attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, feedforward)
        self.contract = nn.Linear(feedforward, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        x = self.attention_norm(x + self.dropout(self._attend(x)))
        hidden = self.dropout(F.gelu(self.expand(x)))
        normed: Tensor = self.feedforward_norm(x + self.dropout(self.contract(hidden)))
        return normed

    def _attend(self, x: Tensor) -> Tensor:
        batch, frames, dim = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self._heads, dim // self._heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        dropped = self._attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped)
        projected: Tensor = self.projection(attended.transpose(1, 2).reshape(batch, frames, dim))
        return projected
