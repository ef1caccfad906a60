"""Splits: by track, drawn or the folder's own, and no recording in two of them under any name."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import paired, sides, split_of, write

from pipeline.pairing import Mode, ModeOptions, Pairs, make_pairs
from shards.errors import CascadenceError

SIDES = ("input", "target")
CROSS = ModeOptions(inputs="**/*_input.wav", targets="**/*_target.wav", partners=2)


@pytest.mark.parametrize("mode", ["suffix", "continuation"])
@pytest.mark.parametrize(
    ("tracks", "val_fraction", "validation"),
    [(1, 0.1, 0), (1, 0.9, 0), (2, 0.1, 1), (2, 0.9, 1), (3, 0.0, 0), (4, 0.5, 2), (10, 0.1, 1), (10, 0.34, 3)],
)
def test_tracks_are_held_out_whole(
    tmp_path: Path, mode: Mode, tracks: int, val_fraction: float, validation: int
) -> None:
    stems = [f"song{number}" for number in range(tracks)]
    if mode == "suffix":
        sides(tmp_path, *stems, seconds=3)
    else:
        for stem in stems:
            write(tmp_path / f"{stem}.wav", 4)
    pairs = paired(tmp_path, mode, val_fraction=val_fraction)
    splits = split_of(pairs)
    assert len(pairs.pairs) == 3 * tracks
    assert sorted(splits.values()) == ["train"] * (tracks - validation) + ["val"] * validation


def test_no_file_is_in_two_splits(tmp_path: Path) -> None:
    sides(tmp_path, *(f"song{n}" for n in range(8)), seconds=2)
    files: dict[str, set[str]] = {"train": set(), "val": set()}
    for pair in paired(tmp_path, val_fraction=0.5).pairs:
        files[pair.split] |= {pair.input.path, pair.target.path}
    assert not files["train"] & files["val"]


def test_the_seed_decides_and_repeats(tmp_path: Path) -> None:
    sides(tmp_path, *(f"song{n}" for n in range(12)))
    drawn = [split_of(paired(tmp_path, val_fraction=0.5, seed=seed)) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] or drawn[0] != drawn[3]


def test_where_the_folder_lies_does_not_decide(tmp_path: Path) -> None:
    for root in ("here", "there/deeper"):
        sides(tmp_path / root, *(f"song{n}" for n in range(6)))
    here, there = paired(tmp_path / "here"), paired(tmp_path / "there/deeper")
    assert here.pairs == there.pairs
    assert here.header.pairs_sha256 == there.header.pairs_sha256


def test_a_track_more_moves_no_more_than_one(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"song{number}.wav", 2)
    before = split_of(paired(tmp_path, "continuation", val_fraction=0.5))
    write(tmp_path / "another.wav", 2)
    after = split_of(paired(tmp_path, "continuation", val_fraction=0.5))
    assert sum(after[name] != split for name, split in before.items()) <= 1


# One recording under two names


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return target


def test_pairs_that_share_a_recording_are_one_group(tmp_path: Path) -> None:
    sides(tmp_path, *(f"song{number}" for number in range(6)))
    for number in (1, 4):
        copy(tmp_path / "song0_input.wav", tmp_path / f"song{number}_input.wav")
    copy(tmp_path / "song4_target.wav", tmp_path / "song5_input.wav")
    for seed in range(4):
        groups = Counter(pair.group for pair in paired(tmp_path, seed=seed, val_fraction=0.5).pairs)
        assert groups == {"song0": 4, "song2": 1, "song3": 1}


@pytest.mark.parametrize("mode", ["suffix", "continuation", "cross"])
def test_a_copy_of_what_is_paired_already_is_left_out(tmp_path: Path, mode: Mode) -> None:
    sides(tmp_path, "a", "b", seconds=2)
    for side in ("input", "target"):
        copy(tmp_path / f"a_{side}.wav", tmp_path / f"z/copy_{side}.wav")
    options = CROSS if mode == "cross" else None
    pairs, left_out = make_pairs(tmp_path, mode, 1.0, 0, 0.5, options)
    assert [(out.path, out.reason) for out in left_out] == [(f"z/copy_{s}.wav", "copy") for s in ("input", "target")]
    assert left_out[0].message.endswith("a copy of a_input.wav; remove one of them")
    assert not any(path.startswith("z/") for path in pairs.sources)


@pytest.mark.parametrize("mode", ["suffix", "continuation", "cross"])
def test_what_the_user_s_own_splits_share_is_left_out_of_training(tmp_path: Path, mode: Mode) -> None:
    sides(tmp_path, "train/a", "train/b", "val/c", "val/d", seconds=2)
    shared = copy(tmp_path / "val/c_target.wav", tmp_path / "train/b_target.wav")
    options = CROSS if mode == "cross" else None
    pairs, left_out = make_pairs(tmp_path, mode, 1.0, 0, 0.1, options)
    said = {out.path: out.message for out in left_out}
    partner = {"train/b_input.wav"} if mode == "suffix" else set()
    assert set(said) == {"train/b_target.wav"} | partner
    assert said["train/b_target.wav"] == (
        f"{shared}: the same recording as val/c_target.wav; keep it in one split alone"
    )
    assert {"val/c_target.wav", "val/d_target.wav", "train/a_input.wav"} <= pairs.sources.keys()
    with pytest.raises(CascadenceError, match=r"train/b_\w+.wav: .*val/"):
        make_pairs(tmp_path, mode, 1.0, 0, 0.1, options, strict=True)


def test_what_lies_beside_the_user_s_own_splits_is_left_out(tmp_path: Path) -> None:
    for name in ("train/a", "val/b", "c", "more/d"):
        write(tmp_path / f"{name}.wav", 2)
    pairs, left_out = make_pairs(tmp_path, "continuation", 1.0, 0, 0.1)
    assert split_of(pairs) == {"train/a.wav": "train", "val/b.wav": "val"}
    assert [(out.path, out.reason) for out in left_out] == [("c.wav", "no_split"), ("more/d.wav", "no_split")]


@pytest.mark.parametrize("names", [("train/steam", "bus/red", "car/blue"), ("train_one", "train_two", "val_three")])
def test_a_folder_that_happens_to_be_called_train_decides_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    sides(tmp_path, *names)
    assert Counter(split_of(paired(tmp_path, val_fraction=0.34)).values()) == {"train": 2, "val": 1}


# Whatever the folder


NAMES = st.sampled_from([f"{folder}{stem}_{side}" for folder in ("", "x/") for stem in "abcd" for side in SIDES])
FOLDERS = st.dictionaries(
    NAMES, st.tuples(st.integers(0, 5), st.sampled_from(["train", "val"])), min_size=1, max_size=12
)
MODES = st.sampled_from(["suffix", "continuation", "cross"])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Six different recordings of 2, 3 and 4 windows."""
    root = tmp_path_factory.mktemp("contents")
    return [write(root / f"{number}.wav", 0.02 + 0.01 * (number % 3)).read_bytes() for number in range(6)]


@settings(max_examples=40, deadline=None)
@given(files=FOLDERS, own=st.booleans(), mode=MODES, seed=st.integers(0, 3))
def test_nothing_leaks_whatever_the_folder(
    contents: list[bytes], files: dict[str, tuple[int, str]], own: bool, mode: Mode, seed: int
) -> None:
    made = []
    for reverse in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            for name, (content, split) in sorted(files.items(), reverse=reverse):
                path = Path(folder, split if own else "", f"{name}.wav")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents[content])
            made.append(_made(Path(folder), mode, seed))
    first, second = made
    assert (first is None) == (second is None)
    if first is None or second is None:
        return
    assert first.pairs == second.pairs, "neither the folder's name nor the order of its files decides"
    assert first.files == second.files
    splits = split_of(first)
    hashes: dict[str, str] = {}
    samples = set()
    for pair in first.pairs:
        for cut in (pair.input, pair.target):
            assert hashes.setdefault(first.sources[cut.path], pair.split) == pair.split
        sources = first.sources[pair.input.path], first.sources[pair.target.path]
        samples.add((*sources, pair.input.start, pair.target.start))
        assert sources[0] != sources[1] or mode != "cross"
    assert len(samples) == len(first.pairs), "no pair is there twice, under whatever names"
    if own:
        assert all(path.startswith(f"{pair.split}/") for pair in first.pairs for path in (pair.input.path, pair.group))
    _assert_groups_are_components(first, splits)


def _made(root: Path, mode: Mode, seed: int) -> Pairs | None:
    options = CROSS if mode == "cross" else None
    try:
        return make_pairs(root, mode, 0.01, seed, 0.3, options)[0]
    except CascadenceError:
        return None


def _assert_groups_are_components(pairs: Pairs, splits: dict[str, str]) -> None:
    """Groups share no recording: a new split by group leaks nothing."""
    group_of: dict[str, str] = {}
    for pair in pairs.pairs:
        assert pair.group in splits
        for cut in (pair.input, pair.target):
            assert group_of.setdefault(pairs.sources[cut.path], pair.group) == pair.group
