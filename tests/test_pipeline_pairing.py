"""Pairing: which windows go together, in which split, and what is said of files that can't be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from recordings import RATE, cuts, paired, sides, split_of, write

from pipeline.cli.app import app
from pipeline.pairing import ModeOptions, make_pairs, read_pairs
from shards import console
from shards.errors import CascadenceError


def run(arguments: Sequence[object]) -> int:
    with pytest.raises(SystemExit) as exited:
        console.run(app, "python -m pipeline", [str(argument) for argument in arguments])
    return int(exited.value.code or 0)


# Suffixes


@pytest.mark.parametrize("other", ["output", "target"])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "WAV"])
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
    (tmp_path / "._a_input.wav").write_bytes(b"what macOS leaves beside a file")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "b_input.wav").write_bytes(b"hidden")
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
    with pytest.raises(CascadenceError, match="shorter than two windows") as caught:
        paired(tmp_path, "continuation")
    assert str(caught.value).startswith(f"{short}: ")
    pairs, left_out = make_pairs(tmp_path, "continuation", 1.0, 0, 0.1)
    assert set(split_of(pairs)) == {"long.wav"}
    assert [(out.path, out.reason) for out in left_out] == [("short.wav", "too_short")]


def test_the_pairs_of_a_long_track_may_be_limited_and_are_spread_over_it(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", 11)
    write(tmp_path / "short.wav", 3)
    pairs = paired(tmp_path, "continuation", options=ModeOptions(max_per_track=3))
    starts = [(path, start // RATE) for path, start, *_ in cuts(pairs)]
    assert starts == [("long.wav", 1), ("long.wav", 5), ("long.wav", 8), ("short.wav", 0), ("short.wav", 1)]


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
def test_where_one_is_strict_an_unusable_file_is_an_error_that_names_it_and_the_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    sides(root, "good")
    path, said = spoil(root, kind)

    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1, "--strict"]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: {path}: ")
    assert said in printed.err
    assert "or leave out --strict" in printed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wavs"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_file_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    sides(root, "good")
    path, said = spoil(root, kind)

    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1]) == 0

    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith(f"left out {path}: "))
    assert said in line
    assert len(lines) == (2 if kind == "shorter than a window" else 1), "the partner of a file is left out as well"
    found = cuts(read_pairs(out))
    assert len(found) == 1
    assert found[0][0] == "good_input.wav"


def test_the_partner_of_an_unreadable_file_is_not_paired_with_another(tmp_path: Path) -> None:
    sides(tmp_path, "good", "broken")
    (tmp_path / "broken_input.wav").write_bytes(b"\x00" * 99)
    pairs, left_out = make_pairs(tmp_path, "suffix", 1.0, 0, 0.1)
    assert set(split_of(pairs)) == {"good"}
    assert [(out.path, out.reason) for out in left_out] == [
        ("broken_input.wav", "unreadable"),
        ("broken_target.wav", "no_partner"),
    ]
    assert "its partner broken_input.wav can't be used" in left_out[1].message


def test_of_two_targets_the_one_that_can_be_used_is_taken(tmp_path: Path) -> None:
    sides(tmp_path, "a")
    (tmp_path / "a_output.wav").write_bytes(b"broken")
    pairs, left_out = make_pairs(tmp_path, "suffix", 1.0, 0, 0.1)
    assert cuts(pairs) == [("a_input.wav", 0, "a_target.wav", 0)]
    assert [(out.path, out.reason) for out in left_out] == [("a_output.wav", "unreadable")]


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "wavs", tmp_path / "pairs.jsonl"
    write(root / "good.wav", 2)
    (root / "good.wav").with_name("b\udcffd.wav").write_bytes(write(tmp_path / "other.wav", 2).read_bytes())
    assert run(["pair", root, "--out", out, "--mode", "continuation", "--seconds", 1]) == 0
    assert "its name is no text in UTF-8; rename it" in capsys.readouterr().err
    assert run(["pair", root, "--out", out, "--mode", "continuation", "--seconds", 1, "--json"]) == 0
    assert [file["reason"] for file in json.loads(capsys.readouterr().out)["left_out"]] == ["name"]
    assert set(read_pairs(out).sources) == {"good.wav"}


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
    assert run(["pair", root, "--out", out, "--mode", "suffix", "--seconds", 1]) == 1
    assert "no pair of 1 s windows in 2 files (2 too short); use shorter windows (--seconds)" in capsys.readouterr().err
    assert not out.exists()
