"""What may be wrong beside the shards: files that lack or don't belong there, receipts and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pydantic

from shards.audit.findings import Problem
from shards.audit.sample import Found
from shards.dataset import Dataset
from shards.errors import CascadenceError
from shards.files import read_json
from shards.index import Index, build_index
from shards.latents import add_by_side, statistics_by_side
from shards.manifest import CARD, MANIFEST, REJECTS, STATISTICS, index_file, receipt_file
from shards.mends import DELETE, ENCODE_AGAIN, RESTORE_FILE, mend_index
from shards.publish import total_sums
from shards.schema import SIDES, ChannelSums, Receipt, ShardEntry

TOLERANCE = 1e-6
"""Between sums that two machines take over the same numbers."""


def check_files(dataset: Dataset) -> Iterator[Problem]:
    """Name the documents that are missing, and every file that is nobody's."""
    shards = {shard.file for shard in dataset.manifest.shards}
    receipts = {receipt_file(shard) for shard in shards}
    indexes = {index_file(split) for split in dataset.splits}
    for name in sorted({STATISTICS, CARD} | receipts):
        if not (dataset.path / name).is_file():
            yield Problem(name, "is missing", RESTORE_FILE)
    for name in sorted(indexes):
        if not (dataset.path / name).is_file():
            yield Problem(name, "the index is missing", mend_index())
    known = shards | receipts | indexes | {MANIFEST, STATISTICS, CARD, REJECTS}
    for file in sorted(dataset.path.rglob("*")):
        name = file.relative_to(dataset.path).as_posix()
        # A shard whose pairs were all refused has a receipt and is in no manifest.
        own = name in known or (name.startswith("receipts/") and name.endswith(".tar.json"))
        if not own and (file.is_symlink() or not file.is_dir()):
            yield Problem(name, "is not in the manifest", DELETE)


def read_receipts(dataset: Dataset, problems: list[Problem]) -> dict[str, Receipt]:
    """Read all receipts that are there, by shard; what is none is added to `problems`."""
    receipts: dict[str, Receipt] = {}
    for path in sorted((dataset.path / "receipts").glob("*.tar.json")):
        name = path.relative_to(dataset.path).as_posix()
        try:
            receipt = Receipt.model_validate_json(path.read_bytes())
        except (OSError, pydantic.ValidationError):
            problems.append(Problem(name, "is no receipt", RESTORE_FILE))
            continue
        if receipt_file(receipt.shard) != name:
            problems.append(Problem(name, f"is the receipt of {receipt.shard}", RESTORE_FILE))
            continue
        receipts[receipt.shard] = receipt
    return receipts


def check_receipt(
    receipt: Receipt, split: str, number: int, shard: ShardEntry, saved: Index | None, found: list[Found]
) -> Iterator[Problem]:
    """Compare a shard's receipt with the manifest, the saved rows of the index and what was found in the shard."""
    name = receipt_file(shard.file)
    told = (receipt.split, receipt.samples, receipt.bytes, receipt.sha256)
    if told != (split, shard.samples, shard.bytes, shard.sha256):
        yield Problem(name, "its split, samples, bytes or sha256 are not the manifest's", RESTORE_FILE)
    if saved is not None:
        rows = build_index([receipt.rows])
        rows["shard"] = number
        if not np.array_equal(rows, saved):
            yield Problem(name, "its rows are not the index's", RESTORE_FILE)
    if len(found) != shard.samples:
        return  # the shard is damaged, which was said of itself
    if set(receipt.groups) != {sample.group for sample in found}:
        yield Problem(name, "its tracks are not those of the shard", RESTORE_FILE)
    sums = add_found(found)
    if sums and not _close(statistics_by_side(sums), statistics_by_side(receipt.statistics)):
        yield Problem(name, "its statistics are not those of the shard", RESTORE_FILE)


def check_totals(
    dataset: Dataset, receipts: dict[str, Receipt], sums: dict[str, ChannelSums] | None
) -> Iterator[Problem]:
    """Compare `stats.json` and the counts of refused pairs with what they were taken from.

    `sums` are those of all samples, where they could all be read; without them (for codes, which only their codec
    turns into latents) the receipts' sums are taken.
    """
    shards = [shard.file for shard in dataset.manifest.shards]
    complete = all(shard in receipts for shard in shards)
    for shard, receipt in receipts.items():
        if receipt.samples and shard not in shards:
            yield Problem(receipt_file(shard), "its shard is not in the manifest", DELETE)
    if complete:
        refused = Counter(reject.reason for receipt in receipts.values() for reject in receipt.rejected)
        if refused != dataset.manifest.rejected:
            yield Problem(MANIFEST, "its refused pairs are not those of the receipts", ENCODE_AGAIN)
    expected = sums or (total_sums([receipts[shard] for shard in shards]) if complete else None)
    if expected is None or not (dataset.path / STATISTICS).is_file():
        return
    try:
        content = read_json(dataset.path / STATISTICS)
    except CascadenceError:
        content = None
    if not _close(statistics_by_side(expected), content):
        yield Problem(STATISTICS, "its statistics are not those of the samples", ENCODE_AGAIN)


def add_found(found: Iterable[Found]) -> dict[str, ChannelSums]:
    """Add up the sums of samples, by side; none where a sample lacks them."""
    total: dict[str, ChannelSums] = {}
    for sample in found:
        if len(sample.sums) != len(SIDES):
            return {}
        total = add_by_side(total, sample.sums)
    return total


def _close(expected: dict[str, dict[str, list[float]]], content: object) -> bool:
    """Whether a document holds the same statistics, up to the order of the sums."""
    if not isinstance(content, dict) or content.keys() != expected.keys():
        return False
    for side, rows in expected.items():
        if not isinstance(content[side], dict) or content[side].keys() != rows.keys():
            return False
        for name, values in rows.items():
            try:
                given = np.asarray(content[side][name], np.float64)
            except (TypeError, ValueError):
                return False
            if given.shape != (len(values),) or not np.allclose(given, values, rtol=TOLERANCE, atol=TOLERANCE):
                return False
    return True
