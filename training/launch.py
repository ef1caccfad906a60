"""Starts a training run, through Ray Train or in this process, and keeps its house: config, MLflow run, resume."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from shards.codec import load_matching_codec
from shards.dataset import Dataset
from shards.errors import CascadenceError, ConfigError, Interrupted, MisuseError
from shards.files import read_json, write_bytes, write_json
from shards.settings import dump_yaml
from shards.store import is_url
from training.checkpoint import Checkpoint, initialise_state, newest_checkpoint, open_checkpoint, require_same_data
from training.config import Config
from training.data import open_training_data
from training.health import require_going
from training.runtime import local_runtime
from training.state import new_state
from training.stopping import EXIT_CODES, StopNote
from training.tracking import MlflowRun, end_mlflow, log_file, mlflow_available, start_mlflow
from training.weights import LoadReport
from training.worker import WorkerSpec, ray_worker, train_rank

RUN_RECORD = "run.json"
OBJECT_STORE_BYTES = 200 << 20
"""Of a private cluster; batches come from files, so next to nothing lies in the store."""


@dataclass(frozen=True)
class Request:
    """What to launch.

    `shards` is a folder or a URL; `resume` is `auto` (go on where the run directory stands), `never`, or a checkpoint.
    `initialise_from` is a checkpoint whose weights a new run begins with, as far as they fit. With `workers` a pair,
    Ray takes as many as there is room for.
    """

    shards: str
    run_dir: Path
    config: Config
    workers: int | tuple[int, int]
    resume: str
    initialise_from: Path | None = None
    profile: bool = False

    @property
    def fewest(self) -> int:
        """Workers that there must be."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Workers that there may be."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def launch_local(request: Request) -> Checkpoint | None:
    """Train in this process, without Ray, or as one of torchrun's; returns the checkpoint that it went on from.

    Raises `CascadenceError` for everything that a person can mend.
    """
    if request.workers != 1:
        raise MisuseError("--local trains in this one process; leave out --workers, or leave out --local")
    runtime = local_runtime()
    resumed, dataset = _prepare(request, runtime.world_size, writes=runtime.leads)
    if _finished(resumed, request.config):
        return resumed
    if not runtime.leads:
        with StopNote(request.run_dir).on_signals():
            train_rank(_worker_spec(request, resumed, None, None), runtime)
        return resumed
    with _tracked(request, dataset, runtime.world_size) as mlflow, _stoppable(request):
        train_rank(_worker_spec(request, resumed, None, mlflow), runtime)
    return resumed


def launch_ray(request: Request) -> Checkpoint | None:
    """Train with `workers` Ray Train workers, on GPUs where the cluster has them; see `launch_local`."""
    resumed, dataset = _prepare(request, request.most)
    if _finished(resumed, request.config):
        return resumed
    ray = connect_ray(request.most)
    with _tracked(request, dataset, request.most) as mlflow, _stoppable(request):
        resources = ray.cluster_resources()
        use_gpu = resources.get("GPU", 0) >= request.fewest
        threads = None if use_gpu else max(1, (os.cpu_count() or 1) // request.most)
        _fit(request, _worker_spec(request, resumed, threads, mlflow), use_gpu)
    return resumed


def preview_initialisation(request: Request) -> LoadReport | None:
    """Tell what a new run would take of `initialise_from`; None where nothing is taken.

    Raises `CascadenceError` where the checkpoint can't be read.
    """
    if request.initialise_from is None or _resume_point(request) is not None:
        return None
    checkpoint = open_checkpoint(request.initialise_from)
    return initialise_state(checkpoint, new_state(request.config, checkpoint.record.codec.dim, torch.device("cpu")))


def connect_ray(workers: int) -> Any:
    """Join the Ray cluster of the job or of RAY_ADDRESS, or start a private one; returns the `ray` module."""
    private = not os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call out
    # A private cluster listens on the network, so it gets a token that nobody else knows; in the environment, since a
    # token file would turn authentication on for later clusters here. A cluster that is joined says what it wants.
    os.environ.setdefault("RAY_AUTH_MODE", "token" if private else "disabled")
    if private:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # A run's end is noticed at the controller's next look; its own default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    try:
        import ray
    except ImportError:
        raise MisuseError("ray is not installed; install cascadence[ray], or add --local") from None
    if not ray.is_initialized():
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if private:
            # `local`: a cluster of somebody else on this machine is not ours to load. More workers than cores are
            # slow, but they train; without a place for each Ray would wait for ever.
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options |= {"num_cpus": max(os.cpu_count() or 1, workers)}
        ray.init(**options)
    return ray


def _fit(request: Request, spec: WorkerSpec, use_gpu: bool) -> None:
    import logging

    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to the driver, which asks the workers to save first; Ray's own handler ends them at once."""

        def _register_sigint_handler(self, controller: object) -> None:
            pass

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = Trainer(
        ray_worker,
        train_loop_config={"spec": spec},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=request.workers, use_gpu=use_gpu),  # type: ignore[arg-type]
        # Ray resumes by name, silently: a name of its own for each launch leaves resuming to our checkpoints.
        run_config=RunConfig(
            name=f"launch-{os.getpid()}-{os.urandom(4).hex()}",
            storage_path=str(spec.run_dir / "ray"),
            # A worker that dies is replaced, and all go on from the newest checkpoint.
            failure_config=FailureConfig(max_failures=request.config.train.max_failures),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    require_going(spec.run_dir)


def _cause(error: Exception) -> CascadenceError:
    """Find what a worker wanted a person to read; else the last line of its traceback."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        own = getattr(failure, "_base_exc", failure)
        if isinstance(own, CascadenceError):
            return own
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1].strip() if lines else type(error).__name__
    return CascadenceError(f"a training worker failed: {last}; --debug shows all of it, the same command goes on")


def _prepare(request: Request, world_size: int, *, writes: bool = True) -> tuple[Checkpoint | None, Dataset]:
    """Check all that can be checked before a worker starts, and write the run directory's documents."""
    resumed = _resume_point(request)
    begun = resumed or (open_checkpoint(request.initialise_from) if request.initialise_from else None)
    dataset = open_training_data(
        request.shards, world_size, begun.record.codec if begun else None, request.config.pairs_a_rank
    )
    load_matching_codec(dataset.codec, request.config.data.codec_weights, dataset.address)
    if resumed is not None:
        require_same_data(resumed, dataset.manifest.fingerprint)
        if (resumed.config.model, resumed.config.compat) != (request.config.model, request.config.compat):
            raise ConfigError(
                f"{resumed.path}: was trained with another `model` section; give the same one, or another --run-dir"
            )
    if writes:
        request.run_dir.mkdir(parents=True, exist_ok=True)
        write_bytes(request.run_dir / "config.yaml", dump_yaml(request.config).encode())
    return resumed, dataset


def _resume_point(request: Request) -> Checkpoint | None:
    newest = newest_checkpoint(request.run_dir)
    match request.resume:
        case "auto":
            return newest
        case "never":
            if newest is not None:
                raise MisuseError(f"{request.run_dir}: holds a run already; choose another --run-dir, or --resume auto")
            return None
        case path:
            chosen = open_checkpoint(path)
            if newest is not None and newest.progress.order > chosen.progress.order:
                raise MisuseError(
                    f"{request.run_dir}: holds a run that is further on than {path}; choose another --run-dir"
                )
            return chosen


def _finished(resumed: Checkpoint | None, config: Config) -> bool:
    return resumed is not None and resumed.progress.epoch >= config.train.epochs


def _worker_spec(
    request: Request, resumed: Checkpoint | None, threads: int | None, mlflow: MlflowRun | None
) -> WorkerSpec:
    return WorkerSpec(
        config=request.config,
        shards=request.shards if is_url(request.shards) else str(Path(request.shards).resolve()),
        run_dir=request.run_dir.resolve(),
        resume_from=resumed.path.resolve() if resumed else None,
        initialise_from=request.initialise_from.resolve() if request.initialise_from and not resumed else None,
        threads=threads,
        mlflow=mlflow,
        profile=request.profile,
    )


@contextmanager
def _tracked(request: Request, dataset: Dataset, workers: int) -> Iterator[MlflowRun | None]:
    """Own the MLflow run: made or taken up before the workers start, ended truthfully whatever becomes of them."""
    tracking = request.config.tracking
    if not (tracking.mlflow and mlflow_available()):
        yield None
        return
    run_dir = request.run_dir.resolve()
    record = run_dir / RUN_RECORD
    known: Any = read_json(record) if record.is_file() else {}
    params = {**_flat(request.config.model_dump(mode="json")), "dataset": dataset.manifest.fingerprint}
    params |= {"workers": str(workers), "codec": dataset.codec.name}
    run = start_mlflow(tracking.store, run_dir, tracking.experiment, known.get("run_id"), params)
    write_json(record, asdict(run))
    log_file(run, run_dir / "config.yaml")
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    finally:
        end_mlflow(run, status)


@contextmanager
def _stoppable(request: Request) -> Iterator[None]:
    """Ask the ranks to save and stop when a signal comes, and put into words what is kept.

    A second Ctrl-C does not wait for them. Raises `Interrupted`.
    """
    note = StopNote(request.run_dir)
    note.clear()
    try:
        with note.on_signals():
            yield
        code = note.read()
    except KeyboardInterrupt:
        code = EXIT_CODES[signal.SIGINT]
    finally:
        note.clear()
    if code:
        newest = newest_checkpoint(request.run_dir)
        kept = f"epoch {newest.progress.epoch}, step {newest.progress.step}" if newest else "the beginning"
        raise Interrupted(f"stopped; the same command goes on from {kept}", code)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
