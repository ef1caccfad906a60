"""The dataset as the trainer sees it: checked against the model, and a batch that fits it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from shards.dataset import Dataset, open_dataset
from shards.errors import DatasetError, MisuseError
from shards.order import re_paired_targets
from shards.schema import CodecSpec
from shards.settings import Settings


class DataConfig(Settings):
    """The data's section."""

    batch_size: int = Field(16, ge=1, description="pairs a rank and step")
    shuffle_targets: bool = Field(False, description="each input gets another pair's target, anew in each epoch")
    unity_test: bool = Field(False, description="the target is the input: a model that can't copy has a fault")
    codec_weights: str | None = Field(None, description="EnCodec's weights file; else the hub cache, else a download")


def open_training_data(address: str, world_size: int, trained_on: CodecSpec | None, pairs_a_rank: int = 1) -> Dataset:
    """Open a dataset to train on.

    Raises `DatasetError` where it has no `train` split, fewer than `pairs_a_rank` pairs for each rank, or another codec
    than the checkpoint that training goes on from (`trained_on`).
    """
    dataset = open_dataset(address)
    if trained_on is not None:
        dataset.require_codec(trained_on, "the checkpoint")
    if "train" not in dataset.splits:
        raise DatasetError(f"{address}: has no split `train`; pair the sources with a smaller --val-fraction")
    samples = dataset.splits["train"].samples
    if samples < world_size * pairs_a_rank:
        reason = ", which losses.gan needs" if pairs_a_rank > 1 else ""
        raise DatasetError(
            f"{address}: {samples} pairs to train on are not {pairs_a_rank} for each of {world_size} workers{reason}; "
            "lower --workers"
        )
    return dataset


def rank_batch(dataset: Dataset, batch_size: int, world_size: int) -> int:
    """Batch size a rank: the configured one, or what a small dataset allows with at least one step an epoch."""
    return min(batch_size, dataset.splits["train"].samples // world_size)


def targets_of(dataset: Dataset, split: str, shuffle: int | None = None) -> NDArray[np.int64]:
    """Tell, by number, the sample of a split that gives each input its target: [n].

    It is its own, or with a seed to `shuffle` that of another pair, as in training (`data.shuffle_targets`). Raises
    `MisuseError` where there is no such split, no pair in it, or no other pair.
    """
    shards = dataset.split(split)
    if shards.samples == 0:
        raise MisuseError(f"{dataset.address}: the split {split!r} has no pairs; choose another --split")
    if shuffle is None:
        return np.arange(shards.samples)
    if shards.samples < 2:
        raise MisuseError(f"{dataset.address}: the split {split!r} has one pair; leave --shuffle-targets out")
    return re_paired_targets(tuple(shard.samples for shard in shards.shards), shuffle)


def require_finite(side: str, names: Sequence[str], latents: Tensor) -> None:
    """Raise `DatasetError`, naming the first sample, where latents [B, D, T] of a side hold values that are no numbers.

    The model refuses them as well, but knows no names.
    """
    for name, finite in zip(names, latents.isfinite().all(2).all(1).tolist(), strict=True):
        if not finite:
            raise DatasetError(
                f"sample {name}: its {side} holds values that are not finite; `python -m shards verify` finds such "
                "samples"
            )
