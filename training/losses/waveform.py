"""Losses on the waveform."""

from __future__ import annotations

from torch import Tensor

_TINY = 1e-12


def rms_error(output: Tensor, source: Tensor) -> Tensor:
    """RMS of output - source for audio [B, 1, n], averaged over the batch; a scalar.

    The gradient stays finite where the two are equal.
    """
    return ((output - source).square().mean((1, 2)) + _TINY).sqrt().mean()
