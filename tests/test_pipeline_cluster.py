"""`ray job submit`, for real: a head without cores, a worker node, a token, and the code that travels with the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deployment import ROOT
from make_tracks import OPTIONS, PAIRS, SHARDS, make_tracks

from shards.audit import verify

pytestmark = pytest.mark.slow

CLUSTER = """
import socket, sys
from ray.cluster_utils import Cluster

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
store = {"object_store_memory": 100 << 20}
# Ports of its own: with the fixed one of the agent, a second Ray on the machine could take no jobs.
head = {"include_dashboard": True, "dashboard_port": port, "dashboard_agent_listen_port": 0, "num_cpus": 0, **store}
cluster = Cluster(initialize_head=True, head_node_args=head)
worker = cluster.add_node(num_cpus=4, **store)
print("http://" + cluster.head_node.webui_url, worker.node_id, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
TOKEN = "0123456789abcdef" * 4
PACKAGE_BYTES = 2 << 20
"""A job's package at most: the code, and none of the environment, the data or the history."""


@dataclass(frozen=True)
class Head:
    """A cluster as `ray_cluster.yaml` makes one, on this machine."""

    address: str
    worker_node: str
    environment: dict[str, str]

    def submit(self, *command: object, **environment: str) -> subprocess.Popen[str]:
        """Submit a job from the repository's folder, as a person does."""
        given = [str(word) for word in command]
        return subprocess.Popen(
            ["ray", "job", "submit", "--address", self.address, "--working-dir", ".", "--", *given],
            cwd=ROOT,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, path: str) -> Any:
        """Ask the dashboard."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Ended by the end of its input; `ray stop` would end every Ray of the machine."""
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    # As in an activated environment: a job's `python` is the first of the head's path.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    child = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        address, worker_node = child.stdout.readline().split()
        yield Head(address, worker_node, environment)
        child.stdin.close()
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()


def test_jobs_encode_on_the_worker_nodes_or_fail_with_one_line(head: Head, tmp_path: Path) -> None:
    """One that works, one without its pairs and one without the token, side by side to save time."""
    encode = ["python", "-m", "pipeline", "encode"]
    pairs, nothing = make_tracks(tmp_path) / "pairs.jsonl", tmp_path / "none.jsonl"
    jobs = [
        head.submit(*encode, pairs, "--out", tmp_path / "ds", *OPTIONS),
        head.submit(*encode, nothing, "--out", tmp_path / "other", *OPTIONS),
        head.submit(*encode, pairs, "--out", tmp_path / "other", *OPTIONS, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=""),
    ]
    (works, without_pairs, without_token) = [(job.communicate()[0], job.returncode) for job in jobs]

    assert works[1] == 0, works[0]
    audit = verify(tmp_path / "ds", "sha256")
    assert (audit.problems, audit.samples, audit.shards) == ((), PAIRS, SHARDS)

    assert without_pairs[1] == 1
    error = f"error: {nothing}: there is no such pairs file; make one with `python -m pipeline pair`"
    assert error in without_pairs[0].splitlines()
    assert "Traceback" not in without_pairs[0]

    assert without_token[1] == 1
    assert "Missing authentication token" in without_token[0]
    assert not (tmp_path / "other").exists()

    actors = head.ask("/api/v0/actors?detail=1&limit=100")["data"]["result"]["result"]
    encoders = [actor for actor in actors if "Supervisor" not in actor["class_name"]]
    homes = {actor["node_id"] for actor in encoders} - {None}  # of those that came to life
    assert homes == {head.worker_node}


def test_a_jobs_package_is_the_code_and_small(tmp_path: Path) -> None:
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    package = tmp_path / "package.zip"
    packaging.create_package(str(ROOT), package, include_gitignore=True, excludes=[".git"])
    with zipfile.ZipFile(package) as content:
        tops = {name.split("/")[0] for name in content.namelist()}
    assert {"shards", "pipeline", "training"} <= tops
    assert not tops & {"tests", "docs", "demo", "runs", "data", "benchmarks"}
    assert package.stat().st_size < PACKAGE_BYTES
