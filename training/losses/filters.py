"""Windows and filter banks: built once for each size and device, and the one door to torchaudio."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SAMPLE_RATE = 24_000


@lru_cache(maxsize=32)
def hann_window(size: int, device: torch.device) -> Tensor:
    """Periodic Hann window [size]."""
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=8)
def mel_filters(bins: int, bands: int, highest: float, device: torch.device) -> Tensor:
    """Triangular filters [bins, bands] on HTK's mel scale, from 0 to `highest` Hz, for audio at 24 kHz."""
    # Here and not above: the other losses do without it.
    import torchaudio.functional

    filters: Tensor = torchaudio.functional.melscale_fbanks(bins, 0.0, highest, bands, SAMPLE_RATE)
    return filters.to(device)


@lru_cache(maxsize=4)
def chroma_filters(size: int, device: torch.device) -> Tensor:
    """Weights [size // 2 + 1, 12] of an FFT's bins for the pitch classes, C first, for audio at 24 kHz.

    Each bin from 100 Hz to 2 kHz counts for the class that its frequency is nearest to, less the further away it is.
    """
    frequencies = torch.arange(size // 2 + 1) * SAMPLE_RATE / size
    pitch = 69 + 12 * torch.log2(frequencies.clamp(min=1) / 440)
    away = (pitch[:, None] - torch.arange(12) + 6) % 12 - 6
    filters = torch.exp(-0.5 * (away / 0.3).square()) * ((frequencies >= 100) & (frequencies <= 2000))[:, None]
    return filters.to(device)


def magnitudes(audio: Tensor, size: int, hop: int) -> Tensor:
    """Magnitude spectrogram of audio [B, 1, n]: [B, size // 2 + 1, frames], Hann windows centred on their frames."""
    window = hann_window(size, audio.device)
    return torch.stft(audio[:, 0], size, hop, window=window, return_complex=True).abs()
