"""The losses of waveforms, masks, components and the game, and the one place that weighs all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sounds import audio
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shards.errors import ConfigError
from shards.settings import validate
from training.losses import (
    AudioCrops,
    LossesConfig,
    LossInputs,
    channel_balance,
    chroma_distance,
    component_balance,
    compute_losses,
    discriminator_loss,
    generator_loss,
    loudness_ratio,
    mask_balance,
    mask_overlap,
    mask_regularisation,
    mask_salience,
    novelty,
    onset_distance,
    rms_error,
    roll_targets,
    waveform_limit,
)
from training.losses.components import component_evenness
from training.losses.report import AUDIO_LOSSES, LOSSES, PATTERN_LOSSES
from training.models.masking_agent import MaskingOutput

QUIET: dict[str, Any] = dict.fromkeys(LOSSES, 0.0)
"""Weights under which nothing counts."""


def test_rms_error_is_the_rms_of_the_difference() -> None:
    first, second = audio(1), torch.stack([audio(2)[0], 10 * audio(2)[1]])
    difference = (first - second).double().numpy()
    expected = np.sqrt(np.square(difference).mean((1, 2))).mean()
    assert float(rms_error(first, second)) == pytest.approx(expected, rel=1e-5)
    # The seeds' way: of the batch as one recording, so that the loud pair decides.
    theirs = np.sqrt(np.square(difference).mean())
    assert float(rms_error(first, second, "seeds")) == pytest.approx(theirs, rel=1e-5)
    assert theirs > 1.2 * expected


def test_rms_error_of_a_perfect_output_has_a_finite_gradient() -> None:
    for compat in ("none", "seeds"):
        output = audio(1).requires_grad_()
        (gradient,) = torch.autograd.grad(rms_error(output, audio(1), compat), output)
        assert torch.isfinite(gradient).all()


def test_mask_losses_of_known_masks() -> None:
    half = torch.zeros(1, 4, 10)
    half[:, :, ::2] = 1  # changes over time, so that only the overlap and the coverage are left
    assert float(mask_overlap(half, 1 - half)) == 0
    assert float(mask_regularisation(half, 1 - half)) == pytest.approx(0)
    assert float(mask_balance(half, 1 - half)) == pytest.approx(0)
    assert float(mask_overlap(half, half)) == 0.5
    assert float(mask_regularisation(half, half)) == pytest.approx(10 * 0.5 + 0.5 * 1.0)
    still = torch.full((1, 4, 10), 0.5)
    assert float(mask_regularisation(still, still)) == pytest.approx(10 * 0.25 + 0.5 * 0 + 5 * 2 * 0.05)
    assert float(mask_balance(torch.ones(1, 4, 10), torch.zeros(1, 4, 10))) == pytest.approx(0.5)


def test_masks_that_keep_the_louder_source_lose_nothing_of_it() -> None:
    source, goal = torch.randn(2, 3, 4, 10, generator=torch.Generator().manual_seed(1))
    louder = (source.abs() > goal.abs()).float()
    assert float(mask_salience(louder, 1 - louder, source, goal)) == pytest.approx(0, abs=1e-6)
    assert float(mask_salience(1 - louder, louder, source, goal)) == pytest.approx(1)
    half = torch.full_like(source, 0.5)
    assert float(mask_salience(half, half, source, goal)) == pytest.approx(0.5)
    nothing = torch.zeros_like(source)
    assert 0 <= float(mask_salience(half, half, nothing, nothing)) <= 1


def test_a_fixed_choice_of_channels_is_balanced_on_the_whole_and_in_no_channel() -> None:
    channels = torch.zeros(2, 4, 10)
    channels[:, ::2] = 1
    frames = torch.zeros(2, 4, 10)
    frames[:, :, ::2] = 1
    assert float(mask_balance(channels, 1 - channels)) == 0
    assert float(channel_balance(channels, 1 - channels)) == 0.5
    assert float(channel_balance(frames, 1 - frames)) == 0


def test_loudness_ratio_is_the_logarithm_of_energies_and_silence_says_nothing() -> None:
    source, goal = torch.rand(2, 2, 4, 10, generator=torch.Generator().manual_seed(1)) + 0.5
    expected = 2 * np.log(source.numpy() / goal.numpy())
    np.testing.assert_allclose(loudness_ratio(source, goal).numpy(), expected, atol=1e-3)
    nothing = torch.zeros_like(source)
    assert torch.equal(loudness_ratio(nothing, nothing), nothing)
    assert torch.isfinite(loudness_ratio(source, nothing)).all()


def test_likeness_of_the_waveform_costs_nothing_up_to_its_limit() -> None:
    source, goal, other = audio(1), audio(2), audio(3)
    assert float(waveform_limit(other, source, goal, 0.55)) == 0
    assert float(waveform_limit(source, source, goal, 0.55)) == pytest.approx(0.45**2, rel=1e-3)
    assert float(waveform_limit(-source, source, source, 0.55)) == pytest.approx(2 * 0.45**2, rel=1e-3)
    mix = (source + goal).requires_grad_()
    loss = waveform_limit(mix, source, goal, 0.55)
    loss.backward()
    assert mix.grad is not None
    better = mix.detach() - 0.05 * mix.grad / mix.grad.abs().max()
    assert float(waveform_limit(better, source, goal, 0.55)) < float(loss.detach())


def patterns() -> tuple[Tensor, Tensor, Tensor]:
    """Three patterns [2, 6, 10] that have no channel in common, each different at every frame."""
    found = torch.zeros(3, 2, 6, 10)
    values = torch.rand(3, 2, 2, 10, generator=torch.Generator().manual_seed(1)) + 0.1
    for place in range(3):
        found[place, :, 2 * place : 2 * place + 2] = values[place]
    return found[0], found[1], found[2]


def test_novelty_is_zero_for_what_is_new_and_one_for_a_copy_of_both() -> None:
    source, goal, new = patterns()
    assert float(novelty(new, source, goal)) == pytest.approx(0, abs=1e-6)
    assert float(novelty(source, source, goal)) == pytest.approx(0.5)
    assert float(novelty(3 * source, source, 2 * source)) == pytest.approx(1)
    assert float(novelty(-source, source, source)) == pytest.approx(1), "turned over, it still is the same"
    rng = np.random.default_rng(0)
    composed, first, second = rng.normal(size=(3, 2, 6, 10))
    cosines = [
        np.abs((composed * x).sum(1)) / (np.linalg.norm(composed, axis=1) * np.linalg.norm(x, axis=1))
        for x in (first, second)
    ]
    ours = novelty(*(torch.from_numpy(x) for x in (composed, first, second)))
    assert float(ours) == pytest.approx((cosines[0].mean() + cosines[1].mean()) / 2)


def test_being_like_a_source_here_and_its_opposite_there_is_not_new() -> None:
    source, _, _ = patterns()
    turned = torch.cat([source[..., :5], -source[..., 5:]], 2).requires_grad_()
    assert float(novelty(turned, source, source, "seeds").detach()) == pytest.approx(0, abs=1e-6), "the seeds' mistake"
    ours = novelty(turned, source, source)
    assert float(ours.detach()) == pytest.approx(1)


def test_novelty_of_silence_has_a_finite_gradient() -> None:
    source, goal, _ = patterns()
    for composed, other in ((torch.zeros(2, 6, 10), source), (goal, torch.zeros(2, 6, 10))):
        leaf = composed.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(novelty(leaf, other, goal), leaf)
        assert torch.isfinite(gradient).all()


def test_component_balance_is_a_tenth_of_what_one_source_gets_more() -> None:
    weights = torch.full((2, 6, 10), 1 / 6)
    assert float(component_balance(weights)) == pytest.approx(0)
    one_sided = torch.zeros(2, 6, 10)
    one_sided[:, 1] = 1
    assert float(component_balance(one_sided)) == pytest.approx(0.1)
    assert float(component_balance(one_sided.roll(3, 1))) == pytest.approx(0.1)
    mixed = torch.tensor([0.2, 0.3, 0.1, 0.1, 0.1, 0.2])[None, :, None].expand(2, 6, 10)
    assert float(component_balance(mixed)) == pytest.approx(0.1 * 0.2)


def test_components_that_count_alike_are_punished_until_a_preference_is_clear() -> None:
    def evenness(*weights: float) -> float:
        return float(component_evenness(torch.tensor(weights)[None, :, None].expand(2, 6, 5)))

    assert evenness(*[1 / 6] * 6) == pytest.approx(0.5)
    assert evenness(0.3, 0.14, 0.14, 0.14, 0.14, 0.14) == pytest.approx(0.4697, abs=1e-4)
    assert evenness(0.48, 0.01, 0.01, 0.01, 0.48, 0.01) == 0
    assert evenness(1, 0, 0, 0, 0, 0) == 0


def test_the_game_is_won_by_whoever_is_believed() -> None:
    sure, wrong = torch.full((4, 1), 20.0), torch.full((4, 1), -20.0)
    assert float(generator_loss(sure)) == pytest.approx(0, abs=1e-6)
    assert float(generator_loss(wrong)) == pytest.approx(20)
    verdict = discriminator_loss(sure, wrong)
    assert [float(x) for x in (verdict.loss, verdict.real_accuracy, verdict.fake_accuracy)] == pytest.approx(
        [0, 1, 1], abs=1e-6
    )
    verdict = discriminator_loss(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [1.0]]))
    expected = (np.log1p(np.exp(-1)) + np.log1p(np.exp(1))) / 2 + np.log1p(np.exp(1))
    assert float(verdict.loss) == pytest.approx(expected)
    assert (float(verdict.real_accuracy), float(verdict.fake_accuracy)) == (0.5, 0.0)


def test_no_pair_is_shown_its_own_target_as_real() -> None:
    targets = torch.arange(4.0)[:, None, None].expand(4, 2, 3)
    assert roll_targets(targets)[:, 0, 0].tolist() == [3.0, 0.0, 1.0, 2.0]


@dataclass
class Witness:
    """An agent that notes which of its losses it is asked for."""

    LOSSES: ClassVar[tuple[str, ...]] = ("mask_regularisation", "balance")
    asked: list[str] = field(default_factory=list)

    def loss(self, name: str) -> Tensor:
        self.asked.append(name)
        return torch.tensor(2.0, requires_grad=True)


class Calls(TorchFunctionMode):
    """Notes the names of torch's functions that are called."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def inputs(output: Tensor) -> LossInputs:
    first, second = torch.rand(2, 2, 4, 10, generator=torch.Generator().manual_seed(5))
    agent = MaskingOutput(first, second, first, second, (first, second))
    return LossInputs(AudioCrops(output, audio(1), audio(2), 60), agent, torch.tensor([[0.5], [-0.5]]))


def test_weights_are_applied_once() -> None:
    config = LossesConfig.model_validate({name: 0.1 * place for place, name in enumerate(LOSSES, 1)})
    report = compute_losses(config, inputs(audio(3)))
    expected = sum(config.weight(name) * float(value) for name, value in report.raw.items())
    assert float(report.total) == pytest.approx(expected, rel=1e-6)
    assert set(LOSSES) - set(report.raw) == {"novelty", "evenness", *PATTERN_LOSSES}, "the masking agent has none"
    assert set(LOSSES) <= set(LossesConfig.model_fields), "each loss is a key of the configuration"


def test_a_loss_without_weight_is_not_computed() -> None:
    agent = Witness()
    config = LossesConfig.model_validate({**QUIET, "balance": 2.0})
    assert not config.needs_audio
    with Calls() as calls:
        report = compute_losses(config, LossInputs(None, agent, torch.zeros(2, 1)))
    assert agent.asked == ["balance"]
    assert set(report.raw) == {"balance"}
    assert float(report.total.detach()) == 4
    assert not any("cross_entropy" in name for name in calls.names)


@pytest.mark.parametrize("name", AUDIO_LOSSES)
def test_a_spectrum_is_taken_only_for_a_loss_that_wants_one(name: str) -> None:
    config = LossesConfig.model_validate({**QUIET, name: 1.0})
    assert config.needs_audio
    with Calls() as calls:
        report = compute_losses(config, inputs(audio(3)))
    assert set(report.raw) == {name}
    spectra = {"spectral": 3 * 2 * 2, "mel": 2 * 2, "spectral_outlier": 1, "onsets": 2, "chroma": 2}.get(name, 0)
    assert calls.names.count("stft") == spectra


def test_a_composed_pattern_is_compared_with_what_it_should_take_from_each_source() -> None:
    config = LossesConfig.model_validate({**QUIET, **dict.fromkeys(PATTERN_LOSSES, 1.0)})
    assert config.needs_audio
    assert config.needs_pattern
    crops = AudioCrops(audio(3), audio(1), audio(2), 60, pattern=audio(4))
    raw = compute_losses(config, LossInputs(crops)).raw
    assert raw["pattern_onsets"] == onset_distance(audio(4), audio(1))
    assert raw["pattern_chroma"] == chroma_distance(audio(4), audio(2))


def test_a_watched_loss_is_told_and_pulls_at_nothing() -> None:
    watching = LossesConfig.model_validate({**QUIET, "rms_target": 0.5, "watch": ("rms_input", "spectral")})
    plain = LossesConfig.model_validate({**QUIET, "rms_target": 0.5})
    gradients = []
    for config in (watching, plain):
        output = audio(3).requires_grad_()
        report = compute_losses(config, inputs(output))
        gradients.append(torch.autograd.grad(report.total, output)[0])
        assert not any(value.requires_grad for value in report.raw.values())
        assert float(report.total.detach()) == pytest.approx(0.5 * float(report.raw["rms_target"]))
    assert torch.equal(*gradients)
    watched = compute_losses(watching, inputs(audio(3))).raw
    assert set(watched) == {"rms_input", "rms_target", "spectral"}
    assert float(watched["rms_input"]) == pytest.approx(float(rms_error(audio(3), audio(1))))
    silent = LossesConfig.model_validate({**QUIET, "balance": 1.0, "watch": ("mel",)})
    assert silent.needs_audio


def test_compat_reaches_the_losses_of_audio() -> None:
    config = LossesConfig.model_validate({**QUIET, "rms_input": 1.0, "spectral": 1.0})
    output = torch.stack([audio(3)[0], 10 * audio(3)[1]])
    ours, theirs = (compute_losses(config, inputs(output), compat).raw for compat in ("none", "seeds"))
    assert float(theirs["rms_input"]) == pytest.approx(float(rms_error(output, audio(1), "seeds")))
    assert all(float(ours[name]) != pytest.approx(float(theirs[name]), rel=1e-3) for name in ours)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"watch": ["rms_inputt"]}, "'rms_inputt' is no loss; choose from"),
        ({"watch": ["gan"]}, "watch: gan needs a discriminator"),
        ({"mel": -1}, "mel"),
    ],
)
def test_a_loss_that_can_not_be_is_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(LossesConfig, content, "test")
    assert validate(LossesConfig, {"watch": ["gan"], "gan": 0.1}, "test").wants("gan")
