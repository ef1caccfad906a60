"""All losses of a step, weighed in one place. Their names are the keys of the configuration and of the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from shards.settings import Settings
from training.losses.adversarial import generator_loss
from training.losses.compat import Compat
from training.losses.modulation import Penalty, envelope_band, modulation_correlation
from training.losses.music import chroma_distance, onset_distance
from training.losses.spectral import mel_distance, spectral_outlier, stft_distance
from training.losses.waveform import rms_error, waveform_limit


class LossesConfig(Settings):
    """Weight of every loss; one of weight 0 costs nothing, unless `watch` names it."""

    rms_input: float = Field(0.3, ge=0, description="RMS error of the decoded output against the input")
    rms_target: float = Field(0.3, ge=0, description="the same against the target")
    spectral: float = Field(0.0, ge=0, description="multi-resolution STFT distance to both sources")
    mel: float = Field(0.0, ge=0, description="log mel distance to both sources")
    gan: float = Field(0.0, ge=0, description="a discriminator of latents takes the output for music")
    mask_regularisation: float = Field(0.1, ge=0, description="masking agent: overlap, coverage, change over time")
    balance: float = Field(15.0, ge=0, description="agents: both masks' means at one half; both sources' components")
    novelty: float = Field(0.1, ge=0, description="compositional agent: likeness of its pattern to the sources")
    modulation_correlation: float = Field(0.5, ge=0, description="envelope correlation with both sources")
    spectral_outlier: float = Field(0.0, ge=0, description="energy that sticks out around 2, 4 and 6 kHz")
    salience: float = Field(0.0, ge=0, description="masking agent: energy of the louder source that masks leave out")
    channel_balance: float = Field(
        0.0, ge=0, description="masking agent: each channel's masks at one half in each pair"
    )
    envelope_band: float = Field(0.0, ge=0, description="envelope correlations with the sources outside envelope_range")
    waveform_limit: float = Field(0.0, ge=0, description="waveform correlations with the sources over waveform_most")
    onsets: float = Field(0.0, ge=0, description="onset strength that does not follow the input's")
    chroma: float = Field(0.0, ge=0, description="pitch classes that are not the target's")
    evenness: float = Field(0.0, ge=0, description="compositional agent: components that all count alike")
    pattern_onsets: float = Field(0.0, ge=0, description="compositional agent: `onsets`, of its composed pattern")
    pattern_chroma: float = Field(0.0, ge=0, description="compositional agent: `chroma`, of its composed pattern")
    envelope_range: tuple[float, float] = Field((0.3, 0.5), description="wanted by envelope_band")
    waveform_most: float = Field(0.55, ge=0, le=1, description="allowed by waveform_limit")
    modulation_penalty: Penalty = Field("quadratic", description="how the envelope correlation is punished")
    watch: tuple[str, ...] = Field((), description="losses of weight 0 to log, without gradient")

    @model_validator(mode="after")
    def _check(self) -> LossesConfig:
        for name in self.watch:
            if name not in LOSSES:
                raise ValueError(f"watch: {name!r} is no loss; choose from: {', '.join(sorted(LOSSES))}")
        if "gan" in self.watch and self.gan == 0:
            raise ValueError("watch: gan needs a discriminator, which is trained only where gan has a weight")
        return self

    def weight(self, name: str) -> float:
        """Weight of the loss `name`."""
        return float(getattr(self, name))

    def wants(self, name: str) -> bool:
        """Whether the loss `name` counts or is watched."""
        return self.weight(name) > 0 or name in self.watch

    @property
    def needs_audio(self) -> bool:
        """Whether any loss that counts or is watched listens to decoded audio."""
        return any(map(self.wants, AUDIO_LOSSES)) or self.needs_pattern

    @property
    def needs_pattern(self) -> bool:
        """Whether any loss that counts or is watched listens to a composed pattern."""
        return any(map(self.wants, PATTERN_LOSSES))


@dataclass(frozen=True)
class AudioCrops:
    """The same crop of output, input and target, decoded: [B, 1, n] each; `segments` of their envelopes.

    And of the composed pattern, where there is one and a loss listens to it.
    """

    output: Tensor
    input: Tensor
    target: Tensor
    segments: int
    pattern: Tensor | None = None


class Judged(Protocol):
    """What an agent did, as far as losses know it: the names of its losses, and each of them."""

    LOSSES: ClassVar[tuple[str, ...]]

    def loss(self, name: str) -> Tensor:
        """One of its losses, a scalar."""


@dataclass(frozen=True)
class LossInputs:
    """What the losses judge, each part where there is one: audio, the agent, and a discriminator's logits [B, 1]."""

    crops: AudioCrops | None = None
    agent: Judged | None = None
    fake_logits: Tensor | None = None


@dataclass(frozen=True)
class LossReport:
    """The weighted total, with gradient, and each raw loss, without."""

    total: Tensor
    raw: dict[str, Tensor]


def _both(
    distance: Callable[[Tensor, Tensor, Compat], Tensor],
) -> Callable[[AudioCrops, LossesConfig, Compat], Tensor]:
    """The mean of a distance to both sources."""

    def compute(crops: AudioCrops, _: LossesConfig, compat: Compat) -> Tensor:
        return (distance(crops.output, crops.input, compat) + distance(crops.output, crops.target, compat)) / 2

    return compute


AUDIO_LOSSES: dict[str, Callable[[AudioCrops, LossesConfig, Compat], Tensor]] = {
    "rms_input": lambda crops, _, compat: rms_error(crops.output, crops.input, compat),
    "rms_target": lambda crops, _, compat: rms_error(crops.output, crops.target, compat),
    "spectral": _both(stft_distance),
    "mel": _both(lambda output, source, _: mel_distance(output, source)),
    "modulation_correlation": lambda crops, config, _: modulation_correlation(
        crops.output, crops.input, crops.target, crops.segments, config.modulation_penalty
    ),
    "spectral_outlier": lambda crops, _, __: spectral_outlier(crops.output),
    "envelope_band": lambda crops, config, _: envelope_band(
        crops.output, crops.input, crops.target, crops.segments, config.envelope_range
    ),
    "waveform_limit": lambda crops, config, _: waveform_limit(
        crops.output, crops.input, crops.target, config.waveform_most
    ),
    "onsets": lambda crops, _, __: onset_distance(crops.output, crops.input),
    "chroma": lambda crops, _, __: chroma_distance(crops.output, crops.target),
}
PATTERN_LOSSES: dict[str, Callable[[Tensor, AudioCrops], Tensor]] = {
    "pattern_onsets": lambda pattern, crops: onset_distance(pattern, crops.input),
    "pattern_chroma": lambda pattern, crops: chroma_distance(pattern, crops.target),
}
AGENT_LOSSES = ("mask_regularisation", "balance", "channel_balance", "salience", "novelty", "evenness")
LOSSES = (*AUDIO_LOSSES, *PATTERN_LOSSES, *AGENT_LOSSES, "gan")


def compute_losses(config: LossesConfig, inputs: LossInputs, compat: Compat = "none") -> LossReport:
    """Compute the losses that count, and those that are watched; the only place that applies weights.

    Losses of an agent apply where there is one that has them, and `gan` where a discriminator was asked.
    """
    total: Tensor | None = None
    raw: dict[str, Tensor] = {}
    for name in filter(config.wants, LOSSES):
        weight = config.weight(name)
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            value = _compute(name, config, inputs, compat)
        if value is None:
            continue
        raw[name] = value.detach()
        if weight > 0:
            total = weight * value if total is None else total + weight * value
    assert total is not None, "the configuration lets no loss count"
    return LossReport(total, raw)


def _compute(name: str, config: LossesConfig, inputs: LossInputs, compat: Compat) -> Tensor | None:
    if name in AUDIO_LOSSES:
        assert inputs.crops is not None, "an audio loss without decoded audio"
        return AUDIO_LOSSES[name](inputs.crops, config, compat)
    if name in PATTERN_LOSSES:
        pattern = None if inputs.crops is None else inputs.crops.pattern
        return None if inputs.crops is None or pattern is None else PATTERN_LOSSES[name](pattern, inputs.crops)
    if name == "gan":
        return None if inputs.fake_logits is None else generator_loss(inputs.fake_logits)
    return inputs.agent.loss(name) if inputs.agent is not None and name in inputs.agent.LOSSES else None
