"""Losses on the waveform."""

from __future__ import annotations

from torch import Tensor

from training.losses.compat import Compat

_TINY = 1e-12


def rms_error(output: Tensor, source: Tensor, compat: Compat = "none") -> Tensor:
    """RMS of output - source for audio [B, 1, n], averaged over the batch; a scalar.

    The gradient stays finite where the two are equal. The seeds took one RMS over the whole batch.
    """
    over = (0, 1, 2) if compat == "seeds" else (1, 2)
    return ((output - source).square().mean(over) + _TINY).sqrt().mean()
