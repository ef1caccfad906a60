"""Everything that a resume needs, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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

    `average` holds the moving average of the weights, where the configuration asks for one: it is what is judged,
    and what a loaded checkpoint gives.

    Not saved here: the MLflow run's id, which the run directory keeps from before the first step (`run.json`).

    Not saved at all, because it follows from what is: random numbers (each step seeds its own from the run's seed,
    the step and the rank: `training.step.seed_step`), the order of the data (from seed and epoch), the codec (frozen,
    named by the dataset), and the configuration (it lies beside the state).
    """

    model: Model
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    average: AveragedModel | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def judged(self) -> nn.Module:
        """The model that validation judges and that makes music."""
        return self.model if self.average is None else self.average.module


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
        decayed = get_ema_multi_avg_fn(config.train.average)  # type: ignore[no-untyped-call]
        state.average = AveragedModel(model, multi_avg_fn=decayed)
    return state
