"""A checkpoint evaluated over a split: loaded, walked, summed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from shards.codec import Codec
from shards.dataset import Dataset
from training.checkpoint import Checkpoint, load_discriminator, load_model
from training.evaluation.pairs import Choice, read_pair
from training.evaluation.summary import Evaluation, summarise
from training.evaluation.walk import Measured, Walk
from training.measures.music import Ears


@dataclass(frozen=True)
class Options:
    """How an evaluation is run: pairs a batch, and the seed of random masks and of the bootstrap."""

    batch_size: int = 8
    seed: int = 0


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    choices: list[Choice],
    codec: Codec,
    device: torch.device,
    ears: Ears,
    options: Options,
    advance: Callable[[int], object],
) -> Evaluation:
    """Measure what a checkpoint's model makes of pairs; `advance` hears how many are done.

    Raises `DatasetError` where the latents are another codec's, damaged or not finite, and `CascadenceError` where the
    checkpoint is broken or an output is not finite.
    """
    dataset.require_codec(checkpoint.record.codec, "the checkpoint")
    judge = load_discriminator(checkpoint)
    walk = Walk(
        load_model(checkpoint.path).to(device), codec.to(device), None if judge is None else judge.to(device), ears
    )
    measured: list[Measured] = []
    for first in range(0, len(choices), options.batch_size):
        batch = choices[first : first + options.batch_size]
        measured += walk.measure([read_pair(dataset, choice, codec, device, options.seed) for choice in batch])
        advance(len(batch))
    return summarise(measured, {column: masks.shares() for column, masks in walk.masks.items()}, options.seed)
