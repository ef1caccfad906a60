"""What size costs: opening a dataset of a million samples, and ordering an epoch of ten million.

The dataset is an index and a manifest; its shards are sparse files of the right size, since opening looks at no more.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs by its path as well

from shards import open_dataset
from shards.files import sha256_bytes
from shards.index import INDEX_DTYPE, save_index
from shards.manifest import make_manifest, write_manifest
from shards.order import OrderPlan
from shards.schema import ArrayField, Build, CodecSpec, ShardEntry, SplitEntry

SAMPLES, PER_SHARD, ORDERED = 1_000_000, 256, 10_000_000
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_large(Path(temporary) / "large")
        before = anonymous_mb()
        opening = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            opened = open_dataset(folder)
            rows = len(opened.index("train"))
            opening.append(time.perf_counter() - began)
        assert rows == SAMPLES
        grown = anonymous_mb() - before
        index_mb = SAMPLES * INDEX_DTYPE.itemsize / 1e6
    plan = OrderPlan((PER_SHARD,) * (ORDERED // PER_SHARD))
    ordering = [order_once(plan, epoch) for epoch in range(ROUNDS)]
    result = {
        "open_1m_samples_seconds": sorted(opening)[ROUNDS // 2],
        "open_1m_samples_memory_mb": grown,
        "index_mb": index_mb,
        "order_10m_samples_seconds": sorted(ordering)[ROUNDS // 2],
    }
    if "--json" in sys.argv:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:30} {value:.3f}")


def anonymous_mb() -> float:
    """Memory of this process that is no mapped file, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


def order_once(plan: OrderPlan, epoch: int) -> float:
    """Seconds that the order of one epoch takes."""
    began = time.perf_counter()
    plan.epoch(0, epoch)
    return time.perf_counter() - began


def make_large(folder: Path) -> Path:
    """Publish a dataset that is an index, a manifest and sparse shards."""
    shards = -(-SAMPLES // PER_SHARD)
    size = PER_SHARD * 625_000
    index = np.zeros(SAMPLES, INDEX_DTYPE)
    index["key"] = np.char.zfill(np.arange(SAMPLES).astype("S"), 32)
    index["shard"] = np.arange(SAMPLES) // PER_SHARD
    (folder / "train").mkdir(parents=True)
    content = save_index(folder / "index" / "train.npy", index)
    entries = []
    for number in range(shards):
        entry = ShardEntry(file=f"train/l-train-{number:06d}.tar", samples=PER_SHARD, bytes=size, sha256="0" * 64)
        entry = entry.model_copy(update={"samples": min(PER_SHARD, SAMPLES - number * PER_SHARD)})
        with (folder / entry.file).open("wb") as file:
            file.truncate(size)
        entries.append(entry)
    split = SplitEntry(samples=SAMPLES, groups=1, index_sha256=sha256_bytes(content), shards=tuple(entries))
    codec = CodecSpec(name="mdct", stage="transform")
    fields = tuple(
        ArrayField.model_validate({"name": name, "role": role, "dtype": "float16", "shape": (128, 1200)})
        for name, role in (("input", "rhythm"), ("target", "harmony"))
    )
    manifest = make_manifest(
        name="large",
        fields=fields,
        codec=codec,
        window_samples=384_000,
        pairing={},
        splits={"train": split},
        rejected={},
        build=Build(git_commit=None, versions={}, config={}),
    )
    write_manifest(folder, manifest)
    return folder


if __name__ == "__main__":
    main()
