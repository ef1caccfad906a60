"""`python -m pipeline`: exit codes, what is printed for people and for programs, and how misuse is answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from pipeline.cli.app import app
from pipeline.pairing import read_pairs
from pipeline.synthesize import synthesize_pair
from shards import console
from shards.dataset import open_dataset

Capture = pytest.CaptureFixture[str]


def cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exited:
        console.run(app, "python -m pipeline", [str(argument) for argument in arguments])
    return int(exited.value.code or 0)


def printed(capsys: Capture) -> Any:
    """The JSON that a command printed, and nothing else."""
    return json.loads(capsys.readouterr().out)


def misused(capsys: Capture, *arguments: object) -> str:
    """Run a command that is wrong; returns its one line."""
    assert cli(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err[len("error: ") : -1]


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of half a second, through the command itself."""
    out = tmp_path_factory.mktemp("music") / "wavs"
    assert cli("synthesize", out, "--pairs", 4, "--seconds", 0.5, "--seed", 3) == 0
    return out


@pytest.fixture
def pairs(music: Path, tmp_path: Path, capsys: Capture) -> Path:
    path = tmp_path / "pairs.jsonl"
    assert cli("pair", music, "--out", path, "--mode", "suffix", "--seconds", 0.5) == 0
    capsys.readouterr()
    return path


# synthesize


def test_synthesize_writes_wavs_at_the_codec_s_rate_by_split(music: Path) -> None:
    expected = {
        music / ("val" if index == 3 else "train") / f"pair_{index:04d}_{side}.wav"
        for index in range(4)
        for side in ("input", "target")
    }
    assert {path for path in music.rglob("*") if path.is_file()} == expected
    for path in expected:
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 24_000, 1)
        assert info.frames == 12_000


def test_synthesize_puts_the_drums_in_the_input_and_the_piano_in_the_target(music: Path) -> None:
    pair = synthesize_pair(3, 1, 0.5)
    for side, samples in (("input", pair.drums), ("target", pair.piano)):
        written, _ = soundfile.read(music / "train" / f"pair_0001_{side}.wav", dtype="float32")
        np.testing.assert_allclose(written, samples, atol=2**-14)


def test_synthesize_leaves_no_pairs_of_another_call_among_its_own(tmp_path: Path, capsys: Capture) -> None:
    call = ("synthesize", tmp_path / "wavs", "--seconds", 0.5, "--pairs")
    assert cli(*call, 3) == 0
    assert cli(*call, 3) == 0, "the same again is no stranger"
    capsys.readouterr()
    said = misused(capsys, *call, 2)
    assert "is there already and not one of these pairs" in said
    assert "choose another OUT_DIR" in said


def test_synthesize_reports_in_json(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "w"
    assert cli("synthesize", out, "--pairs", 2, "--seconds", 0.5, "--json") == 0
    assert printed(capsys) == {"out": str(out), "pairs": {"train": 1, "val": 1}, "seconds": 0.5, "seed": 0}


@pytest.mark.parametrize("option", [("--pairs", 0), ("--seconds", 0.1), ("--seed", -1)])
def test_synthesize_refuses_what_makes_no_music(tmp_path: Path, capsys: Capture, option: tuple[str, object]) -> None:
    assert cli("synthesize", tmp_path / "w", *option) == 2
    assert option[0] in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("command", ["synthesize", "pair", "encode"])
def test_the_bar_of_a_terminal_is_drawn(
    command: str, music: Path, pairs: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=True, width=120))
    if command == "synthesize":
        assert cli("synthesize", tmp_path / "w", "--pairs", 2, "--seconds", 0.5) == 0
    elif command == "pair":
        assert cli("pair", music, "--out", tmp_path / "p.jsonl", "--mode", "suffix", "--seconds", 0.5) == 0
    else:
        assert cli("encode", pairs, "--out", tmp_path / "ds", "--codec", "mdct", "--local") == 0
    said = capsys.readouterr()
    assert {"synthesize": "2/2", "pair": "8/8", "encode": "4/4"}[command] in said.err
    assert ("files" if command == "pair" else "pairs") in said.err
    assert said.out.startswith(str(tmp_path))


# pair


def test_pair_reports_each_split(music: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "p.jsonl"
    assert cli("pair", music, "--out", out, "--mode", "suffix", "--seconds", 0.25, "--json") == 0
    assert printed(capsys) == {
        "out": str(out),
        "mode": "suffix",
        "left_out": [],
        "splits": {
            "train": {"groups": 3, "tracks": 6, "windows": 12, "pairs": 6, "hours": 6 * 0.25 / 3600},
            "val": {"groups": 1, "tracks": 2, "windows": 4, "pairs": 2, "hours": 2 * 0.25 / 3600},
        },
        "sources": {"files": 8, "hours": 8 * 0.5 / 3600, "formats": {"wav": 8}, "sample_rates": {"24000": 8}},
    }
    assert len(read_pairs(out).pairs) == 8


def test_pair_reports_what_it_left_out(music: Path, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "wavs"
    root.mkdir()
    for side in ("input", "target"):
        (root / f"a_{side}.wav").write_bytes((music / "train" / f"pair_0000_{side}.wav").read_bytes())
    (root / "b_input.wav").write_bytes(b"hello" * 99)
    arguments = ["pair", root, "--out", tmp_path / "p.jsonl", "--mode", "suffix", "--seconds", 0.5]
    assert cli(*arguments, "--json") == 0
    (file,) = printed(capsys)["left_out"]
    assert (file["path"], file["reason"]) == ("b_input.wav", "unreadable")
    assert file["message"].startswith(f"{root / 'b_input.wav'}: unreadable: ")


def test_pair_names_the_first_few_files_of_each_reason(music: Path, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "wavs"
    shutil.copytree(music, root)
    for number in range(5):
        (root / "train" / f"{number}_input.wav").write_bytes(b"")
    (root / "train" / "stray.wav").write_bytes((music / "train" / "pair_0000_input.wav").read_bytes())
    assert cli("pair", root, "--out", tmp_path / "p.jsonl", "--mode", "suffix", "--seconds", 0.5) == 0
    lines = capsys.readouterr().err.splitlines()
    named = [f"left out {root / 'train' / str(number)}" for number in range(3)]
    assert [line.partition("_input")[0] for line in lines[:3]] == named
    assert lines[3] == "left out 5 files in all: empty (--json names them)"
    assert lines[4].startswith(f"left out {root / 'train' / 'stray.wav'}: its name ends in neither")
    assert len(lines) == 5


def test_pair_says_where_there_are_too_few_targets(music: Path, tmp_path: Path, capsys: Capture) -> None:
    patterns = ("--inputs", "**/*_input.wav", "--targets", "**/*_target.wav")
    out = tmp_path / "p.jsonl"
    assert cli("pair", music, "--out", out, "--mode", "cross", *patterns, "--partners", 3, "--seconds", 0.5) == 0
    assert capsys.readouterr().err == "val has too few targets: some inputs got 1 of 3 partners\n"
    assert len(read_pairs(out).pairs) == 3 * 3 + 1


def test_pair_shows_a_table_to_people(music: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a [1].jsonl"
    assert cli("pair", music, "--out", out, "--mode", "continuation", "--seconds", 0.1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(out)
    assert [line.split() for line in lines[1:-1]] == [
        ["split", "groups", "tracks", "windows", "pairs", "hours"],
        ["train", "6", "6", "30", "24", "0.001"],
        ["val", "2", "2", "10", "8", "0.000"],
    ]
    assert lines[-1] == "from 8 files of 0.001 h: 8 wav; 8 at 24000 Hz"


@pytest.mark.parametrize("wrong", [("--mode", "nearest"), ("--val-fraction", 2), ("--seconds", 0), ("--seed", -1)])
def test_pair_refuses_options_without_sense(
    music: Path, tmp_path: Path, capsys: Capture, wrong: tuple[str, object]
) -> None:
    out = tmp_path / "p.jsonl"
    assert cli("pair", music, "--out", out, "--mode", "suffix", *wrong) == 2
    assert wrong[0] in capsys.readouterr().err
    assert not out.exists()


def test_pair_of_a_folder_that_is_not_there_names_it(tmp_path: Path, capsys: Capture) -> None:
    said = misused(capsys, "pair", tmp_path / "absent", "--out", tmp_path / "p.jsonl", "--mode", "suffix")
    assert said.startswith(f"{tmp_path / 'absent'}: ")


def test_pair_to_a_place_that_can_not_be_written_names_it(music: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    arguments = ["pair", music, "--mode", "suffix", "--seconds", 0.5]
    assert cli(*arguments, "--out", tmp_path / "file" / "p.jsonl") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file'}")
    assert error.count("\n") == 1


def test_pair_over_a_folder_names_it_and_leaves_nothing(music: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").mkdir()
    assert cli("pair", music, "--mode", "suffix", "--seconds", 0.5, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'out'}: Is a directory\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


# encode


def test_encode_reports_in_json_and_again(pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "ds"
    arguments = ["encode", pairs, "--out", out, "--codec", "mdct", "--local", "--json", "--config", "small_shards"]
    for encoded, kept in ((2, 0), (0, 2)):
        assert cli(*arguments) == 0
        assert printed(capsys) == {
            "out": str(out),
            "samples": 4,
            "shards": 2,
            "rejected": {},
            "encoded_shards": encoded,
            "kept_shards": kept,
            "fingerprint": open_dataset(out).manifest.fingerprint,
        }


def test_encode_tells_people_what_it_made_and_what_it_refused(pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    lines = pairs.read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if '"target"' in line)
    first = json.loads(lines[place])
    first["target"]["path"] = "absent.wav"
    pairs.write_text("\n".join([*lines[:place], json.dumps(first), *lines[place + 1 :]]))
    out = tmp_path / "ds [live]"
    arguments = ["encode", pairs, "--out", out, "--codec", "mdct", "--local", "--max-reject-fraction", 0.25]
    assert cli(*arguments) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{out}: 3 pairs in 2 shards (0 kept from before), 1 refused",
        " refused  pairs  for example                       ",
        " missing  1      absent.wav: there is no such file ",
        f"all refused pairs are listed in {out / 'rejects.jsonl'}",
    ]
    assert said.err.splitlines()[-1].startswith("encoded 4/4 pairs, 2/2 shards, ")


def test_a_configuration_file_and_options_are_recorded(pairs: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("output: {samples_per_shard: 1, latents: float32}\ncodec: {name: mdct}\n")
    out = tmp_path / "ds"
    assert cli("encode", pairs, "--out", out, "--local", "--config", config, "--set", "output.name=night music") == 0
    manifest = open_dataset(out).manifest
    assert manifest.name == "night music"
    assert [len(entry.shards) for entry in manifest.splits.values()] == [3, 1]
    assert manifest.splits["val"].shards[0].file == "val/night music-val-000000.tar"
    output = manifest.build.config["output"]
    assert output == {"name": "night music", "samples_per_shard": 1, "latents": "float32", "audio": "none"}
    assert {field.dtype for field in manifest.fields} == {"float32"}


WRONG = [
    (
        ("--set", "output.sample_per_shard=3"),
        "--set output.sample_per_shard=3: unknown key 'output.sample_per_shard'; "
        "did you mean 'output.samples_per_shard'?",
    ),
    (
        ("--set", "samples_per_shard=3"),
        "--set samples_per_shard=3: unknown key 'samples_per_shard'; did you mean 'output.samples_per_shard'?",
    ),
    (
        ("--set", "output.samples_per_shard=0"),
        "configuration: output.samples_per_shard: Input should be greater than or equal to 1 (given: 0)",
    ),
    (
        ("--set", "output.latents=float8"),
        "configuration: output.latents: Input should be 'float16', 'float32' or 'codes' (given: 'float8')",
    ),
    (
        ("--max-reject-fraction", "1.5"),
        "configuration: max_reject_fraction: Input should be less than or equal to 1 (given: 1.5)",
    ),
    (
        ("--config", "small_shard"),
        "--config small_shard: neither a file nor one of: small_shards; did you mean 'small_shards'?",
    ),
    (("--set", "output"), "--set output: write it as --set section.key=value"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_wrong_setting_is_one_line_with_the_mend(
    pairs: Path, tmp_path: Path, capsys: Capture, options: tuple[str, ...], message: str
) -> None:
    assert misused(capsys, "encode", pairs, "--out", tmp_path / "ds", "--codec", "mdct", "--local", *options) == message
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_wrong_key_in_a_file_names_the_file(pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("screening: {silence: 0.1}\n")
    said = misused(capsys, "encode", pairs, "--out", tmp_path / "ds", "--local", "--config", config)
    assert said == f"{config}: unknown key 'screening.silence'; did you mean 'screening.silence_rms'?"


def test_a_missing_pairs_file_is_named_with_the_command_that_makes_one(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "absent.jsonl"
    said = misused(capsys, "encode", path, "--out", tmp_path / "ds", "--codec", "mdct", "--local")
    assert said == f"{path}: there is no such pairs file; make one with `python -m pipeline pair`"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_a_pairs_file_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert cli("encode", tmp_path, "--out", tmp_path / "ds", "--codec", "mdct", "--local") == 1
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"


def test_debug_shows_the_traceback_and_the_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "absent.jsonl"
    assert cli("encode", path, "--out", tmp_path / "ds", "--local", "--debug") == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "error: " in error.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("--help",), ("encode", "--help"), ("pair", "--help"), ("synthesize", "--help")])
def test_help_ends_well(capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments) == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("encod",), ("encode",), ("pair", "x"), ("encode", "x", "--out", "y", "--fast")])
def test_a_command_that_is_none_is_misuse(arguments: tuple[str, ...], capsys: Capture) -> None:
    assert cli(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
