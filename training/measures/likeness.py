"""How like its sources a piece is: waveforms, envelopes, levels and spectra. A copy has a correlation of 1."""

from __future__ import annotations

import math

import numpy as np
import torch

from shards.audio import Samples, rms
from shards.schema import SIDES
from training.losses.modulation import amplitude_envelope, envelope_correlation, segments_for
from training.losses.spectral import RESOLUTIONS, mel_distance

_DECIBELS = 10 / math.log(10)
_SHORTEST = RESOLUTIONS[1][0]
"""Samples that a spectrum needs."""


@torch.no_grad()
def likeness(output: Samples, input_audio: Samples, target_audio: Samples, sample_rate: int) -> dict[str, float]:
    """Compare a piece with its input and target, all mono audio [n]; every number is finite.

    `rms_ratio` is its RMS over `sources_level`; left out where both sources are silent. `waveform_correlation_*` and
    `envelope_correlation_*` are 0 for silence. `spectral_distance_*` is the mean distance in dB of 80 mel bands up to
    8 kHz; left out for less than 1024 samples.
    """
    segments = segments_for(len(output) / sample_rate)
    signals = [torch.from_numpy(audio)[None, None] for audio in (output, input_audio, target_audio)]
    envelopes = [amplitude_envelope(signal, segments) for signal in signals]
    level = sources_level(input_audio, target_audio)
    found = {"rms_ratio": rms(output) / level} if level > 0 else {}
    for place, (side, source) in enumerate(zip(SIDES, (input_audio, target_audio), strict=True), 1):
        found[f"waveform_correlation_{side}"] = waveform_correlation(output, source)
        found[f"envelope_correlation_{side}"] = float(envelope_correlation(envelopes[0], envelopes[place]))
        if len(output) >= _SHORTEST:
            found[f"spectral_distance_{side}"] = _DECIBELS * float(mel_distance(signals[0], signals[place]))
    return found


def sources_level(input_audio: Samples, target_audio: Samples) -> float:
    """Level that a piece should have: the root mean square of the RMS of both sources [n]."""
    return math.sqrt((rms(input_audio) ** 2 + rms(target_audio) ** 2) / 2)


def waveform_correlation(first: Samples, second: Samples) -> float:
    """Pearson correlation of two sounds [n]; 0 where one of them is silent."""
    first, second = (np.asarray(samples, np.float64) - samples.mean(dtype=np.float64) for samples in (first, second))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / size if size > 1e-12 else 0.0
