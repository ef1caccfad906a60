"""Whether the output moves like its sources: the seeds' measures of rhythm, on latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.compat import Compat

WINDOW = 50
"""Frames that an envelope is smoothed over."""
PRESERVED = 0.3
"""Correlation with the input from which its rhythm counts as preserved."""
_TINY = 1e-8


@dataclass(frozen=True)
class RhythmTransfer:
    """How the output's envelope follows those of input and target, and how much the envelopes move."""

    input_correlation: float
    target_correlation: float
    input_movement: float
    output_movement: float

    @property
    def balance(self) -> float:
        """See `rhythm_balance`."""
        return rhythm_balance(self.input_correlation, self.target_correlation)

    @property
    def preserved(self) -> bool:
        """Whether the input's rhythm is in the output."""
        return abs(self.input_correlation) > PRESERVED


def rhythm_balance(input_correlation: float, target_correlation: float) -> float:
    """|correlation with the input| over |correlation with the target|: 1 for equal parts."""
    return abs(input_correlation) / (abs(target_correlation) + _TINY)


def rhythm_envelope(latents: Tensor, window: int = WINDOW) -> Tensor:
    """RMS over the channels of [B, D, T], smoothed over `window` frames: [B, T + 1 - window % 2].

    Raises `ValueError` where T is too short to be reflected at its ends.
    """
    if latents.shape[2] <= window // 2:
        raise ValueError(
            f"{latents.shape[2]} frames are too few for an envelope over {window}; give more than {window // 2}"
        )
    level = latents.float().square().mean(1, keepdim=True).sqrt()
    padded = F.pad(level, (window // 2, window // 2), mode="reflect")
    return F.avg_pool1d(padded, window, stride=1)[:, 0]


@torch.no_grad()
def rhythm_transfer(
    input_latents: Tensor, target_latents: Tensor, output_latents: Tensor, compat: Compat = "none"
) -> RhythmTransfer:
    """Compare the envelopes of three [B, D, T], averaged over the batch; see `rhythm_envelope` for what it raises."""
    source, goal, output = (rhythm_envelope(x) for x in (input_latents, target_latents, output_latents))
    return RhythmTransfer(
        _correlation(source, output, compat),
        _correlation(goal, output, compat),
        float(source.std()),
        float(output.std()),
    )


def _correlation(first: Tensor, second: Tensor, compat: Compat) -> float:
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    freedom = 1 if compat == "seeds" else 0  # the seeds mixed n with n - 1
    deviations = [x.std(1, correction=freedom) + _TINY for x in (first, second)]
    return float(((first * second).mean(1) / (deviations[0] * deviations[1])).mean())
