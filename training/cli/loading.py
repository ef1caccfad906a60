"""What a person sees of weights that were loaded as far as they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shards import console

if TYPE_CHECKING:
    from training.weights import LoadReport


def show_loading(source: object, parts: Mapping[str, LoadReport]) -> None:
    """Print on stderr how much of each part came from `source`, and by name what was re-initialised and dropped."""
    for part, report in parts.items():
        counts = (
            f"{len(report.kept)} tensors kept, {len(report.reinitialised)} re-initialised, "
            f"{len(report.dropped)} dropped"
        )
        share = math.floor(1000 * report.share) / 10  # never 100 where anything is missing
        _say(f"{source}: {share:.1f}% of the {part}: {counts}")
        for name, reason in report.reinitialised.items():
            _say(f"  re-initialised: {name} ({reason})")
        for name in report.dropped:
            _say(f"  dropped: {name}")


def _say(line: str) -> None:
    console.err.print(console.escape(line), soft_wrap=True)
