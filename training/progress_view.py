"""What a person sees of a running training: read from the run's own metrics file, wherever its workers are."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shards import console
from training.tracking import METRICS, Event, parse_events

_POLL_SECONDS = 0.3


class ProgressView:
    """Follows `metrics.jsonl`: a bar with the newest numbers on a terminal, and one line an epoch anywhere."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / METRICS
        self._began = time.time()
        self._inode, self._offset = 0, 0
        self._bar = console.progress("steps")
        self._task = self._bar.add_task("training", total=None)
        self._epochs = 0
        self._newest: Event = {}
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
                self._epochs = event["epochs"]
                total = event["epochs"] * event["steps_per_epoch"]
                self._bar.update(self._task, total=total, completed=event["step"])
                what = f"{event['parameters']:,} parameters, {event['world_size']} x {event['batch_size']} pairs a step"
                self._say(f"{what}, {event['steps_per_epoch']} steps an epoch")
            case "train":
                self._newest = event
                self._bar.update(self._task, completed=event["step"], note=_numbers(event, ""))
            case "rollback":
                rate = f"{event['rate_factor']:g} of the learning rate"
                self._say(f"step {event['from_step']}: not finite; back to step {event['step']} at {rate}")
            case "alert":
                self._say(f"health: {event['rule']} is red ({event['value']}); {event['mend']}")
            case "epoch":
                best = "  best so far" if event["best"] else ""
                numbers = _numbers(
                    event | {"speed/pairs_per_second": self._newest.get("speed/pairs_per_second")}, "val/"
                )
                self._say(f"epoch {event['epoch']}/{self._epochs}  {numbers}{best}")

    def _say(self, line: str) -> None:
        console.err.print(console.escape(line), soft_wrap=True)


def _numbers(event: Event, prefix: str) -> str:
    """Loss, complementarity, mask means and speed of an event, as far as it has them."""

    def get(name: str) -> Any:
        return event.get(prefix + name)

    parts = [f"loss {get('loss/total'):.4f}"] if get("loss/total") is not None else []
    if get("agent/complementarity") is not None:
        masks = f"{get('agent/input_mask_mean'):.2f}/{get('agent/target_mask_mean'):.2f}"
        parts += [f"complementarity {get('agent/complementarity'):.3f}", f"masks {masks}"]
    if event.get("speed/pairs_per_second"):
        parts.append(f"{event['speed/pairs_per_second']:.2f} pairs/s")
    return "  ".join(parts)
