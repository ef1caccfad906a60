"""The losses: values against a second computation in numpy, and gradients that stay bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.settings import validate
from training.losses import (
    AudioCrops,
    LossesConfig,
    LossInputs,
    compute_losses,
    mask_losses,
    modulation_correlation,
    rms_error,
)
from training.losses.modulation import amplitude_envelope, envelope_correlation, segments_for


def audio(seed: int, samples: int = 48_000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    swell = torch.rand(2, 1, samples // 1000, generator=generator).repeat_interleave(1000, 2)
    return 0.2 * swell * torch.randn(2, 1, samples, generator=generator)


def test_rms_error_is_the_rms_of_the_difference() -> None:
    first, second = audio(1), audio(2)
    expected = np.sqrt(np.mean((first - second).numpy().astype(np.float64) ** 2, axis=(1, 2))).mean()
    assert float(rms_error(first, second)) == pytest.approx(expected, rel=1e-5)


def test_rms_error_of_a_perfect_output_has_a_finite_gradient() -> None:
    output = audio(1).requires_grad_()
    rms_error(output, audio(1)).backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


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
    first, second = amplitude_envelope(audio(1), 60), amplitude_envelope(audio(2), 60)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    np.testing.assert_allclose(envelope_correlation(first, second).numpy(), expected, rtol=1e-4)


def test_modulation_correlation_sums_the_squares_over_both_sources() -> None:
    output, source, goal = audio(1), audio(2), audio(3)
    envelopes = [amplitude_envelope(x, 60).numpy() for x in (output, source, goal)]
    expected = sum(
        np.mean([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(envelopes[0], other, strict=True)])
        for other in envelopes[1:]
    )
    assert float(modulation_correlation(output, source, goal, 60)) == pytest.approx(expected, rel=1e-4)


def test_a_copy_costs_about_one_and_an_unrelated_output_little() -> None:
    assert float(modulation_correlation(audio(1), audio(1), audio(2), 60)) == pytest.approx(1.0, abs=0.1)
    assert float(modulation_correlation(audio(3), audio(1), audio(2), 60)) < 0.2


@pytest.mark.parametrize("kind", ["music", "copy", "silence", "silent sources", "constant"])
def test_gradient_of_the_modulation_correlation_is_bounded(kind: str) -> None:
    output = {"copy": audio(1), "silence": torch.zeros(2, 1, 48_000), "constant": torch.full((2, 1, 48_000), 0.1)}.get(
        kind, audio(3)
    )
    source = torch.zeros(2, 1, 48_000) if kind == "silent sources" else audio(1)
    leaf = output.clone().requires_grad_()
    value = modulation_correlation(leaf, source, audio(2), 60)
    value.backward()
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert float(leaf.grad.norm()) < 100


def test_mask_losses_of_known_masks() -> None:
    half = torch.zeros(1, 4, 10)
    half[:, :, ::2] = 1  # changes over time, so that only the overlap and the coverage are left
    apart = mask_losses(half, 1 - half)
    assert float(apart.overlap) == 0
    assert float(apart.regularisation) == pytest.approx(0)
    assert float(apart.balance) == pytest.approx(0)
    same = mask_losses(half, half)
    assert float(same.overlap) == 0.5
    assert float(same.regularisation) == pytest.approx(10 * 0.5 + 0.5 * 1.0)
    still = mask_losses(torch.full((1, 4, 10), 0.5), torch.full((1, 4, 10), 0.5))
    assert float(still.regularisation) == pytest.approx(10 * 0.25 + 0.5 * 0 + 5 * 2 * 0.05)
    greedy = mask_losses(torch.ones(1, 4, 10), torch.zeros(1, 4, 10))
    assert float(greedy.balance) == pytest.approx(0.5)


def inputs(output: Tensor) -> LossInputs:
    masks = torch.rand(2, 4, 10, generator=torch.Generator().manual_seed(5))
    return LossInputs(AudioCrops(output, audio(1), audio(2), 60), mask_losses(masks, 1 - masks))


def test_weights_are_applied_once() -> None:
    config = LossesConfig(
        rms_input=0.3, rms_target=0.7, mask_regularisation=0.1, balance=15, modulation_correlation=0.5
    )
    report = compute_losses(config, inputs(audio(3)))
    expected = sum(config.weight(name) * float(value) for name, value in report.raw.items())
    assert float(report.total) == pytest.approx(expected, rel=1e-6)
    assert set(report.raw) == {"rms_input", "rms_target", "mask_regularisation", "balance", "modulation_correlation"}


def test_a_loss_without_weight_is_left_out_unless_it_is_watched() -> None:
    none = {"rms_input": 0, "rms_target": 0, "modulation_correlation": 0}
    silent = LossesConfig.model_validate(none)
    assert not silent.needs_audio
    report = compute_losses(silent, LossInputs(None, inputs(audio(3)).masks))
    assert set(report.raw) == {"mask_regularisation", "balance"}
    watching = LossesConfig.model_validate({**none, "watch": ("rms_input",)})
    assert watching.needs_audio
    output = audio(3).requires_grad_()
    watched = compute_losses(watching, inputs(output))
    assert float(watched.raw["rms_input"]) == pytest.approx(float(rms_error(audio(3), audio(1))), rel=1e-6)
    assert not watched.total.requires_grad, "what is only watched pulls at nothing"


def test_watching_an_unknown_loss_is_refused_with_the_choices() -> None:
    with pytest.raises(Exception, match="'rms_inputt' is no loss; choose from"):
        validate(LossesConfig, {"watch": ["rms_inputt"]}, "test")
