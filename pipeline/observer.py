"""Who hears of an encode job's progress: the command line, a test, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.plan import ShardPlan
    from shards.schema import Receipt


class Observer:
    """Hears of a job's progress, and does nothing with it; others override what they want to hear."""

    def planned(self, plans: Sequence[ShardPlan]) -> None:
        """The shards of this job, finished ones included."""

    def kept(self, receipt: Receipt) -> None:
        """A shard that an earlier run finished."""

    def advanced(self, shard: str, done: float) -> None:
        """How far a shard is, from 0 to 1."""

    def finished(self, receipt: Receipt) -> None:
        """A shard that was made now."""
