"""The Ray job: planned shards on a pool of actors, tried again where an actor dies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.config import EncodeConfig
from pipeline.destination import Destination, open_destination
from pipeline.encode import Advance
from pipeline.encoder import Encoder, choose_device, make_encoder
from pipeline.plan import ShardPlan
from pipeline.shard import encode_shard
from pipeline.stopping import Stop
from shards.cluster import connect_ray
from shards.errors import CascadenceError
from shards.schema import Receipt

ATTEMPTS = 3
"""How often a shard is tried when its actor dies under it, and how often actors may die before they have begun."""
REPORT_SECONDS = 1.0
"""Between two reports of an actor on its shard, and between two looks at a stop."""
TRIAL_SECONDS = 120
"""That `try_ray` waits: a private cluster starts its first actor in a few."""


def encode_with_ray(
    plans: Sequence[ShardPlan], config: EncodeConfig, destination: Destination, stop: Stop
) -> Iterator[Advance | Receipt]:
    """Run the plans on a pool of actors; a shard whose actor died is tried again on a new one."""
    ray = connect_ray()
    stop.listen()  # Ray has taken the signals for itself
    pool = _Pool(ray, config, destination, len(plans))
    waiting = [(plan, 1) for plan in reversed(plans)]
    try:
        while pool.running or (waiting and stop.signal is None):
            while waiting and pool.idle and stop.signal is None:
                plan, attempt = waiting.pop()
                pool.begin(plan, attempt)
                yield Advance(plan.file, 0)
            for plan, attempt, event in pool.events():
                if event is not None:
                    yield event
                elif attempt < ATTEMPTS:
                    waiting.append((plan, attempt + 1))
                else:
                    raise CascadenceError(
                        f"{plan.file}: its encoder died {ATTEMPTS} times, between {plan.pairs[0].input.path} and "
                        f"{plan.pairs[-1].input.path}; look for too little memory there"
                    )
    finally:
        pool.end()


class _Pool:
    """Actors that start, wait for a shard, or make one."""

    def __init__(self, ray: Any, config: EncodeConfig, destination: Destination, shards: int) -> None:
        self._ray = ray
        device, options, room = _actor_needs(config, ray.cluster_resources())
        self._actor_class = ray.remote(**options)(ShardEncoder)
        self._arguments = (_absolute(config), destination, device)
        self._died_starting = 0
        self._starting: dict[Any, Any] = {}
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[Any, ShardPlan, int]] = {}
        # Where there is no room yet, one actor asks the autoscaler for it; `max_actors` asks for more.
        for _ in range(max(1, min(shards, config.encoder.max_actors or room))):
            self._start()

    def begin(self, plan: ShardPlan, attempt: int) -> None:
        """Give a shard to an idle actor."""
        actor = self.idle.pop()
        self.running[actor.encode.options(num_returns="streaming").remote(plan)] = (actor, plan, attempt)

    def events(self) -> Iterator[tuple[ShardPlan, int, Advance | Receipt | None]]:
        """Wait a moment for what actors report; None for an event says that the actor died."""
        watched = [*self._starting, *self.running]
        ready, _ = self._ray.wait(watched, num_returns=1, timeout=REPORT_SECONDS, fetch_local=False)
        for reference in ready:
            if reference in self._starting:
                self._started(reference)
                continue
            actor, plan, attempt = self.running[reference]
            try:
                event = self._ray.get(next(reference))
            except self._ray.exceptions.RayActorError:
                del self.running[reference]
                self._start()
                yield plan, attempt, None
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error  # Ray's own text is a traceback; this is the one line
            if isinstance(event, Receipt):
                del self.running[reference]
                self.idle.append(actor)
            yield plan, attempt, event if isinstance(event, Receipt) else Advance(plan.file, event)

    def end(self) -> None:
        """End all actors, whatever they do."""
        for actor in [*self._starting.values(), *self.idle, *(actor for actor, _, _ in self.running.values())]:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._actor_class.remote(*self._arguments)
        # A shard goes to an actor that lives: one that waits for a machine may wait for ever.
        self._starting[actor.load.remote()] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._died_starting += 1
            if self._died_starting == ATTEMPTS:
                raise CascadenceError(
                    f"{ATTEMPTS} encoders died while they started ({' '.join(str(error).split())[:200]}); look for too "
                    "little memory, or run `python -m pipeline doctor`"
                ) from error
            self._start()
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        else:
            self.idle.append(actor)


def _actor_needs(
    config: EncodeConfig, resources: Mapping[str, float]
) -> tuple[Literal["cpu", "gpu"], dict[str, float], int]:
    """Say where actors work, what each takes of the cluster, and how many the cluster holds."""
    device = choose_device(config, resources.get("GPU", 0))
    if device == "cpu":
        return device, {"num_cpus": 1}, int(resources.get("CPU", 0))
    share = config.encoder.gpus_per_actor
    options = {"num_cpus": config.encoder.threads(device), "num_gpus": share}
    return device, options, int(resources.get("GPU", 0) / share)


def _absolute(config: EncodeConfig) -> EncodeConfig:
    """Give a job's paths as other processes need them: an actor's working directory is that of its cluster's start."""
    if config.codec.weights is None:
        return config
    weights = str(Path(config.codec.weights).expanduser().absolute())
    return config.model_copy(update={"codec": config.codec.model_copy(update={"weights": weights})})


class ShardEncoder:
    """The actor: a codec, and the shards it is handed."""

    def __init__(self, config: EncodeConfig, destination: Destination, device: Literal["cpu", "gpu"]) -> None:
        self._config, self._destination, self._device = config, destination, device
        self._encoder: Encoder | None = None

    def load(self) -> None:
        """Load the codec. Not at the start: what is wrong is an error with a text here, and an actor's death there."""
        self._encoder = make_encoder(self._config, self._device)

    def encode(self, plan: ShardPlan) -> Iterator[float | Receipt]:
        """Make one shard; reports how far it is now and then, and the receipt last."""
        assert self._encoder is not None, "shards go to actors that have loaded"
        spoke = time.monotonic()
        threads = self._config.encoder.threads(self._device)
        for event in encode_shard(plan, self._encoder, self._destination, threads):
            if isinstance(event, Receipt) or time.monotonic() - spoke > REPORT_SECONDS:
                spoke = time.monotonic()
                yield event


class Reach(NamedTuple):
    """What a cluster offers a job: its size, the actors it holds, and the seconds until one had loaded the codec."""

    cpus: int
    gpus: int
    device: Literal["cpu", "gpu"]
    actors: int
    seconds: float


def try_ray(config: EncodeConfig) -> Reach:
    """Let one actor of the cluster load the codec. Raises `CascadenceError` where it can't."""
    ray = connect_ray()
    resources = ray.cluster_resources()
    device, options, room = _actor_needs(config, resources)
    began = time.monotonic()
    actor = ray.remote(**options)(ShardEncoder).remote(_absolute(config), open_destination("nowhere"), device)
    try:
        ray.get(actor.load.remote(), timeout=TRIAL_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise CascadenceError(
            f"no encoder was ready within {TRIAL_SECONDS} s on {device}; wait for the cluster's other jobs, or add "
            "machines, and run it again"
        ) from None
    except ray.exceptions.RayActorError as error:
        said = " ".join(str(error).split())[:200]
        raise CascadenceError(f"an encoder died while it loaded ({said}); look for too little memory") from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # Ray's own text is a traceback; this is the one line
    finally:
        ray.kill(actor)
    seconds = time.monotonic() - began
    return Reach(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), device, room, seconds)
