"""From receipts to a dataset: index, statistics, card, manifest, and the rename that publishes them.

The shards themselves are not read again: a receipt holds everything that the documents need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DatasetError
from shards.files import sha256_bytes, sync_directory, write_bytes, write_json
from shards.index import build_index, save_index
from shards.latents import add_by_side, statistics_by_side
from shards.manifest import (
    CARD,
    STATISTICS,
    dataset_card,
    index_file,
    make_manifest,
    partial_folder,
    write_manifest,
    write_receipt,
)
from shards.schema import (
    SIDES,
    ArrayField,
    Build,
    ChannelSums,
    CodecSpec,
    Manifest,
    Receipt,
    ShardEntry,
    SideName,
    SplitEntry,
)


@dataclass(frozen=True)
class DatasetHeader:
    """What a dataset says of itself beyond what its receipts tell.

    `dtype` is the stored type, `int16` for codes; `audio` names the sides whose window is there as FLAC.
    """

    name: str
    codec: CodecSpec
    dtype: str
    window_samples: int
    pairing: dict[str, object]
    build: Build
    audio: tuple[SideName, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[ArrayField, ...]:
        """The arrays of every sample."""
        shape = (self.codec.rows, self.codec.frames(self.window_samples))
        roles = {"input": "rhythm", "target": "harmony"}
        return tuple(
            ArrayField.model_validate({"name": side, "role": roles[side], "dtype": self.dtype, "shape": shape})
            for side in SIDES
        )


def publish(folder: Path, header: DatasetHeader, receipts: Sequence[Receipt]) -> Manifest:
    """Write the documents into `folder`'s partial folder and give it its name.

    A receipt that is not there yet is written, too. Raises `DatasetError` when `folder` exists, and as
    `write_documents` does.
    """
    if folder.exists():
        raise DatasetError(f"{folder}: exists already, and datasets are immutable; choose another name, or remove it")
    staging = partial_folder(folder)
    for receipt in receipts:
        write_receipt(staging, receipt)
    manifest = write_documents(staging, header, receipts)
    staging.rename(folder)
    sync_directory(folder.parent)
    return manifest


def write_documents(staging: Path, header: DatasetHeader, receipts: Sequence[Receipt]) -> Manifest:
    """Write what makes shards a dataset into `staging`: indexes, statistics, card, and the manifest last.

    Raises `DatasetError` when no sample was written, a group lies in two splits, or two samples have one key.
    """
    written = sorted((r for r in receipts if r.samples), key=lambda receipt: receipt.shard)
    if not written:
        raise DatasetError(f"{header.name}: every pair was refused, so there is no dataset to write")
    _check_groups(written)
    _check_keys(written)
    splits = {
        split: _write_split(staging, split, [r for r in written if r.split == split])
        for split in sorted({r.split for r in written})
    }
    write_json(staging / STATISTICS, statistics_by_side(total_sums(written)))
    manifest = make_manifest(
        name=header.name,
        fields=header.fields,
        codec=header.codec,
        window_samples=header.window_samples,
        audio=header.audio,
        pairing=header.pairing,
        splits=splits,
        rejected=dict(Counter(reject.reason for receipt in receipts for reject in receipt.rejected)),
        parents=header.parents,
        build=header.build,
    )
    write_bytes(staging / CARD, dataset_card(manifest).encode())
    write_manifest(staging, manifest)
    return manifest


def _write_split(staging: Path, split: str, receipts: Sequence[Receipt]) -> SplitEntry:
    content = save_index(staging / index_file(split), build_index(r.rows for r in receipts))
    return SplitEntry(
        samples=sum(r.samples for r in receipts),
        groups=len({group for r in receipts for group in r.groups}),
        index_sha256=sha256_bytes(content),
        shards=tuple(
            ShardEntry(file=r.shard, samples=r.samples, bytes=r.bytes, sha256=str(r.sha256)) for r in receipts
        ),
    )


def total_sums(receipts: Sequence[Receipt]) -> dict[str, ChannelSums]:
    """Add up the sums of all shards' receipts; none where a shard has none (codes written without the codec)."""
    total: dict[str, ChannelSums] = {}
    if not all(receipt.statistics for receipt in receipts if receipt.samples):
        return total
    for receipt in receipts:
        total = add_by_side(total, receipt.statistics)
    return total


def _check_groups(receipts: Iterable[Receipt]) -> None:
    seen: dict[str, str] = {}
    for receipt in receipts:
        for group in receipt.groups:
            if seen.setdefault(group, receipt.split) != receipt.split:
                raise DatasetError(
                    f"track {group!r} lies in the splits {seen[group]} and {receipt.split}; pair the sources again"
                )


def _check_keys(receipts: Iterable[Receipt]) -> None:
    seen: dict[str, str] = {}
    for receipt in receipts:
        for place, row in enumerate(receipt.rows):
            here = f"{receipt.shard}#{place}"
            if seen.setdefault(row.key, here) != here:
                raise DatasetError(
                    f"sample {row.key} is there twice, as {seen[row.key]} and as {here}: the same two windows; take "
                    "one of its pairs out of the pairs file"
                )
