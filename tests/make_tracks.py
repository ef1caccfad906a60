"""Small recordings in pairs, and the pairs files over them, for tests of encode jobs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.config import CodecConfig, EncodeConfig, OutputConfig
from pipeline.pairing import Pairs, make_pairs, write_pairs
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.audio import write_wav

SECONDS = 1.0
PAIRS = 12
SHARDS = 6
TWO_A_SHARD = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(name="ds", samples_per_shard=2))
OPTIONS = ["--codec", "mdct", "--set", "output.samples_per_shard=2", "--set", "output.name=ds"]
"""The same on the command line."""


def make_tracks(root: Path) -> Path:
    """Write twelve pairs of one second under `root`/wav, and `root`/pairs.jsonl over them; gives `root`."""
    for index in range(PAIRS):
        pair = synthesize_pair(3, index, SECONDS)
        for side, samples in (("input", pair.drums), ("target", pair.piano)):
            write_wav(root / "wav" / "train" / f"pair_{index:04d}_{side}.wav", samples, SAMPLE_RATE)
    write_pairs(root / "pairs.jsonl", paired(root / "wav"))
    return root


def paired(root: Path, seconds: float = SECONDS) -> Pairs:
    """Pair recordings by their names."""
    return make_pairs(root, "suffix", seconds, seed=0, val_fraction=0)[0]


def files(folder: Path) -> dict[str, str]:
    """Every file under a folder and its hash, but for what the build says of itself."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }
