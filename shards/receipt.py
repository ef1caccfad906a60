"""One shard and its receipt: the piece that every writer of datasets shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.manifest import write_receipt
from shards.schema import Receipt, Reject
from shards.writer import Dequantize, Sample, differs, write_shard


def shard_file(name: str, split: str, number: int) -> str:
    """Name shard `number` of a split of the dataset `name`, relative to the dataset."""
    return f"{split}/{name}-{split}-{number:06d}.tar"


def write_with_receipt(
    folder: Path,
    file: str,
    split: str,
    plan_sha256: str,
    samples: Sequence[Sample],
    rejected: Sequence[Reject] = (),
    dequantize: Dequantize | None = None,
    expected_sha256: str | None = None,
) -> Receipt:
    """Write a shard under `folder` and then its receipt, the commit marker; without samples the receipt alone.

    Raises `DatasetError`, and leaves what is there, where the shard does not come out as `expected_sha256` says.
    """
    if expected_sha256 and not samples:
        raise differs(file, "none of its pairs can be used", expected_sha256)
    written = write_shard(folder / file, samples, dequantize, expected_sha256) if samples else None
    receipt = Receipt(
        shard=file,
        split=split,
        plan_sha256=plan_sha256,
        samples=len(samples),
        bytes=written.bytes if written else 0,
        sha256=written.sha256 if written else None,
        groups=tuple(sorted({sample.record.group for sample in samples})),
        rows=written.rows if written else (),
        statistics=written.statistics if written else {},
        rejected=tuple(rejected),
    )
    write_receipt(folder, receipt)
    return receipt
