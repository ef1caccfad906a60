"""The files for clusters, checked offline: with Ray's own validators and with what those miss."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return content


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(copy.deepcopy(cluster)))


def test_the_cluster_file_makes_sense_where_ray_does_not_look(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    for name, node in types.items():
        assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", node["node_config"]["InstanceType"]), name
        assert node.get("min_workers", 0) <= node.get("max_workers", 0) <= cluster["max_workers"], name
    assert types["head"]["resources"] == {"CPU": 0}, "nothing runs on the head"
    assert types["gpu_a100"]["resources"] == {"CPU": 96, "GPU": 8, "accelerator_type:A100": 1}
    assert types["gpu_a100"]["node_config"]["InstanceType"] == "p4d.24xlarge"
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_the_cluster_runs_the_pinned_ray(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert re.search(r":(\d+\.\d+\.\d+)-py311", cluster["docker"]["image"]).group(1) == pinned[1]  # type: ignore[union-attr]


def test_scripts_are_valid_shell() -> None:
    scripts = [ROOT / ".ci" / "run", *sorted((ROOT / "deploy").rglob("*.sh"))]
    assert len(scripts) >= 2
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_commands_named_in_the_demo_exist() -> None:
    """The demo prints commands to go on with: each must be one that the tools know."""
    import pipeline.cli.app
    import shards.cli.app
    import training.cli

    known = {
        "pipeline": pipeline.cli.app.app,
        "shards": shards.cli.app.app,
        "training": training.cli.app,
    }
    for text in (ROOT / "deploy" / "demo.sh", ROOT / "README.md", ROOT / "ray_cluster.yaml"):
        for package, verb in re.findall(r"-m (pipeline|shards|training) ([a-z-]+)", text.read_text()):
            names = {
                command.name or command.callback.__name__  # type: ignore[union-attr]
                for command in known[package].registered_commands
            }
            assert verb in names, f"{text.name}: {package} {verb}"
