"""The door to MLflow: the driver owns a training's run, and rank 0 sends what the training tells into it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from shards.errors import CascadenceError, Interrupted
from shards.files import COMPLETE, read_json, write_json
from shards.settings import Settings
from training.events import METRICS, Event, Sink, append_event, make_warning, metrics_of, read_events
from training.health import HEALTH
from training.outbox import Outbox
from training.profiling import PROFILE

RUN_RECORD = "run.json"
METRICS_A_CALL, PARAMS_A_CALL = 900, 100
"""MLflow's own limits are 1000, together with the tags, and 100."""
TAG, RULE = "health", "health.rule."
CURVES = {"train": "loss/total", "epoch": "val/loss/total"}
"""By kind of event, a metric that each of them has."""


class TrackingConfig(Settings):
    """Where a run is watched, and heard, beside its metrics.jsonl."""

    mlflow: bool = Field(True, description="log to MLflow, where it is installed")
    experiment: str = "cascadence"
    store: str | None = Field(None, description="MLflow's store; else MLFLOW_TRACKING_URI, else RUN_DIR/mlflow.db")
    sample_epochs: int | None = Field(10, ge=1, description="audio is made every so many epochs; null: never")
    samples: int = Field(2, ge=1, description="held-out pairs that it is made of, always the same ones")


@dataclass(frozen=True)
class MlflowRun:
    """An MLflow run: where it is kept, and its id."""

    store: str
    run_id: str


@dataclass(frozen=True)
class About:
    """What a training is: parameters, tags, the configuration as YAML, and the data's name, hash and address."""

    params: dict[str, str]
    tags: dict[str, str]
    config: str
    dataset: tuple[str, str, str]


@contextmanager
def tracked(
    settings: TrackingConfig, run_dir: Path, about: About, stopped: Callable[[], bool] = lambda: False
) -> Iterator[MlflowRun | None]:
    """Own a training's MLflow run: made or taken up before the workers start, ended truthfully whatever they do.

    A training that ends because it was `stopped` is KILLED. Gives None where MLflow is not wanted or not installed.
    Raises `CascadenceError` where its store does not answer at the beginning. Later that is a `warning` among the
    events, and nothing else.
    """
    if not settings.mlflow or find_spec("mlflow") is None:
        yield None
        return
    run = _begin(settings, run_dir, about)
    status = "FAILED"
    try:
        with _system_metrics(run):
            yield run
        status = "KILLED" if stopped() else "FINISHED"
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    finally:
        _end(run, status, run_dir)


def _begin(settings: TrackingConfig, run_dir: Path, about: About) -> MlflowRun:
    store = _store(settings.store, run_dir)
    with _asking(store):
        client = _client(store)
        run_id = _known_run(client, run_dir) or _create(client, settings.experiment, store, run_dir)
    # Kept before anything else can fail: whatever becomes of this launch, the next one finds the run.
    write_json(run_dir / RUN_RECORD, {"store": _without_password(store), "run_id": run_id})
    with _asking(store):
        client.update_run(run_id, status="RUNNING")
        _describe(client, run_id, about)
    return MlflowRun(store, run_id)


@contextmanager
def _asking(store: str) -> Iterator[None]:
    """Put into one line what MLflow, its database or its HTTP client raise."""
    try:
        yield
    except Exception as error:
        raise CascadenceError(
            f"MLflow's store {_without_password(store)} can't be used: {_cause(error)}; start it, or name another one "
            "with --set tracking.store=URI, or go without: --set tracking.mlflow=off"
        ) from error


def _store(wanted: str | None, run_dir: Path) -> str:
    """Choose the store; one in a file has an absolute path, since workers may have another current directory."""
    store = wanted or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir / 'mlflow.db'}"
    scheme, separator, path = store.partition(":///")
    return f"{scheme}{separator}{Path(path).resolve()}" if scheme == "sqlite" else store


def _known_run(client: Any, run_dir: Path) -> str | None:
    """Find the run of RUN_DIR in the store: None where there is none yet, or somebody deleted it."""
    record = run_dir / RUN_RECORD
    content: Any = read_json(record) if record.is_file() else {}
    run_id = content.get("run_id")
    from mlflow.exceptions import MlflowException

    try:
        return run_id if run_id and client.get_run(run_id).info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _create(client: Any, experiment: str, store: str, run_dir: Path) -> str:
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        experiment_id = found.experiment_id
    else:
        place = _artifacts(store, run_dir)
        # Without the tag MLflow's pages take a training for a chat program.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        experiment_id = client.create_experiment(experiment, artifact_location=place, tags=kind)
    name = f"{run_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return str(client.create_run(experiment_id, run_name=name).info.run_id)


def _artifacts(store: str, run_dir: Path) -> str | None:
    """Where a new experiment keeps its files: beside a database in a file; a server says it itself (None)."""
    scheme, _, path = store.partition(":///")
    if scheme == "sqlite":
        return (Path(path).parent / "mlflow-artifacts").as_uri()
    # Of another database: without a place of its own, files would land in the current directory.
    server = re.match(r"https?:|databricks|uc\b", store)
    return None if server else (run_dir / "mlflow-artifacts").as_uri()


def _describe(client: Any, run_id: str, about: About) -> None:
    """Log what the run is; a parameter that a resume changed can't be replaced in MLflow, so it becomes a tag."""
    from mlflow.entities import Dataset, DatasetInput, Param, RunTag

    there = client.get_run(run_id)
    params = [Param(name, value) for name, value in about.params.items() if name not in there.data.params]
    for first in range(0, len(params), PARAMS_A_CALL):
        client.log_batch(run_id, params=params[first : first + PARAMS_A_CALL])
    changed = {
        f"changed.{name}": f"{there.data.params[name]} -> {value}"
        for name, value in about.params.items()
        if there.data.params.get(name, value) != value
    }
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in (about.tags | changed).items()])
    for name in there.data.tags:
        if name.startswith("changed.") and name not in changed:
            client.delete_tag(run_id, name)
    if not there.inputs.dataset_inputs:
        name, fingerprint, address = about.dataset
        # The digest is for people, and at most 36 characters; the whole one is among the parameters.
        data = Dataset(name, fingerprint[:12], "shards", address)
        client.log_inputs(run_id, datasets=[DatasetInput(data)])
    client.log_text(run_id, about.config, "config.yaml")


def _end(run: MlflowRun, status: str, run_dir: Path) -> None:
    """End the run first, and then keep its files: whoever stops the driver in between leaves a true status."""
    try:
        client = _client(run.store)
        client.set_terminated(run.run_id, status)
        for file in (run_dir / HEALTH, *sorted((run_dir / PROFILE).glob("*"))):
            if file.is_file() and file.name != COMPLETE:
                client.log_artifact(run.run_id, str(file), PROFILE if file.parent != run_dir else None)
    except Exception as error:  # a training is not lost because somebody else's server is
        _warn_once(run_dir, f"{_unanswered(run, error)}; there the run may still be RUNNING")


def _warn_once(run_dir: Path, text: str) -> None:
    """Tell that MLflow fails, unless rank 0 has told it since it started."""
    told = [event for event, _ in read_events(run_dir / METRICS)]
    begun = max((place for place, event in enumerate(told) if event["event"] == "start"), default=None)
    if begun is not None and not any(event.get("text", "").startswith("MLflow") for event in told[begun:]):
        append_event(run_dir / METRICS, make_warning(told[-1], text))


@contextmanager
def _system_metrics(run: MlflowRun) -> Iterator[None]:
    """Let MLflow's own thread log the load of this machine, where psutil is installed."""
    if find_spec("psutil") is None:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
        run.run_id, resume_logging=True, tracking_uri=run.store
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


class MlflowMirror:
    """Brings an MLflow run up to what a training has told, from its beginning.

    `send` may see events that the run has already: those of other processes, those of a group that failed half-way,
    and steps that were taken again after their process died. None of them is logged twice.
    """

    def __init__(self, run: MlflowRun, run_dir: Path) -> None:
        self._run, self._run_dir = run, run_dir
        self._client: Any = None
        self._held: dict[tuple[str, int], int] = {}
        self._since = 0
        self._rules: set[str] = set()
        self._folders: set[str] = set()

    def send(self, events: Sequence[Event]) -> None:
        """Log the metrics of events at their steps, their health as tags, and their samples as artifacts."""
        from mlflow.entities import Metric, RunTag

        if self._client is None:
            self._client = self._look(_client(self._run.store))
        news = [event for event in events if self._is_news(event)]
        metrics = [
            Metric(name, value, _milliseconds(event), event["step"])
            for event in news
            for name, value in metrics_of(event).items()
        ]
        for first in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(self._run.run_id, metrics=metrics[first : first + METRICS_A_CALL])
        judged = [event["red"] for event in events if "red" in event]
        if judged:
            tags = health_tags(judged[-1])
            self._client.log_batch(self._run.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
            for mended in self._rules - tags.keys():
                self._client.delete_tag(self._run.run_id, mended)
            self._rules = {name for name in tags if name.startswith(RULE)}
        for event in news:
            for folder in event.get("folders", ()):
                self._keep_folder(folder)

    def _look(self, client: Any) -> Any:
        """See what the run holds: the steps of its curves, tags of health, and folders of samples."""
        run = client.get_run(self._run.run_id)
        for kind, name in CURVES.items():
            for metric in client.get_metric_history(self._run.run_id, name):
                key = (kind, metric.step)
                self._held[key] = max(metric.timestamp, self._held.get(key, 0))
        self._rules = {name for name in run.data.tags if name.startswith(RULE)}
        self._folders = {entry.path for entry in client.list_artifacts(self._run.run_id, "samples")}
        return client

    def _is_news(self, event: Event) -> bool:
        if event["event"] == "rollback":
            # What follows has numbers that the run holds already, but it is something else.
            self._since = _milliseconds(event)
            self._folders.clear()
        return self._held.get((event["event"], event["step"]), -1) <= self._since

    def _keep_folder(self, name: str) -> None:
        folder = self._run_dir / name
        for file in sorted(folder.rglob("*")) if name not in self._folders else ():
            if file.is_file() and file.name != COMPLETE:
                place = file.parent.relative_to(self._run_dir).as_posix()
                self._client.log_artifact(self._run.run_id, str(file), place)
        self._folders.add(name)


def mlflow_sink(run: MlflowRun, run_dir: Path, past: Sequence[Event], warn: Callable[[Event], None]) -> Sink:
    """Make the sink of rank 0; `past` is what the run told in other processes, `warn` hears where MLflow fails."""

    def complain(event: Event, error: Exception) -> None:
        warn(make_warning(event, _unanswered(run, error)))

    return Outbox(MlflowMirror(run, run_dir).send, complain, past)


def health_tags(red: Mapping[str, str]) -> dict[str, str]:
    """Name the tags of a run's health: green or red, the red rules, and of each its value and mend."""
    rules = {f"{RULE}{rule}": told for rule, told in red.items()}
    return {TAG: "red" if red else "green", f"{TAG}.red": ", ".join(red) or "none", **rules}


def _milliseconds(event: Event) -> int:
    return round(float(event["time"]) * 1000)


def _unanswered(run: MlflowRun, error: Exception) -> str:
    return (
        f"MLflow at {_without_password(run.store)} fails ({_cause(error)}); the training goes on, its numbers stay in "
        f"{METRICS}, and MLflow gets them when it answers again, here or at the next launch"
    )


def _cause(error: Exception) -> str:
    """Put what MLflow and the libraries under it raise into a few words."""
    text = str(error).strip() or type(error).__name__
    refused = re.search(r"\[Errno \d+\] ([\w ]+)", text)
    return _without_password(refused[1] if refused else text.splitlines()[0])[:200]


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _client(store: str) -> Any:
    # No telemetry: it would call out. Patience for seconds, where MLflow has it for minutes: we try again ourselves.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import logging

    from mlflow import MlflowClient

    # Quiet: a fresh store's migrations are no news, and what fails is told by ourselves.
    for name, level in (("mlflow", "ERROR"), ("alembic", "ERROR"), ("mlflow.system_metrics", "CRITICAL")):
        logging.getLogger(name).setLevel(level)
    return MlflowClient(tracking_uri=store)
