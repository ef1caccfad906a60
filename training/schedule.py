"""The learning rate over a training: warm-up, then constant, a cosine, or lower at each plateau."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from pydantic import Field

from shards.settings import Settings
from training.progress import Progress


class ScheduleConfig(Settings):
    """The schedule's section; all factors are of `optimizer.learning_rate`."""

    kind: Literal["constant", "cosine", "plateau"] = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises to its full height")
    lowest: float = Field(0.01, ge=0, le=1, description="cosine, plateau: the rate never falls under this share")
    plateau_patience: int = Field(5, ge=1, description="plateau: epochs without a better loss before the rate falls")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: what it falls by")


def rate_factor(config: ScheduleConfig, progress: Progress, total_steps: int) -> float:
    """Factor on the learning rate of the step that comes next; roll-backs have their own share in it."""
    warmed = min(1.0, (progress.step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    factor = 1.0
    if config.kind == "cosine":
        left = max(1, total_steps - config.warmup_steps)
        done = min(1.0, max(0, progress.step - config.warmup_steps) / left)
        factor = config.lowest + (1 - config.lowest) * (1 + math.cos(math.pi * done)) / 2
    elif config.kind == "plateau":
        factor = max(config.lowest, progress.plateau_factor)
    return warmed * factor * progress.rollback_factor


def after_epoch(config: ScheduleConfig, progress: Progress, better: bool) -> Progress:
    """Count an epoch towards a plateau."""
    if config.kind != "plateau":
        return progress
    waited = 0 if better else progress.plateau_waited + 1
    if waited < config.plateau_patience:
        return replace(progress, plateau_waited=waited)
    return replace(progress, plateau_waited=0, plateau_factor=progress.plateau_factor * config.plateau_factor)
