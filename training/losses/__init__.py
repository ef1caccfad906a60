"""The losses: pure functions of tensors, and the one place that weighs them."""

from training.losses.adversarial import Verdict, discriminator_loss, generator_loss, roll_targets
from training.losses.compat import Compat
from training.losses.components import component_balance, novelty
from training.losses.masks import (
    channel_balance,
    loudness_ratio,
    mask_balance,
    mask_overlap,
    mask_regularisation,
    mask_salience,
)
from training.losses.modulation import (
    amplitude_envelope,
    envelope_band,
    envelope_correlation,
    modulation_correlation,
)
from training.losses.music import chroma_distance, onset_distance
from training.losses.report import AudioCrops, LossesConfig, LossInputs, LossReport, compute_losses
from training.losses.spectral import mel_distance, spectral_outlier, stft_distance
from training.losses.waveform import rms_error, waveform_correlation, waveform_limit

__all__ = [
    "AudioCrops",
    "Compat",
    "LossInputs",
    "LossReport",
    "LossesConfig",
    "Verdict",
    "amplitude_envelope",
    "channel_balance",
    "chroma_distance",
    "component_balance",
    "compute_losses",
    "discriminator_loss",
    "envelope_band",
    "envelope_correlation",
    "generator_loss",
    "loudness_ratio",
    "mask_balance",
    "mask_overlap",
    "mask_regularisation",
    "mask_salience",
    "mel_distance",
    "modulation_correlation",
    "novelty",
    "onset_distance",
    "rms_error",
    "roll_targets",
    "spectral_outlier",
    "stft_distance",
    "waveform_correlation",
    "waveform_limit",
]
