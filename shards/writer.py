"""Samples into one shard, atomically: the file is whole, or it is not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.errors import DatasetError
from shards.files import atomic_file, canonical_json, sha256_bytes
from shards.index import make_row
from shards.latents import add_by_side, channel_sums
from shards.schema import SIDES, ChannelSums, IndexRow, SampleRecord, Side, SideName
from shards.wire import BLOCK, END, encode_array, layout, member_header, padding

Dequantize = Callable[[NDArray[np.int16]], NDArray[np.float32]]
"""Codes [codebooks, T] of a sample's side to the latents [D, T] that they stand for."""


@dataclass(frozen=True)
class Sample:
    """One pair, ready to be stored: its record and both sides' latents [D, T], or codes, in the stored type.

    `audio` holds a FLAC file of the window for some of the sides, or none.
    """

    record: SampleRecord
    input: NDArray[Any]
    target: NDArray[Any]
    audio: Mapping[SideName, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenShard:
    """What is known of a shard once it is on the disk."""

    bytes: int
    sha256: str
    rows: tuple[IndexRow, ...]
    statistics: dict[str, ChannelSums]


def sample_key(input_side: Side, target_side: Side, codec_fingerprint: str) -> str:
    """Name a sample by its content: both sources' hashes, both start offsets and the codec.

    A retry gives the same key; a duplicate, or a leak across splits, shows as an equal one.
    """
    content = [input_side.sha256, input_side.start, target_side.sha256, target_side.start, codec_fingerprint]
    return sha256_bytes(canonical_json(content))[:32]


def write_shard(
    path: Path,
    samples: Sequence[Sample],
    dequantize: Dequantize | None = None,
    expected_sha256: str | None = None,
) -> WrittenShard:
    """Write samples, in order, as a shard. The same samples always give the same bytes.

    Codes are measured as the latents that they stand for: without `dequantize` they get no statistics. Raises
    `ValueError` without samples (an empty shard has no meaning), and where they have not all the same members;
    `DatasetError`, before the file takes its name, where its hash is not `expected_sha256`.
    """
    if not samples:
        raise ValueError(f"{path}: a shard needs at least one sample")
    if len({layout(sample.audio) for sample in samples}) > 1:
        raise ValueError(f"{path}: some samples have audio that others lack; give it to all or to none")
    digest = hashlib.sha256()
    rows: list[IndexRow] = []
    offset = 0
    with atomic_file(path) as file:
        for sample in samples:
            payloads = _payloads(sample)
            places: dict[str, tuple[int, int, int]] = {}
            for suffix, payload in payloads.items():
                header = member_header(f"{sample.record.key}.{suffix}", len(payload))
                places[suffix] = (offset + BLOCK, len(payload), crc32(payload))
                for part in (header, payload, padding(len(payload))):
                    file.write(part)
                    digest.update(part)
                    offset += len(part)
            rows.append(make_row(places, sample.record))
        file.write(END)
        digest.update(END)
        if expected_sha256 not in {None, digest.hexdigest()}:
            raise differs(path.name, f"its SHA-256 would be {digest.hexdigest()[:16]}", str(expected_sha256))
    return WrittenShard(offset + len(END), digest.hexdigest(), tuple(rows), _statistics(samples, dequantize))


def differs(shard: str, what: str, expected_sha256: str) -> DatasetError:
    """Make the error of a shard that does not come out as a manifest says."""
    return DatasetError(
        f"{shard}: does not come out as it was ({what}, the manifest says {expected_sha256[:16]}): its sources or the "
        "code have changed since; restore it from a copy, or make the dataset anew with --overwrite"
    )


def _payloads(sample: Sample) -> dict[str, bytes]:
    payloads = {
        "input.npy": encode_array(sample.input),
        "json": canonical_json(sample.record.model_dump()),
        "target.npy": encode_array(sample.target),
        **{f"{side}.flac": flac for side, flac in sample.audio.items()},
    }
    return {suffix: payloads[suffix] for suffix in layout(sample.audio)}


def _statistics(samples: Sequence[Sample], dequantize: Dequantize | None) -> dict[str, ChannelSums]:
    sums: dict[str, ChannelSums] = {}
    for sample in samples:
        for side in SIDES:
            stored = getattr(sample, side)
            if stored.dtype.kind != "f":
                if dequantize is None:
                    return {}
                stored = dequantize(stored)
            sums = add_by_side(sums, {side: channel_sums(stored)})
    return sums
