"""What a run has logged, as far as rules look at it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import CascadenceError, MisuseError
from training.events import METRICS, Event


@dataclass(frozen=True)
class Line:
    """What a run told every `train.log_steps` steps: of these the share that was skipped, and gradient norms.

    `norm` is their mean and `peak` the largest one, over the steps that counted; None where none did.
    """

    skipped: float
    norm: float | None
    peak: float | None


@dataclass(frozen=True)
class Epoch:
    """An epoch's means, over its training steps that counted and over the held-out pairs, as far as they are finite.

    `dead` names the weights that learnt nothing, None where nobody looked. `lines` counts the run's lines up to its
    end.
    """

    number: int
    trained: Mapping[str, float]
    validated: Mapping[str, float]
    loss_is_finite: bool
    dead: Sequence[str] | None
    lines: int


@dataclass
class History:
    """A run so far: its epochs, its lines, and behind how many lines it went back to a checkpoint.

    An epoch that was undone by going back is not in it; its lines stay. `failed` names what was not finite first where
    the run gave up. `step` and `epoch` are the newest event's.
    """

    epochs: list[Epoch] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    failed: str | None = None
    step: int = 0
    epoch: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """Gather a run's events."""
        history = cls()
        for event in events:
            history.hear(event)
        return history

    def hear(self, event: Event) -> None:
        """Take one more event."""
        self.step, self.epoch = int(event["step"]), int(event["epoch"])
        match event["event"]:
            case "start":  # perhaps not for the first time
                self.failed = None
            case "train":
                norm, peak = (_number(event.get(f"gradient/{name}")) for name in ("norm", "norm_max"))
                self.lines.append(Line(_number(event.get("health/skipped")) or 0.0, norm, peak))
            case "epoch":
                # A run that was killed before it saved an epoch tells it a second time.
                self._forget_epochs_from(self.epoch)
                self.epochs.append(_epoch(event, len(self.lines)))
            case "rollback":
                self._forget_epochs_from(self.epoch + 1)
                self.returns.append(len(self.lines))
            case "failed":
                self.failed = str(event["where"])

    @property
    def recent(self) -> range:
        """The lines of the newest epoch, and of the one that goes on behind it, by their places."""
        return range(self.epochs[-2].lines if len(self.epochs) > 1 else 0, len(self.lines))

    def validated(self, name: str) -> float | None:
        """A metric of the newest epoch over the held-out pairs."""
        return self.epochs[-1].validated.get(name) if self.epochs else None

    def trained(self, name: str) -> float | None:
        """A metric of the newest epoch over its training steps."""
        return self.epochs[-1].trained.get(name) if self.epochs else None

    def _forget_epochs_from(self, number: int) -> None:
        self.epochs = [epoch for epoch in self.epochs if epoch.number < number]


def _epoch(event: Event, lines: int) -> Epoch:
    validated = {name.removeprefix("val/"): value for name, value in event.items() if name.startswith("val/")}
    dead = event.get("dead")
    return Epoch(
        number=event["epoch"],
        trained=_finite(event.get("train") or {}),
        validated=_finite(validated),
        loss_is_finite="loss/total" not in validated or _number(validated["loss/total"]) is not None,
        dead=None if dead is None else tuple(map(str, dead)),
        lines=lines,
    )


def _finite(metrics: Mapping[str, object]) -> dict[str, float]:
    return {name: number for name, value in metrics.items() if (number := _number(value)) is not None}


def _number(value: object) -> float | None:
    """A finite number; a metrics file has null for the others."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_run(run_dir: Path) -> History:
    """Read what a run has logged; an unfinished last line is left out.

    Raises `MisuseError` where there is no run, and `CascadenceError`, naming the line, where its metrics are damaged.
    """
    path = run_dir / METRICS
    if not run_dir.is_dir():
        raise MisuseError(f"{run_dir}: there is no such run; give the --run-dir of a training")
    if not path.is_file():
        raise MisuseError(f"{run_dir}: holds no {METRICS}; give the --run-dir of a training that has begun")
    history = History()
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            continue
        try:
            history.hear(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise CascadenceError(
                f"{path}: line {number} is no event of a training; take it out, or restore the file from a copy"
            ) from None
    return history
