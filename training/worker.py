"""One training process: builds what the loop needs from a specification. Ray Train calls it, torchrun, or nobody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shards.codec import Codec, load_matching_codec
from shards.dataset import Dataset
from shards.heap import keep_freed_memory
from training.checkpoint import initialise_state, newest_checkpoint, open_checkpoint, require_same_data, restore_state
from training.config import Config
from training.data import open_training_data
from training.events import METRICS, Event, JsonLinesSink, Sink, read_past
from training.health import GaveUp, HealthMonitor
from training.loop import Preview, Stopped, Trainer, steps_per_epoch
from training.profiling import PROFILE, StepProfiler
from training.runtime import Runtime, grouped_runtime
from training.state import TrainState, new_state
from training.step import Step
from training.stopping import StopNote
from training.tracking import MlflowRun, mlflow_sink


@dataclass(frozen=True)
class WorkerSpec:
    """What every rank is told: configuration, absolute paths, and where to go on from.

    `shards` may be a URL. `resume_from` is where a run begins that has no checkpoint of its own yet, and
    `initialise_from` a checkpoint whose weights a new one begins with.
    """

    config: Config
    shards: str
    run_dir: Path
    resume_from: Path | None
    initialise_from: Path | None
    mlflow: MlflowRun | None
    profile: bool = False


def train_rank(spec: WorkerSpec, runtime: Runtime, watching: Sequence[Sink] = ()) -> None:
    """Train as one rank, to the end or until a stop is asked for; `watching` are told what rank 0 tells.

    It goes on from the newest checkpoint of the run, whoever wrote it: so a worker that died is followed by one that
    knows what it knew.
    """
    if runtime.device.type == "cpu":
        keep_freed_memory()
    newest = newest_checkpoint(spec.run_dir)
    begun = newest.path if newest else spec.resume_from or spec.initialise_from
    checkpoint = open_checkpoint(begun) if begun is not None else None
    trained_on = checkpoint.record.codec if checkpoint else None
    dataset = open_training_data(spec.shards, runtime.world_size, trained_on, spec.config.pairs_a_rank)
    codec = load_matching_codec(dataset.codec, spec.config.data.codec_weights, dataset.address).to(runtime.device)
    state = new_state(spec.config, dataset.codec.dim, runtime.device)
    if checkpoint is not None and (newest is not None or spec.resume_from is not None):
        require_same_data(checkpoint, dataset.manifest.fingerprint)
        restore_state(checkpoint, state)
    elif checkpoint is not None:
        initialise_state(checkpoint, state)
    runtime.agree(0)  # all have read what rank 0 may now replace
    with ExitStack() as ending, suppress(Stopped):
        _make_trainer(spec, runtime, dataset, codec, state, watching, ending).run()


def _make_trainer(
    spec: WorkerSpec,
    runtime: Runtime,
    dataset: Dataset,
    codec: Codec,
    state: TrainState,
    watching: Sequence[Sink],
    ending: ExitStack,
) -> Trainer:
    """Put a rank's trainer together; what has to be closed when it ends is left with `ending`."""
    config, place = spec.config, state.progress.place
    past = read_past(spec.run_dir / METRICS, place)
    sinks: Sequence[Sink] = ()
    preview, profiler = None, None
    if runtime.leads:
        sinks = [*_make_sinks(spec, past, place), *watching]
        preview = _make_preview(spec, dataset, codec, state)
        profiler = StepProfiler(spec.run_dir / PROFILE, runtime.device) if spec.profile else None
        for watcher in (*sinks, profiler):
            if watcher is not None:
                ending.callback(watcher.close)
    steps = config.train.epochs * steps_per_epoch(dataset, config, runtime.world_size)
    return Trainer(
        config=config,
        runtime=runtime,
        dataset=dataset,
        state=state,
        step=Step(config, codec, state, runtime, steps),
        sinks=sinks,
        health=HealthMonitor(spec.run_dir, past),
        stop=StopNote(spec.run_dir),
        run_dir=spec.run_dir,
        preview=preview,
        profiler=profiler,
    )


def _make_sinks(spec: WorkerSpec, past: Sequence[Event], place: tuple[int, int]) -> list[Sink]:
    lines = JsonLinesSink(spec.run_dir / METRICS, place)
    return [lines, *([mlflow_sink(spec.mlflow, spec.run_dir, past, lines.log)] if spec.mlflow is not None else [])]


def _make_preview(spec: WorkerSpec, dataset: Dataset, codec: Codec, state: TrainState) -> Preview | None:
    every, count = spec.config.tracking.sample_epochs, spec.config.tracking.samples
    if every is None:
        return None
    from training.preview import PairPreview  # it draws, and what draws takes a second to load

    return PairPreview(spec.run_dir, dataset, codec, state, every, count)


def ray_worker(options: dict[str, WorkerSpec]) -> None:
    """Be a Ray Train worker: take rank, world size and device from Ray, and train."""
    import ray
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    # Ray itself leaves a worker one thread, however many cores its machine has.
    torch.set_num_threads(max(1, _cores(ray) // context.get_local_world_size()))
    device = ray.train.torch.get_device()
    # Ray would try again what can't succeed; the driver reads from the run's metrics that it gave up.
    with suppress(GaveUp):
        train_rank(options["spec"], grouped_runtime(context.get_world_rank(), context.get_world_size(), device))


def _cores(ray: Any) -> int:
    """Count the cores of this node: those that Ray knows of, which in a container are fewer than the machine's."""
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    return min(int(node["Resources"].get("CPU", 1)), os.cpu_count() or 1)
