"""Everything that a resume needs, in one place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from training.config import Config
from training.models.build import Model, build_model
from training.models.discriminator import Discriminator
from training.optim import build_optimizer


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
class Adversary:
    """The discriminator of a GAN and its optimizer."""

    discriminator: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass
class TrainState:
    """The model, its adversary where there is a GAN, their optimizers, and the run's progress.

    Not saved here: the MLflow run's id, which the run directory keeps from before the first step (`run.json`).

    Not saved at all, because it follows from what is: random numbers (each step seeds its own from the run's seed,
    the step and the rank: `training.step.seed_step`), the order of the data (from seed and epoch), the codec (frozen,
    named by the dataset), and the configuration (it lies beside the state).
    """

    model: Model
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    progress: Progress = field(default_factory=Progress)


def new_state(config: Config, dim: int, device: torch.device) -> TrainState:
    """Make the state of a training that has not begun, for latents of `dim` channels: the same on every rank."""
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, dim, config.compat).to(device)
    optimizer = build_optimizer(config.optimizer, model.parameters(), device)
    if config.losses.gan == 0:
        return TrainState(model, optimizer)
    discriminator = Discriminator(config.discriminator, dim).to(device)
    game = config.optimizer.for_discriminator(config.discriminator.learning_rate)
    return TrainState(
        model, optimizer, Adversary(discriminator, build_optimizer(game, discriminator.parameters(), device))
    )
