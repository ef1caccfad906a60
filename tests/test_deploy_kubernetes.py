"""The jobs for Kubernetes: nothing misspelt, nothing missing, all pods alike where a job needs them alike."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from deployment import GONE, ROOT, damaged, image_version, pinned, read_yaml, secrets

from pipeline.config import EncodeConfig
from shards.settings import load_settings

KNOWN_KEYS = {
    "manifest": "apiVersion kind metadata spec",
    "metadata": "name labels",
    "job": "entrypoint backoffLimit shutdownAfterJobFinishes ttlSecondsAfterFinished rayClusterSpec",
    "cluster": "rayVersion enableInTreeAutoscaling autoscalerOptions authOptions headGroupSpec workerGroupSpecs",
    "autoscaler": "version idleTimeoutSeconds resources",
    "group": "groupName replicas minReplicas maxReplicas rayStartParams template",
    "pod": "securityContext nodeSelector tolerations containers volumes",
    "container": "name image env ports resources volumeMounts",
    "resources": "requests limits",
}
"""The keys in use: a Kubernetes cluster drops a key that it does not know, and says nothing."""
QUANTITY = re.compile(r"\d+(m|Mi|Gi)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
GPU = "nvidia.com/gpu"
COMMANDS = {"encode": ["python", "-m", "pipeline", "encode"], "train": ["python", "-m", "training", "launch"]}


@pytest.fixture(scope="module")
def manifests() -> Any:
    """Each job under the label that `kubectl apply --selector` finds it by."""
    content = read_yaml("deploy/kuberay.yaml")
    assert (content["apiVersion"], content["kind"], content.keys()) == ("v1", "List", {"apiVersion", "kind", "items"})
    jobs = {job["metadata"]["labels"]["job"]: job for job in content["items"]}
    assert list(jobs) == ["encode", "train"]
    return jobs


@pytest.fixture(scope="module")
def manifest(manifests: Any) -> Any:
    return manifests["encode"]


def problems(content: Any) -> Iterator[str]:
    """What is wrong with a manifest."""
    yield from _unknown("manifest", content)
    if (content["apiVersion"], content["kind"]) != ("ray.io/v1", "RayJob"):
        yield "is no RayJob"
    yield from _unknown("metadata", content["metadata"])
    if not NAME.fullmatch(content["metadata"]["name"]):
        yield "its name is none for Kubernetes"
    yield from (f"looks like a secret: {text}" for text in secrets(content))
    kind = content["metadata"]["labels"]["job"]
    yield from _job(content["spec"], COMMANDS[kind])
    yield from (_encoders if kind == "encode" else _workers_of_a_training)(content["spec"])
    cluster = content["spec"]["rayClusterSpec"]
    yield from _cluster(cluster)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "work may land on the head"
    if len({group["groupName"] for group in workers}) != len(workers):
        yield "two groups have one name"
    for group in workers:
        yield from _workers(group)
    mounts = _mounts(head)
    for group in [head, *workers]:
        yield from _group(group)
        if _mounts(group) != mounts:
            yield "the data does not lie under one path in all pods"


def _unknown(section: str, content: dict[str, Any]) -> Iterator[str]:
    for key in content.keys() - set(KNOWN_KEYS[section].split()):
        yield f"{section}: unknown key {key}"


def _job(job: Any, command: list[str]) -> Iterator[str]:
    yield from _unknown("job", job)
    if job.get("shutdownAfterJobFinishes") is not True:
        yield "the cluster stays when the job is done"
    if not job.get("ttlSecondsAfterFinished"):
        yield "no time to read the logs"
    words = shlex.split(job["entrypoint"])
    if words[:4] != command:
        yield f"is no {' '.join(command)}"
    for before, word in pairwise(words):
        paths = {"encode", "--out", "--codec-weights", "--shards", "--run-dir"}
        if before in paths and not word.startswith("/data/"):
            yield f"{word} does not lie on the volume"


def _encoders(job: Any) -> Iterator[str]:
    """More CPU encoders than the CPU group has room for would start GPU pods."""
    given = _given(job, "--set")
    encoders = load_settings(EncodeConfig, None, given).encoder.max_actors
    if encoders != _room(job["rayClusterSpec"]["workerGroupSpecs"][0], "cpu"):
        yield "the encoders do not fill the CPU group, or not it alone"


def _workers_of_a_training(job: Any) -> Iterator[str]:
    """Workers without a GPU of their own wait for ever; and the cluster has no GPU before it is asked for one."""
    if _given(job, "--workers") != [str(_room(job["rayClusterSpec"]["workerGroupSpecs"][0], GPU))]:
        yield "the workers are not as many as the GPUs"
    if _given(job, "--device") != ["gpu"]:
        yield "would train without GPUs, since none are there when it begins"


def _given(job: Any, option: str) -> list[str]:
    return [word for before, word in pairwise(shlex.split(job["entrypoint"])) if before == option]


def _room(group: Any, resource: str) -> int | None:
    amount = group["template"]["spec"]["containers"][0]["resources"]["limits"].get(resource)
    return int(amount) * group["maxReplicas"] if str(amount).isdigit() else None


def _cluster(cluster: Any) -> Iterator[str]:
    yield from _unknown("cluster", cluster)
    yield from _unknown("autoscaler", cluster["autoscalerOptions"])
    yield from _resources(cluster["autoscalerOptions"]["resources"])
    if cluster.get("rayVersion") != pinned("ray"):
        yield "rayVersion is not the pinned one"
    if cluster.get("enableInTreeAutoscaling") is not True:
        yield "no workers will ever come"
    if cluster.get("authOptions") != {"mode": "token"}:
        yield "no authentication"


def _workers(group: Any) -> Iterator[str]:
    if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
        yield "the numbers of replicas are not in order"
    if group["minReplicas"] != 0 or group["maxReplicas"] == 0:
        yield "does not scale from nothing"
    pod = group["template"]["spec"]
    gpus = pod["containers"][0]["resources"]["limits"].get(GPU)
    if group["groupName"].startswith("gpu"):
        if not gpus:
            yield "a GPU group without GPUs"
        if "A100" not in str(pod.get("nodeSelector")):
            yield "may land on another GPU"
        if not any(toleration.get("key") == GPU for toleration in pod.get("tolerations", [])):
            yield "is kept off GPU nodes"
    elif gpus:
        yield "CPU work on GPU nodes"


def _group(group: Any) -> Iterator[str]:
    yield from _unknown("group", group)
    for key, value in group["rayStartParams"].items():
        if not isinstance(value, str):
            yield f"{key}: Ray's parameters are texts"
    pod = group["template"]["spec"]
    yield from _unknown("pod", pod)
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        yield from _unknown("container", container)
        yield from _resources(container["resources"])
        if image_version(container["image"]) != pinned("ray"):
            yield f"{container['image']} is not of Ray {pinned('ray')}"
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        if variables.get("RAY_USAGE_STATS_ENABLED") != "0":
            yield "calls home"
        if int(variables.get("RAY_JOB_STOP_WAIT_TIME_S", 3)) < 600:
            yield "a stop would not wait until the work is saved"
        for variable in container["env"]:
            if not isinstance(variable["value"], str):
                yield f"{variable['name']}: variables are texts"
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                yield f"no volume {mount['name']}"


def _resources(resources: Any) -> Iterator[str]:
    yield from _unknown("resources", resources)
    if resources.get("requests") != resources.get("limits"):
        yield "requests and limits differ: Ray counts on what the pod may lose"
    for name in ("cpu", "memory"):
        if not QUANTITY.fullmatch(str(resources.get("limits", {}).get(name))):
            yield f"no quantity of {name}"


def _mounts(group: Any) -> dict[str, str]:
    container = group["template"]["spec"]["containers"][0]
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("job", COMMANDS)
def test_the_manifest_makes_sense(manifests: Any, job: str) -> None:
    assert list(problems(manifests[job])) == []


CLUSTER = ["spec", "rayClusterSpec"]
HEAD, CPU, A100 = [*CLUSTER, "headGroupSpec"], [*CLUSTER, "workerGroupSpecs", 0], [*CLUSTER, "workerGroupSpecs", 1]
POD, CONTAINER = ["template", "spec"], ["template", "spec", "containers", 0]
BARE = {"requests": {"cpu": "10", "memory": "64Gi"}, "limits": {"cpu": "10", "memory": "64Gi"}}


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["specs"], {}, "manifest: unknown key specs"),
        (["spec", "entryPoint"], "x", "job: unknown key entryPoint"),
        ([*CLUSTER, "enableInTreeAutoScaling"], True, "cluster: unknown key"),
        ([*CLUSTER, "autoscalerOptions", "idleTimeout"], 1, "autoscaler: unknown key"),
        ([*CPU, "maxReplica"], 8, "group: unknown key"),
        ([*CPU, *POD, "container"], [], "pod: unknown key"),
        ([*CPU, *CONTAINER, "envs"], [], "container: unknown key"),
        ([*CPU, *CONTAINER, "resources", "limit"], {}, "resources: unknown key"),
        (["kind"], "RayCluster", "no RayJob"),
        (["apiVersion"], "ray.io/v1alpha1", "no RayJob"),
        (["metadata", "name"], "Cascadence_encode", "none for Kubernetes"),
        (["spec", "shutdownAfterJobFinishes"], False, "stays when the job is done"),
        (["spec", "ttlSecondsAfterFinished"], 0, "no time to read"),
        (["spec", "entrypoint"], "python -m pipeline pair /data --out /data/pairs.jsonl", "is no python"),
        (["spec", "entrypoint"], "python -m pipeline encode pairs.jsonl --out /data/dataset", "not lie on the volume"),
        (["spec", "entrypoint"], "python -m pipeline encode /data/pairs.jsonl --out dataset", "not lie on the volume"),
        ([*CPU, "maxReplicas"], 7, "do not fill the CPU group"),
        ([*CLUSTER, "rayVersion"], "2.59.0", "not the pinned one"),
        ([*CLUSTER, "enableInTreeAutoscaling"], False, "no workers will ever come"),
        ([*CLUSTER, "authOptions"], GONE, "no authentication"),
        ([*HEAD, "rayStartParams", "num-cpus"], "4", "land on the head"),
        ([*HEAD, "rayStartParams", "num-cpus"], 0, "are texts"),
        ([*A100, "groupName"], "cpu-decode", "two groups have one name"),
        ([*CPU, "minReplicas"], 9, "not in order"),
        ([*CPU, "replicas"], 9, "not in order"),
        ([*A100, "maxReplicas"], 0, "does not scale from nothing"),
        ([*CPU, *CONTAINER, "image"], "rayproject/ray:2.59.0-py311-cpu", "is not of Ray"),
        ([*CPU, *CONTAINER, "env", 0, "value"], 0, "variables are texts"),
        ([*CPU, *CONTAINER, "env"], [], "calls home"),
        ([*HEAD, *CONTAINER, "env", 1, "value"], "3", "would not wait"),
        (["metadata", "label"], {}, "metadata: unknown key label"),
        ([*CPU, *CONTAINER, "resources", "limits", "memory"], "64Gi", "requests and limits differ"),
        ([*CPU, *CONTAINER, "resources", "limits", "cpu"], "sixteen", "no quantity of cpu"),
        ([*A100, *CONTAINER, "resources"], BARE, "GPU group without GPUs"),
        ([*A100, *POD, "nodeSelector"], GONE, "another GPU"),
        ([*A100, *POD, "tolerations"], GONE, "kept off"),
        ([*CPU, *CONTAINER, "resources", "limits", GPU], "1", "CPU work on GPU nodes"),
        ([*CPU, *POD, "volumes", 0, "name"], "date", "no volume data"),
        ([*CPU, *CONTAINER, "volumeMounts", 0, "mountPath"], "/mnt", "one path in all pods"),
        ([*HEAD, *CONTAINER, "env", 0], {"name": "RAY_AUTH_TOKEN", "value": "ab" * 32}, "a secret"),
    ],
)
def test_each_damage_to_the_manifest_is_noticed(
    manifest: Any, place: Sequence[str | int], value: Any, problem: str
) -> None:
    found = list(problems(damaged(manifest, place, value)))
    assert any(problem in text for text in found), found


TRAINING = "python -m training launch --shards /data/dataset --run-dir /data/runs/first"


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["spec", "entrypoint"], "python -m pipeline encode /data/pairs.jsonl --out /data/dataset", "is no python"),
        (["spec", "entrypoint"], f"{TRAINING} --workers 4", "would train without GPUs"),
        (["spec", "entrypoint"], f"{TRAINING} --device gpu --workers 8", "not as many as the GPUs"),
        (["spec", "entrypoint"], f"{TRAINING} --device gpu", "not as many as the GPUs"),
        (["spec", "entrypoint"], TRAINING.replace("/data/runs", "runs"), "runs/first does not lie on the volume"),
        (["spec", "entrypoint"], TRAINING.replace("/data/dataset", "dataset"), "dataset does not lie on the volume"),
        ([*CLUSTER, "workerGroupSpecs", 0, "maxReplicas"], 2, "not as many as the GPUs"),
    ],
)
def test_each_damage_to_the_training_is_noticed(
    manifests: Any, place: Sequence[str | int], value: Any, problem: str
) -> None:
    found = list(problems(damaged(manifests["train"], place, value)))
    assert any(problem in text for text in found), found


def test_the_image_is_built_from_the_pinned_ray_and_holds_what_the_package_needs() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert image_version(base) == pinned("ray")
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[2:-1]]
    assert {"pyproject.toml", "constraints.txt", "README.md", "shards", "pipeline", "training"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert any("--constraint constraints.txt" in line for line in lines if line.startswith("RUN "))
