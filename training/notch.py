"""A filter for decoders that ring: attenuates what sticks out of the bands around 2, 4 and 6 kHz, and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.audio import Samples
from training.losses.spectral import RINGING_BANDS

ALLOWED_DB = 6.0
"""By so much may a frequency stick out of the neighbourhood of its band: music does."""
DEEPEST_DB = 24.0
_SIZE, _HOP = 2048, 512
_FEWEST = 16
"""Frames, 0.4 s, of which a mean tells a tone from noise; what is shorter stays as it is."""
_BLOCK = 256
"""Frames that are transformed at a time."""

Spectrum = NDArray[np.float64]


def notch_outliers(samples: Samples, sample_rate: int) -> tuple[Samples, float]:
    """Filter mono samples [n]; gives them and the deepest attenuation in dB, 0 where nothing stuck out.

    The long-term spectrum decides, at a resolution of 12 Hz: within a band, what is more than 6 dB over the median of
    the band's two neighbours (each as wide as the band) is brought down to that, by 24 dB at most. The filter has zero
    phase and is the same throughout, so a tone that a decoder adds goes and the rhythm stays. A note that is held
    through the whole piece in such a band can't be told from ringing.
    """
    if len(samples) < _SIZE + (_FEWEST - 1) * _HOP:
        return samples, 0.0
    cut = _attenuation(_mean_power(samples), sample_rate)
    if not cut.any():
        return samples, 0.0
    padded = np.pad(samples, (0, _SIZE))  # what rings on at the end does not come round to the beginning
    frequencies = np.fft.rfftfreq(len(padded), 1 / sample_rate)
    gain = 10 ** (-np.interp(frequencies, np.fft.rfftfreq(_SIZE, 1 / sample_rate), cut) / 20)
    filtered = np.fft.irfft(np.fft.rfft(padded) * gain, len(padded))[: len(samples)]
    return filtered.astype(np.float32), float(cut.max())


def _mean_power(samples: Samples) -> Spectrum:
    """Mean power [1025] of Hann-windowed frames."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _SIZE)[::_HOP]
    power, hann = np.zeros(_SIZE // 2 + 1), np.hanning(_SIZE)
    for first in range(0, len(frames), _BLOCK):
        power += np.square(np.abs(np.fft.rfft(frames[first : first + _BLOCK] * hann))).sum(0)
    return power / len(frames)


def _attenuation(power: Spectrum, sample_rate: int) -> Spectrum:
    """Decibels to take away at each frequency [1025]."""
    frequencies = np.fft.rfftfreq(_SIZE, 1 / sample_rate)
    floor = 1e-9 * power.max() + 1e-20
    cut = np.zeros_like(power)
    for low, high in RINGING_BANDS:
        inside = (frequencies >= low) & (frequencies < high)
        around = (frequencies >= 2 * low - high) & (frequencies < 2 * high - low) & ~inside
        excess = 10 * np.log10((power[inside] + floor) / (np.median(power[around]) + floor))
        cut[inside] = np.clip(excess - ALLOWED_DB, 0, DEEPEST_DB)
    # A window's main lobe is four bins wide: a tone is taken with its shoulders, and the edges are smooth.
    wide = np.max([np.roll(cut, shift) for shift in (-2, -1, 0, 1, 2)], axis=0)
    return np.asarray((np.roll(wide, 1) + 2 * wide + np.roll(wide, -1)) / 4)
