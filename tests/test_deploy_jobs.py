"""`ray job submit`, for real: a head without cores, a worker node, a token, and the code that travels with the job."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import ROOT
from make_tracks import OPTIONS, PAIRS, SHARDS, make_tracks
from ray_head import Head, ray_head
from tiny_training import ENDLESS, steps_told, tiny_dataset, tiny_options, until_it_trains, workers_told

from shards.audit import verify
from training.checkpoint import open_checkpoint

pytestmark = pytest.mark.slow

PACKAGE_BYTES = 2 << 20
"""A job's package at most: the code, and none of the environment, the data or the history."""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    pytest.importorskip("ray")
    with ray_head() as head:
        yield head


def test_jobs_encode_on_the_worker_nodes_or_fail_with_one_line(head: Head, tmp_path: Path) -> None:
    """One that works; then one without its pairs and one without the token, side by side to save time.

    Not all three at once: the two nodes are one machine with one folder for packages, and when the worker node unpacks
    a package for the first time it takes the folder away from under the jobs that run in it.
    """
    encode = ["python", "-m", "pipeline", "encode"]
    pairs, nothing = make_tracks(tmp_path) / "pairs.jsonl", tmp_path / "none.jsonl"
    works = head.submit(*encode, pairs, "--out", tmp_path / "ds", *OPTIONS)
    output = works.communicate()[0]
    assert works.returncode == 0, output
    jobs = [
        head.submit(*encode, nothing, "--out", tmp_path / "other", *OPTIONS),
        head.submit(*encode, pairs, "--out", tmp_path / "other", *OPTIONS, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=""),
    ]
    (without_pairs, without_token) = [(job.communicate()[0], job.returncode) for job in jobs]

    audit = verify(tmp_path / "ds", "sha256")
    assert (audit.problems, audit.samples, audit.shards) == ((), PAIRS, SHARDS)

    assert without_pairs[1] == 1
    error = f"error: {nothing}: there is no such pairs file; make one with `python -m pipeline pair`"
    assert error in without_pairs[0].splitlines()
    assert "Traceback" not in without_pairs[0]

    assert without_token[1] == 1
    assert "Missing authentication token" in without_token[0]
    assert not (tmp_path / "other").exists()

    assert head.homes("ShardEncoder") == {head.worker_node}


def test_a_training_of_two_workers_is_stopped_and_the_same_job_goes_on(head: Head, tmp_path: Path) -> None:
    """Beside it, one whose run directory would go with the job."""
    run_dir, dataset = tmp_path / "run", tiny_dataset(tmp_path / "ds")
    launch = ["python", "-m", "training", "launch", "--shards", dataset, "--workers", 2]
    astray = head.submit(*launch, "--run-dir", "runs/first")
    job = head.submit(*launch, "--run-dir", run_dir, *tiny_options(ENDLESS), name="first")
    until_it_trains(run_dir, job)
    head.stop("first")
    output = job.communicate()[0]
    assert head.ask("/api/jobs/first")["status"] == "STOPPED"
    assert not (run_dir / "STOP").exists()
    saved = open_checkpoint(run_dir / "checkpoints" / "interrupted").progress
    assert f"stopped; the same command goes on from epoch {saved.epoch}, step {saved.step}" in output

    output = astray.communicate()[0]
    assert astray.returncode == 1
    assert "error: --run-dir runs/first: a job's own folder goes with the job; give an absolute path" in output
    assert "Traceback" not in output

    epochs = saved.epoch + 1
    output = head.submit(*launch, "--run-dir", run_dir, *tiny_options(epochs), name="second").communicate()[0]
    assert head.ask("/api/jobs/second")["status"] == "SUCCEEDED", output
    assert workers_told(run_dir) == [2, 2]
    steps = steps_told(run_dir)
    assert steps == list(range(1, steps[-1] + 1)), "each step is told once, in two jobs"
    assert f"{run_dir / 'checkpoints'}: epoch {epochs}, step {steps[-1]}" in output
    assert head.homes("TrainWorker") == {head.worker_node}


def test_a_jobs_package_is_the_code_and_small(tmp_path: Path) -> None:
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    package = tmp_path / "package.zip"
    packaging.create_package(str(ROOT), package, include_gitignore=True, excludes=[".git"])
    with zipfile.ZipFile(package) as content:
        tops = {name.split("/")[0] for name in content.namelist()}
    assert {"shards", "pipeline", "training"} <= tops
    assert not tops & {"tests", "docs", "demo", "runs", "data", "benchmarks"}
    assert package.stat().st_size < PACKAGE_BYTES
