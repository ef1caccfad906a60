"""Which shards an earlier run finished: those whose receipt is there and is of the same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pydantic

from pipeline.destination import Destination, Entry
from pipeline.plan import ShardPlan
from shards.schema import Receipt


def finished_shards(plans: Iterable[ShardPlan], destination: Destination) -> dict[str, Receipt]:
    """Give the receipts of the finished shards, by shard.

    A receipt of another plan does not count, nor one without its shard, nor one that refuses a file which was mended
    since: people mend what `rejects.jsonl` names and run the same command again.
    """
    entries = destination.entries()
    begun = [plan for plan in plans if plan.receipt in entries]
    contents = destination.read(plan.receipt for plan in begun)
    done: dict[str, Receipt] = {}
    for plan in begun:
        receipt = _of_plan(plan, contents[plan.receipt])
        if receipt is None or (receipt.samples and not _whole(receipt, entries)):
            continue
        if not _mended(plan, receipt, entries[plan.receipt].written):
            done[plan.file] = receipt
    return done


def _of_plan(plan: ShardPlan, content: bytes) -> Receipt | None:
    try:
        receipt = Receipt.model_validate_json(content)
    except pydantic.ValidationError:
        return None
    return receipt if receipt.plan_sha256 == plan.sha256 else None


def _whole(receipt: Receipt, entries: Mapping[str, Entry]) -> bool:
    return receipt.shard in entries and entries[receipt.shard].bytes == receipt.bytes


def _mended(plan: ShardPlan, receipt: Receipt, moment: float) -> bool:
    refused = {plan.source(name) for reject in receipt.rejected for name in (reject.input, reject.target)}
    return any(_changed_since(source, moment) for source in refused)


def _changed_since(path: Path, moment: float) -> bool:
    """Whether a file was written, or moved to its place, after `moment` (seconds since the epoch)."""
    try:
        return path.stat().st_ctime > moment
    except OSError:
        return False
