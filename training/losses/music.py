"""Losses on what listeners follow: when notes begin, and which pitch classes sound."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.filters import chroma_filters, magnitudes, mel_filters

ONSET_SIZE, ONSET_HOP, BANDS, HIGHEST = 512, 128, 40, 4800.0
CHROMA_SIZE, CHROMA_HOP = 4096, 1024
_QUIET = 1e-2
"""Magnitude of noise at about -65 dB of full scale: quieter changes are no onsets."""


def onset_distance(output: Tensor, source: Tensor) -> Tensor:
    """1 - correlation of two onset strengths, of audio [B, 1, n]: 0 the same onsets, 1 unrelated ones; a scalar."""
    first, second = (onset_strength(audio) for audio in (output, source))
    first, second = (strength - strength.mean(1, keepdim=True) for strength in (first, second))
    deviations = [(strength.square().mean(1) + 1e-6).sqrt() for strength in (first, second)]
    return (1 - (first * second).mean(1) / (deviations[0] * deviations[1])).mean()


def onset_strength(audio: Tensor) -> Tensor:
    """How much louder the mel bands become from one frame to the next, in all: [B, 1, n] to [B, frames - 1].

    Spectral flux of logarithmic mel bands up to 4.8 kHz (Boeck and Widmer 2013, without its vibrato suppression).
    """
    filters = mel_filters(ONSET_SIZE // 2 + 1, BANDS, HIGHEST, audio.device)
    bands = (magnitudes(audio, ONSET_SIZE, ONSET_HOP).transpose(1, 2) @ filters + _QUIET).log()
    return (bands[:, 1:] - bands[:, :-1]).clamp(min=0).mean(2)


def chroma_distance(output: Tensor, source: Tensor) -> Tensor:
    """1 - correlation of two chromas over the pitch classes, frames weighed by the source's loudness; a scalar.

    Audio [B, 1, n]. What sounds at all pitches, as drums do, moves no correlation.
    """
    heard, wanted = chroma(output), chroma(source)
    weight = torch.linalg.vector_norm(wanted, dim=1)
    heard, wanted = (classes - classes.mean(1, keepdim=True) for classes in (heard, wanted))
    sizes = [(classes.square().sum(1) + _QUIET).sqrt() for classes in (heard, wanted)]
    likeness = (heard * wanted).sum(1) / (sizes[0] * sizes[1])
    distance: Tensor = (1 - (likeness * weight).sum(1) / (weight.sum(1) + _QUIET)).mean()
    return distance


def chroma(audio: Tensor) -> Tensor:
    """Loudness of the twelve pitch classes, C first: [B, 1, n] to [B, 12, frames], for audio at 24 kHz."""
    spectrum = magnitudes(audio, CHROMA_SIZE, CHROMA_HOP)
    return (spectrum.transpose(1, 2) @ chroma_filters(CHROMA_SIZE, audio.device)).transpose(1, 2)
