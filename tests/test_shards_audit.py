"""Verification, level by level: what each one finds, in the shards and beside them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import CODES, flip_byte, make_dataset, make_header, make_receipt, make_sample

from shards.audio import encode_flac
from shards.audit import LEVELS, Level, verify
from shards.errors import DatasetError
from shards.files import sha256_file
from shards.index import load_index, save_index
from shards.latents import all_finite
from shards.manifest import fingerprint, partial_folder
from shards.publish import publish
from shards.tape import Tape
from shards.wire import END
from shards.writer import Sample, sample_key, write_shard

SHARD = "train/x-train-000001.tar"
RECEIPT = "receipts/x-train-000001.tar.json"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("audit") / "x", {"train": (2, 2), "val": (1,)}, audio=("target",))


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """A dataset that a test may spoil."""
    return Path(shutil.copytree(dataset, tmp_path / "x"))


def said(path: Path, level: Level) -> list[tuple[str, str]]:
    """File and text of every problem."""
    return [(problem.file, problem.what) for problem in verify(path, level).problems]


def levels_that_find(path: Path) -> tuple[Level, ...]:
    return tuple(level for level in LEVELS if verify(path, level).problems)


@pytest.mark.parametrize("level", LEVELS)
def test_a_sound_dataset_is_sound_at_every_level(dataset: Path, level: Level) -> None:
    steps: list[int] = []
    audit = verify(dataset, level, on_shard=lambda: steps.append(1))
    assert (audit.problems, audit.shards, audit.samples, len(steps)) == ((), 3, 5, 3)


# Files beside the shards, found without opening any


@pytest.mark.parametrize("name", ["stats.json", "README.md", RECEIPT, "index/train.npy", SHARD])
def test_a_missing_file_is_named_at_every_level(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert levels_that_find(copy) == LEVELS
    ((file, what),) = said(copy, "size")
    assert file == name
    assert "missing" in what


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "train/x-train-000009.tar", "train/a.json", "receipts/x.json", "index/test.npy", ".git/config"],
)
def test_a_stray_file_is_named_at_every_level(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"stray")
    assert levels_that_find(copy) == LEVELS
    assert said(copy, "size") == [(name, "is not in the manifest")]


def test_a_stray_link_is_named_and_not_followed(copy: Path) -> None:
    (copy / "elsewhere").symlink_to(copy.parent, target_is_directory=True)
    assert said(copy, "size") == [("elsewhere", "is not in the manifest")]


def test_a_list_of_refused_pairs_is_no_stray(copy: Path) -> None:
    (copy / "rejects.jsonl").touch()
    assert levels_that_find(copy) == ()


@pytest.mark.parametrize("level", LEVELS)
def test_a_cut_shard_is_found_by_its_size(copy: Path, level: Level) -> None:
    os.truncate(copy / SHARD, 5_000)
    assert (SHARD, f"has 5000 bytes, the manifest says {(make_size(copy))}") in said(copy, level)


def make_size(folder: Path) -> int:
    content = json.loads((folder / "dataset.json").read_bytes())
    return int(next(s["bytes"] for s in content["splits"]["train"]["shards"] if s["file"] == SHARD))


# Payloads


@pytest.mark.parametrize(
    ("member", "place", "first"),
    [("target_flac", 0, "structure"), ("target_flac", 4_000, "crc"), ("input", 4_000, "crc"), ("json", 0, "structure")],
)
def test_a_flipped_byte_is_found_from_a_level_on(copy: Path, member: str, place: int, first: Level) -> None:
    row = load_index(copy / "index" / "train.npy")[2]
    flip_byte(copy / SHARD, int(row[f"{member}_offset"]) + place)
    assert levels_that_find(copy) == LEVELS[LEVELS.index(first) :]
    key = row["key"].decode()
    assert {(problem.file, problem.key) for problem in verify(copy, first).problems} <= {(SHARD, key), (SHARD, None)}


def test_an_index_whose_levels_are_not_the_records_is_found(copy: Path) -> None:
    index = np.array(load_index(copy / "index" / "train.npy"))
    index["target_rms"][2] *= 2
    save_index(copy / "index" / "train.npy", index)
    assert (SHARD, "its json's RMS of target is not the index's") in said(copy, "structure")


def test_codes_out_of_their_range_are_found(tmp_path: Path) -> None:
    for value in (-1, 1024):
        samples = [make_sample(0, codec=CODES), make_sample(1, codec=CODES)]
        samples[1].input[3, 3] = value
        write_shard(tmp_path / "two.tar", samples)
        assert said(tmp_path / "two.tar", "structure") == []
        assert said(tmp_path / "two.tar", "crc") == [("two.tar", "input.npy holds codes outside [0, 1024)")]


def test_a_shard_alone_whose_samples_hold_different_members_is_found(tmp_path: Path) -> None:
    for name, sample in (("one", make_sample(0, audio=("target",))), ("other", make_sample(1))):
        write_shard(tmp_path / name, [sample])
    parts = (tmp_path / "one").read_bytes()[: -len(END)], (tmp_path / "other").read_bytes()
    (tmp_path / "two.tar").write_bytes(b"".join(parts))
    assert said(tmp_path / "two.tar", "structure") == [
        ("two.tar", "holds input.npy, json, target.npy, not input.npy, json, target.flac, target.npy")
    ]


# What only `full` finds: everything agrees, and is not true


def publish_samples(folder: Path, samples: list[Sample], **receipt: Any) -> Path:
    written = make_receipt(partial_folder(folder), "train/x-train-000000.tar", samples)
    audio = tuple(side for side in ("input", "target") if side in samples[0].audio)
    publish(folder, make_header("x", audio=audio), [written.model_copy(update=receipt)])
    return folder


def with_target(sample: Sample, **change: object) -> Sample:
    side = sample.record.target.model_copy(update=change)
    return dataclasses.replace(sample, record=sample.record.model_copy(update={"target": side}))


def with_flac(sample: Sample, sound: Callable[[int], Any], rate: int = 24_000) -> Sample:
    return dataclasses.replace(sample, audio={"target": encode_flac(sound(40 * 320).astype(np.float32), rate)})


def sine(samples: int) -> Any:
    return 0.3 * np.sin(np.arange(samples) / 10)


SPOILED: dict[str, tuple[Callable[[Sample], Sample], str]] = {
    "another sound": (lambda s: with_flac(s, sine), "target.flac does not sound as its json says: the envelopes"),
    "a shorter sound": (lambda s: with_flac(s, lambda n: sine(n - 1)), "has 12799 samples, the window has 12800"),
    "another rate": (lambda s: with_flac(s, sine, 48_000), "target.flac can't be used: it is not mono 16-bit FLAC at"),
    "half a FLAC": (
        lambda s: dataclasses.replace(s, audio={"target": s.audio["target"][:9_000]}),
        "target.flac can't be used: it",
    ),
    "another level": (lambda s: with_target(s, rms=0.2), "does not sound as its json says: its RMS is"),
    "another start": (lambda s: with_target(s, start=7), "its key is not the hash of its sources, starts and codec"),
    "too many frames": (lambda s: with_target(s, valid_frames=41), "says 41 valid frames of target, the array has 40"),
    "no envelope": (lambda s: with_target(s, envelope=(0.5,)), "envelope of target has 1 segments, not 250"),
    "another peak": (lambda s: with_target(s, peak=0.75), "the peak 0.499"),
    "more RMS than peak": (lambda s: with_target(s, rms=0.9), "has the RMS 0.9 and the peak"),
    "a start before the file": (lambda s: with_target(s, start=-1), "target starts at sample -1"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_record_that_is_not_true_is_found(kind: str, tmp_path: Path) -> None:
    spoil, what = SPOILED[kind]
    samples = [make_sample(number, audio=("target",)) for number in range(3)]
    samples[1] = spoil(samples[1])
    path = publish_samples(tmp_path / "x", samples)
    assert levels_that_find(path) == ("full",)
    problems = verify(path, "full").problems
    assert any(what in problem.what for problem in problems)
    assert {problem.key for problem in problems} == {samples[1].record.key}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["input"]["mean"].__setitem__(5, 0.5),
        lambda s: s["target"]["max"].pop(),
        lambda s: s["target"].pop("std"),
        lambda s: s.pop("input"),
        lambda s: s.update(input=3),
        lambda s: s["input"].update(mean=["many"] * 128),
    ],
)
def test_statistics_that_are_not_those_of_the_samples_are_found(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(copy / "stats.json", change)
    assert levels_that_find(copy) == ("full",)
    assert said(copy, "full") == [("stats.json", "its statistics are not those of the samples")]


def test_statistics_of_codes_are_compared_with_the_receipts(tmp_path: Path) -> None:
    path = make_dataset(tmp_path / "x", {"train": (2, 2)}, codec=CODES)
    assert levels_that_find(path) == ()
    edit(path / "stats.json", lambda s: s["input"]["mean"].__setitem__(5, 0.5))
    assert said(path, "full") == [("stats.json", "its statistics are not those of the samples")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r.update(samples=3), "its split, samples, bytes or sha256 are not the manifest's"),
        (lambda r: r.update(sha256="0" * 64), "its split, samples, bytes or sha256 are not the manifest's"),
        (lambda r: r["rows"][1].update(json_crc32=1), "its rows are not the index's"),
        (lambda r: r["rows"].pop(), "its rows are not the index's"),
        (lambda r: r["groups"].pop(), "its tracks are not those of the shard"),
        (lambda r: r["statistics"]["input"]["total"].__setitem__(0, 99.0), "its statistics are not those of the shard"),
        (lambda r: r.update(shard="train/other.tar"), "is the receipt of train/other.tar"),
        (lambda r: r.pop("rows"), "is no receipt"),
    ],
)
def test_a_receipt_that_is_not_its_shards_is_found(
    copy: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    edit(copy / RECEIPT, change)
    assert levels_that_find(copy) == ("full",)
    assert said(copy, "full") == [(RECEIPT, what)]


def test_a_receipt_without_a_shard_is_found(copy: Path) -> None:
    content = json.loads((copy / RECEIPT).read_bytes()) | {"shard": "train/x-train-000007.tar"}
    (copy / "receipts" / "x-train-000007.tar.json").write_text(json.dumps(content))
    assert said(copy, "full") == [("receipts/x-train-000007.tar.json", "its shard is not in the manifest")]


def test_refused_pairs_that_no_receipt_tells_of_are_found(copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["rejected"] = {"silent": 1}
        content["fingerprint"] = fingerprint(content)

    edit(copy / "dataset.json", change)
    assert said(copy, "full") == [("dataset.json", "its refused pairs are not those of the receipts")]


def test_a_damaged_shard_does_not_accuse_the_documents(copy: Path) -> None:
    os.truncate(copy / SHARD, 40_000)
    assert {file for file, _ in said(copy, "full")} == {SHARD}


# One pass through a small buffer


@pytest.mark.parametrize("capacity", [1024, 1600, 4096, 20_992])
def test_payloads_larger_than_the_buffer_are_looked_at_whole(
    capacity: int, dataset: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.tape.CAPACITY", capacity)
    assert said(dataset, "full") == []
    for place in (0, 17, 2_500, 5_119):
        samples = [make_sample(0, dtype="float32"), make_sample(1, dtype="float32")]
        samples[1].target.reshape(-1)[place] = np.nan if place % 2 else -np.inf
        write_shard(tmp_path / "two.tar", samples)
        assert said(tmp_path / "two.tar", "crc") == [("two.tar", "target.npy holds values that are not finite")]
    row = load_index(copy / "index" / "train.npy")[3]
    for member in ("input", "json", "target_flac", "target"):
        place = int(row[f"{member}_offset"]) + int(row[f"{member}_bytes"]) - 2
        flip_byte(copy / SHARD, place)
        problems = verify(copy, "sha256").problems
        assert {(problem.file, problem.key) for problem in problems} == {(SHARD, row["key"].decode()), (SHARD, None)}
        flip_byte(copy / SHARD, place)
    assert said(copy, "sha256") == []


def test_a_shard_that_is_cut_while_it_is_read_is_named(dataset: Path, copy: Path) -> None:
    with (copy / SHARD).open("rb") as file:
        tape = Tape(file, hashed=True)
        os.truncate(copy / SHARD, 1000)
        with pytest.raises(DatasetError, match=r"ends at byte 1000, it had \d+ bytes: it was cut while it was read"):
            tape.sha256()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_that_are_not_finite_are_told_from_the_largest_that_are(dtype: str, value: float) -> None:
    largest = np.finfo(dtype).max
    values = np.array([0, -0.0, largest, -largest, np.finfo(dtype).smallest_subnormal] * 10, dtype)
    assert all_finite(values)
    values[33] = value
    assert not all_finite(values)
    assert all_finite(values[:0])


# What lies in two splits


def test_a_recording_in_two_splits_is_named_once_for_a_pair_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "x"
    folder = partial_folder(path)
    shared = make_sample(0).record.target
    samples = {"train": [make_sample(n) for n in range(3)]}
    for split in ("test", "val"):
        own = [make_sample(n, split, group=f"{split}-0") for n in (10, 11, 12)]
        samples[split] = [with_input(sample, path="copy of it.wav", sha256=shared.sha256) for sample in own]
    receipts = [make_receipt(folder, f"{split}/x-{split}-000000.tar", own) for split, own in samples.items()]
    publish(path, make_header("x"), receipts)
    for level in LEVELS[1:]:
        found = [problem for problem in verify(path, level).problems if "recording" in problem.what]
        assert [(problem.file, problem.what, problem.key) for problem in found] == [
            (
                file,
                f"the recording {name!r} lies in the split test as well, in test/x-test-000000.tar",
                samples[split][0].record.key,
            )
            for split, file, name in (
                ("train", "train/x-train-000000.tar", "train-0_target.wav"),
                ("val", "val/x-val-000000.tar", "copy of it.wav"),
            )
        ]
        assert all("pair the sources again" in problem.mend for problem in found)
    assert said(path, "size") == []


def with_input(sample: Sample, **change: object) -> Sample:
    side = sample.record.input.model_copy(update=change)
    key = sample_key(side, sample.record.target, sample.record.codec_fingerprint)
    return dataclasses.replace(sample, record=sample.record.model_copy(update={"input": side, "key": key}))


# The index beside the shards


@pytest.mark.parametrize("forged", [False, True])
def test_an_index_in_another_order_is_found_and_made_anew(copy: Path, forged: bool) -> None:
    path = copy / "index" / "train.npy"
    index = np.array(load_index(path))
    index["position"][:2] = 1, 0
    save_index(path, index)
    if forged:

        def change(content: dict[str, Any]) -> None:
            content["splits"]["train"]["index_sha256"] = sha256_file(path)
            content["fingerprint"] = fingerprint(content)

        edit(copy / "dataset.json", change)
    problems = [problem for problem in verify(copy, "sha256").problems if problem.file.endswith(".tar")]
    assert [(problem.file, problem.what) for problem in problems] == [
        ("train/x-train-000000.tar", "the index has its samples in another order")
    ]
    assert problems[0].mend == "`python -m shards index DATASET --rebuild` makes it anew"


def test_a_damaged_member_is_named_with_its_byte(copy: Path) -> None:
    row = load_index(copy / "index" / "train.npy")[2]
    place = int(row["input_offset"])
    flip_byte(copy / SHARD, place)
    (problem, *_) = verify(copy, "structure").problems
    assert str(problem) == (
        f"{SHARD}: sample {row['key'].decode()}: input.npy can't be read: its header is not in the plain .npy form of "
        f"the format, at byte {place}; restore the shard from a copy, or make it again with "
        f"`python -m pipeline encode PAIRS.jsonl --out DATASET --only {SHARD}`"
    )
