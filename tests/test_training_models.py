"""The models: shapes, levels, stages, noise, and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch
from small_models import DIM, KINDS, latents, small_model, total_loss
from torch import nn

from shards.errors import ConfigError
from shards.settings import load_settings
from training.config import Config
from training.models.blocks import SinusoidalPositions, match_rms, rms
from training.models.build import ModelConfig, build_model
from training.models.cascade import Cascade, CascadeConfig


def cascade(kind: str = "plain", **settings: object) -> Cascade:
    model = small_model(kind, **settings)
    assert isinstance(model, Cascade)
    return model.eval()


def silence_projections(model: Cascade) -> None:
    """Leave of each stage what it adds to its transformer's word."""
    for stage in model.stages:
        nn.init.zeros_(stage.projection.norm.weight)
        nn.init.zeros_(stage.projection.norm.bias)


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that training changes: a bias before a BatchNorm has no effect and is left frozen."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_output_has_the_shape_of_the_sources_in_float32(kind: str) -> None:
    source, goal = latents(1), latents(2)
    output = small_model(kind).eval()(source.half(), goal.half())
    assert output.latents.shape == source.shape
    assert output.latents.dtype == torch.float32
    assert output.scale.shape == (2, 1, 1)
    agentless = "masking" not in kind and "masks" not in kind and "compositional" not in kind
    assert (output.agent is None) == agentless


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_of_a_batch_is_on_its_own(kind: str) -> None:
    model = small_model(kind).eval()
    source, goal = latents(1, batch=3), latents(2, batch=3)
    together = model(source, goal).latents
    alone = torch.cat([model(source[i : i + 1], goal[i : i + 1]).latents for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind: str) -> None:
    model = small_model(kind).train()
    total_loss(model, latents(1), latents(2)).backward()
    silent = [name for name, p in trained(model) if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


@pytest.mark.parametrize("silent", ["input", "target", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_silence_has_finite_output_and_gradients(kind: str, silent: str) -> None:
    model = small_model(kind).train()
    source, goal = latents(1) * (silent == "target"), latents(2) * (silent == "input")
    loss = total_loss(model, source, goal)
    loss.backward()
    assert torch.isfinite(loss)
    wild = [name for name, p in trained(model) if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert wild == []


@torch.no_grad()
def test_the_single_stage_hears_no_target() -> None:
    model = small_model("single").eval()
    source = latents(1)
    assert torch.equal(model(source, latents(2)).latents, model(source, latents(3)).latents)
    assert torch.equal(model(source, latents(2)).latents, model(source).latents)


@torch.no_grad()
def test_stages_add_the_weighted_mean_of_their_sources() -> None:
    x, y = latents(1), latents(2)
    model = cascade(stages=3, residual_weights=(0.8, 0.5, 0.1), scale_clamp=(1.0, 1.0))
    silence_projections(model)
    first = 0.8 * (x + y) / 2
    second = 0.5 * (x + first + y) / 3
    torch.testing.assert_close(model(x, y).latents, 0.1 * (x + second + y) / 3)


@torch.no_grad()
def test_the_level_is_that_of_both_sources_within_the_clamp() -> None:
    x, y = latents(1), latents(2) * 0.7
    wanted = ((rms(x) ** 2 + rms(y) ** 2) / 2).sqrt()
    free = cascade(scale_clamp=None)(x, y)
    torch.testing.assert_close(rms(free.latents), wanted)
    # Sources that all but cancel leave little, and the clamp what it allows of it.
    clamped = cascade(stages=2, scale_clamp=(0.7, 1.5))(x, -0.99 * x)
    torch.testing.assert_close(clamped.scale, torch.full((2, 1, 1), 1.5))
    assert (cascade(stages=2, scale_clamp=None)(x, -0.99 * x).scale > 2).all()


@torch.no_grad()
def test_in_local_units_a_stage_adds_in_proportion_to_the_music() -> None:
    source, goal = latents(1), latents(2)
    source[:, :, 10:20], goal[:, :, 10:20] = 0, 0
    for kind, in_proportion in (("plain local", True), ("plain", False)):
        model = small_model(kind).eval()
        whole = model(source, goal).latents
        quieter = model(0.01 * source, 0.01 * goal).latents
        assert torch.allclose(quieter, 0.01 * whole, atol=1e-3 * float(quieter.abs().mean())) == in_proportion
        rest = whole[:, :, 12:18].abs().max() / whole.abs().mean()
        assert (rest < 1e-3) == in_proportion, "what is two frames from any sound stays silent"


def test_spectral_norm_bounds_a_projection_and_can_be_left_out() -> None:
    for bound in (True, False):
        linear = cascade(spectral_norm=bound).stages[0].projection.linear
        with torch.no_grad():
            if bound:
                linear.parametrizations.weight.original.mul_(9)
            else:
                linear.weight.mul_(9)
            gain = float(torch.linalg.matrix_norm(linear.weight, 2))
        assert (gain == pytest.approx(1, rel=0.1)) == bound


@torch.no_grad()
@pytest.mark.parametrize("setting", ["anti_cheating", "dropout", "attention_dropout"])
def test_noise_and_dropout_are_there_in_training_only(setting: str) -> None:
    source, goal = latents(1), latents(2)
    # Without the spectral norm, whose power iteration goes on in training.
    still = cascade(dropout=0.0, spectral_norm=False).train()
    assert torch.equal(still(source, goal).latents, still(source, goal).latents)
    model = cascade(**{"dropout": 0.0, "spectral_norm": False, setting: 0.2})
    assert torch.equal(model(source, goal).latents, still(source, goal).latents)
    model.train()
    assert not torch.equal(model(source, goal).latents, model(source, goal).latents)


@torch.no_grad()
def test_positions_grow_with_the_piece() -> None:
    positions = SinusoidalPositions(8, frames=10)
    short = positions(torch.zeros(1, 10, 8))
    long = positions(torch.zeros(1, 50, 8))
    torch.testing.assert_close(long[:, :10], short)
    assert long.square().sum(2).allclose(torch.tensor(4.0)), "each pair of sine and cosine has length one"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["single", "masking", "compositional"])
def test_a_piece_longer_than_the_table_of_positions_works_and_changes_nothing(kind: str) -> None:
    model = small_model(kind).eval()
    source, goal = latents(1), latents(2)
    before = model(source, goal).latents
    output = model(latents(3, batch=1, frames=2100), latents(4, batch=1, frames=2100)).latents
    assert output.shape == (1, DIM, 2100)
    assert torch.isfinite(output).all()
    assert torch.equal(model(source, goal).latents, before)
    small_model(kind).load_state_dict(model.state_dict())


def test_match_rms_takes_the_level_of_the_other() -> None:
    matched = match_rms(latents(1), latents(2) * 3)
    torch.testing.assert_close(rms(matched), rms(latents(2) * 3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("source", "goal", "said"),
    [
        ((1, 8, 30), (1, 8, 30), "input [1, 8, 30] and target [1, 8, 30]: must be [B, 16, T], equal for both"),
        ((1, 16, 30), (1, 16, 31), "input [1, 16, 30] and target [1, 16, 31]: must be"),
        ((2, 16, 30), (1, 16, 30), "input [2, 16, 30] and target [1, 16, 30]: must be"),
        ((16, 30), (16, 30), "input [16, 30] and target [16, 30]: must be"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_other_shapes_are_refused_with_what_was_given(
    source: tuple[int, ...], goal: tuple[int, ...], said: str, training: bool
) -> None:
    model = small_model("masking").train(training)
    with pytest.raises(ValueError, match=re.escape(said)):
        model(torch.zeros(source), torch.zeros(goal))


def test_the_single_stage_refuses_another_shape_of_its_one_source() -> None:
    with pytest.raises(ValueError, match=r"^input \[1, 8, 30\]: must be \[B, 16, T\]$"):
        small_model("single")(torch.zeros(1, 8, 30), torch.zeros(1, 8, 30))


def test_latents_that_are_no_numbers_are_refused_by_side_and_count() -> None:
    model = small_model("masking")
    source, goal = latents(1), latents(2)
    goal[0, 3, 5:8] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    with pytest.raises(ValueError, match=r"target \[2, 16, 30\] has 3 values that are not finite"):
        model.eval()(source, goal)
    with pytest.raises(ValueError, match=r"input \[2, 16, 30\] has 3 values"):
        small_model("single").eval()(goal, source)
    model.train()(source, goal)  # there the loss shows it, and nothing waits for the device


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.agent=[masking, compositional]"], "model.agent: 2 agents are asked for; a model has one"),
        (["model.agent=masking+compositional"], "model.agent: 2 agents are asked for; a model has one"),
        (["model.agent=mask"], "model.agent"),
        (["model.cascade.stages=1"], "cascade.stages 1 hears no target"),
        (["model.cascade.stages=1", "model.agent=none", "model.fixed_masks.kind=hybrid"], "fixed_masks.kind: none"),
        (["model.cascade.residual_weights=[1, 0.5, 0.1]"], "give one for each of the 2 stages"),
        (["model.cascade.stages=1", "model.agent=none", "model.cascade.units=local"], "one stage alone has no music"),
        (["model.cascade.scale_clamp=[1.5, 0.7]"], "the bounds must be positive and in order"),
        (["model.masking.channels=50", "model.masking.heads=4"], "channels 50 must be a multiple of heads 4"),
        (["model.compositional.width=50"], "width 50 must be a multiple of heads 8"),
        (["losses.gan=0.1", "data.batch_size=1"], "losses.gan 0.1 with data.batch_size 1: what is real for one pair"),
        (["model.agent=none", "losses.rms_input=0", "losses.rms_target=0", "losses.modulation_correlation=0"],
         "losses: with the agent none, one of rms_input"),
        (["losses.watch=[gan]"], "watch: gan needs a discriminator"),
        (["losses.watch=[rms]"], "watch: 'rms' is no loss; choose from: balance"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(Config, None, overrides)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("stages", "widths"), [(1, "128"), (2, "256 and 384")])
def test_heads_must_divide_the_width(stages: int, widths: str) -> None:
    config = ModelConfig(agent="none", cascade=CascadeConfig(stages=stages, heads=7))
    with pytest.raises(ConfigError, match=rf"model\.cascade\.heads 7 must divide {widths}"):
        build_model(config, 128)
