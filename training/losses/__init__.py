"""The losses: pure functions of tensors, and the one place that weighs them."""

from training.losses.masks import MaskLosses, mask_losses
from training.losses.modulation import amplitude_envelope, envelope_correlation, modulation_correlation
from training.losses.report import AudioCrops, LossesConfig, LossInputs, LossReport, compute_losses
from training.losses.waveform import rms_error

__all__ = [
    "AudioCrops",
    "LossInputs",
    "LossReport",
    "LossesConfig",
    "MaskLosses",
    "amplitude_envelope",
    "compute_losses",
    "envelope_correlation",
    "mask_losses",
    "modulation_correlation",
    "rms_error",
]
