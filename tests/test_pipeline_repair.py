"""`--only` and `--overwrite`: some shards made again, a dataset replaced; never a half of either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Outcome, assert_one_line, run_pipeline, run_shards
from make_data import flip_byte
from make_tracks import OPTIONS, SHARDS, TWO_A_SHARD, files, make_tracks, paired

from pipeline.encode import encode_dataset, encode_locally
from shards.dataset import open_dataset

THIRD = "train/ds-train-000002.tar"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings, pairs.jsonl and the dataset `ds` made of them."""
    root = make_tracks(tmp_path_factory.mktemp("published"))
    encode_dataset(paired(root / "wav"), root / "ds", TWO_A_SHARD, encode_locally)
    return root


@pytest.fixture
def own(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil; its pairs name its own recordings."""
    root = tmp_path / "own"
    shutil.copytree(published, root)
    pairs = (root / "pairs.jsonl").read_text()
    (root / "pairs.jsonl").write_text(pairs.replace(str(published.resolve()), str(root.resolve())))
    return root


def encode(root: Path, *options: object, out: Path | None = None) -> Outcome:
    return run_pipeline("encode", root / "pairs.jsonl", "--out", out or root / "ds", "--local", *OPTIONS, *options)


# --only


@pytest.mark.parametrize("name", [THIRD, "ds-train-000002.tar", "ds-train-000002"])
def test_a_damaged_shard_of_a_dataset_is_made_again_in_its_place(own: Path, name: str) -> None:
    before = files(own / "ds")
    flip_byte(own / "ds" / THIRD, 5_000)
    damaged = run_shards("verify", own / "ds")
    assert damaged.code == 1
    assert THIRD in damaged.err
    mended = encode(own, "--only", name, "--json")
    assert (mended.code, mended.json["encoded_shards"], mended.json["kept_shards"]) == (0, 1, SHARDS - 1)
    assert files(own / "ds") == before
    assert run_shards("verify", own / "ds", "--level", "full").code == 0
    assert {path.name for path in own.iterdir()} == {"wav", "pairs.jsonl", "ds"}


def test_a_missing_shard_and_receipt_come_back(own: Path) -> None:
    before = files(own / "ds")
    (own / "ds" / THIRD).unlink()
    (own / "ds" / "receipts" / "ds-train-000002.tar.json").unlink()
    assert encode(own, "--only", THIRD, "--only", "ds-train-000000").code == 0
    assert files(own / "ds") == before


def test_a_shard_that_would_come_out_otherwise_is_left_as_it_is(own: Path) -> None:
    source = own / "wav" / "train" / "pair_0004_target.wav"
    source.write_bytes((own / "wav" / "train" / "pair_0005_target.wav").read_bytes())
    before = files(own / "ds")
    done = encode(own, "--only", THIRD)
    assert done.code == 1
    error = done.err.splitlines()[-1]
    assert error.startswith("error: ds-train-000002.tar: does not come out as it was")
    assert "restore it from a copy, or make the dataset anew with --overwrite" in error
    assert files(own / "ds") == before


def test_a_shard_that_is_none_is_named_with_the_nearest(own: Path) -> None:
    done = encode(own, "--only", "ds-train-00002")
    assert_one_line(done, 2, "--only ds-train-00002: no shard of this dataset; did you mean ds-train-00000")


def test_a_dataset_can_be_made_a_few_shards_at_a_time(own: Path, published: Path) -> None:
    out = own / "piecemeal"
    first = encode(own, "--only", "ds-train-000000", "--only", "ds-train-000003", out=out)
    assert first.code == 0
    assert first.out == f"{out}: 2 of {SHARDS} shards are there; run it without --only to make the rest\n"
    assert not out.exists()
    second = encode(own, "--only", "ds-train-000000", "--json", out=out)
    assert (second.json["encoded_shards"], second.json["kept_shards"]) == (1, 1), "what is named is made again"
    assert second.json["fingerprint"] is None
    rest = encode(own, "--json", out=out)
    assert (rest.json["encoded_shards"], rest.json["kept_shards"]) == (SHARDS - 2, 2)
    assert files(out) == files(published / "ds")


def test_the_last_shards_named_complete_the_dataset(own: Path, published: Path) -> None:
    out = own / "piecemeal"
    names = [f"ds-train-{number:06d}" for number in range(SHARDS)]
    assert encode(own, *(part for name in names[:-1] for part in ("--only", name)), out=out).code == 0
    assert encode(own, "--only", names[-1], out=out).code == 0
    assert files(out) == files(published / "ds")


# --overwrite


def test_a_dataset_is_replaced_by_one_with_other_settings(own: Path) -> None:
    other = ("--set", "output.samples_per_shard=5")
    refused = encode(own, *other)
    assert_one_line(refused, 2, f"{own / 'ds'}: holds a dataset made from other pairs or settings", "--overwrite")
    assert encode(own, *other, "--overwrite").code == 0
    assert [shard.samples for shard in open_dataset(own / "ds").splits["train"].shards] == [5, 5, 2]
    assert run_shards("verify", own / "ds", "--level", "full").code == 0
    assert {path.name for path in own.iterdir()} == {"wav", "pairs.jsonl", "ds"}


def test_the_old_dataset_stays_until_the_new_one_is_complete(own: Path) -> None:
    before = files(own / "ds")
    for path in (own / "wav" / "train").glob("*_target.wav"):
        path.write_bytes(b"hello" * 99)
    assert encode(own, "--overwrite").code == 1
    assert files(own / "ds") == before
    assert run_shards("verify", own / "ds").code == 0


def test_a_replaced_dataset_of_the_same_settings_is_the_same(own: Path) -> None:
    before, flipped = files(own / "ds"), own / "ds" / THIRD
    flip_byte(flipped, 5_000)
    done = encode(own, "--overwrite", "--json")
    assert json.loads(done.out)["encoded_shards"] == SHARDS
    assert files(own / "ds") == before


def test_what_is_no_dataset_is_not_overwritten(own: Path) -> None:
    (own / "thesis").mkdir()
    (own / "thesis" / "thesis.tex").write_text("precious")
    assert_one_line(encode(own, "--overwrite", out=own / "thesis"), 2, "exists and is no dataset")
    assert (own / "thesis" / "thesis.tex").read_text() == "precious"


def test_only_and_overwrite_contradict_each_other(own: Path) -> None:
    assert_one_line(encode(own, "--only", THIRD, "--overwrite"), 2, "--only and --overwrite contradict each other")
