"""Starts a training run, through Ray Train or in this process, and keeps its house: config, MLflow run, resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from shards.cluster import connect_ray, is_private, require_lasting
from shards.codec import load_matching_codec
from shards.dataset import Dataset
from shards.errors import CascadenceError, ConfigError, Interrupted, MisuseError
from shards.files import write_bytes
from shards.settings import dump_yaml
from shards.store import is_url
from training.about import describe_training
from training.checkpoint import Checkpoint, initialise_state, newest_checkpoint, open_checkpoint, require_same_data
from training.config import Config
from training.data import open_training_data
from training.health import require_going
from training.runtime import local_runtime, under_torchrun
from training.state import new_state
from training.stopping import EXIT_CODES, StopNote
from training.tracking import MlflowRun, tracked
from training.weights import LoadReport
from training.worker import WorkerSpec, ray_worker, train_rank


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
    with local_runtime(request.config.train.device) as runtime:
        resumed, dataset = _prepare(request, runtime.world_size)
        if _finished(resumed, request.config):
            return resumed
        # torchrun passes a signal on that its ranks have heard themselves, as Ctrl-C: that is no second one.
        impatient = runtime.world_size == 1
        if not runtime.leads:
            with StopNote(request.run_dir).on_signals(impatient=impatient):
                train_rank(_worker_spec(request, resumed, None), runtime)
            return resumed
        _write_config(request)
        with (
            _stoppable(request, impatient=impatient) as note,
            _tracked(request, dataset, runtime.world_size, note) as mlflow,
        ):
            train_rank(_worker_spec(request, resumed, mlflow), runtime)
    return resumed


def launch_ray(request: Request) -> Checkpoint | None:
    """Train with `workers` Ray Train workers, on GPUs where the cluster has them; see `launch_local`."""
    if under_torchrun():
        raise MisuseError("torchrun has started the workers; add --local, or leave torchrun out and give --workers")
    require_lasting(request.run_dir, "--run-dir")
    resumed, dataset = _prepare(request, request.most)
    if _finished(resumed, request.config):
        return resumed
    ray = connect_ray(request.most)
    use_gpu = _use_gpus(request, ray.cluster_resources().get("GPU", 0))
    _write_config(request)
    with _stoppable(request) as note, _tracked(request, dataset, request.most, note) as mlflow:
        _fit(request, _worker_spec(request, resumed, mlflow), use_gpu)
    return resumed


def preview_initialisation(request: Request) -> dict[str, LoadReport]:
    """Tell what each part of a new run would take of `initialise_from`; nothing where there is none, or no new run.

    Raises `CascadenceError` where the checkpoint can't be read.
    """
    if request.initialise_from is None or _resume_point(request) is not None:
        return {}
    checkpoint = open_checkpoint(request.initialise_from)
    return initialise_state(checkpoint, new_state(request.config, checkpoint.record.codec.dim, torch.device("cpu")))


def _use_gpus(request: Request, gpus: float) -> bool:
    """Decide whether each worker takes a GPU; a cluster that can grow may have them only when they are asked for.

    Raises `MisuseError` where there are too few.
    """
    device = request.config.train.device
    if device == "cpu" or (device == "auto" and gpus == 0):
        return False
    if gpus < request.fewest and (device == "auto" or is_private()):
        raise MisuseError(
            f"--workers {request.fewest}: each takes a GPU, and there are {gpus:.0f}; lower it, or choose with --device"
        )
    return True


def _fit(request: Request, spec: WorkerSpec, use_gpu: bool) -> None:
    import logging

    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to the driver, which asks the workers to save first; Ray's own handler ends them at once."""

        def _register_sigint_handler(self, controller: object) -> None:
            pass

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # A run's end is noticed at the controller's next look, which costs workers time; Ray's default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = Trainer(
        ray_worker,
        train_loop_config={"spec": spec},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=request.workers,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            # GPUs talk much, and do so best within a machine; on CPUs each worker wants a machine's cores for itself.
            placement_strategy="PACK" if use_gpu else "SPREAD",
        ),
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


def _prepare(request: Request, world_size: int) -> tuple[Checkpoint | None, Dataset]:
    """Check all that can be checked before a worker starts."""
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
    return resumed, dataset


def _write_config(request: Request) -> None:
    write_bytes(request.run_dir / "config.yaml", dump_yaml(request.config).encode())


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


def _worker_spec(request: Request, resumed: Checkpoint | None, mlflow: MlflowRun | None) -> WorkerSpec:
    return WorkerSpec(
        config=_absolute(request.config),
        shards=request.shards if is_url(request.shards) else str(Path(request.shards).resolve()),
        run_dir=request.run_dir.resolve(),
        resume_from=resumed.path.resolve() if resumed else None,
        initialise_from=request.initialise_from.resolve() if request.initialise_from and not resumed else None,
        mlflow=mlflow,
        profile=request.profile,
    )


def _absolute(config: Config) -> Config:
    """Give the codec's weights a path that a worker understands: Ray Train changes its working directory."""
    if config.data.codec_weights is None:
        return config
    weights = str(Path(config.data.codec_weights).expanduser().absolute())
    return config.model_copy(update={"data": config.data.model_copy(update={"codec_weights": weights})})


def _tracked(
    request: Request, dataset: Dataset, workers: int, note: StopNote
) -> AbstractContextManager[MlflowRun | None]:
    chosen = Path(request.resume) if request.resume not in {"auto", "never"} else request.initialise_from
    about = describe_training(request.config, dataset, workers, chosen)
    return tracked(request.config.tracking, request.run_dir.resolve(), about, stopped=lambda: note.read() != 0)


@contextmanager
def _stoppable(request: Request, *, impatient: bool = True) -> Iterator[StopNote]:
    """Ask the ranks to save and stop when a signal comes, and put into words what is kept.

    A second Ctrl-C does not wait for them, where `impatient`. Raises `Interrupted`.
    """
    note = StopNote(request.run_dir)
    note.clear()
    try:
        with note.on_signals(impatient=impatient):
            yield note
        code = note.read()
    except KeyboardInterrupt:
        code = EXIT_CODES[signal.SIGINT]
    finally:
        note.clear()
    if code:
        newest = newest_checkpoint(request.run_dir)
        kept = f"epoch {newest.progress.epoch}, step {newest.progress.step}" if newest else "the beginning"
        raise Interrupted(f"stopped; the same command goes on from {kept}", code)
