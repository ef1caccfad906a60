"""The verbs `index`, `diff`, `stats`, `order` and `list --where`: what they find, say and write."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import assert_one_line, run_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from make_data import flip_byte, make_dataset, make_header, make_receipt, make_sample

from shards.compare import array_change
from shards.dataset import Dataset, open_dataset
from shards.errors import MisuseError
from shards.filters import COLUMNS, apply_filter, parse_filter
from shards.index import load_index, save_index
from shards.manifest import fingerprint, partial_folder
from shards.parallel import in_order
from shards.publish import publish
from shards.schema import CodecSpec
from shards.writer import Sample

ROOT = Path(__file__).parent.parent
SHARD = "train/tiny-v1-train-000001.tar"
VERBS = {
    "Look": ("info", "list", "show", "stats", "order", "report"),
    "Check": ("verify", "index", "diff", "bench"),
    "Make new datasets": ("repack", "merge", "split", "subset"),
    "Listen and take out": ("listen", "plot", "export"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_dataset(tmp_path_factory.mktemp("verbs") / "tiny-v1"))


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    return shutil.copytree(dataset.path, tmp_path / "copy")


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's content and time."""
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.*")}


def publish_samples(folder: Path, samples: list[Sample], **header: Any) -> Path:
    receipt = make_receipt(partial_folder(folder), "train/x-train-000000.tar", samples)
    publish(folder, make_header("x", **header), [receipt])
    return folder


def test_no_verb_that_looks_needs_torch(dataset: Dataset) -> None:
    path = str(dataset.path)
    commands = [
        ["info", path],
        ["list", path, "--where", "rms>0"],
        ["show", path, "0"],
        ["verify", path],
        ["index", path, "--rebuild"],
        ["diff", path, path],
        ["stats", path, "--recompute"],
        ["order", path],
    ]
    program = f"""
import sys
sys.modules["torch"] = None
from shards.cli.app import app
from shards.console import run
for arguments in {commands!r}:
    try:
        run(app, "shards", arguments)
    except SystemExit as exited:
        assert exited.code == 0, (arguments, exited.code)
heavy = {{"ray", "mlflow", "torchaudio", "encodec", "matplotlib"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_groups_the_verbs_each_with_one_line() -> None:
    environment = {**os.environ, "COLUMNS": "86", "NO_COLOR": "1"}
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "shards", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    for group, verbs in VERBS.items():
        panel = re.search(rf"─ {group} ─.*?╰", done.stdout, re.DOTALL)
        assert panel, group
        for verb in verbs:
            assert re.search(rf"^│ {verb} +\S.*\. +│$", panel[0], re.MULTILINE), verb


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_gone_is_no_error(dataset: Dataset, options: list[str]) -> None:
    command = [sys.executable, "-m", "shards", "list", str(dataset.path), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""


# index


def test_index_of_a_sound_dataset_is_sound_and_nothing_is_written(copy: Path) -> None:
    before = files(copy)
    outcome = run_shards("index", copy)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{copy}: sound: 2 indexes, 27 samples\n", "")
    assert run_shards("index", copy, "--rebuild").out == f"{copy}: sound, nothing written\n"
    document = run_shards("index", copy, "--rebuild", "--json").json
    assert document["written"] == []
    assert not document["fingerprint_changed"]
    assert files(copy) == before


@pytest.mark.parametrize("damage", ["missing", "cut", "no index", "changed"])
def test_index_rebuild_gives_the_bytes_back(copy: Path, damage: str) -> None:
    path = copy / "index" / "train.npy"
    before = {name: content for name, (content, _) in files(copy).items()}
    whole = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(whole[:-5])
        case "no index":
            path.write_bytes(b"nothing")
        case "changed":
            index = np.array(load_index(path))
            index["target_offset"][3] += 512
            save_index(path, index)
    assert_one_line(run_shards("info", copy), 1, "index/train.npy", f"`python -m shards index {copy} --rebuild`")
    found = run_shards("index", copy)
    assert found.code == 1
    assert "index/train.npy: " in found.err
    assert "--rebuild" in found.err
    document = run_shards("index", copy, "--json")
    assert document.code == 1
    assert [one["ok"] for one in document.json["splits"]] == [False, True]
    if damage == "changed":
        key = load_index(path)["key"][3].decode()
        (row,) = document.json["splits"][0]["differences"]
        assert (row["number"], row["key"], row["column"]) == (3, key, "target_offset")
        assert row["saved"] == row["rebuilt"] + 512
    assert run_shards("index", copy, "--rebuild").out == f"{copy}: wrote index/train.npy\n"
    assert {name: content for name, (content, _) in files(copy).items()} == before
    assert run_shards("verify", copy).code == 0


def test_index_refuses_tars_that_are_not_the_manifests(copy: Path) -> None:
    row = open_dataset(copy).index("train")[12]
    flip_byte(copy / SHARD, int(row["input_offset"]) + 5000)
    (copy / "index" / "train.npy").unlink()
    for flag in ("--check", "--rebuild"):
        assert_one_line(run_shards("index", copy, flag), 1, f"{copy / SHARD}: its sha256 is not the manifest's")
    assert not (copy / "index" / "train.npy").exists()
    (copy / SHARD).unlink()
    assert_one_line(run_shards("index", copy), 1, f"{copy / SHARD}: the shard is missing")


def test_index_rebuild_renews_manifest_and_fingerprint_where_the_index_is_another(copy: Path) -> None:
    content = json.loads((copy / "dataset.json").read_bytes())
    right = content["fingerprint"]
    content["splits"]["val"]["index_sha256"] = "0" * 64
    content["fingerprint"] = fingerprint(content)
    (copy / "dataset.json").write_text(json.dumps(content))
    (copy / "README.md").write_text("of another fingerprint")
    assert "its sha256 is not the manifest's" in run_shards("index", copy).err
    document = run_shards("index", copy, "--rebuild", "--json").json
    assert document == {"written": ["README.md", "dataset.json"], "fingerprint": right, "fingerprint_changed": True}
    assert open_dataset(copy).manifest.fingerprint == right
    assert right in (copy / "README.md").read_text()
    assert run_shards("verify", copy).code == 0


# diff


def test_diff_of_equal_datasets_is_0_whatever_their_names_and_shards(dataset: Dataset, tmp_path: Path) -> None:
    twin = make_dataset(tmp_path / "twin-v3", {"train": (4, 19), "val": (4,)})
    outcome = run_shards("diff", dataset.path, twin)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("equal: 27 the same, 0 added, 0 removed, 0 changed, 19 at another place")
    content = run_shards("diff", dataset.path, twin, "--json").json
    assert content["equal"]
    assert (content["drift"], content["changed"], content["same"]) == ([], [], 27)


def test_diff_names_added_removed_and_changed_samples_and_how_far_they_are(tmp_path: Path) -> None:
    samples = [make_sample(i) for i in range(4)]
    a = publish_samples(tmp_path / "a", samples[:3])
    louder = np.array(samples[1].target)
    louder[3, 5] += np.float16(0.5)
    step = abs(float(louder[3, 5]) - float(samples[1].target[3, 5]))
    side = samples[2].record.input.model_copy(update={"rms": 0.7})
    renamed = samples[2].record.model_copy(update={"input": side})
    b = publish_samples(
        tmp_path / "b",
        [
            Sample(samples[1].record, samples[1].input, louder),
            Sample(renamed, samples[2].input, samples[2].target),
            samples[3],
        ],
    )
    outcome = run_shards("diff", a, b, "--json")
    assert outcome.code == 1
    content = outcome.json
    assert not content["equal"]
    assert content["removed"] == [samples[0].record.key]
    assert content["added"] == [samples[3].record.key]
    first, second = content["changed"]
    assert (first["key"], first["place"], first["place_b"], first["record"]) == (
        samples[1].record.key,
        "train/x-train-000000.tar#1",
        "train/x-train-000000.tar#0",
        [],
    )
    (array,) = first["arrays"]
    power = float(np.square(samples[1].target.astype(np.float64)).sum())
    assert (array["field"], array["max_abs"]) == ("target", pytest.approx(step))
    assert array["snr_db"] == pytest.approx(10 * np.log10(power / step**2))
    assert second["arrays"] == []
    assert second["record"] == [{"name": "input.rms", "a": 0.102, "b": 0.7}]
    text = run_shards("diff", a, b).out
    for part in (f"removed {samples[0].record.key}", f"added {samples[3].record.key}", "input.rms 0.102 to 0.7"):
        assert part in text


def test_diff_across_codecs_matches_by_source(dataset: Dataset, tmp_path: Path) -> None:
    codec = CodecSpec(name="encodec", stage="pre_quantizer", sample_rate=48_000, hop=640)
    other = make_dataset(tmp_path / "other-v1", seed=1, codec=codec)
    content = run_shards("diff", dataset.path, other, "--json").json
    assert (content["matched_by"], content["added"], content["removed"]) == ("source", [], [])
    assert {one["name"] for one in content["drift"]} >= {"codec.name", "codec.stage", "codec.hop"}
    assert len(content["changed"]) == 27
    change = content["changed"][0]
    assert change["key"] != change["key_b"]
    assert [one["field"] for one in change["arrays"]] == ["input", "target"]
    assert [one["name"] for one in change["record"]] == ["pairing_seed"]


def test_diff_tells_drift_of_pairing_and_the_build_apart(tmp_path: Path, copy: Path) -> None:
    content = json.loads((copy / "dataset.json").read_bytes())
    for name, place, counts in (("build", ("build", "config"), False), ("pairing", ("pairing",), True)):
        changed = json.loads(json.dumps(content))
        part = changed
        for step in place:
            part = part[step]
        part["seed"] = 7
        changed["fingerprint"] = fingerprint(changed)
        other = shutil.copytree(copy, tmp_path / name)
        (other / "dataset.json").write_text(json.dumps(changed))
        outcome = run_shards("diff", copy, other, "--json")
        assert outcome.code == int(counts)
        assert [one["b"] for one in outcome.json["drift" if counts else "build"]] == [7]


def test_diff_of_arrays_of_other_shape_type_and_kind_of_value() -> None:
    zeros, ones = np.zeros((2, 3), np.float16), np.ones((2, 3), np.float32)
    assert array_change("x", zeros, np.zeros((2, 4))).note == "shape [2, 3] to [2, 4]"
    wider = array_change("x", ones.astype(np.float16), ones)
    assert (wider.max_abs, wider.snr_db, wider.note) == (0, 999.0, "float16 to float32")
    assert array_change("x", ones, ones * np.float32(np.nan)).note == "holds values that are not finite"
    assert array_change("x", ones, ones * 2).snr_db == pytest.approx(0)


def test_diff_of_a_damaged_sample_is_one_line(copy: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "tiny-v1", seed=1)
    row = open_dataset(copy).index("train")[12]
    flip_byte(copy / SHARD, int(row["input_offset"]) + 5000)
    assert_one_line(run_shards("diff", copy, other), 1, f"{copy / SHARD}: input of sample {row['key'].decode()}")


# stats


def test_stats_recomputed_are_those_that_the_writer_saved(dataset: Dataset) -> None:
    saved = run_shards("stats", dataset.path, "--json").json
    computed = run_shards("stats", dataset.path, "--recompute", "--json").json
    assert (saved["source"], computed["source"], computed["problem"]) == ("stats.json", "shards", None)
    assert saved["channels"] == computed["channels"] == json.loads((dataset.path / "stats.json").read_bytes())
    samples = [make_sample(i, group="train-0").input.astype(np.float64) for i in range(27)]
    values = np.concatenate(samples, axis=1)
    assert computed["channels"]["input"]["std"] == pytest.approx(values.std(1).tolist())
    assert computed["channels"]["input"]["max"] == values.max(1).tolist()


def test_stats_finds_statistics_that_are_not_the_shards(copy: Path) -> None:
    content = json.loads((copy / "stats.json").read_bytes())
    content["target"]["mean"][7] += 0.01
    (copy / "stats.json").write_text(json.dumps(content))
    assert run_shards("stats", copy).code == 0
    outcome = run_shards("stats", copy, "--recompute")
    assert outcome.code == 1
    assert "stats.json: it is" in outcome.err
    assert "restore" in outcome.err


@pytest.mark.parametrize("content", [None, "[", "[]", "{}", '{"input": {"mean": 1}}', "[" * 100_000])
def test_stats_without_a_usable_file_is_one_line_with_the_mend(copy: Path, content: str | None) -> None:
    (copy / "stats.json").unlink()
    if content is not None:
        (copy / "stats.json").write_text(content)
    assert_one_line(run_shards("stats", copy), 1, str(copy / "stats.json"), "--recompute")


def test_stats_names_the_unusual_channel(tmp_path: Path) -> None:
    samples = [make_sample(i) for i in range(3)]
    for sample in samples:
        sample.target[42] *= np.float16(8)
    content = run_shards("stats", publish_samples(tmp_path / "x", samples), "--channels", 1, "--json").json
    assert [(one["side"], one["channel"]) for one in content["unusual"]][1] == ("target", 42)
    assert content["unusual"][1]["score"] > 20 > content["unusual"][0]["score"]


def test_stats_counts_windows_that_are_used_repeatedly(tmp_path: Path) -> None:
    base = [make_sample(i) for i in range(4)]

    def pair(key: str, given: int, wanted: int) -> Sample:
        sides = {"input": base[given].record.input, "target": base[wanted].record.target}
        return Sample(base[0].record.model_copy(update={"key": key * 32, **sides}), base[0].input, base[0].target)

    samples = [pair("a", 0, 0), pair("b", 0, 1), pair("c", 0, 2), pair("d", 1, 1), pair("e", 1, 1)]
    path = publish_samples(tmp_path / "x", samples)
    found = run_shards("stats", path, "--json").json["duplicates"]
    assert [one["keys"] for one in found["pairs"]] == [["d" * 32, "e" * 32]]
    inputs = found["inputs"]
    assert (inputs["windows"], inputs["shared"], inputs["partners"]) == (2, 2, {"1": 1, "3": 1})
    assert inputs["most"][0]["keys"] == ["a" * 32, "b" * 32, "c" * 32]
    assert (found["targets"]["windows"], found["targets"]["partners"]) == (3, {"1": 2, "2": 1})
    text = run_shards("stats", path).out
    assert f"same pair: {'d' * 32}, {'e' * 32}" in text
    assert run_shards("stats", path, "--no-duplicates", "--json").json["duplicates"] is None


def test_stats_describes_the_levels_of_the_sources(dataset: Dataset) -> None:
    levels = run_shards("stats", dataset.path, "--json").json["rms"]["train"]["input"]
    assert (levels["count"], levels["silent"]) == (23, 0)
    assert [levels[name] for name in ("min", "median", "max")] == pytest.approx([0.1, 0.111, 0.122])


# order


@pytest.mark.parametrize(
    ("split", "world", "batch", "window"),
    [("train", 1, 4, None), ("train", 3, 2, None), ("train", 2, 5, 2), ("val", 2, 3, None), ("val", 3, 1, None)],
)
def test_order_is_what_the_loaders_give(
    dataset: Dataset, split: str, world: int, batch: int, window: int | None
) -> None:
    loaders = [
        dataset.loader(split, batch, seed=5, epoch=2, rank=rank, world_size=world, window=window)
        for rank in range(world)
    ]
    options = ["--split", split, "--seed", 5, "--epoch", 2, "--world", world, "--batch", batch]
    options += ["--window", window] if window else []
    for at, batches in enumerate(zip(*loaders, strict=True)):
        content = run_shards("order", dataset.path, *options, "--at", at, "--json").json
        assert content["steps"] == len(loaders[0]) + at + 1
        for rank, loaded in zip(content["ranks"], batches, strict=True):
            keys = [one["key"] for one in rank["samples"]]
            assert keys == [k for k, weight in zip(loaded.keys, loaded.weight, strict=True) if weight]
            assert rank["padding"] == int((loaded.weight == 0).sum())
    assert_one_line(run_shards("order", dataset.path, *options, "--at", at + 1), 2, f"not step {at + 1}", "--at")


def test_order_shows_places_for_people(dataset: Dataset) -> None:
    content = run_shards("order", dataset.path, "--batch", 3, "--json").json
    text = run_shards("order", dataset.path, "--batch", 3).out
    for one in content["ranks"][0]["samples"]:
        line = next(line for line in text.splitlines() if one["key"] in line)
        assert f"train:{one['number']}" in line
        assert f"{one['shard']}#{one['position']}" in line


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--split", "test"], "there is no split 'test'"),
        (["--world", "0"], "give at least 1"),
        (["--batch", "24"], "no step"),
        (["--at", "-1"], "not step -1"),
    ],
)
def test_order_of_what_is_not_there_is_misuse(dataset: Dataset, options: list[str], part: str) -> None:
    assert_one_line(run_shards("order", dataset.path, *options), 2, part)


# list --where


def listed(dataset: Dataset, text: str) -> list[dict[str, Any]]:
    content = run_shards("list", dataset.path, "--limit", 0, "--where", text, "--json").json
    assert content["total"] == len(content["samples"])
    return list(content["samples"])


def test_where_keeps_what_the_filter_holds_for(dataset: Dataset) -> None:
    everything = listed(dataset, "position >= 0")
    assert len(everything) == 27
    for text, kept in {
        "rms<0.103": lambda s: s["input_rms"] < 0.103,
        "input_rms=0.105": lambda s: s["input_rms"] == 0.105,
        "position=2 and split=train": lambda s: s["position"] == 2 and s["split"] == "train",
        "position<=1 AND target_rms>1.1e-1": lambda s: s["position"] <= 1 and s["target_rms"] > 0.11,
        f"shard={SHARD}": lambda s: s["shard"] == SHARD,
        "shard='tiny-v1-train-000001.tar' and position!=3": lambda s: s["shard"] == SHARD and s["position"] != 3,
        "shard>=1": lambda s: s["shard"].split("-")[-1] >= "000001.tar",
        'split != "train"': lambda s: s["split"] == "val",
        f"key={everything[5]['key'][:6]}": lambda s: s["key"] == everything[5]["key"],
        f"key!={everything[5]['key'][:6]}": lambda s: s["key"] != everything[5]["key"],
        "rms>1e300": lambda s: False,
        "bytes>-1": lambda s: True,
        "number=23": lambda s: False,
    }.items():
        assert [s["key"] for s in listed(dataset, text)] == [s["key"] for s in everything if kept(s)], text


def test_where_takes_either_side_for_rms(tmp_path: Path) -> None:
    loud, quiet = make_sample(0), make_sample(1)
    side = quiet.record.target.model_copy(update={"rms": 0.001})
    quiet = Sample(quiet.record.model_copy(update={"target": side}), quiet.input, quiet.target)
    dataset = open_dataset(publish_samples(tmp_path / "x", [loud, quiet]))
    assert [s["key"] for s in listed(dataset, "rms<0.01")] == [quiet.record.key]
    assert listed(dataset, "input_rms<0.01") == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("inputrms<1", ["no column 'inputrms'", "did you mean 'input_rms'"]),
        ("__class__=1", ["no column '__class__'"]),
        ("rms<loud", ["with a number, not with 'loud'"]),
        ("split<train", ["by = or !="]),
        ("rms<0.1 or rms>0.2", ["joined with 'and'"]),
        ("rms<0.1 and", ["no comparison at ''"]),
        ("", ["no comparison"]),
        ("__import__('os').system('x')", ["no comparison"]),
        ("rms<nan", ["with a number"]),
    ],
)
def test_where_of_nonsense_is_misuse(dataset: Dataset, text: str, parts: list[str]) -> None:
    assert_one_line(run_shards("list", dataset.path, "--where", text), 2, *parts)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.text(st.sampled_from("rmskeyandpositionshard<>=!'\" .0123456789e-_()[]\n\\"), max_size=40))
def test_where_takes_any_text_or_says_misuse(text: str) -> None:
    with suppress(MisuseError):
        assert all(one.column in COLUMNS for one in parse_filter(text))


def test_where_reads_every_column(dataset: Dataset) -> None:
    for column in COLUMNS:
        comparisons = parse_filter(f"{column}=0")
        apply_filter(comparisons, "train", dataset.splits["train"].shards, dataset.index("train"))


# The helper behind them


def test_work_in_threads_keeps_the_order_and_stops_at_an_error() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError("five")
        return number * number

    assert list(in_order(work, range(5), threads=3)) == [0, 1, 4, 9, 16]
    begun.clear()
    given_back = []
    with pytest.raises(ValueError, match="five"):
        given_back.extend(in_order(work, range(1000), threads=3))
    assert len(begun) < 20
    assert list(in_order(work, [], threads=3)) == []
