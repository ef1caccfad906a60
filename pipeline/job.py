"""The Ray job: planned shards on an actor for each core, tried again where an actor dies. The door to Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import EncodeConfig
from pipeline.plan import ShardPlan
from pipeline.shard import encode_shard
from shards.codec import Codec
from shards.errors import CascadenceError, MisuseError
from shards.schema import Receipt

ATTEMPTS = 3
"""How often a shard is tried when its actor dies under it."""
OBJECT_STORE_BYTES = 200 << 20
"""Of a private cluster; latents travel through files, so next to nothing lies in the store."""


def encode_with_ray(plans: Sequence[ShardPlan], config: EncodeConfig, staging: Path) -> Iterator[Receipt]:
    """Run the plans on an actor for each core; a shard whose actor died is tried again on a new one."""
    ray = connect_ray()
    cores = int(ray.cluster_resources().get("CPU", 1))
    actor_class = ray.remote(num_cpus=1)(ShardEncoder)

    def start() -> Any:
        return actor_class.remote(*_for_actors(config, staging))

    waiting = [(plan, 1) for plan in reversed(plans)]
    actors = [start() for _ in range(max(1, min(len(plans), config.max_actors or cores)))]
    running: dict[Any, tuple[Any, ShardPlan, int]] = {}
    try:
        while waiting or running:
            while waiting and actors:
                plan, attempt = waiting.pop()
                actor = actors.pop()
                running[actor.encode.remote(plan)] = (actor, plan, attempt)
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, plan, attempt = running.pop(ready)
            try:
                receipt: Receipt = ray.get(ready)
            except ray.exceptions.RayActorError as error:
                if attempt == ATTEMPTS:
                    raise CascadenceError(
                        f"{plan.file}: its encoder died {ATTEMPTS} times, between {plan.pairs[0].input.path} and "
                        f"{plan.pairs[-1].input.path}; look for a broken file there, or for too little memory"
                    ) from error
                waiting.append((plan, attempt + 1))
                actors.append(start())
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # Ray's own text is a traceback; this is the one line
            actors.append(actor)
            yield receipt
    finally:
        for actor in [*actors, *(actor for actor, _, _ in running.values())]:
            ray.kill(actor)


def _for_actors(config: EncodeConfig, staging: Path) -> tuple[EncodeConfig, Path]:
    """Give a job's paths as other processes need them: an actor's working directory is that of its cluster's start."""
    if config.codec.weights is not None:
        weights = str(Path(config.codec.weights).expanduser().absolute())
        config = config.model_copy(update={"codec": config.codec.model_copy(update={"weights": weights})})
    return config, staging.absolute()


class ShardEncoder:
    """The actor: a codec, single-threaded, and the shards it is handed."""

    def __init__(self, config: EncodeConfig, staging: Path) -> None:
        import torch

        torch.set_num_threads(1)  # one actor a core; batching does not help a CPU
        self._config = config
        self._staging = staging
        self._codec: Codec | None = None

    def encode(self, plan: ShardPlan) -> Receipt:
        """Make one shard."""
        if self._codec is None:
            # Not at the start: what is wrong with it is an error with a text here, and an actor's death there.
            self._codec = self._config.codec.load()
        return encode_shard(plan, self._codec, self._staging)


def connect_ray() -> Any:
    """Join the Ray cluster of the job or of RAY_ADDRESS, or start a private one; returns the `ray` module."""
    # No telemetry: it would call out. No token file: it would turn authentication on for later clusters here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        import ray
    except ImportError:
        raise MisuseError("ray is not installed; install cascadence[ray], or add --local") from None
    if not ray.is_initialized():
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not os.environ.get("RAY_ADDRESS"):
            # `local`: a cluster of somebody else on this machine is not ours to load.
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        ray.init(**options)
    return ray
