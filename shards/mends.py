"""What to do about damage: the half of an error's line that names the command."""

from __future__ import annotations

from pathlib import Path

RESTORE_FILE = "restore the file from a copy, or encode the dataset again with `python -m pipeline encode`"
ENCODE_AGAIN = "encode the dataset again with `python -m pipeline encode`"
PAIR_AGAIN = "pair the sources again with `python -m pipeline pair`"
DELETE = "delete it"


def mend_shard(shard: str) -> str:
    """Mend a damaged shard, named as in the manifest."""
    return (
        "restore the shard from a copy, or make it again with "
        f"`python -m pipeline encode PAIRS.jsonl --out DATASET --only {shard}`"
    )


def mend_index(dataset: Path | str = "DATASET") -> str:
    """Mend a lost or changed index of sound shards."""
    return f"`python -m shards index {dataset} --rebuild` makes it anew"
