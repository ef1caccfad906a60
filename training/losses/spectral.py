"""Losses on spectra: several resolutions of the STFT, mel bands, and bands in which codecs ring."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.compat import Compat
from training.losses.filters import SAMPLE_RATE, magnitudes, mel_filters

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""FFT size and hop, in samples."""
MEL_BANDS, MEL_HIGHEST = 80, 8000.0
RINGING_BANDS = ((1800, 2200), (3800, 4200), (5800, 6200))
"""Hz."""
OUTLIER_QUANTILE = 0.9
_FLOOR = 1e-5
_QUIET = 1e-2
"""Magnitude of noise at about -65 dB of full scale, under which a source's spectrum is no measure of the distance."""


def stft_distance(output: Tensor, source: Tensor, compat: Compat = "none") -> Tensor:
    """Spectral convergence plus L1 of log magnitudes, averaged over three resolutions; audio [B, 1, n], a scalar.

    After Yamamoto et al. 2020 (Parallel WaveGAN). Convergence is taken of each sample, relative to its source or to
    -65 dB where that is louder; the seeds took it of the batch, and divided by next to nothing for a silent one.
    """
    total = output.new_zeros(())
    for size, hop in RESOLUTIONS:
        made, wanted = magnitudes(output, size, hop), magnitudes(source, size, hop)
        convergence = _convergence(made, wanted, compat)
        total = total + convergence.mean() + ((made + _FLOOR).log() - (wanted + _FLOOR).log()).abs().mean()
    return total / len(RESOLUTIONS)


def _convergence(made: Tensor, wanted: Tensor, compat: Compat) -> Tensor:
    """Distance of two spectrograms [B, F, T] relative to `wanted`: [B], or a scalar for the batch."""
    over = (0, 1, 2) if compat == "seeds" else (1, 2)
    distance: Tensor = torch.linalg.vector_norm(made - wanted, dim=over)
    size: Tensor = torch.linalg.vector_norm(wanted, dim=over)
    return distance / (size + 1e-6 if compat == "seeds" else size.clamp(min=_QUIET * wanted[0].numel() ** 0.5))


def mel_distance(output: Tensor, source: Tensor) -> Tensor:
    """L1 of the logarithms of 80 mel bands up to 8 kHz; audio [B, 1, n], a scalar."""
    size, hop = RESOLUTIONS[1]
    filters = mel_filters(size // 2 + 1, MEL_BANDS, MEL_HIGHEST, output.device)
    made, wanted = (magnitudes(audio, size, hop).square().transpose(1, 2) @ filters for audio in (output, source))
    return ((made + _FLOOR).log() - (wanted + _FLOOR).log()).abs().mean()


def spectral_outlier(audio: Tensor) -> Tensor:
    """Energy that sticks out of the bands around 2, 4 and 6 kHz, in which decoded latents ring; [B, 1, n], a scalar.

    Frames whose mean magnitude in a band lies in the highest tenth of the batch: their squared distance from the mean
    of the batch, averaged over the bands.
    """
    size, hop = RESOLUTIONS[2]
    spectrum = magnitudes(audio, size, hop)
    total = audio.new_zeros(())
    for low, high in RINGING_BANDS:
        levels = spectrum[:, low * size // SAMPLE_RATE : high * size // SAMPLE_RATE].mean(1)
        mean = levels.mean()
        # Places are chosen without gradient; torch.quantile takes at most 2^24 values, far more than a batch has.
        outlier = levels.detach() > levels.detach().quantile(OUTLIER_QUANTILE)
        total = total + ((levels - mean).square() * outlier).sum() / outlier.sum().clamp(min=1)
    return total / len(RINGING_BANDS)
