"""What benchmarks of whole trainings share: the project's commands, run as a user would, and music to train on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: object) -> None:
    """Run `python -m ARGUMENTS`. Ends this program with what was said where that fails."""
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)


def synthesized_dataset(folder: Path, pairs: int, seconds: int) -> Path:
    """Compose, pair and encode (`mdct`) drums and piano in `folder`, unless that is done; gives the dataset."""
    recordings, table, dataset = folder / "recordings", folder / "pairs.jsonl", folder / "ds"
    if not dataset.is_dir():
        run("pipeline", "synthesize", recordings, "--pairs", pairs, "--seconds", seconds)
        run("pipeline", "pair", recordings, "--out", table, "--mode", "suffix", "--seconds", seconds)
        run("pipeline", "encode", table, "--out", dataset, "--codec", "mdct", "--local")
    return dataset
