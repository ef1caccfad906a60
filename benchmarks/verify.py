"""`verify` against hashing the same shards and doing nothing else, both with a thread a core; page cache warm.

512 pairs of float16 [128, 1200] in 8 shards. Beside the time that passes, the time that the processors work is told:
it moves less with what else the machine does.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs by its path as well

from benchmarks.dataset import make_dataset
from benchmarks.timing import compare, measure, report, wants_json
from shards.audit import Level, verify
from shards.files import sha256_file
from shards.parallel import in_order

SHARDS = 8
LEVELS: tuple[Level, ...] = ("structure", "crc", "sha256")
BASELINE = "hash alone"


def main() -> None:
    as_json = wants_json(__doc__ or "")
    processors: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_dataset(Path(temporary) / "bench", SHARDS)
        shards = sorted(folder.rglob("*.tar"))
        megabytes = sum(shard.stat().st_size for shard in shards) / 1e6
        works = {BASELINE: lambda: hash_all(shards)}
        works |= {f"verify {level}": lambda level=level: verify_all(folder, level) for level in LEVELS}  # type: ignore[misc]
        contenders = {name: timed(work, processors.setdefault(name, [])) for name, work in works.items()}
        rows = compare(measure(contenders), BASELINE)
    for row in rows:
        row["mb_per_second"] = round(megabytes / row["seconds"])
        row["processor_seconds"] = statistics.median(processors[row["name"]][1:])  # the first round does not count
        row["processor_ratio"] = rows[0].get("processor_seconds", row["processor_seconds"]) / row["processor_seconds"]
    report(f"{megabytes:.0f} MB in {SHARDS} shards", BASELINE, rows, as_json=as_json)


def hash_all(shards: list[Path]) -> None:
    """Take the SHA-256 of every shard."""
    for _ in in_order(sha256_file, shards):
        pass


def verify_all(folder: Path, level: Level) -> None:
    """Verify the dataset, which is sound."""
    assert not verify(folder, level).problems


def timed(work: Callable[[], object], seconds: list[float]) -> Callable[[], None]:
    """Make work that notes the processors' time of each run."""

    def run() -> None:
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)

    return run


if __name__ == "__main__":
    main()
