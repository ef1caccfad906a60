"""How much the output's loudness follows that of its sources: correlation of amplitude envelopes."""

from __future__ import annotations

from torch import Tensor

SEGMENTS = 250
"""Segments of a whole window of 16 s; a crop of s seconds has 250 * s / 16."""
WINDOW_SECONDS = 16.0
_EPSILON = 1e-8


def segments_for(seconds: float) -> int:
    """Envelope segments of `seconds` of audio, at least two."""
    return max(2, round(SEGMENTS * seconds / WINDOW_SECONDS))


def amplitude_envelope(audio: Tensor, segments: int) -> Tensor:
    """Peak of |audio| in each of `segments` equal parts: [B, 1, n] to [B, segments]; what does not fit is dropped."""
    length = audio.shape[-1] // segments
    return audio[:, 0, : length * segments].abs().reshape(-1, segments, length).amax(2)


def envelope_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of two envelopes [B, S], as [B]; 0 where one of them does not move."""
    first = first - first.mean(1, keepdim=True)
    second = second - second.mean(1, keepdim=True)
    energy = first.square().sum(1) * second.square().sum(1)
    return (first * second).sum(1) / (energy + _EPSILON**2).sqrt()


def modulation_correlation(output: Tensor, input_audio: Tensor, target_audio: Tensor, segments: int) -> Tensor:
    """Sum over both sources of the squared envelope correlation with the output; audio [B, 1, n], a scalar.

    Against outputs that copy the loudness of one source.
    """
    envelope = amplitude_envelope(output, segments)
    return sum(
        (
            envelope_correlation(envelope, amplitude_envelope(source, segments)).square().mean()
            for source in (input_audio, target_audio)
        ),
        start=output.new_zeros(()),
    )
