"""After a training that can't be saved: which part of it is the first that is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shards.reader import Batch
from training.weights import not_finite

if TYPE_CHECKING:
    from training.step import Step


def examine_step(step: Step, model: nn.Module, batches: Sequence[Batch]) -> str:
    """Take the step once more, watched, and name the first thing that is not finite.

    In the order in which things happen: the batch, the weights, what each module gives, the losses, the gradients.
    """
    for batch in batches:
        for side in ("input", "target"):
            if not bool(getattr(batch, side).float().isfinite().all()):
                return f"the {side} latents of the batch ({', '.join(batch.keys)})"
    for name in not_finite(dict(model.named_parameters())):
        return f"the weight {name}"
    found: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
        if not found and isinstance(output, Tensor) and not bool(output.isfinite().all()):
            found.append(f"the output of {names[module]} ({type(module).__name__})")

    hooks = [module.register_forward_hook(watch) for module in model.modules()]
    try:
        metrics = step.train(batches).metrics
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    for name, value in metrics.items():
        if name.startswith("loss/") and not bool(torch.isfinite(value)):
            return name
    # Gradients travel backwards: the last module of the forward pass that has a bad one had it first.
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    return f"the gradient of {bad[-1]}" if bad else "nothing: the same step is finite when it is taken again"
