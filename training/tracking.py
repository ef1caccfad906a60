"""Where the numbers of a run go: JSON lines, and MLflow behind its one door."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shards.files import write_bytes

METRICS = "metrics.jsonl"
Event = dict[str, Any]


class Sink(Protocol):
    """Takes the events of a run: each has `event`, `step`, `epoch` and `time`; metrics have a `/` in the name."""

    def log(self, event: Event) -> None:
        """Take one event."""


class JsonLinesSink:
    """Appends events to a file, each a line that is whole at once."""

    def __init__(self, path: Path, from_step: int) -> None:
        """Continue `path`; what an interrupted run logged past `from_step` will come again, so it is dropped."""
        self._path = path
        kept = [line for event, line in read_events(path) if event["step"] <= from_step]
        write_bytes(path, b"".join(kept))

    def log(self, event: Event) -> None:
        """Append one event."""
        with self._path.open("ab") as file:
            file.write(json.dumps(_plain(event), sort_keys=True, allow_nan=False).encode() + b"\n")


def _plain(value: Any) -> Any:
    """Put null in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_events(path: Path) -> list[tuple[Event, bytes]]:
    """Read the whole lines of a metrics file, parsed and as they are; an unfinished last line is left out."""
    return parse_events(path.read_bytes()) if path.is_file() else []


def parse_events(content: bytes) -> list[tuple[Event, bytes]]:
    """Parse the whole lines of a piece of a metrics file."""
    events: list[tuple[Event, bytes]] = []
    for line in content.splitlines(keepends=True):
        if line.endswith(b"\n"):
            with suppress(json.JSONDecodeError):
                events.append((json.loads(line), line))
    return events


def metrics_of(event: Mapping[str, Any]) -> dict[str, float]:
    """Pick an event's metrics."""
    return {name: value for name, value in event.items() if "/" in name and value is not None}


@dataclass(frozen=True)
class MlflowRun:
    """An MLflow run: where it is kept, and its id. The driver owns it; rank 0 logs into it."""

    store: str
    run_id: str


class MlflowSink:
    """Logs metrics into a run that the driver made."""

    def __init__(self, run: MlflowRun) -> None:
        self._run, self._client = run, _client(run.store)

    def log(self, event: Event) -> None:
        """Log the metrics of one event at its step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, int(event["step"])) for name, value in metrics_of(event).items()]
        if batch:
            self._client.log_batch(self._run.run_id, metrics=batch)


def mlflow_available() -> bool:
    """Whether MLflow is installed."""
    return find_spec("mlflow") is not None


def start_mlflow(
    store: str | None, run_dir: Path, experiment: str, run_id: str | None, params: Mapping[str, str]
) -> MlflowRun:
    """Create a run, or take up `run_id` again. The default store is MLFLOW_TRACKING_URI, else RUN_DIR/mlflow.db."""
    uri = store or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir / 'mlflow.db'}"
    client = _client(uri)
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        return MlflowRun(uri, run_id)
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        experiment_id = found.experiment_id
    else:
        own = uri.startswith("sqlite:")  # without a location, files would land in the current directory
        location = (run_dir / "mlflow-artifacts").as_uri() if own else None
        experiment_id = client.create_experiment(experiment, artifact_location=location)
    run = client.create_run(experiment_id, run_name=run_dir.name)
    for name, value in params.items():
        client.log_param(run.info.run_id, name, value[:500])
    return MlflowRun(uri, run.info.run_id)


def end_mlflow(run: MlflowRun, status: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    _client(run.store).set_terminated(run.run_id, status)


def log_file(run: MlflowRun, file: Path) -> None:
    """Keep a file with a run."""
    _client(run.store).log_artifact(run.run_id, str(file))


def _client(store: str) -> Any:
    # No telemetry: it would call out. Quiet migrations: a fresh store's are not news.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import logging

    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=store)
