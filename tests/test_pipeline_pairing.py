"""Pairing: which windows go together, in which split, and what is said of files that can't be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.cli.app import app
from pipeline.pairing import Mode, Pair, Pairs, make_pairs, read_pairs, write_pairs
from shards import console
from shards.errors import CascadenceError, MisuseError

RATE = 24_000


def write(path: Path, seconds: float, rate: int = RATE) -> Path:
    """A quiet tone: pairing reads headers, so what is in a file matters little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.1), rate)
    return path


def sides(root: Path, *stems: str, seconds: float = 1.0) -> None:
    for stem in stems:
        write(root / f"{stem}_input.wav", seconds)
        write(root / f"{stem}_target.wav", seconds)


def paired(
    root: Path,
    mode: Mode = "suffix",
    seconds: float = 1.0,
    seed: int = 0,
    val_fraction: float = 0.1,
    skip_unusable: bool = False,
) -> Pairs:
    return make_pairs(root, mode, seconds, seed, val_fraction, skip_unusable)[0]


def cuts(pairs: Pairs) -> list[tuple[str, int, str, int]]:
    return [(p.input.path, p.input.start, p.target.path, p.target.start) for p in pairs.pairs]


def split_of(pairs: Pairs) -> dict[str, str]:
    """The split of each track; asserts that no track is in two."""
    found: dict[str, str] = {}
    for pair in pairs.pairs:
        assert found.setdefault(pair.group, pair.split) == pair.split
    return found


def run(arguments: Sequence[object]) -> int:
    with pytest.raises(SystemExit) as exited:
        console.run(app, "python -m pipeline", [str(argument) for argument in arguments])
    return int(exited.value.code or 0)


# Suffixes


@pytest.mark.parametrize("other", ["output", "target"])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "aiff", "WAV"])
def test_an_input_goes_with_its_output_or_target(tmp_path: Path, other: str, extension: str) -> None:
    write(tmp_path / f"a song_input.{extension}", 1)
    write(tmp_path / f"a song_{other}.{extension}", 1)
    assert cuts(paired(tmp_path)) == [(f"a song_input.{extension}", 0, f"a song_{other}.{extension}", 0)]


def test_the_sides_may_be_of_different_kinds(tmp_path: Path) -> None:
    write(tmp_path / "a_input.flac", 1, rate=44_100)
    write(tmp_path / "a_target.wav", 1, rate=8_000)
    assert cuts(paired(tmp_path)) == [("a_input.flac", 0, "a_target.wav", 0)]


def test_a_name_may_hold_the_word_twice(tmp_path: Path) -> None:
    sides(tmp_path, "my_input")
    assert cuts(paired(tmp_path)) == [("my_input_input.wav", 0, "my_input_target.wav", 0)]


def test_equal_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    sides(tmp_path, "x/a", "y/a")
    assert cuts(paired(tmp_path)) == [(f"{f}/a_input.wav", 0, f"{f}/a_target.wav", 0) for f in "xy"]


def test_other_files_do_not_disturb(tmp_path: Path) -> None:
    sides(tmp_path, "a")
    (tmp_path / "notes.txt").write_text("not audio")
    (tmp_path / "folder.wav").mkdir()
    assert len(paired(tmp_path).pairs) == 1


def test_a_long_file_gives_several_windows_as_many_as_the_shorter_side_has(tmp_path: Path) -> None:
    write(tmp_path / "a_input.wav", 3.9)
    write(tmp_path / "a_target.wav", 2.5, rate=44_100)
    found = cuts(paired(tmp_path))
    assert found == [("a_input.wav", n * RATE, "a_target.wav", n * RATE) for n in range(2)]


def test_the_folders_train_and_val_are_kept(tmp_path: Path) -> None:
    sides(tmp_path, "train/a", "train/b", "val/c", "val/deep/d")
    pairs = paired(tmp_path, val_fraction=0)
    assert split_of(pairs) == {"train/a": "train", "train/b": "train", "val/c": "val", "val/deep/d": "val"}


# Continuation


def test_each_window_goes_with_the_next_one_of_the_same_track(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", 20.0)
    write(tmp_path / "short.wav", 11.9, rate=48_000)
    pairs = paired(tmp_path, "continuation", seconds=4)
    window = 4 * RATE
    expected = [("long.wav", k * window, "long.wav", (k + 1) * window) for k in range(4)]
    assert cuts(pairs) == [*expected, ("short.wav", 0, "short.wav", window)]
    assert pairs.header.window_samples == window


def test_a_track_shorter_than_two_windows_is_named(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", 4)
    short = write(tmp_path / "short.wav", 1.9)
    with pytest.raises(CascadenceError, match="shorter than two windows of 1 s") as caught:
        paired(tmp_path, "continuation")
    assert str(caught.value).startswith(f"{short}: ")
    pairs, left_out = make_pairs(tmp_path, "continuation", 1.0, 0, 0.1, skip_unusable=True)
    assert set(split_of(pairs)) == {"long.wav"}
    assert len(left_out) == 1


# Splits


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


# The file


def test_the_file_is_json_lines_with_paths_as_they_are_on_the_disk(tmp_path: Path) -> None:
    sides(tmp_path / "wavs", "train/a", "val/b", seconds=2)
    pairs = paired(tmp_path / "wavs")
    out = tmp_path / "new folder" / "pairs.jsonl"
    write_pairs(out, pairs)

    header, *lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert (header["format"], header["mode"], header["window_samples"], header["sample_rate"]) == (
        "cascadence-pairs",
        "suffix",
        RATE,
        RATE,
    )
    assert Path(header["root"], lines[0]["input"]["path"]).is_file()
    assert lines[1] == {
        "split": "train",
        "group": "train/a",
        "input": {"path": "train/a_input.wav", "start": RATE},
        "target": {"path": "train/a_target.wav", "start": RATE},
    }
    assert read_pairs(out) == pairs
    assert [p.name for p in out.parent.iterdir()] == ["pairs.jsonl"]


def test_an_edited_file_is_what_counts(tmp_path: Path) -> None:
    sides(tmp_path, "a", "b")
    pairs, out = paired(tmp_path), tmp_path / "pairs.jsonl"
    write_pairs(out, pairs)
    lines = out.read_text().splitlines()
    out.write_text("\n".join([lines[0], "", lines[2]]))

    edited = read_pairs(out)

    assert edited.pairs == pairs.pairs[1:]
    assert edited.header.pairs_sha256 != pairs.header.pairs_sha256


def _line(**changes: object) -> str:
    pair = Pair.model_validate(
        {"split": "train", "group": "a", "input": {"path": "x", "start": 9}, "target": {"path": "y", "start": 9}}
    )
    return json.dumps({**pair.model_dump(), **changes})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "Invalid JSON"),
        ("a_input.wav a_target.wav", "Invalid JSON"),
        (_line(input={"path": "x"}), "input.start: Field required"),
        (_line(input={"path": "x", "start": -1}), "input.start: Input should be greater than or equal to 0"),
        (_line(target={"path": "x", "start": "soon"}), "target.start: Input should be a valid integer"),
        (_line(weight=2), "weight: Extra inputs are not permitted"),
        (_line(split="../elsewhere"), "split: String should match"),
        (_line(split="val"), "split: the track 'a' is in train above"),
        (_line(), "the same pair as in line 2"),
    ],
)
def test_an_edit_gone_wrong_is_named_by_its_line(tmp_path: Path, line: str, fault: str) -> None:
    sides(tmp_path, "a")
    out = tmp_path / "pairs.jsonl"
    write_pairs(out, paired(tmp_path))
    header = out.read_text().splitlines()[0]
    out.write_text("\n".join([header, _line(), "", line]) + "\n")
    with pytest.raises(MisuseError) as caught:
        read_pairs(out)
    assert str(caught.value).startswith(f"{out}: line 4: {fault}")
    assert "\n" not in str(caught.value)
    assert "mend the line" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("window_samples", 0), ("sample_rate", 44_100), ("mode", "cross"), ("version", 2)]
)
def test_a_header_gone_wrong_is_named(tmp_path: Path, key: str, value: object) -> None:
    sides(tmp_path, "a")
    out = tmp_path / "pairs.jsonl"
    write_pairs(out, paired(tmp_path))
    header, *lines = out.read_text().splitlines()
    out.write_text("\n".join([json.dumps({**json.loads(header), key: value}), *lines]))
    with pytest.raises(MisuseError, match=f"line 1: {key}: "):
        read_pairs(out)


@pytest.mark.parametrize("content", [b"", b"RIFF\xff\xfe\x00", b"[]\n", b"hello\n"])
def test_what_is_no_pairs_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(MisuseError, match="python -m pipeline pair") as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_header_without_pairs_is_refused(tmp_path: Path) -> None:
    sides(tmp_path, "a")
    out = tmp_path / "pairs.jsonl"
    write_pairs(out, paired(tmp_path))
    out.write_text(out.read_text().splitlines()[0])
    with pytest.raises(MisuseError, match="holds no pair"):
        read_pairs(out)


# What can't be used


def spoil(root: Path, kind: str) -> tuple[Path, str]:
    """Add a file that can't be used; returns its path and what the message must say of it."""
    if kind == "input without target":
        return write(root / "solo_input.wav", 1), "has no partner solo_output or _target.wav"
    if kind == "target without input":
        return write(root / "solo [live]_target.wav", 1), "has no partner solo [live]_input.wav"
    if kind == "no suffix":
        return write(root / "solo.wav", 1), "ends in neither _input nor _output nor _target"
    if kind == "both output and target":
        write(root / "good_output.wav", 1)
        return root / "good_target.wav", "good_output.wav is there as well; keep one"
    if kind == "shorter than a window":
        write(root / "short_input.wav", 1.5)
        return write(root / "short_target.wav", 0.9), "shorter than one window of 1 s"
    path = root / "broken_input.wav"
    path.write_bytes(b"\x00broken" * 99)
    return path, "unreadable"


KINDS = (
    "input without target",
    "target without input",
    "no suffix",
    "both output and target",
    "shorter than a window",
    "unreadable",
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_file_is_one_line_that_names_it_and_the_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    sides(root, "good")
    path, said = spoil(root, kind)

    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: {path}: ")
    assert said in printed.err
    assert "--skip-unusable" in printed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wavs"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_file_is_left_out_and_named_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    sides(root, "good")
    path, said = spoil(root, kind)

    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1, "--skip-unusable"]) == 0

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"left out {path}: ")
    assert said in lines[0]
    found = cuts(read_pairs(out))
    assert len(found) == 1
    assert found[0][0] == "good_input.wav"


def test_the_partner_of_an_unreadable_file_is_not_paired_with_another(tmp_path: Path) -> None:
    sides(tmp_path, "good", "broken")
    (tmp_path / "broken_input.wav").write_bytes(b"\x00" * 99)
    pairs, left_out = make_pairs(tmp_path, "suffix", 1.0, 0, 0.1, skip_unusable=True)
    assert set(split_of(pairs)) == {"good"}
    assert [str(tmp_path / name) for name in ("broken_input.wav", "broken_target.wav")] == [
        line.partition(": ")[0] for line in left_out
    ]


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_a_folder_without_audio_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    if content == "text":
        root.mkdir()
        (root / "notes.txt").write_text("a")
    assert run(["pair", root, "--out", out, "--mode", "suffix"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {root}: no audio files here")
    assert error.count("\n") == 1
    assert not out.exists()


def test_nothing_but_unusable_files_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    sides(root, "a", seconds=0.5)
    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1, "--skip-unusable"]) == 1
    assert "no pair of 1 s windows in 2 files; use shorter windows (--seconds)" in capsys.readouterr().err
    assert not out.exists()
