"""Everything that a resume needs, in one place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Progress:
    """How far a run has come: the numbers of its state, as JSON.

    `loader` is the position in the data (see `shards.reader.Loader.state_dict`), None between two epochs.
    """

    step: int = 0
    epoch: int = 0
    loader: dict[str, Any] | None = None
    best_loss: float | None = None
    best_epoch: int | None = None

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


@dataclass
class TrainState:
    """The model, its optimizer and the run's progress.

    Not saved here: the MLflow run's id, which the run directory keeps from before the first step (`run.json`).

    Not saved at all, because it follows from what is: random numbers (each step seeds its own from the run's seed,
    the step and the rank: `training.step.seed_step`), the order of the data (from seed and epoch), the codec (frozen,
    named by the dataset), and the configuration (it lies beside the state).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
