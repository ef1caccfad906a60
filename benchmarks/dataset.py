"""The dataset that the benchmarks read: pairs of seeded noise at the level of latents, float16 [128, 1200]."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from shards.latents import LatentsType, cast
from shards.manifest import codec_fingerprint, partial_folder
from shards.publish import DatasetHeader, publish
from shards.schema import ENVELOPE_SEGMENTS, Build, CodecSpec, Receipt, SampleRecord, Side
from shards.writer import Sample, sample_key, write_shard

SAMPLES_PER_SHARD = 64
FRAMES = 1200
DTYPE: LatentsType = "float16"
CODEC = CodecSpec(name="mdct", stage="transform")


def make_dataset(folder: Path, shards: int) -> Path:
    """Publish a dataset of `shards` shards at `folder`."""
    rng = np.random.default_rng(0)
    receipts = [_write_receipt(folder, number, rng) for number in range(shards)]
    build = Build(git_commit=None, versions={}, config={})
    publish(folder, DatasetHeader("bench", CODEC, DTYPE, FRAMES * CODEC.hop, {"mode": "noise"}, build), receipts)
    return folder


def _write_receipt(folder: Path, number: int, rng: np.random.Generator) -> Receipt:
    file = f"train/bench-train-{number:06d}.tar"
    samples = [_make_sample(number * SAMPLES_PER_SHARD + place, rng) for place in range(SAMPLES_PER_SHARD)]
    written = write_shard(partial_folder(folder) / file, samples)
    return Receipt(
        shard=file,
        split="train",
        plan_sha256="",
        samples=len(samples),
        bytes=written.bytes,
        sha256=written.sha256,
        groups=tuple(sample.record.group for sample in samples),
        rows=written.rows,
        statistics=written.statistics,
        rejected=(),
    )


def _make_sample(number: int, rng: np.random.Generator) -> Sample:
    latents = [5.7 * rng.standard_normal((CODEC.dim, FRAMES), dtype=np.float32) for _ in range(2)]
    stored, sides = [], []
    for name, values in zip(("input", "target"), latents, strict=True):
        array, snr = cast(values, DTYPE)
        stored.append(array)
        sides.append(
            Side(
                path=f"{number}_{name}.wav",
                sha256=hashlib.sha256(array.tobytes()).hexdigest(),
                sample_rate=CODEC.sample_rate,
                channels=1,
                start=0,
                valid_frames=FRAMES,
                rms=0.1,
                peak=0.5,
                envelope=(*(float(f"{peak:.6g}") for peak in rng.uniform(0, 0.5, ENVELOPE_SEGMENTS - 1)), 0.5),
                cast_snr_db=round(snr, 2),
            )
        )
    record = SampleRecord(
        key=sample_key(sides[0], sides[1], codec_fingerprint(CODEC)),
        split="train",
        group=str(number),
        pairing="noise",
        pairing_seed=0,
        codec_fingerprint=codec_fingerprint(CODEC),
        input=sides[0],
        target=sides[1],
    )
    return Sample(record, stored[0], stored[1])
