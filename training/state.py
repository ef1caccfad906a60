"""Everything that a resume needs, in one place."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training.config import Config
from training.models.build import Model, build_model
from training.models.discriminator import Discriminator
from training.optim import build_optimizer
from training.progress import Progress


@dataclass
class Adversary:
    """The discriminator of a GAN and its optimizer."""

    discriminator: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass
class TrainState:
    """The model, its adversary where there is a GAN, their optimizers, and the run's progress.

    `average` is the model with the moving average of its weights, where the configuration asks for one: it is what is
    judged, and what a loaded checkpoint gives. `decay` is what it keeps of itself in a step.

    Not saved here: the MLflow run's id, which the run directory keeps from before the first step (`run.json`).

    Not saved at all, because it follows from what is: random numbers (each step seeds its own from the run's seed,
    the step and the rank: `training.step.seed_step`), the order of the data (from seed and epoch), the codec (frozen,
    named by the dataset), and the configuration (it lies beside the state).
    """

    model: Model
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    average: nn.Module | None = None
    decay: float = 1.0
    progress: Progress = field(default_factory=Progress)

    @property
    def judged(self) -> nn.Module:
        """The model that validation judges and that makes music."""
        return self.model if self.average is None else self.average

    @torch.no_grad()
    def follow(self, counted: Tensor) -> None:
        """Let the moving average follow the model by a step, or not at all where `counted`, a scalar, is 0."""
        if self.average is None:
            return
        share = (1 - self.decay) * counted
        for averaged, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(weight, share)
        for copied, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)


def new_state(config: Config, dim: int, device: torch.device) -> TrainState:
    """Make the state of a training that has not begun, for latents of `dim` channels: the same on every rank."""
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, dim, config.compat).to(device)
    state = TrainState(model, build_optimizer(config.optimizer, model.parameters()))
    if config.losses.gan > 0:
        discriminator = Discriminator(config.discriminator, dim).to(device)
        game = config.optimizer.for_discriminator(config.discriminator.learning_rate)
        state.adversary = Adversary(discriminator, build_optimizer(game, discriminator.parameters()))
    if config.train.average is not None:
        state.average, state.decay = deepcopy(model).requires_grad_(False), config.train.average
    return state
