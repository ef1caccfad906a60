"""Encoding straight into object storage: the same dataset, the same survival, no half-written thing to be seen."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command import assert_one_line, run_pipeline
from make_tracks import OPTIONS, SHARDS
from preloaded import Preloaded, preloaded

import pipeline
from pipeline.claim import LEASE
from shards import open_dataset
from shards.audit import verify
from shards.schema import Receipt


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file system of an S3 server, which the environment leads to as it would on a cluster."""
    for name, value in (("ENDPOINT_URL", s3_server), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def commands(s3: Any) -> Iterator[Preloaded]:
    """Commands in processes of their own, which find the server as well."""
    with preloaded() as process:
        yield process


def encode(tracks: Path, url: str, *options: object) -> Any:
    return run_pipeline("encode", tracks / "pairs.jsonl", "--out", url, "--local", *OPTIONS, *options)


def stored(s3: Any, url: str) -> dict[str, str]:
    """Every object under a URL and its hash, but for the manifest, which tells of its build."""
    s3.invalidate_cache()
    root = url.removeprefix("s3://")
    found = {path.removeprefix(f"{root}/"): s3.cat_file(path) for path in s3.find(root)}
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items() if name != "dataset.json"}


def test_a_dataset_in_s3_is_the_one_that_a_folder_would_hold(
    s3: Any, tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path
) -> None:
    url = "s3://bucket/whole/ds"
    done = encode(tracks, url, "--json")
    assert (done.code, done.json["encoded_shards"]) == (0, SHARDS), done
    assert stored(s3, url) == undisturbed_files
    dataset = open_dataset(url, cache=tmp_path / "cache")
    assert dataset.manifest.fingerprint == done.json["fingerprint"]
    assert sum(len(batch.keys) for batch in dataset.loader("train", 4, seed=0, epoch=0)) == 12
    s3.get(url, str(tmp_path / "ds"), recursive=True)
    assert verify(tmp_path / "ds", "full").problems == ()
    again = encode(tracks, url, "--json")
    assert (again.json["encoded_shards"], again.json["kept_shards"]) == (0, SHARDS)


def test_any_other_file_system_will_do(tracks: Path, undisturbed_files: dict[str, str]) -> None:
    assert encode(tracks, "memory://somewhere/ds").code == 0
    memory = fsspec.filesystem("memory")
    found = {path.removeprefix("/somewhere/ds/"): memory.cat_file(path) for path in memory.find("/somewhere/ds")}
    del found["dataset.json"]
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == undisturbed_files


def test_a_job_killed_on_its_way_to_s3_goes_on(
    commands: Preloaded, s3: Any, tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path
) -> None:
    url = "s3://bucket/killed/ds"
    command = ["encode", tracks / "pairs.jsonl", "--out", url, "--local", *OPTIONS]
    pid = commands.start(command, tmp_path / "log")
    receipts: list[str] = []
    while len(receipts) < 2:
        s3.invalidate_cache()
        receipts = s3.glob("bucket/killed/ds/receipts/*.json")
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert commands.wait(pid) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not s3.exists("bucket/killed/ds/dataset.json")
    there = stored(s3, url)
    for path in receipts:
        receipt = Receipt.model_validate_json(s3.cat_file(path))
        assert there[receipt.shard] == undisturbed_files[receipt.shard]
    # The dead job's claim is fresh: nobody can know yet that it is dead.
    assert_one_line(encode(tracks, url), 1, "another encode job is at work here", "its claim ends 120 s after")
    grow_old(s3, f"bucket/killed/ds/{LEASE}")
    done = encode(tracks, url, "--json")
    assert done.json["kept_shards"] >= 2
    assert stored(s3, url) == undisturbed_files


def grow_old(s3: Any, lease: str) -> None:
    """Let the last sign of life of a claim lie in the past."""
    content = json.loads(s3.cat_file(lease))
    s3.pipe_file(lease, json.dumps({**content, "renewed": content["renewed"] - 1000}).encode())


def test_a_damaged_object_is_made_again_in_its_place(s3: Any, tracks: Path, undisturbed_files: dict[str, str]) -> None:
    url, shard = "s3://bucket/repaired/ds", "train/ds-train-000001.tar"
    assert encode(tracks, url).code == 0
    s3.pipe_file(f"bucket/repaired/ds/{shard}", b"half")
    assert encode(tracks, url, "--only", shard).code == 0
    assert stored(s3, url) == undisturbed_files


def test_a_dataset_in_s3_is_replaced_where_that_is_asked_for(s3: Any, tracks: Path) -> None:
    url = "s3://bucket/replaced/ds"
    assert encode(tracks, url).code == 0
    other = ("--set", "output.samples_per_shard=5")
    assert_one_line(encode(tracks, url, *other), 2, url, "holds a dataset made from other pairs or settings")
    assert encode(tracks, url, *other, "--overwrite").code == 0
    assert sorted(name for name in stored(s3, url) if name.endswith(".tar")) == [
        f"train/ds-train-{number:06d}.tar" for number in range(3)
    ]


def test_a_bucket_that_is_not_there_is_one_line(s3: Any, tracks: Path) -> None:
    done = encode(tracks, "s3://no-such-bucket/ds")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: s3://no-such-bucket/ds")


@pytest.mark.slow
def test_ray_actors_write_into_s3(s3: Any, tracks: Path, undisturbed_files: dict[str, str]) -> None:
    # In a process of its own: actors take the credentials of the process that started their Ray.
    url = "s3://bucket/ray/ds"
    command = [sys.executable, "-m", "pipeline", "encode", str(tracks / "pairs.jsonl"), "--out", url, *OPTIONS]
    environment = {**os.environ, "PYTHONPATH": str(Path(pipeline.__file__).parents[1])}
    subprocess.run([*command, "--set", "encoder.max_actors=2"], env=environment, check=True)
    assert stored(s3, url) == undisturbed_files


def test_missing_credentials_are_one_line(
    s3: Any, tracks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert_one_line(encode(tracks, "s3://bucket/closed/ds"), 1, "s3://bucket/closed/ds", "credentials")
