"""`repack`, `merge`, `split`, `subset`: what the new datasets hold, what is refused, and that nothing is left."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import assert_one_line, run_shards
from make_data import flip_byte, make_dataset, make_header, make_receipt, make_sample
from numpy.typing import NDArray

import shards.rewrite
from shards.cli.make import parse_fractions
from shards.dataset import Dataset, open_dataset
from shards.derive import all_samples, assign
from shards.errors import DatasetError, MisuseError
from shards.manifest import partial_folder
from shards.publish import publish
from shards.rewrite import LOCK, Rewrite, recast, rewrite
from shards.schema import CodecSpec, Receipt
from shards.wire import walk
from shards.writer import Sample

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Samples 0 to 22 in train, 23 to 26 in val; three tracks in each."""
    return open_dataset(make_dataset(tmp_path_factory.mktemp("derive") / "tiny-v1", frames=8))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five samples of two tracks that `dataset` has not."""
    return publish_samples(
        tmp_path_factory.mktemp("derive") / "other-v1",
        {"train": [make_sample(i, frames=8, group="new-a") for i in range(3)],
         "val": [make_sample(i, "val", frames=8, group="new-b") for i in range(2)]},
    )  # fmt: skip


def publish_samples(folder: Path, splits: Mapping[str, list[Sample]], **header: Any) -> Dataset:
    staging = partial_folder(folder)
    receipts = [
        make_receipt(staging, f"{split}/{folder.name}-{split}-000000.tar", own) for split, own in splits.items()
    ]
    publish(folder, make_header(folder.name, frames=8, **header), receipts)
    return open_dataset(folder)


def keys(dataset: Dataset, split: str | None = None) -> list[str]:
    """Keys in the order in which they are stored."""
    return [
        key.decode() for name in ([split] if split else sorted(dataset.splits)) for key in dataset.index(name)["key"]
    ]


def members(dataset: Dataset, leave_out: str = "") -> dict[str, bytes]:
    """Every member of every sample, by name, byte for byte."""
    found: dict[str, bytes] = {}
    for entry in dataset.splits.values():
        for shard in entry.shards:
            content = (dataset.path / shard.file).read_bytes()
            for m in walk(content):
                if m.suffix != leave_out:
                    found[f"{m.key}.{m.suffix}"] = content[m.offset : m.offset + m.size]
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made(*arguments: object) -> Dataset:
    """Run a verb that makes a dataset, and verify all of it."""
    outcome = run_shards(*arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    out = Path(str(arguments[arguments.index("--out") + 1]))
    assert run_shards("verify", out, "--level", "sha256").code == 0
    assert not partial_folder(out).exists()
    assert not (out / LOCK).exists()
    return open_dataset(out)


def track_of(dataset: Dataset) -> dict[str, set[str]]:
    """The splits of each track."""
    found: dict[str, set[str]] = {}
    for split in dataset.splits:
        for number in range(dataset.splits[split].samples):
            record = dataset.read(dataset.location(split, number)).record
            assert record.split == split
            found.setdefault(record.group, set()).add(split)
    return found


# repack


def test_repack_keeps_every_byte_of_every_sample_in_order(dataset: Dataset, tmp_path: Path) -> None:
    new = made("repack", dataset.path, "--out", tmp_path / "r", "--samples-per-shard", 6)
    assert members(new) == members(dataset)
    assert keys(new) == keys(dataset)
    assert [shard.samples for shard in new.splits["train"].shards] == [6, 6, 6, 5]
    assert [shard.file for shard in new.splits["val"].shards] == ["val/r-val-000000.tar"]
    assert new.manifest.parents == (dataset.manifest.fingerprint,)
    for name in ("codec", "fields", "window_samples", "pairing"):
        assert getattr(new.manifest, name) == getattr(dataset.manifest, name)
    assert new.manifest.build.config == {"verb": "repack", "latents": None, "shuffle": None, "samples_per_shard": 6}


def test_repack_to_the_same_sizes_gives_the_same_shards(dataset: Dataset, tmp_path: Path) -> None:
    once = made("repack", dataset.path, "--out", tmp_path / "1" / "r")
    again = made("repack", once.path, "--out", tmp_path / "2" / "r")
    shards = [{name: d for name, d in tree(x.path).items() if name.endswith(".tar")} for x in (once, again)]
    assert shards[0] == shards[1]
    assert again.manifest.parents == (once.manifest.fingerprint,)
    stats = [json.loads((x.path / "stats.json").read_bytes())["input"]["rms"] for x in (dataset, once)]
    assert stats[0] == pytest.approx(stats[1])


def test_repack_writes_a_receipt_for_each_shard(dataset: Dataset, tmp_path: Path) -> None:
    new = made("repack", dataset.path, "--out", tmp_path / "r", "--samples-per-shard", 10)
    receipts = {p.name: Receipt.model_validate_json(p.read_bytes()) for p in (new.path / "receipts").iterdir()}
    shards = [shard for entry in new.splits.values() for shard in entry.shards]
    assert set(receipts) == {f"{Path(shard.file).name}.json" for shard in shards}
    for shard in shards:
        receipt = receipts[f"{Path(shard.file).name}.json"]
        assert (receipt.sha256, receipt.bytes, receipt.samples) == (shard.sha256, shard.bytes, shard.samples)


def test_the_same_command_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    options = ["--shuffle", 3, "--samples-per-shard", 5, "--latents", "float16"]
    first = made("repack", dataset.path, "--out", tmp_path / "1" / "r", *options)
    second = made("repack", dataset.path, "--out", tmp_path / "2" / "r", *options)
    assert tree(first.path) == tree(second.path)


def test_repack_shuffles_within_the_splits(dataset: Dataset, tmp_path: Path) -> None:
    new = made("repack", dataset.path, "--out", tmp_path / "a", "--shuffle", 1)
    another = made("repack", dataset.path, "--out", tmp_path / "b", "--shuffle", 2)
    assert members(new) == members(another) == members(dataset)
    for split in dataset.splits:
        assert sorted(keys(new, split)) == sorted(keys(dataset, split))
    assert len({tuple(keys(d, "train")) for d in (dataset, new, another)}) == 3


def test_repack_to_float32_keeps_the_values_and_says_what_they_are_worth(dataset: Dataset, tmp_path: Path) -> None:
    outcome = run_shards("repack", dataset.path, "--out", tmp_path / "wide", "--latents", "float32")
    assert outcome.code == 0
    assert "float32 does not bring back what float16 lost: cast_snr_db stays" in outcome.err
    wide = open_dataset(tmp_path / "wide")
    assert run_shards("verify", wide.path).code == 0
    assert {field.dtype for field in wide.manifest.fields} == {"float32"}
    for number in range(4):
        old, new = (d.read(d.location("val", number)) for d in (dataset, wide))
        assert new.record == old.record  # key and cast_snr_db too
        assert new.input.dtype == np.float32
        np.testing.assert_array_equal(new.input, old.input)
    back = made("repack", wide.path, "--out", tmp_path / "back", "--latents", "float16")
    assert members(back) == members(dataset)


def test_repack_to_float16_notes_what_it_costs(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "wide", {"train": (3,)}, frames=8, dtype="float32")
    outcome = run_shards("repack", source, "--out", tmp_path / "r", "--latents", "float16", "--json")
    assert outcome.json["notes"] == []
    assert (outcome.json["samples"], outcome.json["splits"], outcome.json["shards"]) == (3, {"train": 3}, 1)
    new = open_dataset(tmp_path / "r")
    sample = new.read(new.location("train", 0))
    assert 70 < sample.record.input.cast_snr_db < 80
    assert keys(new) == keys(open_dataset(source))


def test_a_cast_never_makes_the_noted_precision_better() -> None:
    sample = make_sample(0, frames=8)
    assert recast(sample, "float32").record == sample.record
    assert recast(recast(sample, "float32"), "float16").record == sample.record


def test_repack_names_the_sample_that_float16_cannot_hold(tmp_path: Path) -> None:
    samples = [make_sample(i, frames=8, dtype="float32") for i in range(3)]
    big: NDArray[np.float32] = samples[1].target.copy()
    big[3, 3] = 1e6
    samples[1] = Sample(samples[1].record, samples[1].input, big)
    source = publish_samples(tmp_path / "wide", {"train": samples}, dtype="float32")
    outcome = run_shards("repack", source.path, "--out", tmp_path / "r", "--latents", "float16")
    assert_one_line(outcome, 1, f"sample {samples[1].record.key}", "exceed the range of float16", "--latents float32")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wide"]


# merge


def test_a_merge_holds_the_samples_of_all(dataset: Dataset, other: Dataset, tmp_path: Path) -> None:
    new = made("merge", dataset.path, other.path, "--out", tmp_path / "m")
    assert members(new) == members(dataset) | members(other)
    for split in ("train", "val"):
        assert keys(new, split) == keys(dataset, split) + keys(other, split)
    assert new.manifest.parents == (dataset.manifest.fingerprint, other.manifest.fingerprint)
    assert new.manifest.pairing == dataset.manifest.pairing


def test_a_merge_of_the_parts_is_the_whole(dataset: Dataset, tmp_path: Path) -> None:
    parts = [made("subset", dataset.path, "--out", tmp_path / split, "--split", split) for split in dataset.splits]
    whole = made("merge", *(part.path for part in parts), "--out", tmp_path / "whole")
    assert members(whole) == members(dataset)


def test_what_is_equal_to_the_byte_is_kept_once(dataset: Dataset, other: Dataset, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n".join(keys(dataset)[5:9]))
    few = made("subset", dataset.path, "--out", tmp_path / "few", "--keys", tmp_path / "keys")
    outcome = run_shards("merge", few.path, dataset.path, other.path, "--out", tmp_path / "m", "--json")
    assert outcome.json["notes"] == ["4 pairs were there twice and are kept once"]
    assert outcome.json["samples"] == 27 + 5
    assert members(open_dataset(tmp_path / "m")) == members(dataset) | members(other)
    assert run_shards("verify", tmp_path / "m").code == 0


def test_a_merge_tells_how_each_part_was_paired(dataset: Dataset, tmp_path: Path) -> None:
    sample = make_sample(0, frames=8, group="new")
    staging = partial_folder(tmp_path / "p")
    header = make_header("p", frames=8)
    header.pairing["seed"] = 7
    publish(tmp_path / "p", header, [make_receipt(staging, "train/p-train-000000.tar", [sample])])
    new = made("merge", dataset.path, tmp_path / "p", "--out", tmp_path / "m")
    accounts = [{"mode": "suffix", "seed": 0}, {"mode": "suffix", "seed": 7}]
    assert new.manifest.pairing == {"mode": "suffix", "merged": accounts}


def test_a_merge_refuses_another_codec(dataset: Dataset, tmp_path: Path) -> None:
    codec = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=6.0, weights_sha256="a" * 64)
    source = make_dataset(tmp_path / "e", {"train": (2,)}, frames=8, codec=codec)
    outcome = run_shards("merge", dataset.path, source, "--out", tmp_path / "m")
    assert_one_line(
        outcome, 1, f"{source}: its codec is encodec (weights aaaaaaaaaaaa)", "mdct; encode one of them again"
    )
    assert not (tmp_path / "m").exists()


def test_a_merge_refuses_another_type_and_another_window(dataset: Dataset, tmp_path: Path) -> None:
    wide = make_dataset(tmp_path / "wide", {"train": (2,)}, frames=8, dtype="float32")
    outcome = run_shards("merge", dataset.path, wide, "--out", tmp_path / "m")
    assert_one_line(outcome, 1, f"{wide}: input is float32", "repack --latents float16")
    long = make_dataset(tmp_path / "long", {"train": (2,)}, frames=9)
    outcome = run_shards("merge", dataset.path, long, "--out", tmp_path / "m")
    assert_one_line(outcome, 1, f"{long}: its windows are 9 frames long, those of {dataset.path} 8; pair and encode")


def test_a_merge_refuses_one_key_with_two_contents(dataset: Dataset, tmp_path: Path) -> None:
    forged = make_sample(0, frames=8, seed=1, group="train-0")  # other latents, the same source: the same key
    twin = Sample(make_sample(0, frames=8, group="train-0").record, forged.input, forged.target)
    source = publish_samples(tmp_path / "x", {"train": [twin]})
    outcome = run_shards("merge", dataset.path, source.path, "--out", tmp_path / "m")
    assert_one_line(
        outcome, 1, f"{source.path}: sample {twin.record.key} has another input, target than in", "subset --drop"
    )


def test_a_merge_refuses_a_track_in_two_splits(dataset: Dataset, tmp_path: Path) -> None:
    source = publish_samples(tmp_path / "x", {"val": [make_sample(99, "val", frames=8, group="train-1")]})
    outcome = run_shards("merge", dataset.path, source.path, "--out", tmp_path / "m")
    assert_one_line(outcome, 1, "track 'train-1' lies in its split val", "in the split train of", "subset --drop")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_a_merge_needs_two_different_datasets(dataset: Dataset, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "m"]
    assert_one_line(run_shards("merge", dataset.path, *out), 2, "one dataset alone can't be merged")
    assert_one_line(run_shards("merge", dataset.path, dataset.path, *out), 2, "name each dataset once")


# split


def test_a_split_keeps_tracks_whole_and_keys_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    new = made("split", dataset.path, "--out", tmp_path / "s", "--fraction", "val=0.3", "--fraction", "test=0.2")
    assert set(new.splits) == {"train", "val", "test"}
    tracks = track_of(new)
    assert set(tracks) == set(track_of(dataset))
    assert all(len(splits) == 1 for splits in tracks.values())
    assert sorted(keys(new)) == sorted(keys(dataset))
    assert members(new, "json") == members(dataset, "json")
    assert new.manifest.parents == (dataset.manifest.fingerprint,)
    assert new.manifest.build.config["fractions"] == {"val": 0.3, "test": 0.2}


def test_a_merge_of_a_split_is_the_set_of_keys_again(dataset: Dataset, tmp_path: Path) -> None:
    new = made("split", dataset.path, "--out", tmp_path / "s", "--fraction", "val=0.3")
    parts = [made("subset", new.path, "--out", tmp_path / split, "--split", split).path for split in new.splits]
    merged = made("merge", *parts, "--out", tmp_path / "m")
    assert sorted(keys(merged)) == sorted(keys(dataset))


def test_a_split_depends_on_its_seed_alone(dataset: Dataset, tmp_path: Path) -> None:
    command = ["split", dataset.path, "--fraction", "val=0.3", "--out"]
    first, again = (made(*command, tmp_path / place / "s") for place in "ab")
    assert tree(first.path) == tree(again.path)
    draws = {tuple(keys(made(*command, tmp_path / f"{seed}", "--seed", seed), "val")) for seed in range(4)}
    assert len(draws) > 1


def test_a_split_comes_near_its_shares() -> None:
    sizes = {f"track {number}": 5 + number % 7 for number in range(200)}
    homes = assign(sizes, {"val": 0.1, "test": 0.25}, seed=4)
    total = sum(sizes.values())
    held = {split: sum(sizes[name] for name in homes if homes[name] == split) for split in ("val", "test", "train")}
    assert [held[split] / total for split in ("val", "test", "train")] == pytest.approx([0.1, 0.25, 0.65], abs=0.01)
    assert homes == assign(dict(reversed(sizes.items())), {"val": 0.1, "test": 0.25}, seed=4)


@pytest.mark.parametrize(
    ("fractions", "splits"),
    [({"a": 0.5, "b": 0.5}, {"a", "b"}), ({"train": 0.75, "val": 0.25}, {"train", "val"}),
     ({"tiny": 0.001}, {"tiny", "train"}), ({"huge": 0.999}, {"huge", "train"})],
)  # fmt: skip
def test_every_split_that_is_asked_for_gets_a_track(fractions: dict[str, float], splits: set[str]) -> None:
    for seed in range(10):
        homes = assign({"x": 10, "y": 1, "z": 3}, fractions, seed)
        assert (set(homes), set(homes.values())) == ({"x", "y", "z"}, splits)


def test_a_split_refuses_more_splits_than_tracks(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "x", {"train": (4,)}, frames=8, tracks=2)
    asked = [part for name in ("a", "b", "c") for part in ("--fraction", f"{name}=0.2")]
    outcome = run_shards("split", source, "--out", tmp_path / "s", *asked)
    assert_one_line(outcome, 2, f"{source}: has 2 tracks, too few for 4 splits; ask for fewer splits")


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["val"], "write val=0.1"), (["val=0"], "write val=0.1"), (["val=1"], "write val=0.1"), (["val=-1"], "val=0.1"),
     (["../x=0.1"], "write val=0.1"), (["val=nan"], "write val=0.1"), (["a=0.1", "a=0.2"], "name each split once"),
     (["a=0.7", "b=0.4"], "make 1.1 together"), (["train=0.5", "val=0.1"], "leave train out")],
)  # fmt: skip
def test_shares_that_make_no_sense_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        parse_fractions(texts)


# subset


def test_a_subset_keeps_the_listed_keys_in_the_datasets_order(dataset: Dataset, tmp_path: Path) -> None:
    wanted = keys(dataset, "train")[3:7] + keys(dataset, "val")[:1]
    (tmp_path / "keys").write_text("# the good ones\n\n" + "\n".join(reversed(wanted)) + "\n")
    new = made("subset", dataset.path, "--out", tmp_path / "s", "--keys", tmp_path / "keys")
    assert keys(new) == wanted
    assert members(new).items() <= members(dataset).items()
    assert new.manifest.parents == (dataset.manifest.fingerprint,)


def test_a_subset_leaves_out_the_listed_keys(dataset: Dataset, tmp_path: Path) -> None:
    dropped = keys(dataset, "train")[3:7]
    (tmp_path / "drop").write_text("\n".join(dropped))
    new = made("subset", dataset.path, "--out", tmp_path / "s", "--drop", tmp_path / "drop", "--split", "train")
    assert keys(new) == [key for key in keys(dataset, "train") if key not in dropped]
    assert set(new.splits) == {"train"}


def test_a_subset_refuses_what_it_cannot_understand(dataset: Dataset, tmp_path: Path) -> None:
    def refused(*options: object) -> Any:
        return run_shards("subset", dataset.path, "--out", tmp_path / "s", *options)

    listed = tmp_path / "keys"
    assert_one_line(refused(), 2, "give --keys, --drop or --split")
    assert_one_line(refused("--split", "test"), 2, "there is no split 'test'")
    assert_one_line(refused("--keys", listed), 2, f"{listed}: there is no such file")
    listed.write_text(keys(dataset)[0] + "0\n" + keys(dataset)[1])
    assert_one_line(refused("--keys", listed), 2, f"no sample has the key '{keys(dataset)[0]}0' (1 of 2 are unknown)")
    listed.write_text("\n".join(keys(dataset)))
    assert_one_line(refused("--drop", listed), 2, "no sample is left")
    listed.write_bytes(b"\xff\xfe")
    assert_one_line(refused("--drop", listed), 2, "not a text file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys"]


# What all of them have in common


def test_an_existing_output_is_misuse_and_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    commands: list[list[object]] = [
        ["repack", dataset.path], ["merge", dataset.path, dataset.path], ["subset", dataset.path, "--split", "val"],
        ["split", dataset.path, "--fraction", "val=0.1"],
    ]  # fmt: skip
    for command in commands:
        outcome = run_shards(*command, "--out", tmp_path / "there")
        assert_one_line(outcome, 2, f"{tmp_path / 'there'}: exists already", "choose another --out")
    assert tree(tmp_path) == {"there/mine": b"mine"}


@pytest.mark.parametrize("member", ["input", "json", "target"])
def test_a_damaged_source_is_named_and_nothing_is_left(dataset: Dataset, tmp_path: Path, member: str) -> None:
    copy = open_dataset(shutil.copytree(dataset.path, tmp_path / "copy"))
    place = copy.location("train", 14)
    flip_byte(copy.path / place.shard.file, int(copy.index("train")[14][f"{member}_offset"]) + 200)
    outcome = run_shards("repack", copy.path, "--out", tmp_path / "r", "--samples-per-shard", 4)
    assert_one_line(outcome, 1, str(copy.path / place.shard.file), place.key, member, "restore the shard")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize("moment", ["second shard", "publication"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    name = "publish" if moment == "publication" else "write_with_receipt"
    whole = getattr(shards.rewrite, name)
    calls: list[int] = []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if moment == "publication" or len(calls) == 2:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(shards.rewrite, name, fail)
    outcome = run_shards("repack", dataset.path, "--out", tmp_path / "r", "--samples-per-shard", 4)
    assert outcome.code == (1 if isinstance(error, OSError) else 130)
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced(dataset: Dataset, tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
import shards.rewrite
shards.rewrite.publish = lambda *_: os._exit(9)
from shards.cli.app import app
app(["repack", {str(dataset.path)!r}, "--out", {str(tmp_path / "r")!r}, "--samples-per-shard", "2"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == 9
    assert (tmp_path / "r.partial" / "train" / "r-train-000011.tar").is_file()
    assert_one_line(run_shards("info", tmp_path / "r"), 1, "not finished")
    new = made("repack", dataset.path, "--out", tmp_path / "r", "--samples-per-shard", 20)
    assert members(new) == members(dataset)
    assert len([name for name in tree(new.path) if name.endswith(".tar")]) == 3


def test_an_unfinished_encoding_is_not_thrown_away(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "r.partial" / "receipts").mkdir(parents=True)
    outcome = run_shards("repack", dataset.path, "--out", tmp_path / "r")
    assert_one_line(outcome, 2, f"{tmp_path / 'r.partial'}: holds an unfinished encoding", "choose another --out")
    assert (tmp_path / "r.partial" / "receipts").is_dir()


def test_two_processes_do_not_write_one_dataset(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "r.partial").mkdir()
    with (tmp_path / "r.partial" / LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = run_shards("repack", dataset.path, "--out", tmp_path / "r")
        assert_one_line(outcome, 2, "another process is writing it")
    assert made("repack", dataset.path, "--out", tmp_path / "r").splits["train"].samples == 23


def test_one_shard_at_a_time_is_in_memory(dataset: Dataset, tmp_path: Path) -> None:
    """Samples are read when their shard is written, not before: half of it is there while the rest is unread."""
    copy = open_dataset(shutil.copytree(dataset.path, tmp_path / "copy"))
    last = copy.splits["train"].shards[-1]
    seen: list[str] = []

    def remove_the_rest(receipt: Receipt) -> None:
        seen.append(receipt.shard)
        (copy.path / last.file).unlink(missing_ok=True)

    job = Rewrite("repack", (copy,), all_samples([copy]), {}, {}, samples_per_shard=10)
    with pytest.raises((OSError, DatasetError), match=Path(last.file).name):
        rewrite(job, tmp_path / "r", remove_the_rest)
    assert seen == ["train/r-train-000000.tar", "train/r-train-000001.tar"]


def test_the_verbs_run_without_torch(dataset: Dataset, other: Dataset, tmp_path: Path) -> None:
    out = str(tmp_path)
    commands = [
        ["repack", str(dataset.path), "--out", f"{out}/1"],
        ["merge", str(dataset.path), str(other.path), "--out", f"{out}/2"],
        ["split", str(dataset.path), "--fraction", "val=0.3", "--out", f"{out}/3"],
        ["subset", str(dataset.path), "--split", "val", "--out", f"{out}/4"],
        ["export", str(dataset.path), "0", "--to", "npy,json", "--out", f"{out}/5"],
        ["plot", str(dataset.path), "0", "--out", f"{out}/6.png"],
    ]
    program = f"""
import sys
sys.modules["torch"] = None
from shards.cli.app import app
from shards.console import run
for command in {commands!r}:
    try:
        run(app, "shards", command)
    except SystemExit as exited:
        assert exited.code == 0, (command, exited.code)
    heavy = {{"ray", "mlflow", "torchaudio", "encodec", "matplotlib"}} & sys.modules.keys()
    assert command[0] == "plot" or not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
