"""How much room a dataset takes, before any of it is there, and how much room there is for it."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from shards.index import INDEX_DTYPE
from shards.latents import STORED_DTYPE, Representation
from shards.schema import CodecSpec, SideName
from shards.wire import BLOCK, END, array_header, padding

RECORD_BYTES = 5_550
"""Of a sample's json: 250 values of an envelope a side, and paths of a usual length. Measured 5340 to 5700."""
FLAC_SHARE = 0.62
"""Of the 16-bit samples. Measured 0.44 (piano) to 0.69 (voice): the one part that depends on the music."""
RECEIPT_ROW_BYTES = 460
RECEIPT_BYTES: dict[Representation, int] = {"float16": 15_200, "float32": 19_500, "codes": 19_500}
"""Of a receipt without its rows: nearly all of it are the sums of each channel, which have fewer digits for float16."""
MANIFEST_ROW_BYTES = 170
"""Of each shard."""
DOCUMENTS_BYTES = 35_000
"""Statistics, card, the headers of the indexes, and a manifest without its shards."""


def dataset_bytes(
    pairs_count: int,
    spec: CodecSpec,
    latents: Representation,
    window_samples: int,
    audio_sides: Collection[SideName],
    samples_per_shard: int = 256,
) -> int:
    """Bytes of a dataset of `pairs_count` pairs of windows: shards, receipts, indexes and documents.

    Arrays and what the tar puts around them are exact; records, receipts and FLAC are of the usual size. `spec` is
    the codec's own, with or without the hash of its weights, for codes as well.
    """
    dtype = np.dtype(STORED_DTYPE[latents])
    shape = (spec.codebooks if latents == "codes" else spec.dim, spec.frames(window_samples))
    array = len(array_header(dtype, shape)) + dtype.itemsize * shape[0] * shape[1]
    flac = round(FLAC_SHARE * window_samples * np.dtype(np.int16).itemsize)
    sample = 2 * _member(array) + _member(RECORD_BYTES) + len(audio_sides) * _member(flac)
    shards = -(-pairs_count // samples_per_shard)
    shard = len(END) + RECEIPT_BYTES[latents] + MANIFEST_ROW_BYTES
    return pairs_count * (sample + RECEIPT_ROW_BYTES + INDEX_DTYPE.itemsize) + shards * shard + DOCUMENTS_BYTES


def nearest_folder(path: Path) -> Path:
    """Find `path`, or what of the path to it is there already."""
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the disk that `path`, there or not yet, lies on."""
    return shutil.disk_usage(nearest_folder(path)).free


def bytes_under(folder: Path) -> int:
    """Bytes of all files under a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _member(size: int) -> int:
    """Bytes in a tar of a member with a payload of `size` bytes."""
    return BLOCK + size + len(padding(size))
