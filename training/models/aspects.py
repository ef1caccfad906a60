"""Rhythm, harmony and timbre of latents: what is left of them once the other two are taken away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.blocks import local_level, rms

BANDS = 3
"""Low, middle, high: bass drum, snare and cymbal, and too coarse for a spectrum."""
_COLOUR = 17
"""Channels, 1.6 kHz of `mdct`, that a spectrum is smoothed over until no note is left in it."""
_QUIET = 0.05
"""Of a window's RMS: quieter frames have no harmony."""


def rhythm_aspect(latents: Tensor) -> Tensor:
    """When it sounds, and not what: [B, D, T] to [B, 3, T], loudness of bands of channels over their own RMS."""
    energy = latents.float().square().transpose(1, 2)
    bands = F.adaptive_avg_pool1d(energy, BANDS).transpose(1, 2)
    return ((bands + 1e-8) / (bands.mean(2, keepdim=True) + 1e-8)).sqrt()


def harmony_aspect(latents: Tensor) -> Tensor:
    """What sounds, and not how loud: each frame of [B, D, T] brought to RMS 1; silence stays silent."""
    frames = (latents.float().square().mean(1, keepdim=True) + 1e-8).sqrt()
    return latents.float() / frames.clamp(min=_QUIET * rms(latents))


def timbre_aspect(latents: Tensor) -> Tensor:
    """How it sounds on the whole: each channel's RMS over the window of [B, D, T], the same in every frame."""
    channels = (latents.float().square().mean(2, keepdim=True) + 1e-8).sqrt() / rms(latents)
    return channels.expand_as(latents)


def aspect_energies(latents: Tensor) -> Tensor:
    """Where the three are loud: energies [B, 3, D, T], of mean 1, of the rhythm, harmony and timbre of [B, D, T].

    Rhythm has the bands' loudness in the colour of the whole, harmony the spectrum of each frame, timbre the colour
    alone: what one of them lacks, no other has.
    """
    channels = timbre_aspect(latents)[:, :, 0].square()[:, None]
    colour = F.avg_pool1d(channels, _COLOUR, stride=1, padding=_COLOUR // 2, count_include_pad=False).transpose(1, 2)
    bands = rhythm_aspect(latents).square().transpose(1, 2)
    beats = F.interpolate(bands, size=latents.shape[1], mode="linear").transpose(1, 2)
    chords = local_level(harmony_aspect(latents).square()).square()
    energies = torch.stack([colour * beats, chords, colour.expand_as(latents)], 1) + 1e-8
    return energies / energies.mean((2, 3), keepdim=True)
