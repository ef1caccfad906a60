"""Where a step's time goes: a trace for a viewer, and a table for people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from shards.files import atomic_directory, read_json, remove_directory, write_bytes, write_json

PROFILE = "profile"
WAIT, WARM_UP, ACTIVE = 2, 2, 8
"""Steps that are let pass, that warm the profiler up, and that it measures."""
PART, STEP, VALIDATION = "step/", "ProfilerStep", "evaluate"
"""Names of the ranges that are a step's parts, its whole, and none of it."""


@dataclass(frozen=True)
class Span:
    """A named stretch of time, in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Account:
    """Milliseconds of a step and of each of its parts, means over `steps` steps; on a GPU, those in which it worked."""

    steps: int
    step: float
    parts: dict[str, float]

    @property
    def explained(self) -> float:
        """Share of the step that the parts explain; the rest is between them, or the GPU waited."""
        return sum(self.parts.values()) / self.step if self.step else 0.0


class StepProfiler:
    """Profiles some steps near the beginning of a run, once, into RUN_DIR/profile.

    That folder holds `parts.json` (an `Account`), `operators.txt`, and `trace.json.gz` for Perfetto or
    chrome://tracing; it is missing where a run ends before a step was measured.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        remove_directory(folder)  # an earlier launch's
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else it complains on stderr where there is no GPU
        self._folder, self._device, self._whole = folder, device, True
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        plan = schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1)
        # acc_events: there is one cycle; without it torch warns of what becomes of the second.
        self._profile = profile(activities=activities, schedule=plan, on_trace_ready=self._write, acc_events=True)
        self._profile.start()
        self._left = WAIT + WARM_UP + ACTIVE

    def step(self) -> None:
        """Count a step."""
        if self._left == 0:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # else a step ends where its launches do
        self._profile.step()
        self._left -= 1
        if self._left == 0:
            self._profile.stop()

    def close(self) -> None:
        """End a profile that still waits for steps, with those that it has."""
        if self._left:
            self._left, self._whole = 0, False
            self._profile.stop()

    def _write(self, measured: Any) -> None:
        events = measured.events()
        on_cpu = [event for event in events if event.device_type.name == "CPU"]
        spans = [Span(event.name, event.time_range.start, event.time_range.end) for event in on_cpu]
        steps = sorted((span for span in spans if span.name.startswith(STEP)), key=lambda span: span.start)
        steps = steps if self._whole else steps[:-1]  # the last one was cut off
        parts = [Span(s.name.removeprefix(PART), s.start, s.end) for s in spans if s.name.startswith(PART)]
        kernels = _kernels(on_cpu) if self._device.type == "cuda" else None
        account = account_for(steps, parts, [span for span in spans if span.name == VALIDATION], kernels)
        if account is None:
            return
        by = "self_cpu_time_total" if kernels is None else "self_device_time_total"
        with atomic_directory(self._folder) as inside:
            measured.export_chrome_trace(str(inside / "trace.json.gz"))
            write_bytes(inside / "operators.txt", measured.key_averages().table(sort_by=by, row_limit=40).encode())
            write_json(inside / "parts.json", {**asdict(account), "explained": account.explained})


def account_for(
    steps: Sequence[Span],
    parts: Sequence[Span],
    others: Sequence[Span] = (),
    kernels: Iterable[tuple[float, float]] | None = None,
) -> Account | None:
    """Share the time of steps among their parts; where parts lie within parts, the innermost one has it.

    A step in which anything of `others` lies is left out: an epoch ended within it. `kernels` are those of a GPU, when
    each was launched and how long it took; then it is their time that is shared. Gives None where no step is left.
    """
    steps = [step for step in steps if not any(step.start < other.end and other.start < step.end for other in others)]
    if not steps:
        return None
    pieces = list(innermost(parts))
    spent: dict[str, float] = {piece.name: 0.0 for piece in pieces}
    for step in steps:
        inside = [piece for piece in pieces if step.start <= piece.start and piece.end <= step.end]
        for piece in inside:
            spent[piece.name] += piece.end - piece.start if kernels is None else 0.0
    for launched, duration in kernels or ():
        for piece in pieces:
            if piece.start <= launched < piece.end and any(s.start <= launched < s.end for s in steps):
                spent[piece.name] += duration
    per_step = 1e3 * len(steps)
    parts_told = {name: time / per_step for name, time in spent.items() if time}
    return Account(len(steps), sum(s.end - s.start for s in steps) / per_step, parts_told)


def innermost(ranges: Iterable[Span]) -> Iterator[Span]:
    """Cut nested ranges into pieces that do not overlap, each with the name of the innermost range there."""
    open_ranges: list[Span] = []
    at = 0.0
    for span in [*sorted(ranges, key=lambda span: (span.start, -span.end)), Span("", float("inf"), float("inf"))]:
        while open_ranges and open_ranges[-1].end <= span.start:
            closed = open_ranges.pop()
            if closed.end > at:
                yield Span(closed.name, at, closed.end)
            at = max(at, closed.end)
        if open_ranges and span.start > at:
            yield Span(open_ranges[-1].name, at, span.start)
        at = span.start
        open_ranges.append(span)


def read_account(run_dir: Path) -> Account | None:
    """Read what a run's profile found; None where no step was measured."""
    file = run_dir / PROFILE / "parts.json"
    if not file.is_file():
        return None
    content: Any = read_json(file)
    return Account(content["steps"], content["step"], content["parts"])


def _kernels(on_cpu: Iterable[Any]) -> list[tuple[float, float]]:
    """When each kernel was launched, on whichever thread, and how long it took; annotations are no kernels."""
    return [
        (event.time_range.start, kernel.duration)
        for event in on_cpu
        if not event.is_user_annotation
        for kernel in event.kernels
    ]
