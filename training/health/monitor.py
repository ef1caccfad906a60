"""Follows a running training: hears its events, judges, and tells what has turned red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from shards.files import write_json
from training.events import Event
from training.health.history import History
from training.health.report import HEALTH, report
from training.health.rules import DEAD, Finding, examine

JUDGED = frozenset({"epoch", "rollback", "failed", "end"})
"""Events after which a run is judged."""


class HealthMonitor:
    """Hears a run's events and keeps `health.json` up to date; an `alert` follows where a rule turns red."""

    def __init__(self, run_dir: Path, past: Sequence[Event] = ()) -> None:
        """Go on from the events of earlier launches."""
        self._path = run_dir / HEALTH
        self._history = History.of(past)
        self._red = _red(examine(self._history))
        self._peaks: dict[str, float] = {}

    def hear(self, event: Event) -> list[Event]:
        """Take an event; gives it back, followed by an `alert` for each rule that has turned red.

        Where the rules were applied, the event tells of the red ones, under `red`.
        """
        self._history.hear(event)
        if event["event"] not in JUDGED:
            return [event]
        findings = examine(self._history)
        write_json(self._path, report(findings, self._history))
        new, self._red = _red(findings) - self._red, _red(findings)
        place = {name: event[name] for name in ("step", "epoch", "time")}
        told = {f.rule: f"{f.value}; {f.mend}" for f in findings if f.verdict == "red"}
        return [event | {"red": told}, *({"event": "alert", **place, **asdict(f)} for f in findings if f.rule in new)]

    def see_gradients(self, norms: Mapping[str, float]) -> None:
        """Look at the norm of each weight's gradient in a step that counted; now and then in an epoch is enough."""
        for name, norm in norms.items():
            self._peaks[name] = max(norm, self._peaks.get(name, 0.0))

    def take_dead(self) -> list[str] | None:
        """Name the weights whose gradient was as good as nothing at every look of an epoch that ends; None: no look."""
        peaks, self._peaks = self._peaks, {}
        return [name for name, norm in peaks.items() if norm < DEAD] if peaks else None


def _red(findings: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.verdict == "red"}
