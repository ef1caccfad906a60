"""The model: shapes, sizes, levels, masks, noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shards.errors import ConfigError
from training.models.blocks import SinusoidalPositions, match_rms, rms
from training.models.build import ModelConfig, build_model
from training.models.cascade import Cascade, CascadeConfig

SMALL = ModelConfig(cascade=CascadeConfig(layers=1))


def latents(seed: int, batch: int = 2, frames: int = 30) -> Tensor:
    return torch.randn(batch, 128, frames, generator=torch.Generator().manual_seed(seed)) * 5.7


@pytest.fixture(scope="module")
def model() -> Cascade:
    torch.manual_seed(0)
    return build_model(SMALL, 128).eval()


def test_the_default_model_has_its_known_size(model: Cascade) -> None:
    full = build_model(ModelConfig(), 128)
    # The original's 16,751,810 less what it holds and never uses: a style discriminator in the agent (197,826).
    assert sum(p.numel() for p in full.parameters()) == 16_553_984
    assert all(p.requires_grad for p in full.parameters())


@torch.no_grad()
def test_output_has_the_shape_of_the_sources_and_a_level_between_theirs(model: Cascade) -> None:
    source, goal = latents(1), latents(2) * 0.7
    output = model(source, goal)
    assert output.latents.shape == source.shape
    assert output.latents.dtype == torch.float32
    wanted = ((rms(source) ** 2 + rms(goal) ** 2) / 2).sqrt()
    clamped = (output.scale - torch.tensor([0.7, 1.5])).abs().min() < 1e-6
    assert clamped or torch.allclose(rms(output.latents), wanted, rtol=1e-4)


@torch.no_grad()
def test_every_sample_of_a_batch_is_on_its_own(model: Cascade) -> None:
    source, goal = latents(1, batch=3), latents(2, batch=3)
    together = model(source, goal).latents
    alone = torch.cat([model(source[i : i + 1], goal[i : i + 1]).latents for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_masks_lie_between_zero_and_one_and_masked_sources_keep_their_level(model: Cascade) -> None:
    source, goal = latents(1), latents(2)
    agent = model(source, goal).agent
    assert agent is not None
    for mask in (agent.input_mask, agent.target_mask):
        assert mask.shape == source.shape
        assert 0 <= mask.min() < mask.max() <= 1
    torch.testing.assert_close(rms(agent.input), rms(source), rtol=1e-4, atol=0)
    torch.testing.assert_close(rms(agent.target), rms(goal), rtol=1e-4, atol=0)
    assert agent.complementarity == pytest.approx(0.75, abs=0.1), "an untrained agent starts near three quarters"
    expected = 1 - (agent.input_mask * agent.target_mask).mean()
    assert agent.complementarity == pytest.approx(float(expected), rel=1e-6)


@torch.no_grad()
def test_agent_listens_to_both_sources(model: Cascade) -> None:
    first = model(latents(1), latents(2)).agent
    second = model(latents(1), latents(3)).agent
    assert first is not None
    assert second is not None
    assert not torch.allclose(first.input_mask, second.input_mask)


@torch.no_grad()
def test_noise_against_copying_is_there_in_training_only() -> None:
    torch.manual_seed(0)
    noisy = build_model(ModelConfig(cascade=CascadeConfig(layers=1, dropout=0.0, anti_cheating=0.2)), 128)
    source, goal = latents(1), latents(2)
    noisy.train()
    assert not torch.equal(noisy(source, goal).latents, noisy(source, goal).latents)
    noisy.eval()
    torch.testing.assert_close(noisy(source, goal).latents, noisy(source, goal).latents, rtol=0, atol=0)


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, 128).train()
    output = model(latents(1), latents(2))
    assert output.agent is not None
    (output.latents.square().mean() + output.agent.losses.regularisation).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


@torch.no_grad()
def test_silence_stays_finite(model: Cascade) -> None:
    zero = torch.zeros(1, 128, 30)
    assert torch.isfinite(model(zero, zero).latents).all()
    assert torch.isfinite(model(latents(1, batch=1), zero).latents).all()


@torch.no_grad()
def test_positions_grow_with_the_piece() -> None:
    positions = SinusoidalPositions(8, frames=10)
    short = positions(torch.zeros(1, 10, 8))
    long = positions(torch.zeros(1, 50, 8))
    torch.testing.assert_close(long[:, :10], short)
    assert long.square().sum(2).allclose(torch.tensor(4.0)), "each pair of sine and cosine has length one"


def test_match_rms_takes_the_level_of_the_other() -> None:
    matched = match_rms(latents(1), latents(2) * 3)
    torch.testing.assert_close(rms(matched), rms(latents(2) * 3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "shapes", [((1, 64, 30), (1, 64, 30)), ((1, 128, 30), (1, 128, 31)), ((2, 128, 30), (1, 128, 30))]
)
def test_other_shapes_are_refused_by_name(model: Cascade, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"must both be \[B, 128, T\]"):
        model(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"model\.cascade\.heads 7"):
        build_model(ModelConfig(cascade=CascadeConfig(heads=7)), 128)


def test_without_an_agent_there_are_no_masks() -> None:
    plain = build_model(ModelConfig(agent="none", cascade=CascadeConfig(layers=1)), 128).eval()
    with torch.no_grad():
        output = plain(latents(1), latents(2))
    assert output.agent is None
    assert output.latents.shape == (2, 128, 30)
