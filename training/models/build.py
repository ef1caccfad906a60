"""From the `model` section to a model."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from shards.errors import ConfigError
from shards.settings import Settings
from training.models.cascade import Cascade, CascadeConfig
from training.models.masking_agent import MaskingAgent, MaskingAgentConfig


class ModelConfig(Settings):
    """Which agent, and how large everything is."""

    agent: Literal["none", "masking"] = "masking"
    cascade: CascadeConfig = CascadeConfig()
    masking: MaskingAgentConfig = MaskingAgentConfig()

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.masking.channels % self.masking.heads:
            raise ValueError(f"masking.channels {self.masking.channels} must be a multiple of masking.heads")
        return self


def build_model(config: ModelConfig, dim: int) -> Cascade:
    """Build a model for `dim` channels. Raises `ConfigError` where the heads do not divide a stage's width."""
    if 2 * dim % config.cascade.heads or 3 * dim % config.cascade.heads:
        raise ConfigError(f"model.cascade.heads {config.cascade.heads} must divide {2 * dim} and {3 * dim}")
    agent = MaskingAgent(config.masking, dim) if config.agent == "masking" else None
    return Cascade(config.cascade, dim, agent)
