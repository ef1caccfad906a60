"""From the `model` section to a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from shards.errors import ConfigError
from shards.settings import Settings
from training.losses.compat import Compat
from training.models.cascade import Agent, Cascade, CascadeConfig
from training.models.compositional_agent import CompositionalAgent, CompositionalAgentConfig, CompositionalOutput
from training.models.fixed_masks import FixedMasks, FixedMasksConfig
from training.models.masking_agent import MaskingAgent, MaskingAgentConfig, MaskingOutput
from training.models.single import Single

Model = Cascade | Single
AGENT_LOSSES: dict[str, tuple[str, ...]] = {
    "none": (),
    "masking": MaskingOutput.LOSSES,
    "compositional": CompositionalOutput.LOSSES,
}


class ModelConfig(Settings):
    """Which agent, and how large everything is."""

    agent: Literal["none", "masking", "compositional"] = "masking"
    cascade: CascadeConfig = CascadeConfig()
    masking: MaskingAgentConfig = MaskingAgentConfig()
    compositional: CompositionalAgentConfig = CompositionalAgentConfig()
    fixed_masks: FixedMasksConfig = FixedMasksConfig()

    @field_validator("agent", mode="before")
    @classmethod
    def _one_agent(cls, agent: Any) -> Any:
        several = agent if isinstance(agent, list) else str(agent).replace("+", ",").split(",")
        if len(several) > 1:
            raise ValueError(f"{len(several)} agents are asked for; a model has one: masking, compositional, or none")
        return agent

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.cascade.stages == 1 and (self.agent != "none" or self.fixed_masks.kind != "none"):
            raise ValueError(
                "cascade.stages 1 hears no target, so there is nothing to decide between; set agent: none and "
                "fixed_masks.kind: none, or two stages"
            )
        return self


def build_model(config: ModelConfig, dim: int, compat: Compat = "none") -> Model:
    """Build a model for `dim` channels. Raises `ConfigError` where the heads do not divide a stage's width."""
    heads = config.cascade.heads
    widths = [dim] if config.cascade.stages == 1 else [2 * dim, 3 * dim]
    if any(width % heads for width in widths):
        raise ConfigError(f"model.cascade.heads {heads} must divide {' and '.join(map(str, widths))}")
    if config.cascade.stages == 1:
        return Single(config.cascade, dim)
    masks = FixedMasks(config.fixed_masks, dim) if config.fixed_masks.kind != "none" else None
    return Cascade(config.cascade, dim, _build_agent(config, dim, compat), masks)


def _build_agent(config: ModelConfig, dim: int, compat: Compat) -> Agent | None:
    match config.agent:
        case "masking":
            return MaskingAgent(config.masking, dim, compat)
        case "compositional":
            return CompositionalAgent(config.compositional, dim, compat)
        case "none":
            return None
