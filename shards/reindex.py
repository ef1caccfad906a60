"""The index against the tars: is it what they say, and if not, made anew from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shards.dataset import check_size
from shards.errors import DamageError
from shards.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from shards.index import INDEX_DTYPE, Index, build_index, load_index, rows_from_shard, serialise
from shards.manifest import CARD, MANIFEST, dataset_card, fingerprint, index_file, read_manifest
from shards.mends import mend_shard
from shards.parallel import in_order
from shards.schema import IndexRow, Manifest, ShardEntry

SHOWN_ROWS = 20


class RowDifference(NamedTuple):
    """One value of the saved index that is not what the tars say."""

    number: int
    key: str
    column: str
    saved: Any
    rebuilt: Any


@dataclass(frozen=True)
class SplitIndex:
    """A split's index as it is saved and as the tars make it."""

    split: str
    problem: str | None
    differences: tuple[RowDifference, ...]
    rows: int
    rebuilt_sha256: str
    manifest_sha256: str
    rebuilt: bytes

    def as_json(self) -> dict[str, Any]:
        """Give what was found as plain data."""
        return {
            "split": self.split,
            "ok": self.problem is None,
            "problem": self.problem,
            "rows": self.rows,
            "rebuilt_sha256": self.rebuilt_sha256,
            "manifest_sha256": self.manifest_sha256,
            "differences": [one._asdict() for one in self.differences],
        }


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild wrote; nothing where the saved index was right."""

    written: tuple[str, ...]
    fingerprint: str
    previous_fingerprint: str


def check_index(folder: Path, on_shard: Callable[[], None] = lambda: None) -> list[SplitIndex]:
    """Compare the saved index of every split with one rebuilt from its tars; nothing is written.

    Raises `DatasetError` where a tar is missing or is not, byte for byte, the one that the manifest names: an index
    of a damaged tar would make the damage look sound.
    """
    manifest = read_manifest(folder)
    return [_compare(folder, manifest, split, on_shard) for split in manifest.splits]


def rebuild_index(folder: Path, on_shard: Callable[[], None] = lambda: None) -> Rebuilt:
    """Rebuild every split's index from its tars and write, atomically, those that differ from the saved ones.

    The manifest names each index by its sha256, and the fingerprint covers that: sound tars give the bytes that the
    manifest names, and then it stays as it is. Where they give others (another version of the index wrote it), the
    manifest takes the new hash and a new fingerprint, last. Raises `DatasetError` as `check_index` does.
    """
    checked = check_index(folder, on_shard)
    content: Any = read_json(folder / MANIFEST)
    previous = content["fingerprint"]
    written: list[str] = []
    for one in checked:
        path = folder / index_file(one.split)
        if not path.is_file() or sha256_file(path) != one.rebuilt_sha256:
            write_bytes(path, one.rebuilt)
            written.append(index_file(one.split))
        content["splits"][one.split]["index_sha256"] = one.rebuilt_sha256
    content["fingerprint"] = fingerprint(content)
    if content["fingerprint"] != previous:
        card = dataset_card(Manifest.model_validate(content))
        write_bytes(folder / CARD, card.encode())
        write_json(folder / MANIFEST, content)
        written += [CARD, MANIFEST]
    return Rebuilt(tuple(written), content["fingerprint"], previous)


def _compare(folder: Path, manifest: Manifest, split: str, on_shard: Callable[[], None]) -> SplitIndex:
    entry = manifest.splits[split]
    rows = []
    for one in in_order(lambda shard: _rows(folder, shard), entry.shards):
        rows.append(one)
        on_shard()
    index = build_index(rows)
    content = serialise(index)
    digest = sha256_bytes(content)
    problem, differences = _against_saved(folder / index_file(split), index)
    if problem is None and digest != entry.index_sha256:
        problem = "its sha256 is not the manifest's, though its rows are those of the tars"
    return SplitIndex(split, problem, differences, len(index), digest, entry.index_sha256, content)


def _rows(folder: Path, shard: ShardEntry) -> list[IndexRow]:
    check_size(folder, shard)
    path = folder / shard.file
    if sha256_file(path) != shard.sha256:
        what = "its sha256 is not the manifest's, so no index is made from it"
        raise DamageError(path, what, f"{mend_shard(shard.file)} (`python -m shards verify` names the samples)")
    rows = rows_from_shard(path)
    if len(rows) != shard.samples:
        what = f"holds {len(rows)} samples, the manifest says {shard.samples}"
        raise DamageError(path, what, mend_shard(shard.file))
    return rows


def _against_saved(path: Path, rebuilt: Index) -> tuple[str | None, tuple[RowDifference, ...]]:
    try:
        saved = load_index(path)
    except DamageError as error:
        return error.what, ()
    if saved.shape != rebuilt.shape:
        return f"the index has {len(saved)} rows, the tars hold {len(rebuilt)} samples", ()
    differences: list[RowDifference] = []
    count = 0
    for column in INDEX_DTYPE.names or ():
        numbers = np.flatnonzero(saved[column] != rebuilt[column])
        count += len(numbers)
        for number in numbers[: SHOWN_ROWS - len(differences)].tolist():
            key = rebuilt["key"][number].decode()
            values = (_plain(array[column][number]) for array in (saved, rebuilt))
            differences.append(RowDifference(number, key, column, *values))
    if not count:
        return None, ()
    return f"{count} values are not what the tars say", tuple(differences)


def _plain(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value.item()
