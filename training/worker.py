"""One training process: builds what the loop needs from a specification. Ray Train calls it, or nobody does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from shards.codec import load_matching_codec
from shards.heap import keep_freed_memory
from training.checkpoint import initialise_state, open_checkpoint, require_same_data, restore_state
from training.config import Config
from training.data import open_training_data
from training.loop import Trainer
from training.runtime import Runtime
from training.state import new_state
from training.step import Step
from training.tracking import METRICS, JsonLinesSink, MlflowRun, MlflowSink, Sink


@dataclass(frozen=True)
class WorkerSpec:
    """What every rank is told: configuration, absolute paths, where to go on from, and how many threads to use.

    `shards` may be a URL. `initialise_from` is a checkpoint whose weights a new training begins with.
    """

    config: Config
    shards: str
    run_dir: Path
    resume_from: Path | None
    initialise_from: Path | None
    threads: int | None
    mlflow: MlflowRun | None


def train_rank(spec: WorkerSpec, runtime: Runtime) -> None:
    """Train as one rank, to the end."""
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    if runtime.device.type == "cpu":
        keep_freed_memory()
    begun = spec.resume_from or spec.initialise_from
    checkpoint = open_checkpoint(begun) if begun is not None else None
    dataset = open_training_data(
        spec.shards, runtime.world_size, checkpoint.record.codec if checkpoint else None, spec.config.pairs_a_rank
    )
    codec = load_matching_codec(dataset.codec, spec.config.data.codec_weights, dataset.address).to(runtime.device)
    state = new_state(spec.config, dataset.codec.dim, runtime.device)
    if checkpoint is not None and spec.resume_from is not None:
        require_same_data(checkpoint, dataset.manifest.fingerprint)
        restore_state(checkpoint, state)
    elif checkpoint is not None:
        initialise_state(checkpoint, state)
    trainer = Trainer(
        config=spec.config,
        runtime=runtime,
        dataset=dataset,
        state=state,
        step=Step(spec.config, codec, state, runtime),
        sinks=_sinks(spec, state.progress.step) if runtime.leads else (),
        run_dir=spec.run_dir,
    )
    trainer.run()


def ray_worker(options: dict[str, WorkerSpec]) -> None:
    """Be a Ray Train worker: take rank, world size and device from Ray, and train."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    runtime = Runtime(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    train_rank(options["spec"], runtime)


def _sinks(spec: WorkerSpec, step: int) -> list[Sink]:
    sinks: list[Sink] = [JsonLinesSink(spec.run_dir / METRICS, step)]
    if spec.mlflow is not None:
        sinks.append(MlflowSink(spec.mlflow))
    return sinks
