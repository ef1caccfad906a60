"""The pairs that are measured: chosen from a split, and read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shards.codec import Codec
from shards.dataset import Dataset
from shards.order import derive
from training.data import require_finite, targets_of


@dataclass(frozen=True)
class Choice:
    """A pair to measure: the numbers, within the split, of the samples that give its input and its target."""

    split: str
    input: int
    target: int


@dataclass(frozen=True)
class Pair:
    """A pair: keys of its samples and files of its sources, by side, latents [1, D, T], and a seed of its own."""

    keys: dict[str, str]
    files: dict[str, str]
    source: Tensor
    goal: Tensor
    seed: int


def choose(dataset: Dataset, split: str, count: int | None = None, shuffle: int | None = None) -> list[Choice]:
    """Choose the pairs of a split, or `count` of them at even distances, since neighbours are windows of one track.

    With a seed to `shuffle`, each input gets the target of another pair, as in training (`data.shuffle_targets`).
    Raises `MisuseError` where there is no such split, no pair in it, or no other pair.
    """
    targets = targets_of(dataset, split, shuffle)
    there = len(targets)
    wanted = min(count or there, there)
    return [Choice(split, place, int(targets[place])) for place in (n * there // wanted for n in range(wanted))]


def read_pair(dataset: Dataset, choice: Choice, codec: Codec, device: torch.device, seed: int) -> Pair:
    """Read a pair onto a device. Raises `DatasetError` where it is damaged or not finite."""
    inputs, targets = (dataset.read(dataset.location(choice.split, n)) for n in (choice.input, choice.target))
    keys = {"input": inputs.record.key, "target": targets.record.key}
    files = {"input": inputs.record.input.path, "target": targets.record.target.path}
    stored = {"input": inputs.input, "target": targets.target}
    latents = {side: codec.latents(torch.tensor(array)[None].to(device)) for side, array in stored.items()}
    for side, one in latents.items():
        require_finite(side, [keys[side]], one)
    return Pair(keys, files, latents["input"], latents["target"], derive(seed, choice.input))
