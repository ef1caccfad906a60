"""`torch.compile` takes every model whole and changes nothing of what it gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DIM, KINDS, latents, small_model, total_loss
from torch import nn

from training.models.cascade import ModelOutput
from training.models.discriminator import Discriminator, DiscriminatorConfig

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
COMPILERS = ("c++", "g++", "clang++")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled before, and nothing left behind."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module, backend: str = "aot_eager") -> Any:
    return torch.compile(model, fullgraph=True, backend=backend)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_gives_the_eager_output(kind: str) -> None:
    model = small_model(kind).eval()
    source, goal = latents(1, frames=20), latents(2, frames=20)
    ours: ModelOutput = compiled(model)(source, goal)
    wanted: ModelOutput = model(source, goal)
    torch.testing.assert_close(ours.latents, wanted.latents)
    torch.testing.assert_close(ours.scale, wanted.scale)
    if wanted.agent is not None:
        assert ours.agent is not None
        torch.testing.assert_close(ours.agent.losses, wanted.agent.losses)
        torch.testing.assert_close(dict(ours.agent.metrics()), dict(wanted.agent.metrics()))


def test_a_compiled_model_learns_as_the_eager_one_does() -> None:
    source, goal = latents(1, frames=20), latents(2, frames=20)
    gradients = []
    for compile_it in (False, True):
        model = small_model("compositional", dropout=0.0).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        total_loss(compiled(model) if compile_it else model, source, goal).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_compiled_discriminator_gives_the_eager_logits() -> None:
    discriminator = Discriminator(DiscriminatorConfig(channels=(8, 8, 8, 8)), DIM).eval()
    torch.testing.assert_close(compiled(discriminator)(latents(1)), discriminator(latents(1)))


@torch.no_grad()
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="inductor needs a C++ compiler")
def test_inductor_takes_the_two_stage_masking_model() -> None:
    model = small_model("masking").eval()
    source, goal = latents(1, frames=20), latents(2, frames=20)
    ours, wanted = compiled(model, "inductor")(source, goal), model(source, goal)
    torch.testing.assert_close(ours.latents, wanted.latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.agent.input_mask, wanted.agent.input_mask, rtol=1e-4, atol=1e-5)
