"""`python -m shards`: what each verb says, its exit code, and every damage that `verify` must find and name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command import assert_one_line, run_shards
from make_data import flip_byte, make_dataset, make_header, make_receipt, make_sample

from shards.audit import LEVELS, Audit, Level, verify
from shards.dataset import Dataset, open_dataset
from shards.index import load_index, save_index
from shards.manifest import fingerprint, partial_folder
from shards.publish import publish
from shards.wire import BLOCK, END, Member, encode_array, walk
from shards.writer import Sample, write_shard

ROOT = Path(__file__).parent.parent
COLOUR = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
SHARD = "train/tiny-v1-train-000001.tar"
"""The shard that is damaged: samples 10 to 19 of the train split."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_dataset(tmp_path_factory.mktemp("cli") / "tiny-v1"))


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    """A copy of the dataset, to be damaged."""
    return shutil.copytree(dataset.path, tmp_path / "copy")


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in COLOUR}


# info


def test_info_summarises(dataset: Dataset) -> None:
    outcome = run_shards("info", dataset.path)
    assert (outcome.code, outcome.err) == (0, "")
    for part in ("tiny-v1", "27", "0.004 h", "mdct", dataset.manifest.fingerprint, "train", "val", "23"):
        assert part in outcome.out


def test_info_json_holds_the_numbers(dataset: Dataset) -> None:
    content = run_shards("info", dataset.path, "--json").json
    assert content["samples"] == 27
    assert content["seconds"] == pytest.approx(40 * 320 / 24_000)
    assert content["hours"] == pytest.approx(27 * 40 * 320 / 24_000 / 3600)
    assert content["fingerprint"] == dataset.manifest.fingerprint
    assert content["codec"]["name"] == "mdct"
    assert (content["shape"], content["dtype"]) == ([128, 40], "float16")
    sizes = {split: sum(f.stat().st_size for f in (dataset.path / split).iterdir()) for split in ("train", "val")}
    assert content["bytes"] == sum(sizes.values())
    assert {name: entry["bytes"] for name, entry in content["splits"].items()} == sizes
    assert {name: entry["shards"] for name, entry in content["splits"].items()} == {"train": 3, "val": 1}
    assert {name: entry["samples"] for name, entry in content["splits"].items()} == {"train": 23, "val": 4}


# list


def test_list_shows_every_key_whole(dataset: Dataset) -> None:
    outcome = run_shards("list", dataset.path, "--limit", 0)
    assert outcome.code == 0
    for split in ("train", "val"):
        for row in dataset.index(split):
            line = next(line for line in outcome.out.splitlines() if row["key"].decode() in line)
            assert f"{dataset.splits[split].shards[row['shard']].file}#{row['position']}" in line


def test_list_json_holds_places_and_levels(dataset: Dataset) -> None:
    content = run_shards("list", dataset.path, "--split", "train", "--limit", 12, "--json").json
    assert content["total"] == 23
    assert [sample["key"] for sample in content["samples"]] == [k.decode() for k in dataset.index("train")["key"][:12]]
    last = content["samples"][11]
    assert (last["shard"], last["position"], last["split"]) == (SHARD, 1, "train")
    assert last["input_rms"] == last["target_rms"] == pytest.approx(0.111)
    assert 2 * 128 * 40 * 2 < last["bytes"] < 30_000


def test_list_is_limited_over_all_splits(dataset: Dataset) -> None:
    assert "20 of 27; --limit 0 shows all" in run_shards("list", dataset.path).out
    content = run_shards("list", dataset.path, "--limit", 25, "--json").json
    assert [sample["split"] for sample in content["samples"]] == ["train"] * 23 + ["val"] * 2
    assert len(run_shards("list", dataset.path, "--limit", 0, "--json").json["samples"]) == 27
    assert len(run_shards("list", dataset.path, "--limit", 5, "--json").json["samples"]) == 5


# show


def test_show_holds_the_record_and_the_statistics_of_the_arrays(dataset: Dataset) -> None:
    sample = make_sample(12, group="train-0")
    content = run_shards("show", dataset.path, sample.record.key, "--json").json
    assert content["record"] == sample.record.model_dump(mode="json")
    assert (content["split"], content["shard"], content["position"]) == ("train", SHARD, 2)
    for side, array in (("input", sample.input), ("target", sample.target)):
        shown = content["arrays"][side]
        values = array.astype(np.float64)
        assert (shown["dtype"], shown["shape"], shown["finite"]) == ("float16", [128, 40], True)
        assert [shown[name] for name in ("mean", "std", "min", "max")] == pytest.approx(
            [values.mean(), values.std(), values.min(), values.max()]
        )


def test_show_finds_a_sample_by_all_its_names(dataset: Dataset) -> None:
    key = make_sample(12, group="train-0").record.key
    for name in (key, key[:10], f"{SHARD}#2", "tiny-v1-train-000001.tar#2", "train:12", "12"):
        outcome = run_shards("show", dataset.path, name)
        assert outcome.code == 0
        for part in (key, f"{SHARD}#2", "train-0_input.wav", "input.latents.std", "[128, 40]", "float16"):
            assert part in outcome.out


@pytest.mark.parametrize(("member", "word"), [("input", "input of sample"), ("json", "json of sample")])
def test_show_of_a_damaged_sample_is_one_line(copy: Path, member: str, word: str) -> None:
    row = open_dataset(copy).index("train")[12]
    flip_byte(copy / SHARD, int(row[f"{member}_offset"]) + 3)
    outcome = run_shards("show", copy, "train:12")
    assert_one_line(outcome, 1, f"{copy / SHARD}: {word}", row["key"].decode(), str(row[f"{member}_offset"]), "restore")


# Errors


def test_a_missing_dataset_is_one_line_and_1(tmp_path: Path) -> None:
    for verb in (["info"], ["list"], ["show", "0"], ["verify"]):
        outcome = run_shards(verb[0], tmp_path / "none", *verb[1:])
        assert_one_line(outcome, 1, f"{tmp_path / 'none'}: there is no such dataset", "python -m pipeline encode")


def test_a_cut_shard_is_one_line_and_1(copy: Path) -> None:
    shard = copy / SHARD
    shard.write_bytes(shard.read_bytes()[:-5000])
    assert_one_line(run_shards("info", copy), 1, f"{shard}: has {shard.stat().st_size} bytes, the manifest says")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "zz"], "no sample named 'zz'"),
        (["show", ""], "27 samples named ''"),
        (["list", "--split", "test"], "there is no split 'test'; choose one of: train, val"),
    ],
)
def test_misuse_is_one_line_and_2(dataset: Dataset, arguments: list[str], message: str) -> None:
    assert_one_line(run_shards(arguments[0], dataset.path, *arguments[1:]), 2, message)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["info"], ["list", ".", "--limit", "-1"], ["verify", ".", "--level", "deep"]]
)
def test_a_wrong_command_line_is_2(arguments: list[str]) -> None:
    outcome = run_shards(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_debug_shows_the_traceback_as_well(tmp_path: Path) -> None:
    outcome = run_shards("info", tmp_path / "none", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "open_dataset" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")


def test_an_error_with_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    assert_one_line(run_shards("info", tmp_path / "[red]x[/]"), 1, f"{tmp_path}/[red]x[/]: there is no such dataset")


def test_the_verbs_run_without_torch(dataset: Dataset) -> None:
    commands = [["info"], ["list"], ["show", "0"], ["verify", "--level", "full"]]
    program = f"""
import sys
sys.modules["torch"] = None
from shards.cli.app import app
from shards.console import run
for verb, *rest in {commands!r}:
    try:
        run(app, "shards", [verb, {str(dataset.path)!r}, *rest])
    except SystemExit as exited:
        assert exited.code == 0, (verb, exited.code)
heavy = {{"ray", "mlflow", "torchaudio", "encodec", "matplotlib"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=plain_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sound" in done.stdout


def test_the_module_runs_and_exits_with_its_code(dataset: Dataset) -> None:
    command = [sys.executable, "-m", "shards", "show", str(dataset.path), "zz", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# verify, where all is well


def test_verify_says_that_a_sound_dataset_is_sound(dataset: Dataset) -> None:
    for level in LEVELS:
        outcome = run_shards("verify", dataset.path, "--level", level)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == f"{dataset.path}: sound, level {level}: 4 shards, 27 samples\n"
    content = run_shards("verify", dataset.path, "--json").json
    assert content == {"ok": True, "level": "sha256", "shards": 4, "samples": 27, "problems": []}
    assert get_args(Level) == LEVELS


def test_verify_takes_one_shard(dataset: Dataset) -> None:
    outcome = run_shards("verify", dataset.path / SHARD)
    assert (outcome.code, outcome.out) == (0, f"{dataset.path / SHARD}: sound, level sha256: 1 shards, 10 samples\n")


def test_verify_looks_at_every_shard(dataset: Dataset) -> None:
    steps: list[int] = []
    verify(dataset.path, "structure", on_shard=lambda: steps.append(1))
    assert len(steps) == 4


# verify, where something is wrong


def members(shard: Path) -> list[Member]:
    return list(walk(shard.read_bytes()))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def patch(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def found(audit: Audit, key: str | None = None, file: str = SHARD) -> list[str]:
    """What was found at a shard, or at one of its samples."""
    return [problem.what for problem in audit.problems if problem.file == file and problem.key == key]


def suspects(audit: Audit) -> set[tuple[str, str | None]]:
    return {(problem.file, problem.key) for problem in audit.problems}


@pytest.fixture
def keys(dataset: Dataset) -> list[str]:
    """Keys of the damaged shard."""
    return [key.decode() for key in dataset.index("train")["key"][10:20]]


# Damage that the structure shows, in a whole dataset: the shard is named, every lost key and no other.

LOST: dict[str, tuple[Callable[[Path, list[Member]], object], int, str]] = {
    # how, samples that are left, what is said of the shard
    "cut at a sample's boundary": (lambda p, m: cut(p, m[12].offset - BLOCK), 4, "without the end marker: it was cut"),
    "cut at a member's boundary": (lambda p, m: cut(p, m[13].offset - BLOCK), 4, "without the end marker: it was cut"),
    "cut in a header": (lambda p, m: cut(p, m[13].offset - 100), 4, "without the end marker: it was cut"),
    "cut in the data": (lambda p, m: cut(p, m[14].offset + 1000), 4, "1000 are there: it was cut"),
    "bit flipped in a header": (lambda p, m: flip_byte(p, m[13].offset - BLOCK + 3), 4, "bad tar header at byte"),
    "header zeroed": (lambda p, m: patch(p, m[12].offset - BLOCK, bytes(BLOCK)), 4, "is not two zero blocks"),
    "size in a header changed": (lambda p, m: patch(p, m[12].offset - BLOCK + 124, b"77"), 4, "bad tar header"),
    "end marker missing": (lambda p, m: cut(p, p.stat().st_size - len(END)), 10, "without the end marker"),
    "end marker cut in half": (lambda p, m: cut(p, p.stat().st_size - BLOCK), 10, "is not two zero blocks"),
    "two tars concatenated": (lambda p, m: p.write_bytes(p.read_bytes() * 2), 10, "is not two zero blocks"),
    "something after the end": (lambda p, m: p.write_bytes(p.read_bytes() + b"x"), 10, "is not two zero blocks"),
    "emptied": (lambda p, m: cut(p, 0), 0, "is empty"),
    "no tar": (lambda p, m: p.write_bytes(b"no tar" * 1000), 0, "bad tar header at byte 0"),
    "dirty padding": (lambda p, m: flip_byte(p, m[13].offset + m[13].size), 4, "are not zero"),
}

WITHIN = {
    "cut at a member's boundary",
    "cut in a header",
    "cut in the data",
    "bit flipped in a header",
    "dirty padding",
}
"""Damage past the first member of a sample, so that the shard alone tells which sample it hits."""


@pytest.mark.parametrize("damage", LOST)
def test_verify_finds_a_broken_tar_by_its_structure(copy: Path, keys: list[str], damage: str) -> None:
    how, left, what = LOST[damage]
    size = (copy / SHARD).stat().st_size
    how(copy / SHARD, members(copy / SHARD))
    audit = verify(copy, "structure")
    assert any(what in text for text in found(audit))
    assert {key for _, key in suspects(audit) if key} == set(keys[left:])
    assert {file for file, _ in suspects(audit)} == {SHARD}
    assert audit.samples == 27 - 10 + left
    resized = (copy / SHARD).stat().st_size != size
    assert any("bytes, the manifest says" in text for text in found(audit)) == resized


@pytest.mark.parametrize("damage", LOST)
def test_verify_finds_a_broken_tar_without_its_dataset(copy: Path, keys: list[str], damage: str) -> None:
    how, left, what = LOST[damage]
    how(copy / SHARD, members(copy / SHARD))
    outcome = run_shards("verify", copy / SHARD, "--json")
    assert outcome.code == 1
    content = outcome.json
    assert not content["ok"]
    assert content["samples"] == left
    assert any(what in problem["what"] for problem in content["problems"])
    assert {problem["key"] for problem in content["problems"]} == ({None, keys[4]} if damage in WITHIN else {None})


def test_verify_finds_a_renamed_member(copy: Path, keys: list[str]) -> None:
    member = members(copy / SHARD)[12]
    stranger = "0" * 32
    header = bytearray((copy / SHARD).read_bytes()[member.offset - BLOCK : member.offset])
    header[:32] = stranger.encode()
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    patch(copy / SHARD, member.offset - BLOCK, bytes(header))
    audit = verify(copy, "structure")
    assert found(audit, stranger) == ["holds input.npy, not input.npy, json, target.npy"]
    assert "holds json, target.npy, not input.npy, json, target.npy" in found(audit, keys[4])
    assert suspects(audit) == {(SHARD, None), (SHARD, stranger), (SHARD, keys[4])}
    assert audit.samples == 26
    header[:32] = keys[4].encode()  # the name is right again, the checksum is not
    patch(copy / SHARD, member.offset - BLOCK, bytes(header))
    assert any("bad tar header" in text for text in found(verify(copy, "structure")))


def test_verify_finds_a_removed_member_and_goes_on(copy: Path, keys: list[str]) -> None:
    content = (copy / SHARD).read_bytes()
    places = members(copy / SHARD)
    (copy / SHARD).write_bytes(content[: places[13].offset - BLOCK] + content[places[14].offset - BLOCK :])
    audit = verify(copy / SHARD, "structure")
    assert [(problem.key, problem.what) for problem in audit.problems] == [
        (keys[4], "holds input.npy, target.npy, not input.npy, json, target.npy")
    ]
    assert audit.samples == 9


def test_verify_finds_a_flipped_bit_in_a_payload_by_its_crc(copy: Path, keys: list[str]) -> None:
    row = open_dataset(copy).index("train")[14]
    place = int(row["target_offset"])
    patch(copy / SHARD, place + 5001, bytes([(copy / SHARD).read_bytes()[place + 5001] ^ 1]))
    assert verify(copy, "structure").problems == ()
    audit = verify(copy, "crc")
    assert suspects(audit) == {(SHARD, keys[4])}
    assert found(audit, keys[4]) == ["target.npy: its crc32 is not the index's"]
    assert [problem.offset for problem in audit.problems] == [place]
    deeper = verify(copy, "sha256")
    assert suspects(deeper) == {(SHARD, keys[4]), (SHARD, None)}
    assert "its sha256 is not the manifest's" in found(deeper)


def test_verify_names_shard_key_and_mend_on_the_command_line(copy: Path, keys: list[str]) -> None:
    row = open_dataset(copy).index("train")[14]
    flip_byte(copy / SHARD, int(row["input_offset"]) + 5000)
    outcome = run_shards("verify", copy, "--level", "crc")
    assert outcome.code == 1
    assert outcome.out == f"{copy}: 1 problems, level crc: 4 shards, 27 samples\n"
    assert outcome.err == (
        f"bad {SHARD}: sample {keys[4]}: input.npy: its crc32 is not the index's, at byte {row['input_offset']}; "
        "restore the shard from a copy, or make it again with "
        f"`python -m pipeline encode PAIRS.jsonl --out DATASET --only {SHARD}`\n"
    )
    assert run_shards("verify", copy, "--level", "structure").code == 0
    (problem,) = run_shards("verify", copy, "--level", "crc", "--json").json["problems"]
    assert (problem["file"], problem["key"]) == (SHARD, keys[4])


def test_verify_finds_a_flipped_bit_in_a_record(copy: Path, keys: list[str]) -> None:
    row = open_dataset(copy).index("train")[14]
    flip_byte(copy / SHARD, int(row["json_offset"]))
    (first, *_) = found(verify(copy, "structure"), keys[4])
    assert first.startswith("its json is no sample record (Invalid JSON")


def test_verify_finds_a_flipped_bit_in_an_arrays_header(copy: Path, keys: list[str]) -> None:
    row = open_dataset(copy).index("train")[14]
    flip_byte(copy / SHARD, int(row["input_offset"]) + 30)
    audit = verify(copy, "structure")
    assert suspects(audit) == {(SHARD, keys[4])}
    assert found(audit, keys[4]) == ["input.npy can't be read: its header is not in the plain .npy form of the format"]


def test_verify_survives_any_flipped_bit_in_an_arrays_header(tmp_path: Path) -> None:
    sample = make_sample(0, frames=1)
    shard = tmp_path / "one.tar"
    write_shard(shard, [sample])
    for place in range(BLOCK, BLOCK + 128):
        flip_byte(shard, place)
        (problem,) = verify(shard, "structure").problems
        assert problem.key == sample.record.key
        flip_byte(shard, place)
    assert verify(shard, "structure").problems == ()


def test_verify_finds_a_missing_and_an_unlisted_shard(copy: Path) -> None:
    (copy / SHARD).rename(copy / "train" / "stray.tar")
    (copy / "val" / "half.tar.tmp.host.1").touch()
    audit = verify(copy, "structure")
    assert found(audit) == ["the shard is missing"]
    for stray in ("train/stray.tar", "val/half.tar.tmp.host.1"):
        assert found(audit, file=stray) == ["is not in the manifest"]


def test_verify_finds_a_damaged_a_missing_and_an_exchanged_index(copy: Path) -> None:
    name = "index/train.npy"
    whole = (copy / name).read_bytes()
    (copy / name).unlink()
    assert found(verify(copy, "structure"), file=name) == ["the index is missing"]
    (copy / name).write_bytes(encode_array(np.zeros(3)))
    assert found(verify(copy, "structure"), file=name) == ["the index has another layout"]
    (copy / name).write_bytes(whole)
    index = np.array(load_index(copy / name))
    index["input_offset"][3] += 512
    save_index(copy / name, index)
    audit = verify(copy, "structure")
    assert found(audit, file=name) == ["its sha256 is not the manifest's"]
    (what,) = found(audit, index["key"][3].decode(), "train/tiny-v1-train-000000.tar")
    place = int(index["input_offset"][3])
    assert what == f"input.npy lies at byte {place - 512}, the index says {place}"


def test_verify_finds_arrays_of_another_type_than_the_manifests(copy: Path) -> None:
    content = json.loads((copy / "dataset.json").read_bytes())
    content["fields"][1]["dtype"] = "float32"
    content["fingerprint"] = fingerprint(content)
    (copy / "dataset.json").write_text(json.dumps(content))
    audit = verify(copy, "structure")
    assert {problem.what for problem in audit.problems} == {"target.npy is float16 [128, 40], not float32 [128, 40]"}
    assert len(audit.problems) == 27


def test_verify_finds_records_of_another_codec(copy: Path) -> None:
    content = json.loads((copy / "dataset.json").read_bytes())
    content["codec"]["weights_sha256"] = "0" * 64
    content["fingerprint"] = fingerprint(content)
    (copy / "dataset.json").write_text(json.dumps(content))
    audit = verify(copy, "structure")
    assert {problem.what for problem in audit.problems} == {"was made by another codec than the manifest names"}


def test_verify_refuses_a_manifest_that_was_changed(copy: Path) -> None:
    text = (copy / "dataset.json").read_text().replace('"samples": 23', '"samples": 22')
    (copy / "dataset.json").write_text(text)
    assert_one_line(run_shards("verify", copy), 1, "dataset.json: the content does not match its fingerprint; restore")


# Content that a writer let through


def _published(folder: Path, samples: dict[str, list[Sample]]) -> Path:
    staging = partial_folder(folder)
    receipts = [make_receipt(staging, f"{split}/x-{split}-000000.tar", own) for split, own in samples.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.publish._check_keys", lambda receipts: None)  # another writer's publisher
        publish(folder, make_header("x"), [r.model_copy(update={"groups": (r.split,)}) for r in receipts])
    return folder


def test_verify_finds_a_key_twice_in_a_shard(tmp_path: Path) -> None:
    samples = [make_sample(0), make_sample(1), make_sample(0)]
    path = _published(tmp_path / "x", {"train": samples})
    key = samples[0].record.key
    assert "is there twice" in found(verify(path, "structure"), key, "train/x-train-000000.tar")
    (problem,) = run_shards("verify", path / "train/x-train-000000.tar", "--json").json["problems"]
    assert (problem["key"], problem["what"]) == (key, "is there twice")


def test_verify_finds_a_key_and_a_track_in_two_splits(tmp_path: Path) -> None:
    twin = make_sample(1, "val", group="train-0")
    path = _published(tmp_path / "x", {"train": [make_sample(0), make_sample(1)], "val": [twin]})
    texts = found(verify(path, "structure"), twin.record.key, "val/x-val-000000.tar")
    assert "is there in train/x-train-000000.tar as well" in texts
    assert "its track 'train-0' lies in the split train as well, in train/x-train-000000.tar" in texts


def test_verify_finds_a_sample_under_a_split_that_is_not_its_own(tmp_path: Path) -> None:
    stray = make_sample(5, "val", group="val-0")
    path = _published(tmp_path / "x", {"train": [make_sample(0), stray]})
    texts = found(verify(path, "structure"), stray.record.key, "train/x-train-000000.tar")
    assert texts == ["belongs to the split val, not train"]


def test_verify_finds_values_that_are_not_finite(tmp_path: Path) -> None:
    samples = [make_sample(0), make_sample(1)]
    samples[1].target[5, 5] = np.inf
    write_shard(tmp_path / "two.tar", samples)
    assert verify(tmp_path / "two.tar", "structure").problems == ()
    (problem,) = verify(tmp_path / "two.tar", "crc").problems
    assert (problem.key, problem.what) == (samples[1].record.key, "target.npy holds values that are not finite")


def test_verify_finds_a_record_under_another_samples_name(tmp_path: Path) -> None:
    sample = make_sample(0)
    write_shard(tmp_path / "one.tar", [sample])
    content = (tmp_path / "one.tar").read_bytes()
    place = content.index(f'"key":"{sample.record.key}"'.encode()) + len('"key":"')
    patch(tmp_path / "one.tar", place, b"0" * 32)
    texts = [problem.what for problem in verify(tmp_path / "one.tar", "structure").problems]
    assert texts == [f"its json belongs to the key {'0' * 32}"]
