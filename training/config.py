"""The whole configuration of a training run: one section a component, each declared beside its owner."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shards.settings import Settings
from training.data import DataConfig
from training.losses.report import AUDIO_LOSSES, LOSSES, LossesConfig
from training.models.build import ModelConfig
from training.optim import OptimizerConfig

CONFIGS = Path(__file__).parent / "configs"


class TrainConfig(Settings):
    """How long, how often, how exactly."""

    epochs: int = Field(100, ge=1)
    seed: int = Field(42, ge=0)
    audio_crop_seconds: float | None = Field(2.0, gt=0, description="audio losses on a random crop; null: all of it")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU")
    log_steps: int = Field(10, ge=1, description="metrics are read every so many steps")
    checkpoint_epochs: int = Field(10, ge=1, description="an epoch_NNNN is kept every so many epochs")
    checkpoint_steps: int | None = Field(None, ge=1, description="save `last` within an epoch, every so many steps")


class TrackingConfig(Settings):
    """Where a run is watched, beside its metrics.jsonl."""

    mlflow: bool = Field(True, description="log to MLflow, where it is installed")
    experiment: str = "cascadence"
    store: str | None = Field(None, description="MLflow's store; else MLFLOW_TRACKING_URI, else RUN_DIR/mlflow.db")


class Config(Settings):
    """A training run."""

    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        useful = LOSSES if self.model.agent == "masking" else AUDIO_LOSSES
        if not any(self.losses.weight(name) > 0 for name in useful):
            raise ValueError(f"losses: with the agent {self.model.agent}, one of {', '.join(useful)} needs a weight")
        return self
