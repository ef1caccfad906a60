"""What a person sees of an encode job while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline.observer import Observer
from shards import console

if TYPE_CHECKING:
    from pipeline.plan import ShardPlan
    from shards.schema import Receipt

SPEAK_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class Meter(Observer):
    """Counts pairs, hours of audio, speed, refused pairs and the time left.

    Shards that an earlier run finished count as done and not as work: speed and time left are those of this run.
    """

    def __init__(self, window_seconds: float) -> None:
        self.bar = console.progress("pairs")
        self._task = self.bar.add_task("encoding", total=None, note="")
        self._pair_seconds = 2 * window_seconds
        self._pairs: dict[str, int] = {}
        self._running: dict[str, float] = {}
        self._kept = self._made = self._rejected = self._shards_done = 0
        self._started: float | None = None
        self._spoke = time.monotonic()

    def planned(self, plans: Sequence[ShardPlan]) -> None:
        """The shards of this job, finished ones included."""
        self._pairs = {plan.file: len(plan.pairs) for plan in plans}
        self.bar.update(self._task, total=self._total)

    def kept(self, receipt: Receipt) -> None:
        """A shard that an earlier run finished."""
        self._kept += self._pairs[receipt.shard]
        self._count(receipt)

    def advanced(self, shard: str, done: float) -> None:
        """How far a shard is, from 0 to 1."""
        self._started = self._started or time.monotonic()  # of the work, not of what came before it
        self._running[shard] = done
        self._show()

    def finished(self, receipt: Receipt) -> None:
        """A shard that was made now."""
        self._made += self._pairs[receipt.shard]
        self._running.pop(receipt.shard, None)
        self._count(receipt)
        self._show(last=self._kept + self._made == self._total)

    def stopping(self) -> None:
        """A stop was asked for."""
        console.err.print("stopping after the running shards; once more to stop at once", soft_wrap=True)

    @property
    def _total(self) -> int:
        return sum(self._pairs.values())

    def _count(self, receipt: Receipt) -> None:
        self._shards_done += 1
        self._rejected += len(receipt.rejected)

    def _show(self, last: bool = False) -> None:
        made = self._made + sum(self._pairs[shard] * done for shard, done in self._running.items())
        elapsed = max(time.monotonic() - (self._started or 0), 1e-9)
        seconds = made * self._pair_seconds
        note = f"{seconds / 3600:.2f} h of audio, {seconds / elapsed:.0f}x real time, {self._rejected} refused"
        self.bar.update(self._task, completed=self._kept + made, note=note)
        if console.err.is_terminal or not (last or time.monotonic() - self._spoke > SPEAK_SECONDS):
            return
        self._spoke = time.monotonic()
        left = timedelta(seconds=round(elapsed / made * (self._total - self._kept - made))) if made else "unknown"
        console.err.print(
            f"encoded {self._kept + made:.0f}/{self._total} pairs, {self._shards_done}/{len(self._pairs)} shards, "
            f"{note}, {left} left",
            soft_wrap=True,
        )
