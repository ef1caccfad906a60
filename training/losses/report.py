"""All losses of a step, weighed in one place. Their names are the keys of the configuration and of the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor

from shards.settings import Settings
from training.losses.masks import MaskLosses
from training.losses.modulation import modulation_correlation
from training.losses.waveform import rms_error


class LossesConfig(Settings):
    """Weight of every loss; one of weight 0 costs nothing, unless `watch` names it."""

    rms_input: float = Field(0.3, ge=0, description="RMS error of the decoded output against the input")
    rms_target: float = Field(0.3, ge=0, description="the same against the target")
    mask_regularisation: float = Field(0.1, ge=0, description="masking agent: overlap, coverage, change over time")
    balance: float = Field(15.0, ge=0, description="masking agent: both masks' means at one half")
    modulation_correlation: float = Field(0.5, ge=0, description="squared envelope correlation with both sources")
    watch: tuple[str, ...] = Field((), description="losses of weight 0 to log, without gradient")

    @model_validator(mode="after")
    def _check(self) -> LossesConfig:
        names = set(LOSSES)
        for name in self.watch:
            if name not in names:
                raise ValueError(f"watch: {name!r} is no loss; choose from: {', '.join(sorted(names))}")
        return self

    def weight(self, name: str) -> float:
        """Weight of the loss `name`."""
        return float(getattr(self, name))

    @property
    def needs_audio(self) -> bool:
        """Whether any loss that counts or is watched listens to decoded audio."""
        return any(self.weight(name) > 0 or name in self.watch for name in AUDIO_LOSSES)


@dataclass(frozen=True)
class AudioCrops:
    """The same crop of output, input and target, decoded: [B, 1, n] each; `segments` of their envelopes."""

    output: Tensor
    input: Tensor
    target: Tensor
    segments: int


@dataclass(frozen=True)
class LossReport:
    """The weighted total, with gradient, and each raw loss, without."""

    total: Tensor
    raw: dict[str, Tensor]


@dataclass(frozen=True)
class LossInputs:
    """What the losses judge: crops of audio where one of them listens, and the agent's masks where it has some."""

    crops: AudioCrops | None
    masks: MaskLosses | None


Loss = Callable[[LossInputs], Tensor]


def _on_audio(loss: Callable[[AudioCrops], Tensor]) -> Loss:
    def compute(inputs: LossInputs) -> Tensor:
        assert inputs.crops is not None, "an audio loss without decoded audio"
        return loss(inputs.crops)

    return compute


def _on_masks(loss: Callable[[MaskLosses], Tensor]) -> Loss:
    def compute(inputs: LossInputs) -> Tensor:
        assert inputs.masks is not None, "a mask loss without masks"
        return loss(inputs.masks)

    return compute


AUDIO_LOSSES: dict[str, Loss] = {
    "rms_input": _on_audio(lambda crops: rms_error(crops.output, crops.input)),
    "rms_target": _on_audio(lambda crops: rms_error(crops.output, crops.target)),
    "modulation_correlation": _on_audio(
        lambda crops: modulation_correlation(crops.output, crops.input, crops.target, crops.segments)
    ),
}
MASK_LOSSES: dict[str, Loss] = {
    "mask_regularisation": _on_masks(lambda masks: masks.regularisation),
    "balance": _on_masks(lambda masks: masks.balance),
}
LOSSES = {**AUDIO_LOSSES, **MASK_LOSSES}


def compute_losses(config: LossesConfig, inputs: LossInputs) -> LossReport:
    """Compute the losses that count, and those that are watched; the only place that applies weights.

    Losses on masks apply only where the agent has some.
    """
    total: Tensor | None = None
    raw: dict[str, Tensor] = {}
    for name, loss in LOSSES.items():
        if name in MASK_LOSSES and inputs.masks is None:
            continue
        weight = config.weight(name)
        if weight > 0:
            value = loss(inputs)
            total = weight * value if total is None else total + weight * value
            raw[name] = value.detach()
        elif name in config.watch:
            with torch.no_grad():
                raw[name] = loss(inputs)
    assert total is not None, "the configuration lets no loss count"
    return LossReport(total, raw)
