"""What a person sees of weights that were loaded as far as they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shards import console

if TYPE_CHECKING:
    from training.weights import LoadReport


def show_loading(report: LoadReport, what: str) -> None:
    """Print on stderr how much was kept, and by name what was re-initialised and what was dropped."""
    counts = (
        f"{len(report.kept)} tensors kept, {len(report.reinitialised)} re-initialised, {len(report.dropped)} dropped"
    )
    _say(f"{what} {report.share:.1%} of the model: {counts}")
    for name, reason in report.reinitialised.items():
        _say(f"  re-initialised: {name} ({reason})")
    for name in report.dropped:
        _say(f"  dropped: {name}")


def _say(line: str) -> None:
    console.err.print(console.escape(line), soft_wrap=True)
