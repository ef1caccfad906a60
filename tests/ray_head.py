"""A cluster as `ray_cluster.yaml` makes one, on this machine: a head without cores, a worker node, and a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment import ROOT

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
STOP_SECONDS = 300
"""That a job has to stop, as `ray_cluster.yaml` gives it 900."""


@dataclass(frozen=True)
class Head:
    """The head of the cluster, as its user sees it."""

    address: str
    worker_node: str
    environment: dict[str, str]

    def submit(self, *command: object, name: str | None = None, **environment: str) -> subprocess.Popen[str]:
        """Submit a job from the repository's folder, as a person does."""
        known_as = [] if name is None else ["--submission-id", name]
        given = [str(word) for word in command]
        return subprocess.Popen(
            ["ray", "job", "submit", "--address", self.address, *known_as, "--working-dir", ".", "--", *given],
            cwd=ROOT,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self, name: str) -> None:
        """Stop a job, and wait until it has stopped."""
        command = ["ray", "job", "stop", "--address", self.address, name]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def ask(self, path: str) -> Any:
        """Ask the dashboard."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def homes(self, name: str) -> set[str]:
        """Nodes on which actors of a class have lived, whose name has `name` in it."""
        actors = self.ask("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
        return {actor["node_id"] for actor in actors if name in actor["class_name"]} - {None}


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start such a cluster. It ends with its input; `ray stop` would end every Ray of the machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_JOB_STOP_WAIT_TIME_S"] = str(STOP_SECONDS)
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
