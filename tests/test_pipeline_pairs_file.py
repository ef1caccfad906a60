"""The pairs file: what is in it, what a person may edit, and how an edit gone wrong is answered."""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import RATE, paired, sides, write

from pipeline.pairing import Cut, ModeOptions, Pair, Pairs, PairsHeader, SourceFile, read_pairs, write_pairs
from shards.errors import MisuseError
from shards.files import canonical_json, sha256_bytes


def header(**changes: object) -> PairsHeader:
    given = {"mode": "suffix", "root": "/r", "window_samples": 9, "seed": 0, "val_fraction": 0.1, "pairs_sha256": ""}
    return PairsHeader.model_validate({**given, **changes})


def line(**changes: object) -> str:
    return json.dumps({**Pair("train", "a", Cut("x", 9), Cut("y", 9)).as_json(), **changes})


def source(path: str, content: str = "") -> str:
    return json.dumps(SourceFile(path, content or path, 44_100, 2, 1.5)._asdict())


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join([header().model_dump_json(), *lines]) + "\n")
    return path


def test_the_file_is_json_lines_a_header_the_sources_and_the_pairs(tmp_path: Path) -> None:
    sides(tmp_path / "wavs", "train/a", "val/b", seconds=2)
    write(tmp_path / "wavs" / "train/a_target.wav", 2.25, rate=8_000)
    pairs = paired(tmp_path / "wavs")
    out = tmp_path / "new folder" / "pairs.jsonl"
    write_pairs(out, pairs)

    head, *lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert head == {
        "format": "cascadence-pairs",
        "version": 2,
        "mode": "suffix",
        "root": str(tmp_path / "wavs"),
        "window_samples": RATE,
        "sample_rate": RATE,
        "seed": 0,
        "val_fraction": 0.1,
        "pairs_sha256": pairs.header.pairs_sha256,
    }
    names = ["train/a_input.wav", "train/a_target.wav", "val/b_input.wav", "val/b_target.wav"]
    assert [listed["source"] for listed in lines[:4]] == names
    assert lines[1] == {
        "source": "train/a_target.wav",
        "sha256": hashlib.sha256(Path(head["root"], "train/a_target.wav").read_bytes()).hexdigest(),
        "sample_rate": 8_000,
        "channels": 1,
        "seconds": 2.25,
    }
    assert lines[5] == {
        "split": "train",
        "group": "train/a",
        "input": {"path": "train/a_input.wav", "start": RATE},
        "target": {"path": "train/a_target.wav", "start": RATE},
    }
    assert len(lines) == 4 + 4
    assert read_pairs(out) == pairs
    assert pairs.sources["train/a_target.wav"] == lines[1]["sha256"]
    assert [path.name for path in out.parent.iterdir()] == ["pairs.jsonl"]


def test_the_header_says_what_was_asked_for_and_nothing_that_does_not_apply(tmp_path: Path) -> None:
    for name in ("drums/a", "drums/b", "piano/c", "piano/d"):
        write(tmp_path / f"{name}.wav", 3)
    cross = paired(tmp_path, "cross", options=ModeOptions(inputs="drums", targets="*/[cd].wav", max_per_track=2))
    asked = {"inputs": "drums", "targets": "*/[cd].wav", "max_per_track": 2, "partners": 1, "choose": "seeded"}
    common = {"format", "version", "mode", "root", "window_samples", "sample_rate", "seed", "val_fraction"}
    head = cross.header.model_dump()
    assert {key: head.pop(key) for key in asked} == asked
    assert set(head) == common | {"pairs_sha256"}
    assert list(head)[:3] == ["format", "version", "mode"], "what a reader looks for comes first"
    assert set(paired(tmp_path, "continuation").header.model_dump()) == common | {"pairs_sha256"}


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
CUTS = st.builds(Cut, TEXT, st.integers(0, 2**40))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(CUTS, CUTS), min_size=1, max_size=5, unique=True), st.sampled_from(["train", "val", "x-1"]))
def test_what_is_written_is_what_is_read(links: list[tuple[Cut, Cut]], split: str) -> None:
    pairs = tuple(Pair(split, f"group of {first.path}", first, second) for first, second in links)
    files = tuple(SourceFile(path, path, 44_100, 2, 0.25) for path in sorted({pair.input.path for pair in pairs}))
    digest = sha256_bytes(canonical_json(pairs))
    written = Pairs(header=header(pairs_sha256=digest), files=files, pairs=pairs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        write_pairs(path, written)
        assert read_pairs(path) == written
    assert pickle.loads(pickle.dumps(pairs)) == pairs


def test_an_edited_file_is_what_counts(tmp_path: Path) -> None:
    whole = read_pairs(file_of(tmp_path, line(), line(group="b")))
    edited = read_pairs(file_of(tmp_path, "", line(group="b"), "  "))
    assert edited.pairs == whole.pairs[1:]
    assert edited.header.pairs_sha256 != whole.header.pairs_sha256


def test_how_a_line_is_written_does_not_count(tmp_path: Path) -> None:
    one = read_pairs(file_of(tmp_path, source("x"), line()))
    reordered = json.dumps(json.loads(line()), sort_keys=True, indent=None, separators=(" , ", " : "))
    sorted_source = json.dumps(json.loads(source("x")), sort_keys=True, separators=(",", " :"))
    assert read_pairs(file_of(tmp_path, reordered, sorted_source)) == one


def test_a_pair_may_name_a_file_that_is_not_listed(tmp_path: Path) -> None:
    pairs = read_pairs(file_of(tmp_path, source("x"), line()))
    assert dict(pairs.sources) == {"x": "x"}
    assert pairs.pairs[0].target.path == "y"


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("{", "Invalid JSON"),
        ("a_input.wav a_target.wav", "Invalid JSON"),
        (line(input={"path": "x"}), "input.start: Field required"),
        (line(input={"path": "x", "start": -1}), "input.start: Input should be greater than or equal to 0"),
        (line(target={"path": "x", "start": "soon"}), "target.start: Input should be a valid integer"),
        (line(weight=2), "weight: Extra inputs are not permitted"),
        (line(split="../elsewhere"), "split: String should match"),
        (line(split="val"), "split: the track 'a' is in train above"),
        (line(split="val", group="b"), "split: the file 'x' is in train above"),
        (line(split="val", group="b", input={"path": "z", "start": 0}), "split: the file 'y' is in train above"),
        (line(), "the same pair as in line 3"),
        (source("x"), "source: 'x' is listed above"),
        (source("x")[:-1] + ', "split": "a"}', "split: Extra inputs are not permitted"),
        ('{"source": "z"}', "sha256: Field required"),
    ],
)
def test_an_edit_gone_wrong_is_named_by_its_line(tmp_path: Path, wrong: str, fault: str) -> None:
    path = file_of(tmp_path, source("x"), line(), "", line(group="c", input={"path": "x", "start": 0}), wrong)
    with pytest.raises(MisuseError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}: line 6: {fault}")
    assert "\n" not in str(caught.value)
    assert "mend the line" in str(caught.value)


@pytest.mark.parametrize("late", [True, False], ids=["listed after the pairs", "listed before them"])
def test_one_recording_under_two_names_is_refused_in_two_splits(tmp_path: Path, late: bool) -> None:
    other = line(split="val", group="b", input={"path": "copy", "start": 0}, target={"path": "copy", "start": 1})
    listed = [source("y", "same"), source("copy", "same")]
    lines = [line(), other, *listed] if late else [*listed, line(), other]
    with pytest.raises(MisuseError, match="'copy' is the same recording as 'y', which is in train above") as caught:
        read_pairs(file_of(tmp_path, *lines))
    assert f"line {3 if late else 5}: " in str(caught.value)
    together = other.replace('"val"', '"train"')
    assert len(read_pairs(file_of(tmp_path, *listed, line(), together)).pairs) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window_samples", 0),
        ("sample_rate", 44_100),
        ("mode", "shuffle"),
        ("version", 1),
        ("choose", "best"),
        ("partners", 0),
    ],
)
def test_a_header_gone_wrong_is_named(tmp_path: Path, key: str, value: object) -> None:
    path = file_of(tmp_path, line())
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(head), key: value}), *lines]))
    with pytest.raises(MisuseError, match=f"line 1: {key}: "):
        read_pairs(path)


@pytest.mark.parametrize("content", [b"", b"RIFF\xff\xfe\x00", b"[]\n", b"hello\n"])
def test_what_is_no_pairs_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(MisuseError, match="python -m pipeline pair") as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="holds no pair"):
        read_pairs(file_of(tmp_path, source("x")))
