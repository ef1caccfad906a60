"""What a run tells: events, whole lines of RUN_DIR/metrics.jsonl, and the sinks that take them."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from shards.files import write_bytes

METRICS = "metrics.jsonl"
Event = dict[str, Any]
"""Has `event`, `step`, `epoch` and `time`; what has a `/` in its name is a metric.

The kinds: `start`, `train` (every `log_steps`), `epoch`, `samples` (folders of audio), `alert` (a rule of health turned
red), `rollback`, `failed`, `warning` (`text`; something beside the training went wrong), `end`.
"""


class Sink(Protocol):
    """Takes the events of a run."""

    def log(self, event: Event) -> None:
        """Take one event; it must not keep the training waiting."""

    def close(self) -> None:
        """Pass on what is left; nothing comes after it."""


class JsonLinesSink:
    """Appends events to a file, each a line that is whole at once."""

    def __init__(self, path: Path, place: tuple[int, int]) -> None:
        """Continue `path`; what an interrupted run told past `place` will come again, so it is dropped."""
        self._path, self._lock = path, threading.Lock()
        kept = [line for event, line in read_events(path) if is_past(event, place)]
        write_bytes(path, b"".join(kept))

    def log(self, event: Event) -> None:
        """Append one event; any thread may."""
        with self._lock:
            append_event(self._path, event)

    def close(self) -> None:
        """Nothing is left: each line was written when it came."""


class MemorySink:
    """Keeps events in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def log(self, event: Event) -> None:
        """Keep one event."""
        self.events.append(event)

    def close(self) -> None:
        """Note that nothing more comes."""
        self.closed = True


def append_event(path: Path, event: Event) -> None:
    """Add one event to a metrics file."""
    line = json.dumps(_plain(event), sort_keys=True, allow_nan=False).encode() + b"\n"
    with path.open("ab") as file:
        file.write(line)


def make_warning(at: Event, text: str) -> Event:
    """Make the event that tells of a trouble beside the training, at the place of another event."""
    return {"event": "warning", "step": at["step"], "epoch": at["epoch"], "time": round(time.time(), 3), "text": text}


def is_past(event: Event, place: tuple[int, int]) -> bool:
    """Whether an event was told before a run stood at `place`, its step and epoch."""
    # Both: within the last step of an epoch there are those before the validation and those after it.
    return (event["step"], event["epoch"]) <= place


def read_past(path: Path, place: tuple[int, int]) -> list[Event]:
    """Read the events of a run up to a place."""
    return [event for event, _ in read_events(path) if is_past(event, place)]


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
    return {name: float(value) for name, value in event.items() if "/" in name and value is not None}


def _plain(value: Any) -> Any:
    """Put null in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
