"""The loader against the stock `webdataset` reader on the same shards, and against plain reading of raw files.

Pairs of float16 latents [128, 1200], batch 16, one pass over 256 pairs in 4 shards. The page cache is warm: a first
pass of each reader does not count.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs by its path as well

from benchmarks.dataset import CODEC, DTYPE, FRAMES, SAMPLES_PER_SHARD, make_dataset
from benchmarks.peers import open_peers
from benchmarks.timing import compare, measure, report, wants_json
from shards import Dataset, open_dataset

SHARDS, BATCH = 4, 16
BASELINE = "webdataset .decode()"


def main() -> None:
    as_json = wants_json(__doc__ or "")
    with tempfile.TemporaryDirectory() as temporary:
        dataset = open_dataset(make_dataset(Path(temporary) / "bench", SHARDS))
        raw = write_raw(dataset, Path(temporary) / "raw")
        contenders = {
            BASELINE: lambda: consume(read_webdataset_decode(dataset)),
            "webdataset, plain decode": lambda: consume(read_webdataset(dataset)),
            "raw files": lambda: consume(read_raw(raw)),
            "loader, no crc": lambda: consume(read_loader(dataset, check_crc=False)),
            "loader, crc": lambda: consume(read_loader(dataset, check_crc=True)),
        }
        for name, read in open_peers(list(read_raw(raw)), Path(temporary) / "peers", BATCH).items():
            contenders[name] = lambda read=read: consume(read())  # type: ignore[misc]
        rows = compare(measure(contenders), BASELINE)
    pairs = SHARDS * SAMPLES_PER_SHARD
    megabytes = pairs * 2 * CODEC.dim * FRAMES * np.dtype(DTYPE).itemsize / 1e6
    against_raw = next(row["seconds"] for row in rows if row["name"] == "raw files")
    for row in rows:
        row["raw_ratio"] = against_raw / row["seconds"]
        row["pairs_per_second"] = round(pairs / row["seconds"])
        row["mb_per_second"] = round(megabytes / row["seconds"])
    report(f"{pairs} pairs of {DTYPE} [{CODEC.dim}, {FRAMES}], batch {BATCH}", BASELINE, rows, as_json=as_json)


def consume(batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Take every batch, and look at it, so that nothing stays unread."""
    seen = 0
    for source, goal in batches:
        assert source.shape == goal.shape == (BATCH, CODEC.dim, FRAMES)
        seen += len(source)
    assert seen == SHARDS * SAMPLES_PER_SHARD, f"{seen} pairs were read"


def read_loader(dataset: Dataset, *, check_crc: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Read a shuffled epoch with the loader."""
    for batch in dataset.loader("train", BATCH, check_crc=check_crc):
        yield batch.input, batch.target


def read_webdataset(dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the shards in order with the stock reader and a decode that refuses pickles."""
    pairs = stock(dataset).to_tuple("input.npy", "target.npy")
    return iter(pairs.map_tuple(decode, decode).batched(BATCH, collation_fn=stack))


def read_webdataset_decode(dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the shards in order as the stock reader's own documentation does, with `.decode()`."""
    pairs = stock(dataset).decode().to_tuple("input.npy", "target.npy")
    return iter(pairs.batched(BATCH, collation_fn=stack))


def stock(dataset: Dataset) -> webdataset.WebDataset:
    """Open the shards with the stock reader."""
    urls = [str(dataset.path / shard.file) for shard in dataset.split("train").shards]
    return webdataset.WebDataset(urls, shardshuffle=False)


def read_raw(files: list[tuple[Path, Path]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Read one file an array: no archive, no index, no check."""
    for first in range(0, len(files), BATCH):
        yield stack(
            [tuple(np.load(path, allow_pickle=False) for path in pair) for pair in files[first : first + BATCH]]
        )


def decode(payload: bytes) -> NDArray[Any]:
    """Read a `.npy` payload, refusing objects."""
    return np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)


def stack(pairs: list[tuple[NDArray[Any], ...]]) -> tuple[Tensor, Tensor]:
    """Stack the arrays of a batch, side by side."""
    source, goal = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
    return source, goal


def write_raw(dataset: Dataset, folder: Path) -> list[tuple[Path, Path]]:
    """Write the same arrays once more, as a file each."""
    files = []
    for batch in dataset.loader("train", 1, mode="evaluate"):
        pair = tuple(folder / f"{batch.keys[0]}.{side}.npy" for side in ("input", "target"))
        folder.mkdir(exist_ok=True)
        for path, latents in zip(pair, (batch.input, batch.target), strict=True):
            np.save(path, latents[0].numpy())
        files.append((pair[0], pair[1]))
    return files


if __name__ == "__main__":
    main()
