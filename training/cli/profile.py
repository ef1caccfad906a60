"""What a person sees of a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shards import console

if TYPE_CHECKING:
    from training.profiling import Account


def show_account(account: Account, folder: Path) -> None:
    """Print where the milliseconds of a step go, the largest part first."""
    parts = sorted(account.parts.items(), key=lambda part: -part[1])
    rest = account.step - sum(account.parts.values())
    told = [*parts, ("the rest, and waiting", rest), ("a step", account.step)]
    rows = [(name, f"{spent:.2f}", f"{spent / account.step:.1%}") for name, spent in told]
    where = f"{folder}: mean of {account.steps} steps; ui.perfetto.dev opens trace.json.gz"
    console.out.print(console.escape(where), soft_wrap=True)
    console.table(("part", "ms", "share"), rows)
