"""After a training that can't be saved: which part of it is the first that is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shards.reader import Batch
from training.config import Config
from training.losses.report import LOSSES
from training.metrics import Metrics
from training.runtime import Runtime
from training.state import TrainState
from training.step import Step
from training.weights import not_finite

BATCH, WEIGHT, OUTPUT, LOSS, GRADIENT, NORM, NOTHING = range(7)
"""Where it may begin, in the order in which things happen in a step."""
Cause = tuple[int, str]


def examine_step(step: Step, state: TrainState, config: Config, batches: Sequence[Batch], runtime: Runtime) -> str:
    """Take a step once more, watched, and name the first thing in it that is not finite on any rank.

    In the order in which things happen: the batch, the weights, what a module gives, the losses, the gradients. Every
    rank must call it; all hear the same.
    """
    standing = [*_batch_causes(batches), *_weight_causes(state)]
    # Without compiled parts: nobody could watch their modules.
    with _watched(state) as seen, torch.compiler.set_stance("force_eager"):
        metrics = step.train(batches).metrics
    causes = [*standing, *seen, *_loss_causes(metrics, config), (NOTHING, "nothing: taken again, the step is finite")]
    # A sort by place alone keeps the order within one.
    place, what = min(causes, key=lambda cause: cause[0])
    everyone = [text.partition(" ") for text in runtime.gather(f"{place} {what}")]
    rank = min(range(len(everyone)), key=lambda rank: int(everyone[rank][0]))
    return everyone[rank][2] + (f" (on rank {rank})" if len(everyone) > 1 else "")


def _batch_causes(batches: Sequence[Batch]) -> Iterator[Cause]:
    for batch in batches:
        for side, keys in (("input", batch.keys), ("target", batch.target_keys)):
            rows = getattr(batch, side).float().isfinite().flatten(1).all(1).tolist()
            if bad := [key for key, sound in zip(keys, rows, strict=True) if not sound]:
                yield BATCH, f"the {side} latents of {', '.join(bad)}"


def _weight_causes(state: TrainState) -> Iterator[Cause]:
    for name in not_finite({name: w for part, model in _models(state) for name, w in _named(part, model)}):
        yield WEIGHT, f"the weight {name}"


@contextmanager
def _watched(state: TrainState) -> Iterator[list[Cause]]:
    """Gather, as they come, what modules give and which gradients arrive that are not finite."""
    seen: list[Cause] = []
    names = {module: name for part, model in _models(state) for name, module in _named_modules(part, model)}

    def hear(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
        if any(not bool(tensor.isfinite().all()) for tensor in _tensors(output)):
            seen.append((OUTPUT, f"the output of {names[module]} ({type(module).__name__})"))

    def arrive(name: str, weight: Tensor) -> None:
        if weight.grad is not None and not bool(weight.grad.isfinite().all()):
            seen.append((GRADIENT, f"the gradient of {name}"))

    hooks = [module.register_forward_hook(hear) for module in names]
    for part, model in _models(state):
        for name, weight in _named(part, model):
            if weight.requires_grad:
                arrived = weight.register_post_accumulate_grad_hook(partial(arrive, name))  # type: ignore[no-untyped-call]
                hooks.append(arrived)
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _loss_causes(metrics: Metrics, config: Config) -> Iterator[Cause]:
    for name in LOSSES:
        value = metrics.get(f"loss/{name}")
        if value is not None and config.losses.weight(name) > 0 and not bool(value.isfinite()):
            yield LOSS, f"the loss {name}"
    for name, what in (("loss/total", "the sum of the losses"), ("gan/discriminator_loss", "the discriminator's loss")):
        if name in metrics and not bool(metrics[name].isfinite()):
            yield LOSS, what
    for name, what in (("gradient/norm", "the model"), ("gan/gradient_norm", "the discriminator")):
        if name in metrics and not bool(metrics[name].isfinite()):
            yield NORM, f"the norm over all gradients of {what}, though each is finite"


def _models(state: TrainState) -> Iterator[tuple[str, nn.Module]]:
    yield "", state.model
    if state.adversary is not None:
        yield "discriminator", state.adversary.discriminator


def _named(part: str, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((f"{part}.{name}".lstrip("."), weight) for name, weight in model.named_parameters())


def _named_modules(part: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((f"{part}.{name}".strip(".") or "the model", module) for name, module in model.named_modules())


def _tensors(output: Any) -> Iterable[Tensor]:
    """Find the tensors in what a module gives: one, several, or the fields of a record."""
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output):
        output = [getattr(output, field.name) for field in fields(output)]
    return [inner for one in output for inner in _tensors(one)] if isinstance(output, tuple | list) else []
