"""The encode job against the bare encoder, its parts, its memory, and what planning and resuming cost.

The job makes a dataset of synthesized pairs (44.1 kHz stereo, 16-bit) through Ray, one actor a core, with EnCodec's
architecture and seeded weights. The bare encoder is the same codec in as many processes, on the same windows in
memory. Start-up is apart: the clocks run from the first window to the last. With `mdct`, whose transform costs next
to nothing, one process shows how fast recordings are read and resampled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.memory import peak_mb
from benchmarks.planning import measure_planning, measure_resume
from benchmarks.weights import seeded_weights
from pipeline import job
from pipeline.audio import ScreeningConfig, load_track
from pipeline.config import CodecConfig, EncodeConfig, EncoderConfig, OutputConfig
from pipeline.encode import Runner, encode_dataset, encode_locally
from pipeline.encoder import make_encoder
from pipeline.job import ShardEncoder, encode_with_ray
from pipeline.observer import Observer
from pipeline.pairing import Pairs, make_pairs
from pipeline.plan import ShardPlan
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.audio import Samples, read
from shards.files import sha256_file
from shards.latents import cast
from shards.schema import Receipt

SECONDS = 16.0
SOURCE_RATE = 44_100
ACTORS = os.cpu_count() or 1


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="cascadence-bench-") as name:
        folder = Path(name)
        pairs = _recordings(folder / "wav", options.pairs)
        weights = str(seeded_weights(folder))
        found = {
            "measured_on": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "torch": torch.__version__},
            "windows": 2 * options.pairs,
            "rounds": options.rounds,
            "job": _job_against_bare(folder, pairs, weights, options.rounds),
            "mdct": _mdct(folder, pairs, options.rounds),
            "seconds_a_pair": _parts(folder / "wav", weights),
            "planning": measure_planning(options.planned),
            "resume": measure_resume(folder, pairs),
        }
    print(json.dumps(found, indent=2) if options.json else _told(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of 16 s: twice as many windows")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of job and bare encoder, in turns")
    parser.add_argument("--planned", type=int, default=1_000_000, help="pairs to plan")
    return parser.parse_args()


def _recordings(root: Path, count: int) -> Pairs:
    """Write pairs of music in stereo at 44.1 kHz; gives them paired."""
    for index in range(count):
        pair = synthesize_pair(0, index % 4, SECONDS)
        for side, samples in (("input", pair.drums), ("target", pair.piano)):
            path = root / "train" / f"pair_{index:04d}_{side}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            places = np.arange(round(SECONDS * SOURCE_RATE)) * SAMPLE_RATE / SOURCE_RATE
            wide = np.interp(places, np.arange(len(samples)), samples)
            soundfile.write(path, np.stack([wide, 0.9 * np.roll(wide, index + 1)], axis=1), SOURCE_RATE)
    return make_pairs(root, "suffix", SECONDS, seed=0, val_fraction=0)[0]


class Clock(Observer):
    """Runs from the first shard that is begun to the last that is finished."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended = 0.0

    def advanced(self, shard: str, done: float) -> None:  # noqa: ARG002
        """Begin, where nothing has begun."""
        self.began = self.began or time.perf_counter()

    def finished(self, receipt: Receipt) -> None:  # noqa: ARG002
        """End, until the next shard."""
        self.ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds in between."""
        assert self.began is not None
        return self.ended - self.began


def _encode(pairs: Pairs, out: Path, config: EncodeConfig, runner: Runner) -> float:
    clock = Clock()
    encode_dataset(pairs, out, config, runner, clock)
    return clock.seconds


# The job against the bare encoder


def _job_against_bare(folder: Path, pairs: Pairs, weights: str, rounds: int) -> dict[str, Any]:
    per_shard = max(1, len(pairs.pairs) // (4 * ACTORS))
    config = EncodeConfig(
        codec=CodecConfig(weights=weights, allow_unknown_weights=True),
        output=OutputConfig(samples_per_shard=per_shard),
        encoder=EncoderConfig(device="cpu", max_actors=ACTORS),
    )
    windows = [load_track(path, SAMPLE_RATE, ScreeningConfig()).samples for path in sorted(_sources(pairs))]
    np.save(folder / "windows.npy", np.stack(windows))
    os.environ["CASCADENCE_BENCH_PEAKS"] = str(folder / "peaks")
    (folder / "peaks").mkdir()
    job.ShardEncoder = MeasuredEncoder  # type: ignore[misc]
    taken: dict[str, list[float]] = {"job": [], "bare": []}
    for number in range(rounds):
        taken["bare"].append(_bare(folder / "windows.npy", weights))
        taken["job"].append(_encode(pairs, folder / f"job-{number}", config, encode_with_ray))
    audio = len(windows) * SECONDS
    bare, whole = statistics.median(taken["bare"]), statistics.median(taken["job"])
    return {
        "bare_seconds": taken["bare"],
        "job_seconds": taken["job"],
        "ratio": bare / whole,
        "ratios": [b / j for b, j in zip(taken["bare"], taken["job"], strict=True)],
        "times_real_time": audio / whole,
        "actor_peak_mb": max(float(path.read_text()) for path in (folder / "peaks").iterdir()),
    }


def _sources(pairs: Pairs) -> set[Path]:
    return {Path(pairs.header.root, cut.path) for pair in pairs.pairs for _, cut in pair.sides}


class MeasuredEncoder(ShardEncoder):
    """The actor itself, which also leaves word of its peak memory in MB."""

    def encode(self, plan: ShardPlan) -> Iterator[float | Receipt]:
        """Make one shard."""
        yield from super().encode(plan)
        Path(os.environ["CASCADENCE_BENCH_PEAKS"], str(os.getpid())).write_text(str(peak_mb()))


def _bare(windows: Path, weights: str) -> float:
    """Encode all windows in as many processes as there are actors, from memory; gives the seconds of the slowest."""
    context = multiprocessing.get_context("spawn")
    barrier, taken = context.Barrier(ACTORS), context.Queue()
    processes = [
        context.Process(target=_bare_process, args=(windows, weights, number, barrier, taken))
        for number in range(ACTORS)
    ]
    for process in processes:
        process.start()
    seconds: list[float] = [taken.get() for _ in processes]
    for process in processes:
        process.join()
    return max(seconds)


def _bare_process(path: Path, weights: str, number: int, barrier: Barrier, taken: Any) -> None:
    config = EncodeConfig(codec=CodecConfig(weights=weights, allow_unknown_weights=True))
    encoder = make_encoder(config, "cpu")
    windows = [np.ascontiguousarray(window) for window in np.load(path)[number::ACTORS]]
    encoder.encode(windows[:1])
    barrier.wait()
    began = time.perf_counter()
    for window in windows:
        encoder.encode([window])
    taken.put(time.perf_counter() - began)


# Reading and resampling


def _mdct(folder: Path, pairs: Pairs, rounds: int) -> dict[str, Any]:
    config = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(samples_per_shard=8))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # decoding and encoding threads together get one core, as an actor does
    taken = [_encode(pairs, folder / f"mdct-{number}", config, encode_locally) for number in range(rounds)]
    os.sched_setaffinity(0, cores)
    audio = 2 * len(pairs.pairs) * SECONDS
    return {"seconds": taken, "times_real_time": audio / statistics.median(taken)}


def _parts(root: Path, weights: str) -> dict[str, float]:
    """Seconds that each part takes for the two windows of a pair, on one thread; medians over a few pairs."""
    encoder = make_encoder(EncodeConfig(codec=CodecConfig(weights=weights, allow_unknown_weights=True)), "cpu")
    taken: dict[str, list[float]] = {}

    def timed(name: str, sides: Sequence[Any], work: Any) -> list[Any]:
        began = time.perf_counter()
        found = [work(side) for side in sides]
        taken.setdefault(name, []).append(time.perf_counter() - began)
        return found

    for index in range(4):
        paths = [root / "train" / f"pair_{index:04d}_{side}.wav" for side in ("input", "target")]
        timed("hash", paths, sha256_file)
        recordings = timed("decode", paths, read)
        windows: list[Samples] = timed("resample", recordings, lambda recording: recording.mono(SAMPLE_RATE))
        timed("decode, screen, hash, resample", paths, lambda path: load_track(path, SAMPLE_RATE, ScreeningConfig()))
        latents = timed("encode", windows, lambda window: encoder.encode([window])[0])
        timed("cast", latents, lambda array: cast(array, "float16"))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _told(found: dict[str, Any]) -> str:
    run, planning, resume = found["job"], found["planning"], found["resume"]
    lines = [
        f"{found['windows']} windows of 16 s, {ACTORS} processes, {found['rounds']} rounds, {found['measured_on']}",
        f"job against bare encoder: {run['ratio']:.3f}, {run['times_real_time']:.1f}x real time, "
        f"an actor's peak {run['actor_peak_mb']:.0f} MB",
        f"mdct, one core: {found['mdct']['times_real_time']:.0f}x real time",
        "seconds a pair: " + ", ".join(f"{name} {value:.4f}" for name, value in found["seconds_a_pair"].items()),
        f"planning {planning['pairs']} pairs: {planning['seconds']:.1f} s, {planning['peak_mb']:.0f} MB",
        f"resume with all {resume['shards']} shards done: {resume['seconds']:.2f} s, {resume['runs']} shards begun",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
