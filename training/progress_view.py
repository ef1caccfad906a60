"""What a person sees of a running training: read from the run's own metrics file, wherever its workers are."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from shards import console
from training.events import METRICS, Event, parse_events

HEADING_EVERY, RECENT = 20, 5
"""Rows under a heading, and epochs that tell how long another one takes."""
WIDTHS = {"epoch": 7, "loss": 7, "masks": 9, "of input": 11, "of target": 11, "GAN": 5, "left": 5}
_POLL_SECONDS = 0.3


class ProgressView:
    """Follows `metrics.jsonl`: a bar with the newest numbers on a terminal, and one row an epoch anywhere."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / METRICS
        self._began = time.time()
        self._inode, self._offset = 0, 0
        self._bar = console.progress("steps")
        self._task = self._bar.add_task("training", total=None)
        self._rows = EpochRows(0, self._began)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Start following."""
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what is left to show, and stop."""
        self._stop.set()
        self._thread.join()
        self._show_new()
        self._bar.stop()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._show_new()

    def _show_new(self) -> None:
        for event in self._read_new():
            self._show(event)
            self._began = event["time"]

    def _read_new(self) -> list[Event]:
        """Read what was appended since the last look; a file that a resumed run wrote anew is read from its start."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                appended = file.read()
        except FileNotFoundError:
            return []
        whole = appended[: appended.rfind(b"\n") + 1]
        self._offset += len(whole)
        # By time: lines of an earlier launch, or that were shown before the file was written anew, are no news.
        return [event for event, _ in parse_events(whole) if event["time"] >= self._began]

    def _show(self, event: Event) -> None:
        match event["event"]:
            case "start":
                self._rows = EpochRows(event["epochs"], event["time"])
                total = event["epochs"] * event["steps_per_epoch"]
                self._bar.update(self._task, total=total, completed=event["step"])
                what = f"{event['parameters']:,} parameters, {event['world_size']} x {event['batch_size']} pairs a step"
                self._say(f"{what}, {event['steps_per_epoch']} steps an epoch")
            case "train":
                self._rows.hear_steps(event)
                self._bar.update(self._task, completed=event["step"], note=_note(event))
            case "rollback":
                rate = f"{event['rate_factor']:g} of the learning rate"
                self._say(f"step {event['from_step']}: not finite; back to step {event['step']} at {rate}")
            case "alert":
                self._say(f"health: {event['rule']} is red ({event['value']}); {event['mend']}")
            case "warning":
                self._say(f"warning: {event['text']}")
            case "epoch":
                for line in self._rows.row(event):
                    self._say(line)

    def _say(self, line: str) -> None:
        console.err.print(console.escape(line), soft_wrap=True)


class EpochRows:
    """Makes a table of epochs, a row at a time, that fits 80 columns; its heading comes again now and then."""

    def __init__(self, epochs: int, began: float) -> None:
        self._epochs = epochs
        self._ends = deque([began], RECENT + 1)
        self._speeds: list[float] = []
        self._heading: list[str] = []
        self._since_heading = 0

    def hear_steps(self, event: Event) -> None:
        """Take note of how fast the steps are."""
        self._speeds.append(event["speed/pairs_per_second"])

    def row(self, event: Event) -> list[str]:
        """Give an epoch's row, under a heading where one is due."""
        self._ends.append(event["time"])
        cells = {"epoch": f"{event['epoch']}/{self._epochs}", **_cells(event)}
        if self._speeds:
            cells["pairs/s"] = f"{sum(self._speeds) / len(self._speeds):.4g}"
        an_epoch = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        cells["left"] = short_time((self._epochs - event["epoch"]) * an_epoch)
        cells["red"] = str(len(event["red"]) or "")
        self._speeds = []
        widths = [max(len(name), WIDTHS.get(name, 0)) for name in cells]
        lines = [
            "  ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
            for texts in (cells, cells.values())
        ]
        if list(cells) == self._heading and self._since_heading < HEADING_EVERY:
            self._since_heading += 1
            return lines[1:]
        self._heading, self._since_heading = list(cells), 1
        return lines


def _cells(event: Event) -> dict[str, str]:
    """What an epoch's validation, and of the GAN its training, say about the model, as far as it has such parts."""
    judged = {name.removeprefix("val/"): value for name, value in event.items() if name.startswith("val/")}

    def told(name: str, digits: int) -> str:
        return "none" if judged[name] is None else f"{judged[name]:.{digits}f}"  # a number that is none is null in JSON

    cells = {"loss": told("loss/total", 4) + ("*" if event["best"] else " ")}
    if "agent/complementarity" in judged:
        cells["complementarity"] = told("agent/complementarity", 3)
        cells["masks"] = "/".join(told(f"agent/{side}_mask_mean", 2) for side in ("input", "target"))
    if "agent/novelty" in judged:
        cells["novelty"] = told("agent/novelty", 3)
        for side in ("input", "target"):
            weights = [name for name in judged if name.startswith(f"agent/{side}_") and name.endswith("_weight")]
            strongest = max(weights, key=lambda name: judged[name] or 0.0)
            component = strongest.removeprefix(f"agent/{side}_").removesuffix("_weight")
            cells[f"of {side}"] = f"{component} {judged[strongest] or 0.0:.0%}"
    accuracies = [event["train"].get(f"gan/{side}_accuracy") for side in ("real", "fake")]
    if None not in accuracies:
        cells["GAN"] = "/".join(f"{100 * accuracy:.0f}" for accuracy in accuracies)
    return cells


def short_time(seconds: float) -> str:
    """Tell a time in at most five characters: 42s, 12m, 2h05, 3d04h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}"
    return f"{hours // 24}d{hours % 24:02d}h" if hours < 240 else f"{round(hours / 24)}d"


def _note(event: Event) -> str:
    """The newest numbers, beside the bar."""
    parts = [f"loss {event['loss/total']:.4f}"] if event.get("loss/total") is not None else []
    if event.get("agent/complementarity") is not None:
        parts.append(f"complementarity {event['agent/complementarity']:.3f}")
    return "  ".join([*parts, f"{event['speed/pairs_per_second']:.4g} pairs/s"])
