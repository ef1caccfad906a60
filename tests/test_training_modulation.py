"""The modulation correlation: values against numpy, and gradients that stay bounded whatever is heard."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from sounds import audio
from torch import Tensor

from training.losses.modulation import (
    MOST,
    Penalty,
    amplitude_envelope,
    envelope_band,
    envelope_correlation,
    modulation_correlation,
    segments_for,
)

SEGMENTS = 60
PENALTIES = get_args(Penalty)
STEEPEST = {"quadratic": 2.0, "cubic": 3.0, "exponential": 1 / (1 - MOST)}
ENVELOPE_BOUND = 1 / (1e-4 * math.sqrt(SEGMENTS))
SILENCE = torch.zeros(2, 1, 48_000)
CONSTANT = torch.full((2, 1, 48_000), 0.1)


def correlations(first: Tensor, second: Tensor) -> list[float]:
    envelopes = [amplitude_envelope(x, SEGMENTS).double().numpy() for x in (first, second)]
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*envelopes, strict=True)]


def test_envelope_is_the_peak_of_each_segment() -> None:
    samples = audio(1)
    peaks = np.abs(samples[:, 0].numpy()).reshape(2, 50, -1).max(2)
    np.testing.assert_array_equal(amplitude_envelope(samples, 50).numpy(), peaks)
    assert amplitude_envelope(samples[:, :, :-7], 50).shape == (2, 50), "what does not fit is dropped"


def test_segments_follow_the_length_of_the_crop() -> None:
    assert segments_for(16.0) == 250
    assert segments_for(2.0) == 31
    assert segments_for(0.01) == 2


def test_envelope_correlation_is_pearsons() -> None:
    first, second = amplitude_envelope(audio(1), SEGMENTS), amplitude_envelope(audio(2), SEGMENTS)
    np.testing.assert_allclose(envelope_correlation(first, second).numpy(), correlations(audio(1), audio(2)), rtol=1e-4)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_is_summed_over_both_sources_and_averaged_over_the_batch(penalty: Penalty) -> None:
    output = 0.5 * audio(1) + 0.5 * audio(2)
    source, goal = audio(1), audio(3)
    judge = {
        "quadratic": lambda r: r**2,
        "cubic": lambda r: abs(r) ** 3,
        "exponential": lambda r: -math.log(1 - abs(r)),
    }[penalty]
    expected = sum(np.mean([judge(r) for r in correlations(output, other)]) for other in (source, goal))
    assert float(modulation_correlation(output, source, goal, SEGMENTS, penalty)) == pytest.approx(expected, rel=1e-3)


def test_a_copy_costs_about_one_and_an_unrelated_output_little() -> None:
    assert float(modulation_correlation(audio(1), audio(1), audio(2), SEGMENTS)) == pytest.approx(1.0, abs=0.1)
    assert float(modulation_correlation(audio(3), audio(1), audio(2), SEGMENTS)) < 0.2


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("sources", ["music", "silence", "constant", "next to silence"])
@pytest.mark.parametrize("output", ["music", "copy", "silence", "next to silence", "constant"])
def test_the_gradient_is_bounded(output: str, sources: str, penalty: Penalty) -> None:
    source = {"music": audio(1), "silence": SILENCE, "constant": CONSTANT, "next to silence": 1e-6 * audio(1)}[sources]
    made = {"music": audio(3), "copy": source, "silence": SILENCE, "constant": CONSTANT}.get(output, 1e-6 * audio(3))
    leaf = made.clone().requires_grad_()
    value = modulation_correlation(leaf, source, 0.5 * source.roll(7, 2), SEGMENTS, penalty)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    # Each sample's share of the mean is one half, and an envelope takes its gradient from one place a segment.
    assert float(gradient.norm()) <= 2 * STEEPEST[penalty] * ENVELOPE_BOUND / math.sqrt(2)
    if output in {"music", "copy"} and sources == "music":
        assert float(gradient.norm()) < 100


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e-6, 1e-4, 1e-2, 1.0])
def test_the_gradient_of_a_correlation_keeps_its_stated_bound(level: float) -> None:
    first = (level * amplitude_envelope(audio(1), SEGMENTS)).requires_grad_()
    correlation = envelope_correlation(first, amplitude_envelope(audio(2), SEGMENTS))
    for row in range(2):
        (gradient,) = torch.autograd.grad(correlation[row], first, retain_graph=True)
        assert float(gradient.norm()) <= 1.001 * ENVELOPE_BOUND


def test_the_exponential_penalty_pulls_at_what_is_all_but_a_copy() -> None:
    source, far = audio(1), CONSTANT
    leaf = (source + 0.08 * audio(2)).requires_grad_()
    assert all(MOST < r < 1 for r in correlations(leaf.detach(), source))
    pulls = {}
    for penalty in PENALTIES:
        value = modulation_correlation(leaf, source, far, SEGMENTS, penalty)
        pulls[penalty] = float(torch.autograd.grad(value, leaf)[0].norm())
    # Clamped at 0.95, as the seeds had it, it would pull not at all, where it is needed most.
    assert pulls["exponential"] > 5 * pulls["cubic"] > 5 * pulls["quadratic"] > 0
    nearer, copy = (
        float(modulation_correlation(x, source, far, SEGMENTS, "exponential")) for x in (leaf.detach(), source)
    )
    assert -math.log(1 - MOST) < nearer < copy
    assert copy == pytest.approx(-math.log(1 - MOST) + 1, rel=1e-2)


def test_an_envelope_correlation_within_the_wanted_range_costs_nothing() -> None:
    output, source, goal = audio(1) + audio(2), audio(1), audio(2)
    found = [float(np.mean(correlations(output, one))) for one in (source, goal)]
    assert all(0.2 < each < 0.95 for each in found)
    assert float(envelope_band(output, source, goal, SEGMENTS, (0.0, 1.0))) == 0
    under, over = (float(envelope_band(output, source, goal, SEGMENTS, wanted)) for wanted in ((1.0, 1.0), (-1.0, 0.0)))
    each = [np.array(correlations(output, one)) for one in (source, goal)]
    assert under == pytest.approx(sum(float(np.square(1 - r).mean()) for r in each), rel=1e-3)
    assert over == pytest.approx(sum(float(np.square(r.clip(min=0)).mean()) for r in each), rel=1e-3)


def test_the_range_of_envelope_correlations_moves_silence_and_copies_by_finite_gradients() -> None:
    for output in (SILENCE, CONSTANT, audio(1)):
        leaf = output.clone().requires_grad_()
        envelope_band(leaf, audio(1), audio(2), SEGMENTS, (0.3, 0.5)).backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
