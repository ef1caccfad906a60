"""Small datasets for tests, written through the writer and published as the pipeline does it, without any audio."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.audio import encode_flac, envelope, rms, short
from shards.latents import LatentsType, cast
from shards.manifest import codec_fingerprint, partial_folder
from shards.publish import DatasetHeader, publish
from shards.schema import (
    CODEBOOK_SIZE,
    ENVELOPE_SEGMENTS,
    SIDES,
    Build,
    CodecSpec,
    Receipt,
    SampleRecord,
    Side,
    SideName,
)
from shards.writer import Sample, sample_key, write_shard

MDCT = CodecSpec(name="mdct", stage="transform")
CODES = CodecSpec(name="encodec", stage="quantized", bandwidth=6.0, weights_sha256="0" * 64)
"""With this codec the datasets hold codes, int16 [8, T], whatever `dtype` says."""

BOTH: tuple[SideName, ...] = SIDES
SHARD_SIZES = {"train": (10, 10, 3), "val": (4,)}


def make_dataset(
    folder: Path,
    shard_sizes: Mapping[str, Sequence[int]] = SHARD_SIZES,
    frames: int = 40,
    seed: int = 0,
    *,
    codec: CodecSpec = MDCT,
    dtype: LatentsType = "float16",
    tracks: int = 3,
    audio: tuple[SideName, ...] = (),
) -> Path:
    """Publish a dataset of seeded normal latents at `folder`, one shard for each size of each split; returns `folder`.

    Shards are named `<split>/<folder's name>-<split>-000000.tar` and so on. The samples of a split come from
    `tracks` tracks of its own. The same arguments make the same bytes, whatever the folder's name.
    """
    staging = partial_folder(folder)
    receipts = list(make_shards(staging, folder.name, shard_sizes, frames, seed, codec, dtype, tracks, audio))
    publish(folder, make_header(folder.name, frames, codec, dtype, audio), receipts)
    return folder


def make_shards(
    staging: Path,
    name: str,
    shard_sizes: Mapping[str, Sequence[int]] = SHARD_SIZES,
    frames: int = 40,
    seed: int = 0,
    codec: CodecSpec = MDCT,
    dtype: LatentsType = "float16",
    tracks: int = 3,
    audio: tuple[SideName, ...] = (),
) -> Iterator[Receipt]:
    """Write the shards of a dataset under `staging` and give their receipts, not yet published."""
    number = 0
    for split, sizes in shard_sizes.items():
        for shard, size in enumerate(sizes):
            samples = [
                make_sample(number + i, split, frames, seed, codec, dtype, f"{split}-{(number + i) % tracks}", audio)
                for i in range(size)
            ]
            number += size
            yield make_receipt(staging, f"{split}/{name}-{split}-{shard:06d}.tar", samples)


def make_receipt(staging: Path, file: str, samples: Sequence[Sample]) -> Receipt:
    """Write one shard and give its receipt."""
    written = write_shard(staging / file, samples, stand_in)
    return Receipt(
        shard=file,
        split=samples[0].record.split,
        plan_sha256="",
        samples=len(samples),
        bytes=written.bytes,
        sha256=written.sha256,
        groups=tuple(sorted({sample.record.group for sample in samples})),
        rows=written.rows,
        statistics=written.statistics,
        rejected=(),
    )


def make_header(
    name: str,
    frames: int = 40,
    codec: CodecSpec = MDCT,
    dtype: LatentsType = "float16",
    audio: tuple[SideName, ...] = (),
) -> DatasetHeader:
    """Describe a dataset of `make_shards` for `shards.publish.publish`."""
    return DatasetHeader(
        name=name,
        codec=codec,
        dtype="int16" if codec.stage == "quantized" else dtype,
        audio=audio,
        window_samples=frames * codec.hop,
        pairing={"mode": "suffix", "seed": 0},
        build=Build(git_commit=None, versions={"cascadence": "0"}, config={}),
    )


def make_sample(
    number: int,
    split: str = "train",
    frames: int = 40,
    seed: int = 0,
    codec: CodecSpec = MDCT,
    dtype: LatentsType = "float16",
    group: str = "train-0",
    audio: tuple[SideName, ...] = (),
) -> Sample:
    """Make sample `number` of a seed."""
    stored = {side: make_stored(codec, dtype, frames, seed, number, which) for which, side in enumerate(SIDES)}
    sides = {side: make_side(f"{group}_{side}.wav", number, frames, codec, snr) for side, (_, snr) in stored.items()}
    flac: dict[SideName, bytes] = {}
    for which, side in enumerate(audio):
        sound = np.random.default_rng((seed, number, which)).uniform(-0.5, 0.5, frames * codec.hop).astype(np.float32)
        flac[side] = encode_flac(sound, codec.sample_rate)
        heard = {"rms": rms(sound), "peak": short(np.abs(sound).max()), "envelope": envelope(sound)}
        sides[side] = sides[side].model_copy(update=heard)
    record = SampleRecord(
        key=sample_key(sides["input"], sides["target"], codec_fingerprint(codec)),
        split=split,
        group=group,
        pairing="suffix",
        pairing_seed=seed,
        codec_fingerprint=codec_fingerprint(codec),
        input=sides["input"],
        target=sides["target"],
    )
    return Sample(record, stored["input"][0], stored["target"][0], flac)


def make_stored(codec: CodecSpec, dtype: LatentsType, frames: int, *seed: int) -> tuple[NDArray[Any], float]:
    """Latents [D, T] of a seed, or codes [8, T], as they are stored, and their signal to noise ratio in dB."""
    if codec.stage != "quantized":
        return cast(make_latents((codec.dim, frames), *seed), dtype)
    codes = np.random.default_rng(seed).integers(0, CODEBOOK_SIZE, (codec.codebooks, frames))
    return codes.astype(np.int16), 9.0


def stand_in(codes: NDArray[np.int16]) -> NDArray[np.float32]:
    """Latents [128, T] for codes [8, T]: a quantizer that needs no weights."""
    return np.repeat(codes, 16, axis=0).astype(np.float32) / 100


def make_latents(shape: tuple[int, int], *seed: int) -> NDArray[np.float32]:
    """Normal latents [D, T], float32, of a seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_side(path: str, number: int = 0, frames: int = 40, codec: CodecSpec = MDCT, cast_snr_db: float = 73.0) -> Side:
    """Describe the source of one side; `number` is the window's place in it."""
    return Side(
        path=path,
        sha256=hashlib.sha256(path.encode()).hexdigest(),
        sample_rate=44_100,
        channels=2,
        start=number * frames * codec.hop,
        valid_frames=frames,
        rms=round(0.1 + number / 1000, 3),
        peak=0.5,
        envelope=tuple(0.5 for _ in range(ENVELOPE_SEGMENTS)),
        cast_snr_db=round(cast_snr_db, 2),
    )


def flip_byte(file: Path, offset: int) -> None:
    """Invert one byte of a file; its size stays."""
    with file.open("r+b") as handle:
        handle.seek(offset)
        (byte,) = handle.read(1)
        handle.seek(offset)
        handle.write(bytes([byte ^ 0xFF]))
