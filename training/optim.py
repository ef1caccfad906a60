"""The optimizer, the norms of gradients, and their clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from shards.settings import Settings

DISCRIMINATOR_BETAS = (0.5, 0.999)
"""Radford et al. 2016."""
AGENT = "agent"
Parts = Mapping[str, Sequence[nn.Parameter]]


class OptimizerConfig(Settings):
    """AdamW's section."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(10.0, gt=0, description="gradients are scaled down to this norm")
    agent_clip_norm: float | None = Field(
        None, gt=0, description="the agent's apart, to this norm; null: with the rest"
    )

    def for_discriminator(self, learning_rate: float | None) -> OptimizerConfig:
        """Give what a discriminator is trained with: half the rate unless one is set, and little momentum."""
        rate = self.learning_rate / 2 if learning_rate is None else learning_rate
        return self.model_copy(update={"learning_rate": rate, "betas": DISCRIMINATOR_BETAS})


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter 2019), fused into one pass over all weights."""
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        fused=True,
    )


def parts_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Group a model's trained weights: `agent`, `stage_0`, `stage_1`, ...; `model` where it has neither."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        first, *rest = name.split(".")
        part = {"agent": AGENT, "stages": f"stage_{rest[0] if rest else ''}"}.get(first, "model")
        parts.setdefault(part, []).append(parameter)
    return parts


def gradient_norms(parts: Parts) -> dict[str, Tensor]:
    """Norm of each part's gradients, and of all of them under `norm`; scalars on the device."""
    norms = {}
    for name, parameters in parts.items():
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms[name] = nn.utils.get_total_norm(gradients) if gradients else parameters[0].new_zeros(())
    return {"norm": torch.stack([norm.float() for norm in norms.values()]).norm(), **norms}


def norms_by_weight(model: nn.Module) -> dict[str, float]:
    """Norm of each trained weight's gradient, 0 where the loss does not reach it; waits for the device, once."""
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    reached = {name: gradient for name, gradient in trained.items() if gradient is not None}
    norms = torch.stack(torch._foreach_norm(list(reached.values()))).tolist() if reached else []
    return dict.fromkeys(trained, 0.0) | dict(zip(reached, norms, strict=True))


def clip_gradients(config: OptimizerConfig, parts: Parts, norms: Mapping[str, Tensor]) -> None:
    """Scale gradients down in place: all together, or the agent's apart from the rest."""
    apart = config.agent_clip_norm is not None and AGENT in parts
    rest = [name for name in parts if not (apart and name == AGENT)]
    if apart:
        assert config.agent_clip_norm is not None
        nn.utils.clip_grads_with_norm_(parts[AGENT], config.agent_clip_norm, norms[AGENT])
    if rest:
        together = torch.stack([norms[name].float() for name in rest]).norm()
        weights = [parameter for name in rest for parameter in parts[name]]
        nn.utils.clip_grads_with_norm_(weights, config.clip_norm, together)


def step_if_finite(optimizer: torch.optim.Optimizer, finite: Tensor, rate: float) -> None:
    """Update the weights at a learning rate, or leave everything as it is where `finite`, a scalar, is 0.

    The device decides, so that nobody waits for it; this is how torch's own gradient scaler skips a step.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.found_inf = (1 - finite).float()  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
