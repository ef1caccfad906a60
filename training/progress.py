"""How far a run has come: the numbers of its state."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ROLLBACK_FACTOR = 0.5
"""On the learning rate, at each return to the last good checkpoint."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, as JSON.

    `loader` is the position in the data (see `shards.reader.Loader.state_dict`), None between two epochs; `means` are
    the metrics of the epoch so far, over all ranks. `rollbacks` counts the returns to a good checkpoint.
    """

    step: int = 0
    epoch: int = 0
    loader: dict[str, Any] | None = None
    means: dict[str, Any] = field(default_factory=dict)
    best_loss: float | None = None
    best_epoch: int | None = None
    rollbacks: int = 0
    plateau_factor: float = 1.0
    plateau_waited: int = 0

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Progress:
        """Rebuild from `as_json`, ignoring nothing: unknown or missing keys raise `TypeError`."""
        return cls(**{f.name: content[f.name] for f in fields(cls)})

    def as_json(self) -> dict[str, Any]:
        """Give the numbers as plain data."""
        return asdict(self)

    def improves(self, loss: float) -> bool:
        """Whether `loss` is a new best."""
        return math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)

    @property
    def rollback_factor(self) -> float:
        """What the roll-backs have made of the learning rate."""
        return ROLLBACK_FACTOR**self.rollbacks

    @property
    def place(self) -> tuple[int, int]:
        """Where the run stands: its step and epoch, as events name them."""
        return self.step, self.epoch

    @property
    def order(self) -> tuple[int, int, int]:
        """Of two states of a run, the one that is further on has the larger one: a roll-back goes on from there."""
        return self.rollbacks, self.step, self.epoch
