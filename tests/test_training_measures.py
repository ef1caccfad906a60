"""Measures: what a copy, silence, a pattern and masks that follow the music come to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.synthesize.pairs import synthesize_pair
from shards.audio import Samples
from training.criteria import COMPONENTS, CRITERIA, Criterion, Range, judge
from training.losses.components import component_entropy
from training.measures.likeness import likeness, sources_level
from training.measures.masks import MaskVariance, dominance_correlation, loudness_ratio
from training.measures.music import CHROMA, ONSETS, Ears, Heard, chroma_similarity, load_ears
from training.measures.pair import listen, measure_pair
from training.models import compositional_agent
from training.models.masking_agent import MaskingOutput

RATE = 24_000
SECONDS = 6
SILENCE = np.zeros(SECONDS * RATE, np.float32)


def noise(seed: int, seconds: float = SECONDS) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def latents(seed: int, pairs: int = 1) -> Tensor:
    return 5.0 * torch.randn(pairs, 32, 60, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def ears() -> Ears:
    pytest.importorskip("librosa")
    pytest.importorskip("mir_eval")
    return load_ears()


@pytest.fixture(scope="module")
def music(ears: Ears) -> list[tuple[Heard, Heard]]:
    """What is heard in drums and piano of six pairs that have nothing to do with each other."""
    pairs = [synthesize_pair(3, number, SECONDS) for number in range(6)]
    return [(ears.hear(pair.drums, RATE), ears.hear(pair.piano, RATE)) for pair in pairs]


def test_a_copy_is_wholly_like_its_source_and_not_like_another() -> None:
    source, goal = noise(1), noise(2)
    copied = likeness(0.5 * source, source, goal, RATE)
    assert copied["waveform_correlation_input"] == pytest.approx(1, abs=1e-6)
    assert copied["envelope_correlation_input"] == pytest.approx(1, abs=1e-3)
    assert abs(copied["waveform_correlation_target"]) < 0.02
    assert copied["rms_ratio"] == pytest.approx(0.5, rel=0.01)
    # Half the amplitude is 6 dB less in every band.
    assert copied["spectral_distance_input"] == pytest.approx(20 * math.log10(2), abs=0.05)
    assert likeness(source, source, goal, RATE)["spectral_distance_input"] == 0
    assert likeness(-source, source, goal, RATE)["waveform_correlation_input"] == pytest.approx(-1, abs=1e-6)


def test_a_mix_of_unrelated_sources_is_as_like_to_each() -> None:
    source, goal = noise(1), noise(2)
    mixed = likeness((source + goal) / math.sqrt(2), source, goal, RATE)
    assert mixed["rms_ratio"] == pytest.approx(1, abs=0.01)
    for side in ("input", "target"):
        assert mixed[f"waveform_correlation_{side}"] == pytest.approx(math.sqrt(0.5), abs=0.01)


@pytest.mark.parametrize("silent", [(0,), (1,), (2,), (0, 1, 2)])
def test_silence_has_finite_measures(silent: tuple[int, ...]) -> None:
    sounds = [SILENCE if place in silent else noise(place) for place in range(3)]
    found = likeness(sounds[0], sounds[1], sounds[2], RATE)
    assert all(map(math.isfinite, found.values()))
    assert ("rms_ratio" in found) == (silent != (0, 1, 2)), "the level of two silent sources is no measure"
    assert sources_level(SILENCE, SILENCE) == 0


def test_a_sound_too_short_for_a_spectrum_has_the_other_measures() -> None:
    found = likeness(*(noise(place, 0.02) for place in range(3)), RATE)
    assert "spectral_distance_input" not in found
    assert math.isfinite(found["envelope_correlation_input"])


def test_rhythm_is_measured_where_there_are_frames_for_it() -> None:
    def sound(frames: int) -> dict[str, float]:
        made = [listen(latents(place)[:, :, :frames], noise(place, frames / 75), RATE, None) for place in (1, 1, 2)]
        return measure_pair(made[0], made[1], made[2], RATE, None)

    assert sound(60)["rhythm_correlation_input"] == pytest.approx(1, abs=1e-4)
    assert "rhythm_correlation_input" not in sound(25)


def test_masks_that_follow_the_louder_source_have_a_correlation_of_one() -> None:
    source, goal = latents(1, 3), latents(2, 3)
    ratio = loudness_ratio(source, goal)
    mask = 0.5 + ratio / (2 * ratio.abs().max())
    assert dominance_correlation(mask, 1 - mask, source, goal).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert dominance_correlation(1 - mask, mask, source, goal).tolist() == pytest.approx([-1, -1, -1], abs=1e-5)
    flat = torch.full_like(mask, 0.5)
    assert dominance_correlation(flat, flat, source, goal).tolist() == [0, 0, 0]
    assert torch.equal(loudness_ratio(torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)), torch.zeros(1, 4, 5))


def variance(masks: list[Tensor]) -> MaskVariance:
    found = MaskVariance()
    for mask in masks:
        found.add(mask, 1 - mask)
    return found


def test_a_fixed_choice_of_channels_is_a_pattern_and_no_content() -> None:
    channels = (torch.arange(32) % 2)[None, :, None].float().expand(4, 32, 60)
    shares = variance([channels, channels]).shares()
    assert shares is not None
    assert (shares.channel, shares.pattern) == pytest.approx((1, 1))
    assert (shares.position, shares.content) == pytest.approx((0, 0))
    turns = (torch.arange(60) // 5 % 2).float().expand(4, 32, 60)
    in_time = variance([turns]).shares()
    assert in_time is not None
    assert (in_time.position, in_time.channel, in_time.content) == pytest.approx((1, 0, 0))


def test_masks_that_follow_their_sources_are_content() -> None:
    # As sharp as it gets: the louder source has the place.
    masks = [(loudness_ratio(latents(n, 4), latents(n + 100, 4)) > 0).float() for n in range(10)]
    shares = variance(masks).shares()
    assert shares is not None
    assert shares.content > 0.97
    assert shares.channel < 0.01


def test_half_a_pattern_and_half_content_are_told_apart() -> None:
    pattern = torch.randn(32, 1, generator=torch.Generator().manual_seed(7)).expand(32, 60)
    shares = variance([0.1 * (pattern + latents(n, 8) / 5) for n in range(20)]).shares()
    assert shares is not None
    wanted = float(pattern.var(correction=0))
    assert shares.channel == pytest.approx(wanted / (wanted + 1), abs=0.03)
    assert shares.content == pytest.approx(1 / (wanted + 1), abs=0.03)


def test_shares_of_variance_need_two_pairs_and_something_that_varies() -> None:
    assert MaskVariance().shares() is None
    assert variance([latents(1)]).shares() is None
    assert variance([torch.full((3, 4, 5), 0.5)]).shares() is None
    lengths = variance([torch.zeros(1, 4, 5)])
    with pytest.raises(ValueError, match=r"masks \[4, 6\] after masks \[4, 5\]"):
        lengths.add(torch.zeros(1, 4, 6), torch.zeros(1, 4, 6))


def test_an_agents_masks_are_measured_pair_by_pair() -> None:
    source, goal = latents(1, 2), latents(2, 2)
    mask = torch.stack([torch.full((32, 60), 0.5), (source[1].abs() > goal[1].abs()).float()])
    output = MaskingOutput(mask, 1 - mask, source * mask, goal * (1 - mask), (source, goal))
    flat, sharp = ({k: float(v) for k, v in output.pair(n).metrics().items()} for n in range(2))
    assert flat["complementarity"] == pytest.approx(0.75)
    assert flat["mask_overlap"] == pytest.approx(0.25)
    assert (flat["mask_change"], flat["dominance_correlation"]) == (0, 0)
    assert (sharp["complementarity"], sharp["mask_overlap"]) == (1, 0)
    assert sharp["mask_change"] == pytest.approx(0.25, abs=0.02)
    assert sharp["dominance_correlation"] > 0.7


def test_entropy_tells_a_preference_from_none() -> None:
    def entropy(*weights: float) -> float:
        return float(component_entropy(torch.tensor(weights)[None, :, None].expand(2, 6, 10)))

    assert entropy(*[1 / 6] * 6) == pytest.approx(1)
    assert entropy(1, 0, 0, 0, 0, 0) == 0
    preferred = entropy(0.5, *[0.1] * 5)
    assert judge("component_entropy", preferred) == "success", "what the seeds call a clear preference"
    assert judge("component_entropy", entropy(0.3, *[0.14] * 5)) == "short"


def test_onsets_of_a_track_are_its_own_and_not_those_of_another(ears: Ears, music: list[tuple[Heard, Heard]]) -> None:
    drums = [heard for heard, _ in music]
    nothing = Heard()
    for place, heard in enumerate(drums):
        assert heard.onsets is not None
        assert len(heard.onsets) > SECONDS, "drums have more than a stroke a second"
        assert ears.compare(heard, heard, nothing)["onset_f1"] == 1
        others = [ears.compare(other, heard, nothing)["onset_f1"] for other in drums[:place] + drums[place + 1 :]]
        assert np.mean(others) < 0.5


def test_harmony_of_a_track_is_its_own_and_not_that_of_another(ears: Ears, music: list[tuple[Heard, Heard]]) -> None:
    pianos = [heard for _, heard in music]
    unrelated = []
    for place, heard in enumerate(pianos):
        assert ears.compare(heard, Heard(), heard)["chroma_similarity_target"] == pytest.approx(1)
        unrelated += [ears.compare(other, Heard(), heard)["chroma_similarity_target"] for other in pianos[:place]]
    assert max(unrelated) < 0.7
    assert np.mean(unrelated) < 0.35


def test_drums_over_a_piano_do_not_hide_its_harmony(ears: Ears) -> None:
    pair = synthesize_pair(3, 1, SECONDS)
    level = np.std(pair.piano) / np.std(pair.drums)
    mixed, drums, piano = (ears.hear(x, RATE) for x in (pair.piano + level * pair.drums, pair.drums, pair.piano))
    found = ears.compare(mixed, drums, piano)
    assert found["chroma_similarity_target"] > 0.7
    assert ears.compare(drums, drums, piano)["chroma_similarity_target"] < 0.4


def test_silence_is_heard_as_nothing(ears: Ears) -> None:
    silent, loud = ears.hear(SILENCE, RATE), ears.hear(synthesize_pair(3, 0, SECONDS).drums, RATE)
    assert ears.compare(loud, silent, silent) == {}
    assert ears.compare(silent, loud, loud) == {**dict.fromkeys(ONSETS, 0.0), **dict.fromkeys(CHROMA, 0.0)}
    assert ears.hear(noise(1, 0.1), RATE) == Heard(), "too short to hear anything in it"


def test_flat_chroma_is_no_harmony_to_be_like() -> None:
    flat, chord = np.ones((12, 4)), np.eye(12)[:, :4]
    assert chroma_similarity(chord, flat) is None
    assert chroma_similarity(flat, chord) == 0
    assert chroma_similarity(chord, chord) == pytest.approx(1)
    louder = chord * np.array([1, 10, 100, 1000])
    assert chroma_similarity(louder, chord) == pytest.approx(1), "how loud a frame is made is another matter"
    # The loud frame is right, the quiet one wrong.
    wanted = np.eye(12)[:, :2] * np.array([9, 1])
    assert chroma_similarity(np.roll(wanted, 1, 0) * [0, 1] + wanted * [1, 0], wanted) == pytest.approx(
        0.9 - 0.1 / 11, abs=1e-6
    )


def test_without_libraries_everything_else_is_measured() -> None:
    deaf = Ears(None, None)
    assert deaf.missing == {"librosa": ONSETS + CHROMA, "mir_eval": ONSETS}
    sound = listen(latents(1), noise(1), RATE, deaf)
    assert measure_pair(sound, sound, sound, RATE, deaf) == measure_pair(sound, sound, sound, RATE, None)


def test_criteria_know_the_components() -> None:
    assert COMPONENTS == compositional_agent.COMPONENTS


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("complementarity", 0.95, "success"),
        ("complementarity", 0.949, "short"),
        ("complementarity", math.nan, "short"),
        ("waveform_correlation_input", -0.7, "short"),
        ("waveform_correlation_input", -0.6, "success"),
        ("envelope_correlation_target", 0.19, "short"),
        ("rms_ratio", 1.1, "success"),
        ("input_rhythm_weight", 0.3, "success"),
        ("input_timbre_weight", 0.3, "short"),
        ("chroma_similarity_input", 0.1, None),
        ("what nobody measures", 0.1, None),
    ],
)
def test_a_value_is_judged_by_its_range(name: str, value: float, verdict: str | None) -> None:
    assert judge(name, value) == verdict


def test_our_range_stands_before_that_of_the_seeds_and_both_are_told() -> None:
    ours, theirs = CRITERIA["complementarity"], CRITERIA["rms_ratio"]
    assert (ours.origin, ours.range_text, ours.seeds_text) == ("ours", "0.950 or more", "0.900 or more")
    assert (theirs.origin, theirs.range_text) == ("seeds", "0.90 to 1.10")
    assert CRITERIA["content_share"].text(0.634) == "63 %"
    assert CRITERIA["spectral_distance_input"].text(12.34) == "12.3 dB"
    assert CRITERIA["dominance_correlation"].text(-0.001) == "0.00"
    assert CRITERIA["spectral_distance_input"].range_text is None


def test_a_shortfall_grows_from_the_bound_to_the_extreme() -> None:
    criterion = Criterion("", Range(0.2, 0.6))
    assert [criterion.shortfall(x) for x in (0.2, 0.6, 0.4)] == [0, 0, 0]
    assert [criterion.shortfall(x) for x in (0.1, 0.0, -3.0, 0.8, 1.0, 9.0)] == pytest.approx([0.5, 1, 1, 0.5, 1, 1])
    assert criterion.shortfall(math.nan) == 1
    for name, one in CRITERIA.items():
        if one.range is not None:
            lowest, highest = one.extremes
            assert one.range.low is None or one.range.low > lowest, name
            assert one.range.high is None or one.range.high < highest, name
