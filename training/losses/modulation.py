"""How much the output's loudness follows that of its sources: correlation of amplitude envelopes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

SEGMENTS = 250
"""Segments of a whole window of 16 s; a crop of s seconds has 250 * s / 16."""
WINDOW_SECONDS = 16.0
MOST = 0.95
"""Correlation from which the exponential penalty goes on straight: a copy has a gradient, and a bounded one."""
_STILL = 1e-4
"""Deviation of an envelope, -80 dB, under which the correlation fades out instead of dividing by it."""

Penalty = Literal["quadratic", "cubic", "exponential"]


def segments_for(seconds: float) -> int:
    """Envelope segments of `seconds` of audio, at least two."""
    return max(2, round(SEGMENTS * seconds / WINDOW_SECONDS))


def amplitude_envelope(audio: Tensor, segments: int) -> Tensor:
    """Peak of |audio| in each of `segments` equal parts: [B, 1, n] to [B, segments]; what does not fit is dropped."""
    length = audio.shape[-1] // segments
    return audio[:, 0, : length * segments].abs().reshape(-1, segments, length).amax(2)


def envelope_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of two envelopes [B, S], as [B]; towards 0 where one of them does not move.

    Its gradient with respect to an envelope has at most the norm 1 / (1e-4 * sqrt(S)), however quiet the envelope is.
    """
    first = first - first.mean(1, keepdim=True)
    second = second - second.mean(1, keepdim=True)
    deviations = [(envelope.square().mean(1) + _STILL**2).sqrt() for envelope in (first, second)]
    return (first * second).mean(1) / (deviations[0] * deviations[1])


def modulation_correlation(
    output: Tensor, input_audio: Tensor, target_audio: Tensor, segments: int, penalty: Penalty = "quadratic"
) -> Tensor:
    """Sum over both sources of a penalty on the envelope correlation with the output; audio [B, 1, n], a scalar.

    Against outputs that copy the loudness of one source (the seeds' anti-modulation cost). With r the correlation:
    `quadratic` r^2, `cubic` |r|^3, `exponential` -ln(1 - |r|), straight on from |r| = 0.95.
    """
    envelope = amplitude_envelope(output, segments)
    return sum(
        (
            _penalise(envelope_correlation(envelope, amplitude_envelope(source, segments)), penalty).mean()
            for source in (input_audio, target_audio)
        ),
        start=output.new_zeros(()),
    )


def envelope_band(
    output: Tensor, input_audio: Tensor, target_audio: Tensor, segments: int, wanted: tuple[float, float]
) -> Tensor:
    """Squared distance of the envelope correlations with both sources from a range; audio [B, 1, n], a scalar.

    `modulation_correlation` drives them to zero, and the input's rhythm out with them.
    """
    envelope, total = amplitude_envelope(output, segments), output.new_zeros(())
    for source in (input_audio, target_audio):
        correlation = envelope_correlation(envelope, amplitude_envelope(source, segments))
        total = total + (correlation - correlation.detach().clamp(*wanted)).square().mean()
    return total


def _penalise(correlation: Tensor, penalty: Penalty) -> Tensor:
    match penalty:
        case "quadratic":
            return correlation.square()
        case "cubic":
            return correlation.abs() ** 3
        case "exponential":
            size = correlation.abs()
            beyond = (size - MOST).clamp(min=0) / (1 - MOST)
            return -(1 - size.clamp(max=MOST)).log() + beyond
