"""Losses on the waveform."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.compat import Compat

_TINY = 1e-12
_STILL = 1e-4


def rms_error(output: Tensor, source: Tensor, compat: Compat = "none") -> Tensor:
    """RMS of output - source for audio [B, 1, n], averaged over the batch; a scalar.

    The gradient stays finite where the two are equal. The seeds took one RMS over the whole batch.
    """
    over = (0, 1, 2) if compat == "seeds" else (1, 2)
    return ((output - source).square().mean(over) + _TINY).sqrt().mean()


def waveform_limit(output: Tensor, input_audio: Tensor, target_audio: Tensor, most: float) -> Tensor:
    """Squared excess of |correlation| with each source over `most`, added up; audio [B, 1, n], a scalar.

    With r1 and r2 the correlations with unrelated sources, r1^2 + r2^2 of the output's energy is theirs.
    """
    excess = [
        (waveform_correlation(output, source).abs() - most).clamp(min=0) for source in (input_audio, target_audio)
    ]
    return excess[0].square().mean() + excess[1].square().mean()


def waveform_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of audio [B, 1, n] with audio [B, 1, n], as [B]; towards 0 for what is silent (-80 dB)."""
    first, second = (audio[:, 0] - audio[:, 0].mean(1, keepdim=True) for audio in (first, second))
    deviations = [torch.sqrt(audio.square().mean(1) + _STILL**2) for audio in (first, second)]
    return (first * second).mean(1) / (deviations[0] * deviations[1])
