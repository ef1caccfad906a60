"""The whole configuration of a training run: one section a component, each declared beside its owner."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shards.settings import Settings
from training.data import DataConfig
from training.losses.compat import Compat
from training.losses.report import AUDIO_LOSSES, LossesConfig
from training.models.build import AGENT_LOSSES, ModelConfig
from training.models.discriminator import DiscriminatorConfig
from training.optim import OptimizerConfig
from training.schedule import ScheduleConfig
from training.tracking import TrackingConfig

CONFIGS = Path(__file__).parent / "configs"


class TrainConfig(Settings):
    """How long, how often, how exactly."""

    epochs: int = Field(100, ge=1)
    seed: int = Field(42, ge=0)
    audio_crop_seconds: float | None = Field(2.0, gt=0, description="audio losses on a random crop; null: all of it")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs where there are any")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU")
    compile: bool | None = Field(None, description="torch.compile of the stages and the agent; null: on a GPU")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    average: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights; null: none")
    patience: int | None = Field(20, ge=1, description="epochs without a better loss before the training ends")
    log_steps: int = Field(10, ge=1, description="metrics are read every so many steps")
    checkpoint_epochs: int = Field(10, ge=1, description="an epoch_NNNN is kept every so many epochs")
    checkpoint_steps: int | None = Field(None, ge=1, description="save `last` within an epoch, every so many steps")
    save_minutes: float | None = Field(10.0, gt=0, description="save `last` whenever so much time has passed")
    max_failures: int = Field(3, ge=0, description="workers that may die before the training does")

    def compiles(self, device: str) -> bool:
        """Whether the model is compiled on this kind of device."""
        return device == "cuda" if self.compile is None else self.compile


class Config(Settings):
    """A training run."""

    compat: Compat = Field("none", description="seeds: their numbers, mistakes included (training.losses.compat)")
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        useful = (*AGENT_LOSSES[self.model.agent], *AUDIO_LOSSES)
        if not any(self.losses.weight(name) > 0 for name in useful):
            raise ValueError(f"losses: with the agent {self.model.agent}, one of {', '.join(useful)} needs a weight")
        if self.losses.gan > 0 and self.data.batch_size < 2:
            raise ValueError(
                f"losses.gan {self.losses.gan} with data.batch_size {self.data.batch_size}: what is real for one pair "
                "is the target of another; set data.batch_size to 2 or more, or losses.gan to 0"
            )
        return self

    @property
    def pairs_a_rank(self) -> int:
        """Pairs that a rank's batch must have at least."""
        return 2 if self.losses.gan > 0 else 1
