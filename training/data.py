"""The dataset as the trainer sees it: checked against the model, and a batch that fits it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shards.codec import Codec, load_codec
from shards.dataset import Dataset, describe_codec, open_dataset
from shards.errors import CodecError, DatasetError
from shards.schema import CodecSpec
from shards.settings import Settings


class DataConfig(Settings):
    """The data's section."""

    batch_size: int = Field(16, ge=1, description="pairs a rank and step")
    codec_weights: str | None = Field(None, description="EnCodec's weights file; else the hub cache, else a download")


def open_training_data(address: str, world_size: int, trained_on: CodecSpec | None) -> Dataset:
    """Open a dataset to train on.

    Raises `DatasetError` where it has no `train` split, fewer pairs than ranks, or another codec than the checkpoint
    that training goes on from (`trained_on`).
    """
    dataset = open_dataset(address)
    if trained_on is not None:
        dataset.require_codec(trained_on, "the checkpoint")
    if "train" not in dataset.splits:
        raise DatasetError(f"{address}: has no split `train`; pair the sources with a smaller --val-fraction")
    samples = dataset.splits["train"].samples
    if samples < world_size:
        raise DatasetError(
            f"{address}: {samples} pairs to train on are fewer than {world_size} workers; lower --workers"
        )
    return dataset


def rank_batch(dataset: Dataset, batch_size: int, world_size: int) -> int:
    """Batch size a rank: the configured one, or what a small dataset allows with at least one step an epoch."""
    return min(batch_size, dataset.splits["train"].samples // world_size)


def load_matching_codec(spec: CodecSpec, weights: str | Path | None, owner: str) -> Codec:
    """Load the codec that `owner`, a dataset or checkpoint, was made with.

    Raises `CodecError` where its weights are missing or others.
    """
    # Unknown weights are taken here: the owner names the ones it was made with, and these are compared.
    codec = load_codec(spec.name, weights, allow_unknown_weights=True)
    own = codec.quantized_spec if spec.stage == "quantized" else codec.spec
    if own != spec:
        raise CodecError(
            f"{owner}: was made with {describe_codec(spec)}, the codec found here is {describe_codec(own)}; "
            "give the same weights with --codec-weights"
        )
    return codec
