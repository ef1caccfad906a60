"""Small trainings for tests: a step on its own, runs through the command line, and faults that are put into them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from command import Outcome, run_training
from make_data import MDCT, make_header, make_latents, make_receipt, make_sample
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from shards.codec import load_codec
from shards.manifest import partial_folder
from shards.publish import publish
from shards.reader import Batch
from shards.settings import load_settings
from shards.writer import Sample
from training.config import Config
from training.events import METRICS, Event, read_events
from training.models.cascade import Cascade, ModelOutput
from training.models.single import Single
from training.runtime import Runtime
from training.state import TrainState, new_state
from training.step import Step, StepResult

CPU = torch.device("cpu")
FRAMES = 40
LARGEST = torch.finfo(torch.float32).max
SMALL = (
    "model.cascade.layers=1",
    "model.cascade.feedforward=1",
    "model.masking.channels=16",
    "model.compositional.channels=8",
    "model.compositional.selector=16",
    "model.compositional.width=32",
    "model.compositional.layers=1",
    "discriminator.channels=[16,16]",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "train.patience=null",
    "train.save_minutes=null",
    "tracking.mlflow=off",
)
ALONE = ("model.agent=none", "model.cascade.stages=1", "losses.modulation_correlation=0")
"""One stage that does not hear the target, so that the target can spoil what it likes: a loss, the discriminator."""


def small_config(*overrides: str) -> Config:
    return load_settings(Config, None, [*SMALL, *overrides])


def make_batch(seed: int = 0, size: int = 2, *, input: float = 1.0, target: float = 1.0) -> Batch:  # noqa: A002
    """Normal latents [size, 128, 40], each side times a factor, within the range of float32."""
    sides = []
    for place, factor in enumerate((input, target)):
        latents = torch.from_numpy(make_latents((size * 128, FRAMES), seed, place)).view(size, 128, FRAMES)
        sides.append((latents.double() * factor).clamp(-LARGEST, LARGEST).float())
    keys = [f"{seed}-{row}" for row in range(size)]
    return Batch(sides[0], sides[1], keys, keys, torch.ones(size))


@dataclass
class SmallTraining:
    """A state and its step, without a loop."""

    config: Config
    runtime: Runtime
    state: TrainState = field(init=False)
    step: Step = field(init=False)

    def __post_init__(self) -> None:
        self.state = new_state(self.config, 128, self.runtime.device)
        self.step = Step(self.config, load_codec("mdct"), self.state, self.runtime)

    def train(self, place: int, *batches: Batch) -> StepResult:
        """Take step number `place`."""
        self.state.progress = replace(self.state.progress, step=place)
        return self.step.train(batches)

    def tensors(self) -> dict[str, Tensor]:
        """Copy everything that a skipped step must leave as it is."""
        state, found = self.state, {}
        parts: dict[str, nn.Module | None] = {"model": state.model, "average": state.average}
        optimizers = {"optimizer": state.optimizer}
        if state.adversary is not None:
            parts["discriminator"] = state.adversary.discriminator
            optimizers["discriminator_optimizer"] = state.adversary.optimizer
        for part, module in parts.items():
            for name, tensor in ({} if module is None else module.state_dict()).items():
                found[f"{part}.{name}"] = tensor.clone()
        for part, optimizer in optimizers.items():
            for number, slots in optimizer.state_dict()["state"].items():
                found |= {f"{part}.{number}.{slot}": value.clone() for slot, value in slots.items()}
        return found


def small_training(*overrides: str, runtime: Runtime | None = None) -> SmallTraining:
    return SmallTraining(small_config(*overrides), runtime or Runtime(0, 1, CPU))


def different(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Name the tensors that are not equal to the bit."""
    assert first.keys() == second.keys()
    return [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]


def make_spoilt_dataset(folder: Path, size: int, bad: Sequence[int], by: float, sides: Sequence[str]) -> Path:
    """Publish `size` pairs in float32, and two to validate, in which sides of some are times `by`: finite, but huge."""
    staging = partial_folder(folder)
    receipts = []
    for split, numbers in (("train", range(size)), ("val", range(size, size + 2))):
        made = (make_sample(n, split, FRAMES, dtype="float32", group=f"{split}-0") for n in numbers)
        samples = [_spoilt(sample, sides, by) if n in bad else sample for n, sample in zip(numbers, made, strict=True)]
        receipts.append(make_receipt(staging, f"{split}/{folder.name}-{split}-000000.tar", samples))
    publish(folder, make_header(folder.name, FRAMES, MDCT, "float32"), receipts)
    return folder


def _spoilt(sample: Sample, sides: Sequence[str], by: float) -> Sample:
    return replace(sample, **{side: (getattr(sample, side) * by).astype("float32") for side in sides})


def launch(dataset: Path, run_dir: Path, *overrides: str, extra: Sequence[str] = ()) -> Outcome:
    """Run `training launch --local`."""
    sets = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
    return run_training("launch", "--local", "--shards", dataset, "--run-dir", run_dir, *sets, *extra)


def events(run_dir: Path, kind: str | None = None) -> list[Event]:
    """What a run has logged."""
    return [event for event, _ in read_events(run_dir / METRICS) if kind in {None, event["event"]}]


@dataclass
class Passes:
    """The forward passes of training that a fault has seen: the first values of what went in."""

    inputs: list[float] = field(default_factory=list)


@contextlib.contextmanager
def fault(spoils: Callable[[int, nn.Module], bool]) -> Iterator[Passes]:
    """Make a model's output infinite in those of its passes, counted in training, that `spoils` names."""
    seen = Passes()

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(module, Cascade | Single):
            return None
        if module.training:
            seen.inputs.append(float(inputs[0].flatten()[0]))
        if not spoils(len(seen.inputs) - 1, module):
            return None
        assert isinstance(output, ModelOutput)
        return replace(output, latents=output.latents * torch.inf)

    handle = register_module_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()
