"""The files for clusters: the one for AWS, checked offline with Ray's validators, AWS's own data and what both miss."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from deployment import GONE, ROOT, damaged, image_version, pinned, read_yaml, secrets, strings

KNOWN_KEYS = {
    "": "cluster_name max_workers upscaling_speed idle_timeout_minutes provider auth docker available_node_types "
    "head_node_type file_mounts initialization_commands setup_commands head_start_ray_commands "
    "worker_start_ray_commands",
    "provider": "type region cache_stopped_nodes",
    "auth": "ssh_user",
    "docker": "image container_name pull_before_run run_options",
}
TYPES = "available_node_types"


@pytest.fixture(scope="module")
def cluster() -> Any:
    return read_yaml("ray_cluster.yaml")


@pytest.fixture(scope="module")
def problems() -> Iterator[Callable[[Any], list[str]]]:
    """What is wrong with a cluster file; the sizes of machines are those of AWS's catalogue, which moto holds."""
    moto, boto3 = pytest.importorskip("moto"), pytest.importorskip("boto3")
    sizes: dict[str, dict[str, int] | None] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        with moto.mock_aws():
            client = boto3.client("ec2", region_name="us-east-1")

            def size(instance_type: str) -> dict[str, int] | None:
                if instance_type not in sizes:
                    sizes[instance_type] = _size(client, instance_type)
                return sizes[instance_type]

            yield lambda content: [*_shape(content), *_machines(content, size), *_safety(content)]


def _size(client: Any, instance_type: str) -> dict[str, int] | None:
    try:
        (facts,) = client.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
    except client.exceptions.ClientError:
        return None
    resources: dict[str, int] = {"CPU": facts["VCpuInfo"]["DefaultVCpus"]}
    for gpu in facts.get("GpuInfo", {}).get("Gpus", []):
        resources |= {"GPU": gpu["Count"], f"accelerator_type:{gpu['Name']}": 1}
    return resources


def _shape(content: Any) -> Iterator[str]:
    for section, known in KNOWN_KEYS.items():
        for key in (content[section] if section else content).keys() - set(known.split()):
            yield f"{section or 'the file'} has an unknown key {key}"
    types = content[TYPES]
    if content["head_node_type"] not in types:
        yield f"the head's type {content['head_node_type']} does not exist"
    workers = {name: node for name, node in types.items() if name != content["head_node_type"]}
    for name, node in workers.items():
        if node.get("min_workers", 0) > node["max_workers"]:
            yield f"{name}: min_workers is over max_workers"
        if node.get("min_workers", 0) != 0:
            yield f"{name}: machines stay when nothing needs them"
    if sum(node["max_workers"] for node in workers.values()) != content["max_workers"]:
        yield "max_workers is not the sum over the types"
    if content["provider"]["cache_stopped_nodes"] is not False:
        yield "stopped machines keep costing"


def _machines(content: Any, size: Callable[[str], dict[str, int] | None]) -> Iterator[str]:
    for name, node in content[TYPES].items():
        config = node["node_config"]
        yield from (f"{name}: {error}" for error in _refused_by_ec2(config))
        if "InstanceType" not in config:
            yield f"{name}: no InstanceType"
            continue
        resources = size(config["InstanceType"])
        if resources is None:
            yield f"{name}: AWS has no {config['InstanceType']}"
        elif name == content["head_node_type"]:
            if node["resources"] != {"CPU": 0}:
                yield f"{name}: work may land on the head"
            if "InstanceMarketOptions" in config:
                yield f"{name}: a head on spot takes the job along"
        elif node["resources"] != resources:
            yield f"{name}: resources {node['resources']}, the machine has {resources}"
        if "ImageId" not in config:
            yield f"{name}: no ImageId, and Ray's default has too old a driver"
        if not all(disk["Ebs"].get("DeleteOnTermination") for disk in config["BlockDeviceMappings"]):
            yield f"{name}: its disk outlives it"
    images = [node["docker"]["worker_image"] for node in content[TYPES].values() if "docker" in node]
    for image in [content["docker"]["image"], *images]:
        if image_version(image) != pinned("ray"):
            yield f"{image} is not of Ray {pinned('ray')}"


def _refused_by_ec2(config: dict[str, Any]) -> list[str]:
    """What EC2's own description of its call RunInstances has against a machine's configuration."""
    import botocore.validate

    report = botocore.validate.ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **config}, _run_instances())
    return [report.generate_report()] if report.has_errors() else []


@cache
def _run_instances() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _safety(content: Any) -> Iterator[str]:
    yield from (f"looks like a secret: {text}" for text in secrets(content))
    if "--env RAY_AUTH_MODE=token" not in content["docker"]["run_options"]:
        yield "no authentication"
    if "/home/ray/.ray/auth_token" not in content["file_mounts"]:
        yield "the token does not reach the machines"
    if not any("--dashboard-host=127.0.0.1" in command for command in content["head_start_ray_commands"]):
        yield "the dashboard is open to the network"
    for source in content["file_mounts"].values():
        if (ROOT / source).is_dir():
            yield f"Ray reads every byte of the mounted folder {source}"
        elif not source.startswith("~") and not (ROOT / source).is_file():
            yield f"the mounted {source} does not exist"


def test_ray_accepts_the_cluster_file(cluster: Any) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(copy.deepcopy(cluster)))


@pytest.mark.parametrize(
    ("place", "value"),
    [(["min_worker"], 1), (["docker", "imag"], "x"), ([TYPES, "head", "node_config"], GONE), (["head_node_type"], "x")],
)
def test_ray_refuses_a_damaged_cluster_file(cluster: Any, place: Sequence[str], value: Any) -> None:
    """So that its acceptance says something."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        util.validate_config(util.prepare_config(damaged(cluster, place, value)))


def test_the_cluster_file_makes_sense_where_ray_does_not_look(
    cluster: Any, problems: Callable[[Any], list[str]]
) -> None:
    assert problems(cluster) == []


CPU, A100, HEAD = [TYPES, "cpu_decode"], [TYPES, "gpu_a100"], [TYPES, "head"]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["min_workers"], 1, "unknown key min_workers"),
        (["provider", "cache_stoped_nodes"], False, "unknown key cache_stoped_nodes"),
        (["auth", "ssh_usr"], "ubuntu", "unknown key ssh_usr"),
        (["docker", "disable_shm_size_detection"], True, "unknown key disable_shm_size_detection"),
        (["head_node_type"], "boss", "the head's type boss does not exist"),
        ([*CPU, "min_workers"], 17, "min_workers is over max_workers"),
        ([*CPU, "min_workers"], 2, "machines stay"),
        ([*A100, "max_workers"], 3, "not the sum"),
        (["max_workers"], 17, "not the sum"),
        (["provider", "cache_stopped_nodes"], True, "keep costing"),
        ([*CPU, "node_config", "InstanceType"], GONE, "no InstanceType"),
        ([*A100, "node_config", "InstanceType"], "p4d.24xlrge", "AWS has no p4d.24xlrge"),
        ([*A100, "node_config", "InstanceType"], "g5.48xlarge", "the machine has"),
        ([*A100, "resources", "GPU"], 4, "the machine has"),
        ([*A100, "resources", "accelerator_type:A100"], GONE, "the machine has"),
        ([*CPU, "resources", "CPU"], 32, "the machine has"),
        ([*CPU, "node_config", "InstanceTyp"], "c6i.4xlarge", "Unknown parameter"),
        ([*HEAD, "node_config", "BlockDeviceMappings", 0, "Ebs", "VolumeSize"], "200 GB", "Invalid type"),
        ([*HEAD, "node_config", "BlockDeviceMappings", 0, "Ebs", "DeleteOnTermination"], GONE, "outlives"),
        ([*HEAD, "node_config", "ImageId"], GONE, "too old a driver"),
        ([*HEAD, "node_config", "InstanceMarketOptions"], {"MarketType": "spot"}, "takes the job along"),
        ([*HEAD, "resources", "CPU"], 8, "land on the head"),
        (["docker", "image"], "rayproject/ray:2.59.0-py311-cpu", "is not of Ray"),
        (["docker", "image"], "rayproject/ray:latest", "is not of Ray"),
        ([*A100, "docker", "worker_image"], "rayproject/ray:2.59.0-py311-gpu", "is not of Ray"),
        (["setup_commands", 0], "export AWS_SECRET_ACCESS_KEY=" + "a1B2" * 10, "a secret"),
        (["setup_commands", 0], "aws configure set aws_access_key_id AKIA" + "Z" * 16, "a secret"),
        (["head_start_ray_commands", 1], f"RAY_AUTH_TOKEN={'ab' * 32} ray start --head", "a secret"),
        (["docker", "run_options"], [], "no authentication"),
        (["file_mounts", "/home/ray/.ray/auth_token"], GONE, "token does not reach"),
        (["head_start_ray_commands", 1], "ray start --head --dashboard-host=0.0.0.0", "open to the network"),
        (["file_mounts", "/home/ray/cascadence"], ".", "every byte"),
        (["file_mounts", "/home/ray/cascadence/constraints.txt"], "constraint.txt", "does not exist"),
    ],
)
def test_each_damage_to_the_cluster_file_is_noticed(
    cluster: Any, problems: Callable[[Any], list[str]], place: Sequence[str | int], value: Any, problem: str
) -> None:
    found = problems(damaged(cluster, place, value))
    assert any(problem in text for text in found), found


@pytest.mark.parametrize(
    ("actor", "count", "machines"),
    [
        ({"CPU": 1}, 1, {"cpu_decode": 1}),
        ({"CPU": 1}, 256, {"cpu_decode": 16}),  # docs/operations.md names this limit
        ({"CPU": 1}, 257, {"cpu_decode": 16, "gpu_a100": 1}),
        ({"CPU": 4, "GPU": 0.5}, 16, {"gpu_a100": 1}),
        ({"CPU": 4, "GPU": 0.5}, 32, {"gpu_a100": 2}),
    ],
)
def test_ray_starts_the_machines_that_actors_need(
    cluster: Any, actor: dict[str, float], count: int, machines: dict[str, int]
) -> None:
    """No A100 starts for work that CPU machines have room for."""
    resources = pytest.importorskip("ray.autoscaler.v2.utils").ResourceRequestUtil
    asked = {"resource_requests": resources.group_by_count([resources.make(actor)] * count)}
    assert machines_for(cluster, **asked) == machines


@pytest.mark.parametrize(("workers", "machines"), [(4, 1), (8, 1), (16, 2), (17, None)])
def test_ray_starts_the_machines_that_a_training_needs(cluster: Any, workers: int, machines: int | None) -> None:
    """With `--device gpu`: a training begins when all its workers have their GPU, and never with too many of them."""
    resources = pytest.importorskip("ray.autoscaler.v2.utils").ResourceRequestUtil
    gang = pytest.importorskip("ray.core.generated.autoscaler_pb2").GangResourceRequest
    bundles = gang(requests=[resources.make({"CPU": 1, "GPU": 1})] * workers)
    expected = None if machines is None else {"gpu_a100": machines}
    assert machines_for(cluster, gang_resource_requests=[bundles]) == expected


def machines_for(cluster: Any, **asked: Any) -> dict[str, int] | None:
    """The machines that Ray's own scheduler starts for what is asked of an empty cluster; None where it can't be."""
    config = pytest.importorskip("ray.autoscaler.v2.instance_manager.config")
    scheduler = pytest.importorskip("ray.autoscaler.v2.scheduler")
    types = config.AutoscalingConfig(copy.deepcopy(cluster), skip_content_hash=True).get_node_type_configs()
    reply = scheduler.ResourceDemandScheduler().schedule(
        scheduler.SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=cluster["max_workers"] + 1,
            **asked,
        )
    )
    if reply.infeasible_resource_requests or reply.infeasible_gang_resource_requests:
        return None
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_scripts_are_valid_shell() -> None:
    scripts = [ROOT / ".ci" / "run", *sorted((ROOT / "deploy").rglob("*.sh")), *(ROOT / "deploy").rglob("*.sbatch")]
    assert len(scripts) >= 3
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_commands_named_in_scripts_and_documents_exist_with_their_options() -> None:
    """What tells a person to run a command must name one that the tools know."""
    import typer

    import pipeline.cli.app
    import shards.cli.app
    import training.cli.app

    apps = {"pipeline": pipeline.cli.app.app, "shards": shards.cli.app.app, "training": training.cli.app.app}
    known: dict[str, Any] = {package: typer.main.get_command(app) for package, app in apps.items()}
    texts = [*(ROOT / "deploy").rglob("*"), ROOT / "ray_cluster.yaml", ROOT / "README.md", ROOT / "docs/operations.md"]
    for text in (text for text in texts if text.is_file()):
        content = re.sub(r"\\\n\s*", " ", text.read_text())
        if text.suffix == ".yaml":
            content = "\n".join(strings(read_yaml(str(text.relative_to(ROOT)))))
        for package, verb, rest in re.findall(r"-m (pipeline|shards|training) ([a-z-]+)([^`\n#;]*)", content):
            command = known[package].commands.get(verb)
            assert command is not None, f"{text.name}: {package} {verb}"
            options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--debug"}
            assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= options, f"{text.name}: {package} {verb}{rest}"
