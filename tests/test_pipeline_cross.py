"""Mode `cross`: every input with some of the targets of its own split."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import RATE, cuts, paired, split_of, write

from pipeline.pairing import Choose, Mode, ModeOptions, Pairs, make_pairs
from pipeline.pairing.partners import choose_partners
from shards.errors import CascadenceError, MisuseError

DRUMS_AND_PIANO = ModeOptions(inputs="drums", targets="piano")


def folder(root: Path, drums: int, piano: int, seconds: float = 2.0) -> Path:
    for number in range(drums):
        write(root / f"drums/d{number:02}.wav", seconds)
    for number in range(piano):
        write(root / f"piano/p{number:02}.wav", seconds)
    return root


def crossed(root: Path, val_fraction: float = 0.0, seed: int = 0, **options: object) -> Pairs:
    asked = DRUMS_AND_PIANO.model_copy(update=options)
    return paired(root, "cross", seed=seed, val_fraction=val_fraction, options=asked)


def partners_of(pairs: Pairs) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pair in pairs.pairs:
        found.setdefault(pair.input.path, set()).add(pair.target.path)
    return found


# Partners


SIZES = st.integers(1, 12)


def names(inputs: int, targets: int, shared: int) -> tuple[list[str], list[str]]:
    """Names of inputs and of targets, some of which are both."""
    both = [f"both{number}" for number in range(min(shared, inputs, targets))]
    return (
        both + [f"input{number}" for number in range(inputs - len(both))],
        both + [f"target{number}" for number in range(targets - len(both))],
    )


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.tuples(SIZES, SIZES, st.integers(0, 12)),
    count=st.integers(1, 6),
    choose=st.sampled_from(get_args(Choose)),
    seed=st.integers(0, 9),
)
def test_each_input_has_as_many_partners_as_asked_for_and_never_itself(
    sizes: tuple[int, int, int], count: int, choose: Choose, seed: int
) -> None:
    inputs, targets = names(*sizes)
    tempos = {name: 60.0 + 7 * number for number, name in enumerate(sorted({*inputs, *targets}))}
    chosen = choose_partners(choose, inputs, targets, count, seed, tempos)
    assert chosen.keys() == set(inputs)
    for name, partners in chosen.items():
        assert set(partners) <= set(targets) - {name}
        assert len(set(partners)) == len(partners) == min(count, len(set(targets) - {name}))
    assert chosen == choose_partners(choose, inputs[::-1], targets[::-1], count, seed, tempos)


@settings(max_examples=100, deadline=None)
@given(sizes=st.tuples(SIZES, SIZES, st.integers(0, 12)), count=st.integers(1, 6), seed=st.integers(0, 9))
def test_in_turn_each_target_is_used_equally_often_before_any_is_used_again(
    sizes: tuple[int, int, int], count: int, seed: int
) -> None:
    inputs, targets = names(*sizes)
    chosen = choose_partners("seeded", inputs, targets, count, seed, {})
    used = Counter(partner for partners in chosen.values() for partner in partners)
    times = [used[name] for name in targets]
    assert max(times) - min(times) <= 1


@settings(max_examples=100, deadline=None)
@given(
    tempos=st.dictionaries(
        st.sampled_from([f"target{number}" for number in range(8)]), st.floats(40, 240) | st.none(), min_size=2
    ),
    tempo=st.floats(40, 240),
    count=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_by_tempo_no_other_target_is_nearer_up_to_octaves(
    tempos: dict[str, float | None], tempo: float, count: int, seed: int
) -> None:
    chosen = choose_partners("tempo", ["input"], list(tempos), count, seed, {"input": tempo, **tempos})["input"]
    apart = {name: distance(tempo, other) for name, other in tempos.items()}
    farthest = max(apart[name] for name in chosen)
    assert all(apart[name] >= farthest - math.log2(1.0051) for name in tempos if name not in chosen)


def distance(one: float, other: float | None) -> float:
    return 9.0 if other is None else min(abs(math.log2(one / other) + octave) for octave in range(-3, 4))


def test_by_tempo_twice_the_tempo_is_the_same_and_equally_near_ones_are_drawn() -> None:
    tempos = {"half": 60.0, "same": 120.3, "double": 240.0, "near": 124.0, "unknown": None, "input": 120.0}
    targets = ["half", "same", "double", "near", "unknown"]
    drawn = {tuple(choose_partners("tempo", ["input"], targets, 3, seed, tempos)["input"]) for seed in range(30)}
    assert {frozenset(partners) for partners in drawn} == {frozenset({"half", "same", "double"})}
    assert len(drawn) == 6, "in each of their orders"
    assert choose_partners("tempo", ["input"], targets, 5, 0, tempos)["input"][3:] == ["near", "unknown"]


@pytest.mark.parametrize("choose", ["tempo", "random"])
def test_drawn_partners_do_not_depend_on_the_other_inputs(choose: Choose) -> None:
    inputs, targets = names(12, 12, 0)
    every = choose_partners(choose, inputs, targets, 2, 0, {})
    assert choose_partners(choose, inputs[5:6], targets, 2, 0, {}) == {inputs[5]: every[inputs[5]]}
    assert len({tuple(partners) for partners in every.values()}) > 6


@pytest.mark.parametrize("choose", get_args(Choose))
def test_another_seed_gives_other_partners(choose: Choose) -> None:
    inputs, targets = names(8, 8, 0)
    assert len({str(choose_partners(choose, inputs, targets, 1, seed, {})) for seed in range(5)}) > 1


# Windows


def test_window_goes_with_window_and_a_shorter_partner_begins_anew(tmp_path: Path) -> None:
    write(tmp_path / "drums/long.wav", 5)
    write(tmp_path / "piano/short.wav", 2.5)
    expected = [("drums/long.wav", n * RATE, "piano/short.wav", n % 2 * RATE) for n in range(5)]
    assert cuts(crossed(tmp_path)) == expected
    assert cuts(crossed(tmp_path, max_per_track=2)) == [expected[1], expected[3]]


def test_each_partner_gets_the_windows_that_a_track_is_limited_to(tmp_path: Path) -> None:
    pairs = crossed(folder(tmp_path, 2, 3, seconds=4), partners=3, max_per_track=2)
    counts = Counter((pair.input.path, pair.target.path) for pair in pairs.pairs)
    assert set(counts.values()) == {2}
    assert len(counts) == 6


# Splits


@pytest.mark.parametrize("choose", ["seeded", "random"])
def test_inputs_and_targets_are_split_each_and_pairs_stay_inside(tmp_path: Path, choose: Choose) -> None:
    pairs = crossed(folder(tmp_path, 10, 5), val_fraction=0.2, partners=2, choose=choose)
    splits = {path: pair.split for pair in pairs.pairs for path in (pair.input.path, pair.target.path)}
    assert Counter(split for path, split in splits.items() if path.startswith("drums/")) == {"train": 8, "val": 2}
    assert [split for path, split in splits.items() if path.startswith("piano/")].count("val") == 1
    partners = partners_of(pairs)
    assert {len(found) for path, found in partners.items() if splits[path] == "train"} == {2}
    assert {len(found) for path, found in partners.items() if splits[path] == "val"} == {1}
    split_of(pairs)


def test_a_group_is_all_that_pairs_tie_together_named_by_its_first_file(tmp_path: Path) -> None:
    pairs = crossed(folder(tmp_path, 6, 2), val_fraction=0)
    groups: dict[str, set[str]] = {}
    for pair in pairs.pairs:
        groups.setdefault(pair.group, set()).update((pair.input.path, pair.target.path))
    assert len(groups) == 2, "three inputs around each target"
    assert all(name == min(files) for name, files in groups.items())
    assert set.intersection(*groups.values()) == set()


@pytest.mark.parametrize(("drums", "piano"), [(1, 5), (5, 1), (1, 1)])
def test_where_one_side_can_t_be_split_all_is_trained_on(tmp_path: Path, drums: int, piano: int) -> None:
    pairs = crossed(folder(tmp_path, drums, piano), val_fraction=0.5)
    assert {pair.split for pair in pairs.pairs} == {"train"}
    assert len(partners_of(pairs)) == drums


def test_any_track_with_any_other(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / f"song{number}.wav", 1)
    pairs = paired(tmp_path, "cross", val_fraction=0.1, options=ModeOptions(inputs=".", targets="*.wav"))
    assert Counter(pair.split for pair in pairs.pairs) == {"train": 6, "val": 2}, "one alone would have no partner"
    assert all(pair.input.path != pair.target.path for pair in pairs.pairs)
    assert len({pair.target.path for pair in pairs.pairs}) == 8


def test_the_user_s_own_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        folder(tmp_path / split, count, count)
    options = ModeOptions(inputs="*/drums", targets="*/piano")
    pairs = paired(tmp_path, "cross", val_fraction=0.5, options=options)
    assert Counter(pair.split for pair in pairs.pairs) == {"train": 6, "val": 4}
    assert all(cut.path.startswith(f"{pair.split}/") for pair in pairs.pairs for cut in (pair.input, pair.target))


# Patterns


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [("a", "b"), ("a/", "b/deep"), ("a/*", "b/**/*"), ("**/*Drum*", "**/*piano*.wav"), ("a/Drum [live].wav", "./b")],
)
def test_a_side_is_a_folder_a_file_or_a_pattern(tmp_path: Path, inputs: str, targets: str) -> None:
    write(tmp_path / "a/Drum [live].wav")
    write(tmp_path / "b/deep/er/piano.wav")
    (tmp_path / "vocals.wav").write_bytes(b"not looked at")
    pairs = paired(tmp_path, "cross", options=ModeOptions(inputs=inputs, targets=targets))
    assert cuts(pairs) == [("a/Drum [live].wav", 0, "b/deep/er/piano.wav", 0)]


@pytest.mark.parametrize("pattern", ["guitar", "drums/*.flac", "", "/etc", "../drums", "drum"])
def test_a_pattern_that_covers_nothing_is_misuse(tmp_path: Path, pattern: str) -> None:
    root = folder(tmp_path / "in", 1, 1)
    with pytest.raises(MisuseError, match="--targets") as caught:
        paired(root, "cross", options=ModeOptions(inputs="drums", targets=pattern))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "options", "said"),
    [
        ("cross", {}, "--mode cross needs --inputs and --targets"),
        ("cross", {"inputs": "drums"}, "--mode cross needs --inputs and --targets"),
        ("suffix", {"targets": "x"}, "--targets is an option of --mode cross"),
        ("continuation", {"partners": 2}, "--partners is an option of --mode cross"),
        ("continuation", {"choose": "tempo"}, "--choose is an option of --mode cross"),
    ],
)
def test_options_that_do_not_go_together_are_misuse(
    tmp_path: Path, mode: Mode, options: dict[str, object], said: str
) -> None:
    with pytest.raises(MisuseError, match=said):
        paired(folder(tmp_path, 1, 1), mode, options=ModeOptions.model_validate(options))


def test_a_side_without_a_usable_file_is_a_failure(tmp_path: Path) -> None:
    folder(tmp_path, 2, 0)
    write(tmp_path / "piano/p.wav", 0.5)
    with pytest.raises(CascadenceError, match=r"no pair of 1 s windows in 3 files \(1 too short\)"):
        make_pairs(tmp_path, "cross", 1.0, 0, 0.1, DRUMS_AND_PIANO)
