"""Datasets behind URLs: verified, bounded, fetched once a node, from a real S3 server and from memory."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command import assert_one_line, run_shards
from make_data import make_dataset

from shards import Dataset, open_dataset
from shards.errors import DatasetError

SIZES = {"train": (10, 10, 3), "val": (4,)}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tiny-v1", SIZES)


@pytest.fixture
def s3(s3_server: str) -> dict[str, Any]:
    """Give the options of the file system of an S3 server."""
    return {"key": "test", "secret": "test", "endpoint_url": s3_server, "skip_instance_cache": True}


@pytest.fixture(params=["s3", "memory"])
def remote(request: pytest.FixtureRequest, local: Path, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A copy of the dataset behind a URL, of its own for each test."""
    options = request.getfixturevalue("s3") if request.param == "s3" else {}
    name = tmp_path.name.replace("_", "-").replace("[", "-").replace("]", "").lower()
    url = f"s3://bucket/{name}" if request.param == "s3" else f"memory://{name}"
    files, root = fsspec.core.url_to_fs(url, **options)
    files.put(str(local), root, recursive=True)
    return url, options


def epoch(dataset: Dataset, **how: Any) -> list[tuple[list[str], list[str], float]]:
    loader = dataset.loader("train", 4, seed=1, epoch=2, **how)
    return [(batch.keys, batch.target_keys, float(batch.input.double().sum())) for batch in loader]


def cached(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*/*.tar")}


def test_a_remote_epoch_equals_the_local_one(remote: tuple[str, dict[str, Any]], local: Path, tmp_path: Path) -> None:
    url, options = remote
    dataset = open_dataset(url, cache=tmp_path / "cache", **options)
    assert cached(tmp_path / "cache") == set(), "opening fetches no shard"
    assert epoch(dataset) == epoch(open_dataset(local))
    assert len(cached(tmp_path / "cache")) == 3
    place = dataset.locate("val:2")
    assert dataset.read(place).record.key == place.key
    assert not list((tmp_path / "cache").rglob("*.tmp.*")), "nothing half-written"


def test_a_second_opening_reads_from_the_cache(remote: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, options = remote
    first = epoch(open_dataset(url, cache=tmp_path / "cache", **options))
    files, root = fsspec.core.url_to_fs(url, **options)
    files.rm(f"{root}/train", recursive=True)
    assert epoch(open_dataset(url, cache=tmp_path / "cache", **options)) == first


def test_a_damaged_download_is_never_taken(remote: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, options = remote
    files, root = fsspec.core.url_to_fs(url, **options)
    shard = f"{root}/train/tiny-v1-train-000001.tar"
    content = bytearray(files.cat_file(shard))
    content[5000] ^= 1
    files.pipe_file(shard, bytes(content))
    dataset = open_dataset(url, cache=tmp_path / "cache", **options)
    with pytest.raises(DatasetError, match=r"train-000001\.tar: could not be fetched.*sha256 is not the manifest's"):
        epoch(dataset)
    assert "tiny-v1-train-000001.tar" not in cached(tmp_path / "cache")


def test_the_cache_stays_within_its_bounds(remote: tuple[str, dict[str, Any]], local: Path, tmp_path: Path) -> None:
    url, options = remote
    sizes = [shard.bytes for shard in open_dataset(local).split("train").shards]
    limit = sizes[0] + sizes[2]
    dataset = open_dataset(url, cache=tmp_path / "cache", cache_bytes=limit, **options)
    assert epoch(dataset, window=1) == epoch(open_dataset(local), window=1), "evicted shards come again"
    held = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/*/*.tar"))
    assert 0 < held <= limit


def test_another_dataset_at_the_same_address_is_noticed(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for seed in (1, 2):
        source = make_dataset(tmp_path / f"v{seed}" / "same", {"train": (4,)}, seed=seed)
        files.put(str(source), "/replaced", recursive=True)
        opened = open_dataset("memory://replaced", cache=tmp_path / "cache")
        assert epoch(opened) == epoch(open_dataset(source))
        files.rm("/replaced", recursive=True)


def test_what_is_not_there_is_one_line(tmp_path: Path, local: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing/dataset\.json: there is no such file; check the address"):
        open_dataset("memory://nothing", cache=tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"nowhere://x: .*install what fsspec needs"):
        open_dataset("nowhere://x", cache=tmp_path / "cache")
    files = fsspec.filesystem("memory")
    files.put(str(local), "/cut", recursive=True)
    files.pipe_file("/cut/index/train.npy", b"something else")
    with pytest.raises(DatasetError, match="the index of train is not the manifest's"):
        open_dataset("memory://cut", cache=tmp_path / "cache")


def _read_epoch(url: str, options: dict[str, Any], cache: Path, rank: int, results: Any) -> None:
    dataset = open_dataset(url, cache=cache, **options)
    loader = dataset.loader("train", 2, seed=1, rank=rank, world_size=2)
    results.put((rank, [batch.keys for batch in loader]))


def test_ranks_of_a_node_fetch_each_shard_once(s3: dict[str, Any], local: Path, tmp_path: Path) -> None:
    url = "s3://bucket/shared"
    files, root = fsspec.core.url_to_fs(url, **s3)
    files.put(str(local), root, recursive=True)
    counting = {**s3, "config_kwargs": {"user_agent_extra": "counted"}}
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=_read_epoch, args=(url, counting, tmp_path / "cache", rank, results)) for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    seen = dict(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    flat = [key for keys in seen.values() for batch in keys for key in batch]
    assert len(flat) == len(set(flat)) == 20
    assert len(cached(tmp_path / "cache")) == 3
    shutil.rmtree(tmp_path / "cache")


def test_partitions_fetch_a_nodes_share_alone(local: Path, tmp_path: Path) -> None:
    many = make_dataset(tmp_path / "many", {"train": (6,) * 8})
    fsspec.filesystem("memory").put(str(many), "/many", recursive=True)
    keys = []
    for node in (0, 1):
        cache = tmp_path / f"node{node}"
        dataset = open_dataset("memory://many", cache=cache)
        loader = dataset.loader("train", 4, rank=node, world_size=2, partitions=2, window=2)
        keys.append([batch.keys for batch in loader])
        assert len(cached(cache)) == 4, "half of the shards"
    whole = [batch.keys for batch in open_dataset(many).loader("train", 8, partitions=2, window=2)]
    assert whole == [first + second for first, second in zip(*keys, strict=True)]


@pytest.mark.parametrize("how", [{}, {"window": 1}, {"window": 2, "re_pair": True}])
def test_the_stock_reader_gives_the_same_batches(local: Path, how: dict[str, Any]) -> None:
    dataset = open_dataset(local)
    ours, stock = ([*dataset.loader("train", 4, seed=3, backend=name, **how)] for name in ("direct", "webdataset"))
    assert len(ours) == 5
    for first, second in zip(ours, stock, strict=True):
        assert first.keys == second.keys
        assert first.target_keys == second.target_keys
        assert first.input.equal(second.input)
        assert first.target.equal(second.target)


def test_re_paired_targets_are_those_of_other_samples(local: Path) -> None:
    dataset = open_dataset(local)
    target_of = {b.keys[0]: b.target[0] for b in dataset.loader("train", 1, mode="evaluate")}
    for batch in dataset.loader("train", 4, re_pair=True):
        for key, target_key, target in zip(batch.keys, batch.target_keys, batch.target, strict=True):
            assert key != target_key
            assert target.equal(target_of[target_key])
    assert all(b.keys == b.target_keys for b in dataset.loader("val", 2, re_pair=True)), "validation keeps its pairs"


def test_a_damaged_sample_is_masked_where_asked_for_and_fatal_past_the_cap(local: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tiny-v1"
    shutil.copytree(local, broken)
    dataset = open_dataset(broken)
    shard = broken / "train" / "tiny-v1-train-000000.tar"
    shard.chmod(0o644)
    content = bytearray(shard.read_bytes())
    rows = dataset.index("train")
    for row in rows[:3]:
        content[int(row["target_offset"]) + 500] ^= 1
    shard.write_bytes(bytes(content))
    loader = dataset.loader("train", 4, mode="evaluate", on_bad="mask")
    batches = list(loader)
    weight = [float(w) for batch in batches for w in batch.weight]
    assert weight == [0.0] * 3 + [1.0] * 20 + [0.0], "three bad ones, and one of padding"
    assert not batches[0].target[:3].any()
    assert len(loader.bad) == 3
    assert rows["key"][0].decode() in loader.bad[0]
    with pytest.raises(DatasetError, match="3 damaged samples are more than max_bad=2"):
        list(dataset.loader("train", 4, mode="evaluate", on_bad="mask", max_bad=2))


# The verbs


@pytest.fixture
def address(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dataset behind a URL, and a home of its own, where the cache lies."""
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.filesystem("memory").put(str(local), "/verbs", recursive=True)
    return "memory://verbs"


def test_a_verb_finds_a_server_by_the_configuration_of_fsspec(
    s3: dict[str, Any], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(fsspec.config.conf, "s3", s3)
    fsspec.filesystem("s3").put(str(local), "bucket/verbs", recursive=True)
    assert run_shards("show", "s3://bucket/verbs", "val:2").code == 0


def test_the_verbs_that_read_take_a_url(address: str, local: Path, tmp_path: Path) -> None:
    for verb, *options in (["info"], ["list"], ["show", "val:2"], ["order", "--batch", "4"], ["stats", "--recompute"]):
        there, here = (run_shards(verb, place, *options, "--json") for place in (address, local))
        assert (there.code, there.err) == (0, ""), there
        assert there.out.replace(address, "X") == here.out.replace(str(local), "X")
    assert run_shards("diff", address, local).code == 0
    assert run_shards("bench", address, "--batch-size", "4", "--rounds", "1").code == 0
    assert run_shards("export", address, "val:0", "--out", tmp_path / "out").code == 0
    assert run_shards("subset", address, "--split", "val", "--out", tmp_path / "val").code == 0
    assert open_dataset(tmp_path / "val").splits["val"].samples == 4
    assert_one_line(run_shards("show", address, "zz"), 2, f"{address}: no sample named 'zz'", f"list {address}`")


@pytest.mark.parametrize("verb", [["verify"], ["report", "--out", "page.html"], ["index"]])
def test_the_verbs_that_look_at_the_files_want_a_folder(verb: list[str]) -> None:
    outcome = run_shards(verb[0], "s3://bucket/dataset", *verb[1:])
    assert_one_line(outcome, 2, "s3://bucket/dataset: only a local dataset will do; copy it to this machine")


def test_damage_in_the_cache_says_how_to_fetch_again(address: str, tmp_path: Path) -> None:
    assert run_shards("show", address, "val:2").code == 0
    (shard,) = tmp_path.rglob("*-val-*.tar")
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(bytes(content))
    assert_one_line(run_shards("show", address, "val:0"), 1, f"{shard}: ", "remove the file, and it is fetched again")
    shard.unlink()
    assert run_shards("show", address, "val:0").code == 0
