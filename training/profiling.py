"""Where a step's time goes: a trace for a viewer, and a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from shards.files import write_bytes, write_json

WAIT, WARM_UP, ACTIVE = 2, 2, 8
"""Steps that are let pass, that warm the profiler up, and that it measures."""
PREFIX = "step/"


class StepProfiler:
    """Profiles some steps near the beginning of a run, once, into RUN_DIR/profile."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self._folder, self._on_gpu = folder, device.type == "cuda"
        plan = schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1)
        self._profile = profile(activities=activities, schedule=plan, on_trace_ready=self._write, profile_memory=True)
        self._profile.start()
        self._left: int | None = WAIT + WARM_UP + ACTIVE

    def step(self) -> None:
        """Count a step."""
        if self._left is None:
            return
        self._profile.step()
        self._left -= 1
        if self._left == 0:
            self._profile.stop()
            self._left = None

    def _write(self, measured: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        measured.export_chrome_trace(str(self._folder / "trace.json"))
        events = measured.key_averages()
        by = "device_time_total" if self._on_gpu else "cpu_time_total"
        parts = {e.key.removeprefix(PREFIX): getattr(e, by) / ACTIVE / 1e3 for e in events if e.key.startswith(PREFIX)}
        write_json(self._folder / "parts.json", {"milliseconds_a_step": parts, "steps": ACTIVE})
        write_bytes(self._folder / "operators.txt", events.table(sort_by=by, row_limit=40).encode())
