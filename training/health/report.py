"""What comes of a run's health: its document, and whether a launch may call itself a success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shards.errors import CascadenceError
from training.events import METRICS
from training.health.history import History, read_run
from training.health.rules import Finding, examine

HEALTH = "health.json"


class GaveUp(CascadenceError):
    """A training that went back as often as it may and still is not finite; all ranks raise it together."""

    def __init__(self, run_dir: Path, step: int, where: str) -> None:
        super().__init__(
            f"{run_dir}: not finite again at step {step}, after returns at ever lower rates; first in {where}; "
            "start anew with a lower optimizer.learning_rate in another --run-dir"
        )


def report(findings: Sequence[Finding], history: History) -> dict[str, Any]:
    """Put findings into the form of `health.json`: where the run stands, the rules that are red, and all of them."""
    red = [finding.rule for finding in findings if finding.verdict == "red"]
    rules = [asdict(finding) for finding in findings]
    return {"step": history.step, "epoch": history.epoch, "red": red, "rules": rules}


def require_going(run_dir: Path) -> None:
    """Raise `GaveUp` where a run did; see `read_run` for what else it raises."""
    history = read_run(run_dir)
    if history.failed is not None:
        raise GaveUp(run_dir, history.step, history.failed)


def red_rules(run_dir: Path) -> list[Finding]:
    """Find the rules that are red where a run stands, none where it has logged nothing; see `read_run` for errors."""
    if not (run_dir / METRICS).is_file():
        return []
    return [finding for finding in examine(read_run(run_dir)) if finding.verdict == "red"]


def require_well(run_dir: Path, red: Sequence[Finding]) -> None:
    """Raise `CascadenceError` where a severe rule is among those that are red at the end of a run."""
    if severe := [f"{finding.rule} ({finding.value})" for finding in red if finding.severe]:
        raise CascadenceError(
            f"{run_dir}: trained, but red at the end: {', '.join(severe)}; its checkpoints can be used, and "
            f"`python -m training health {run_dir}` tells what helps"
        )
