"""The agents and the fixed masks: what they decide, and that what is learnt can be learnt."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from small_models import DIM, latents, small_config, small_model

from training.losses import mask_overlap
from training.models.aspects import aspect_energies, harmony_aspect, rhythm_aspect, timbre_aspect
from training.models.blocks import rms
from training.models.build import ModelConfig, build_model
from training.models.cascade import Cascade
from training.models.compositional_agent import COMPONENTS, CompositionalAgent, CompositionalOutput
from training.models.fixed_masks import (
    FixedMasks,
    FixedMasksConfig,
    energy_masks,
    frequency_masks,
    hybrid_masks,
    temporal_masks,
)
from training.models.masking_agent import MaskingAgent, MaskingAgentConfig, MaskingOutput, TemperatureSchedule

CPU = torch.device("cpu")


def masking_agent(**settings: object) -> MaskingAgent:
    torch.manual_seed(0)
    config = MaskingAgentConfig.model_validate({"channels": 16, "heads": 2, **settings})
    return MaskingAgent(config, DIM)


def compositional_agent() -> CompositionalAgent:
    torch.manual_seed(0)
    return CompositionalAgent(small_config("compositional").compositional, DIM)


@torch.no_grad()
def test_masks_lie_between_zero_and_one_and_masked_sources_keep_their_level() -> None:
    source, goal = latents(1), latents(2)
    output = masking_agent()(source, goal)
    for mask in (output.input_mask, output.target_mask):
        assert mask.shape == source.shape
        assert 0 <= mask.min() < mask.max() <= 1
    torch.testing.assert_close(rms(output.input), rms(source), rtol=1e-4, atol=0)
    torch.testing.assert_close(rms(output.target), rms(goal), rtol=1e-4, atol=0)
    assert float(output.complementarity) == pytest.approx(0.75, abs=0.1), "an untrained agent's is near three quarters"
    assert float(output.complementarity) == pytest.approx(1 - float((output.input_mask * output.target_mask).mean()))
    means = {"input_mask_mean", "target_mask_mean"}
    others = {"complementarity", "mask_overlap", "mask_change", "dominance_correlation"}
    assert set(output.metrics()) == means | others


@torch.no_grad()
def test_the_masking_agent_listens_to_both_sources() -> None:
    agent = masking_agent().eval()
    first = agent(latents(1), latents(2))
    for other in (agent(latents(1), latents(3)), agent(latents(3), latents(2))):
        assert not torch.allclose(first.input_mask, other.input_mask)
        assert not torch.allclose(first.target_mask, other.target_mask)


@torch.no_grad()
def test_coupled_masks_share_each_place_and_part_as_it_grows_cold() -> None:
    schedule = {"start": 1.0, "end": 1e-4, "steps": 100}
    agent = masking_agent(coupling="softmax", temperature=schedule)
    parted = []
    for step in (0, 25, 50, 75, 100, 1000):
        agent.schedule(step)
        output = agent(latents(1), latents(2))
        assert torch.equal(output.input_mask + output.target_mask, torch.ones(2, DIM, 30))
        parted.append(float(output.complementarity))
    assert parted == sorted(parted), "ever more"
    assert parted[0] < 0.76 < parted[2]
    assert parted[-1] == parted[-2] > 0.99


def test_the_temperature_falls_in_equal_ratios_and_is_saved() -> None:
    schedule = TemperatureSchedule(start=1.0, end=0.25, steps=100)
    assert [schedule.at(step) for step in (0, 50, 100, 900)] == pytest.approx([1.0, 0.5, 0.25, 0.25])
    model = small_model("masking softmax")
    model.schedule(1000)
    saved = model.state_dict()
    assert 0.2 < float(saved["agent.temperature"]) < 1.0
    other = small_model("masking softmax")
    other.load_state_dict(saved)
    with torch.no_grad():
        source, goal = latents(1), latents(2)
        assert torch.equal(other.eval()(source, goal).latents, model.eval()(source, goal).latents)
    assert "agent.temperature" not in small_model("masking").state_dict()


@torch.no_grad()
def test_loudness_in_the_odds_makes_masks_that_follow_the_louder_source() -> None:
    source, goal = latents(1), latents(2)
    deaf, hearing = masking_agent(coupling="softmax"), masking_agent(coupling="softmax", loudness=1.0)
    without, following = (float(agent(source, goal).metrics()["dominance_correlation"]) for agent in (deaf, hearing))
    assert abs(without) < 0.2
    assert following > 0.9
    assert float(hearing(source, goal).loss("salience")) < 0.5 * float(deaf(source, goal).loss("salience"))


@torch.no_grad()
@pytest.mark.parametrize("centre", ["pair", "channel"])
def test_centred_masks_prefer_no_source_however_much_louder_it_is(centre: str) -> None:
    quieter = torch.linspace(0.1, 10, DIM)[:, None]
    source, goal = quieter * latents(1), latents(2)
    settings = {"coupling": "softmax", "loudness": 1.0}
    free, centred = masking_agent(**settings)(source, goal), masking_agent(**settings, centre=centre)(source, goal)
    assert float(free.input_mask.mean()) > 0.55
    assert float(centred.input_mask.mean()) == pytest.approx(0.5, abs=0.03)
    if centre == "channel":
        torch.testing.assert_close(centred.input_mask.mean(2), torch.full((2, DIM), 0.5), rtol=0, atol=0.15)
        assert float(centred.loss("channel_balance")) < 0.1 * float(free.loss("channel_balance"))


def test_what_the_loudness_counts_is_learnt() -> None:
    agent = masking_agent(coupling="softmax", loudness=0.5)
    agent(latents(1), latents(2)).loss("salience").backward()
    assert agent.loudness.grad is not None
    assert float(agent.loudness.grad) < 0, "more of it keeps more of the louder source"


@pytest.mark.parametrize("setting", [{"loudness": 1.0}, {"centre": "pair"}])
def test_only_coupled_masks_hear_loudness_or_are_centred(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="set coupling: softmax"):
        masking_agent(**setting)


@pytest.mark.parametrize("coupling", ["independent", "softmax"])
def test_hard_masks_are_zeros_and_ones_that_can_be_learnt(coupling: str) -> None:
    agent = masking_agent(hard=True, coupling=coupling).train()
    source, goal = latents(1), latents(2)
    torch.manual_seed(1)
    output = agent(source, goal)
    assert set(output.input_mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(output.input_mask, 1 - output.target_mask)
    assert output.complementarity == 1
    assert not torch.equal(agent(source, goal).input_mask, output.input_mask), "in training they are drawn"
    (output.input - goal).square().mean().backward()
    silent = [name for name, p in agent.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []
    agent.eval()
    assert torch.equal(agent(source, goal).input_mask, agent(source, goal).input_mask)


@torch.no_grad()
def test_hard_masks_give_each_place_to_the_larger_one() -> None:
    soft, hard = masking_agent().eval(), masking_agent(hard=True).eval()
    wanted = soft(latents(1), latents(2))
    larger = (wanted.input_mask > wanted.target_mask).float()
    assert torch.equal(hard(latents(1), latents(2)).input_mask, larger)


@torch.no_grad()
def test_a_composed_pattern_is_bounded_and_what_is_no_number_is_replaced_and_counted() -> None:
    agent = compositional_agent().eval()
    bias = agent.composer.contract[-1].bias
    bias[0], bias[1], bias[2] = 1e4, -1e4, float("nan")
    output = agent(latents(1), latents(2))
    assert torch.equal(output.input[:, 0], torch.full((2, 30), 50.0))
    assert torch.equal(output.input[:, 1], torch.full((2, 30), -50.0))
    assert torch.equal(output.input[:, 2], torch.zeros(2, 30))
    assert float(output.metrics()["replaced"]) == 60
    assert torch.isfinite(output.input).all()


@torch.no_grad()
def test_component_weights_are_shares_and_statistics_are_of_what_was_heard() -> None:
    agent = compositional_agent().eval()
    output = agent(latents(1), latents(2))
    assert isinstance(output, CompositionalOutput)
    assert output.weights.shape == (2, len(COMPONENTS), 30)
    torch.testing.assert_close(output.weights.sum(1), torch.ones(2, 30))
    metrics = output.metrics()
    assert sum(float(metrics[f"{name}_weight"]) for name in COMPONENTS) == pytest.approx(1)
    heard = [*agent.input_extractor(latents(1)), *agent.target_extractor(latents(2))]
    for name, component in zip(COMPONENTS, heard, strict=True):
        assert float(metrics[f"{name}_energy"]) == pytest.approx(float(component.square().mean().sqrt()), rel=1e-5)


@torch.no_grad()
def test_rhythm_hears_no_pitch_harmony_no_loudness_and_timbre_no_time() -> None:
    source = latents(1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    swell = torch.linspace(0.3, 3, 30)
    swapped = torch.cat([source[:, :5].flip(1), source[:, 5:11], source[:, 11:].flip(1)], 1)  # within bands
    torch.testing.assert_close(rhythm_aspect(-swapped), rhythm_aspect(source))
    torch.testing.assert_close(harmony_aspect(source * swell), harmony_aspect(source))
    torch.testing.assert_close(timbre_aspect(-source[:, :, order]), timbre_aspect(source))
    assert rhythm_aspect(source).shape == (2, 3, 30)
    assert rhythm_aspect(source * swell)[:, :, -1].mean() > 1.5 * rhythm_aspect(source)[:, :, -1].mean()
    torch.testing.assert_close(harmony_aspect(source).square().mean(1), torch.ones(2, 30))
    for aspect in (rhythm_aspect, harmony_aspect, timbre_aspect):
        torch.testing.assert_close(aspect(5 * source), aspect(source), msg="how loud a recording is says nothing")
        assert torch.isfinite(aspect(torch.zeros(2, 16, 30))).all()


@torch.no_grad()
def test_focused_ears_hear_their_own_aspect() -> None:
    model = small_model("compositional focused").eval()
    assert isinstance(model, Cascade)
    assert isinstance(model.agent, CompositionalAgent)
    hear = model.agent.input_extractor
    source = latents(1)
    rhythm, harmony, timbre = hear(source)
    louder_later = hear(source * torch.linspace(0.3, 3, 30))
    assert not torch.allclose(rhythm, louder_later[0], atol=0.1)
    torch.testing.assert_close(harmony, louder_later[1])
    turned = hear(-source)
    torch.testing.assert_close(rhythm, turned[0])
    assert not torch.allclose(harmony, turned[1], atol=0.1)
    torch.testing.assert_close(timbre, turned[2])


@torch.no_grad()
def test_the_energy_of_rhythm_is_when_that_of_harmony_where_and_that_of_timbre_neither() -> None:
    notes = torch.zeros(1, 64, 40)
    notes[:, 26, :20], notes[:, 37, 20:] = 1.0, 3.0  # another note, and louder
    rhythm, harmony, timbre = aspect_energies(notes)[0]
    torch.testing.assert_close(harmony[26, :15], harmony[37, 25:])
    assert harmony[26, :15].mean() > 20 * harmony[37, :15].mean()
    assert rhythm[32, -1] / rhythm[32, 0] == pytest.approx(9, rel=0.1), "the band became three times as loud"
    assert rhythm[29:35, -1].std() < 0.1 * rhythm[32, -1], "no note is left in it"
    assert timbre.std(1).max() < 1e-6
    assert timbre[29:35].std() < 0.1 * timbre[32, 0]
    for energies in (aspect_energies(notes), aspect_energies(0.1 * notes), aspect_energies(0 * notes)):
        torch.testing.assert_close(energies.mean((2, 3)), torch.ones(1, 3))
    torch.testing.assert_close(aspect_energies(0.1 * notes), aspect_energies(notes), rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_weights_share_out_the_patterns_energy() -> None:
    model = small_model("compositional focused").eval()
    assert isinstance(model, Cascade)
    assert isinstance(model.agent, CompositionalAgent)
    selects = model.agent.selector[-1]
    selects.weight.zero_()
    beats, note = torch.full((1, DIM, 40), 0.01), torch.full((1, DIM, 40), 0.01)
    beats[:, :, ::10] = 5.0
    note[:, 3] = 5.0

    def loud(component: str) -> tuple[float, float]:
        """Shares of the energy on the beats, and in the note's channel, of a pattern of one component alone."""
        selects.bias.copy_(30.0 * torch.tensor([float(name == component) for name in COMPONENTS]))
        energy = model.agent(beats, note).input.square()
        return float(energy[:, :, ::10].sum() / energy.sum()), float(energy[:, 3].sum() / energy.sum())

    assert loud("input_rhythm")[0] > 0.9 > 0.5 > loud("input_timbre")[0]
    assert loud("target_harmony")[1] > 0.9 > 0.5 > loud("target_timbre")[1]
    assert loud("target_harmony")[0] < 0.3


@torch.no_grad()
def test_a_pattern_takes_the_inputs_level_with_its_place_where_it_should() -> None:
    for kind, same in (("compositional", False), ("compositional focused", True)):
        model = small_model(kind).eval()
        assert isinstance(model, Cascade)
        assert model.agent is not None
        ratio = rms(model.agent(latents(1), latents(2)).input) / rms(latents(1))
        assert torch.allclose(ratio, torch.ones_like(ratio), rtol=1e-3) == same


def test_the_agent_is_asked_once_a_step() -> None:
    model = small_model("compositional").train()
    counters = {name: buffer for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert len(counters) == len(COMPONENTS)
    for forward in (1, 2, 3):
        output = model(latents(1), latents(2))
        assert output.agent is not None
        list(output.agent.losses.values())
        output.agent.metrics()
        assert {int(count) for count in counters.values()} == {forward}


@torch.no_grad()
def test_a_composed_pattern_takes_the_inputs_place_and_the_target_stays() -> None:
    model = small_model("compositional").eval()
    assert isinstance(model, Cascade)
    source, goal = latents(1), latents(2)
    output = model(source, goal)
    agent = output.agent
    assert isinstance(agent, CompositionalOutput)
    assert torch.equal(agent.target, goal)
    model.agent = None
    assert torch.equal(model(agent.input, goal).latents, output.latents)


@torch.no_grad()
def test_temporal_masks_take_turns_with_short_fades() -> None:
    mask, other = (m.flatten() for m in temporal_masks(450, 150, CPU))
    torch.testing.assert_close(mask + other, torch.ones(450))
    assert (mask[:140] == 1).all()
    assert (mask[150:300] == 0).all()
    assert (mask[310:] == 1).all()
    assert (mask[140:150].diff() < 0).all()
    assert (mask[300:310].diff() > 0).all()
    plain, _ = temporal_masks(30, 10, CPU)
    assert plain.flatten().tolist() == [1.0] * 10 + [0.0] * 10 + [1.0] * 10, "too short to fade"


@torch.no_grad()
def test_frequency_and_hybrid_masks_share_out_the_channels() -> None:
    low, high = (m.flatten() for m in frequency_masks(10, 0.3, 0.2, CPU))
    assert low.tolist() == pytest.approx([1] * 3 + [0.2] * 7)
    assert high.tolist() == pytest.approx([0.2] * 3 + [1] * 7)
    first, second = hybrid_masks(10, 20, 5, 0.3, CPU)
    assert (first[0, :3, :5] == 1).all()
    assert (first[0, :, 5:10] == 0).all()
    assert (second[0, 3:, 5:10] == 1).all()
    assert (second[0, :, :5] == 0).all()


@torch.no_grad()
def test_energy_masks_keep_the_inputs_attacks_and_the_targets_rest() -> None:
    source, goal = latents(1, frames=101), latents(2, frames=101)
    first, second = energy_masks(source, goal, 0.7)
    energies = [x.square().sum(1, keepdim=True) for x in (source, goal)]
    for share, mask, energy in ((0.3, first, energies[0]), (0.7, 1 - second, energies[1])):
        border = torch.quantile(energy, 0.7, dim=2, keepdim=True)
        assert torch.equal(mask, (energy > border).float()), share
    assert float(first.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(second.mean()) == pytest.approx(0.7, abs=0.01)


@torch.no_grad()
def test_spectral_masks_draw_their_channels_in_training_and_keep_them_otherwise() -> None:
    masks = FixedMasks(FixedMasksConfig(kind="spectral", keep=0.25), DIM)
    source, goal = latents(1), latents(2)
    output = masks.eval()(source, goal)
    assert torch.equal(output.input_mask, masks(goal, source).input_mask)
    kept = output.input_mask[0, :, 0]
    assert int(kept.sum()) == 4
    assert kept[:4].sum() < 4, "not simply the lowest ones"
    masks.train()
    drawn = {tuple(masks(source, goal).input_mask[0, :, 0].tolist()) for _ in range(8)}
    assert len(drawn) > 4
    assert all(sum(channels) == 4 for channels in drawn)
    assert torch.equal(output.input_mask, 1 - output.target_mask)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["temporal", "frequency", "spectral", "energy", "hybrid"])
def test_fixed_masks_report_and_punish_nothing(kind: str) -> None:
    output = small_model(f"{kind} masks").eval()(latents(1), latents(2)).agent
    assert isinstance(output, MaskingOutput)
    assert output.losses == {}, "no loss can change a rule"
    assert float(output.metrics()["complementarity"]) == pytest.approx(
        1 - float(mask_overlap(output.input_mask, output.target_mask))
    )


@torch.no_grad()
def test_fixed_masks_apply_before_an_agent() -> None:
    config = ModelConfig.model_validate(
        {**small_config("masking").model_dump(), "fixed_masks": {"kind": "hybrid", "segment": 5}}
    )
    torch.manual_seed(0)
    model = build_model(config, DIM).eval()
    assert isinstance(model, Cascade)
    assert model.agent is not None
    ruled = FixedMasks(config.fixed_masks, DIM).eval()(latents(1), latents(2))
    decided = model.agent(ruled.input, ruled.target)
    output = model(latents(1), latents(2)).agent
    assert isinstance(output, MaskingOutput)
    assert torch.equal(output.input_mask, decided.input_mask)
    assert (output.input[:, :, 5:10] == 0).all()
