"""What is examined, and what was measured of it: each measurement is made once, when a check first asks for it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import EncodeConfig
from pipeline.encode import plan_dataset
from pipeline.encoder import Encoder, make_encoder
from pipeline.pairing import Pairs, read_pairs
from pipeline.plan import ShardPlan
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.audio import Samples
from shards.codec import codec_spec
from shards.errors import CascadenceError
from shards.schema import CodecSpec

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 16.0
"""Of the test sound. Within them it is as long as the windows of the pairs."""
RUNS = 4
"""Encodings of the test sound; the first is not timed."""
BATCH_SIZES = (1, 4, 8, 16, 32, 64)
"""That a GPU is tried with."""


@dataclass(frozen=True)
class Trial:
    """The test sound encoded again and again, one window at a time, on this machine's CPU.

    `latents` [D, T] of each run; `seconds` is the median a run; `busy` how many cores were at work.
    """

    latents: tuple[NDArray[np.float32], ...]
    seconds: float
    busy: float


@dataclass(frozen=True)
class GpuTrial:
    """Windows a second by batch size, as far as the memory goes, and latents [D, T] of the test sound, by a GPU."""

    speeds: dict[int, float]
    latents: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The fastest batch size."""
        return max(self.speeds, key=lambda size: self.speeds[size])


@dataclass
class Case:
    """A machine and the job that is meant for it. What was measured stays for later checks."""

    config: EncodeConfig
    pairs_file: Path | None = None
    out: str | None = None
    with_ray: bool = True

    @property
    def cores(self) -> int:
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def joins_cluster(self) -> bool:
        """Whether the job would run on a Ray cluster that is there, and not on this machine alone."""
        return self.with_ray and bool(os.environ.get("RAY_ADDRESS"))

    @property
    def actors(self) -> int:
        """Encoders that this machine would have on its CPU."""
        return min(self.cores, self.config.encoder.max_actors or self.cores) if self.with_ray else 1

    @property
    def spec(self) -> CodecSpec:
        """The codec's description, but for the hash of weights: these may be missing."""
        return codec_spec(self.config.codec.name)

    @cached_property
    def encoder(self) -> Encoder:
        """The codec as an actor on a CPU has it. Raises `CodecError` where its weights are missing or wrong."""
        return make_encoder(self.config, "cpu")

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs file. Raises `MisuseError` where it is none."""
        assert self.pairs_file is not None
        return read_pairs(self.pairs_file)

    @cached_property
    def plans(self) -> tuple[ShardPlan, ...]:
        """The shards of the job."""
        return plan_dataset(self.pairs, self.config, self.encoder.codec, "planned")

    @cached_property
    def sound(self) -> Samples:
        """The test sound [n]: synthesized piano, which all codecs here can code, as long as the job's windows."""
        window = LONGEST_SECONDS
        with suppress(CascadenceError):  # a broken pairs file has a check of its own
            window = self.pairs.header.window_samples / SAMPLE_RATE if self.pairs_file else window
        seconds = min(max(window, SHORTEST_SECONDS), LONGEST_SECONDS)
        return synthesize_pair(0, 0, seconds).piano[: round(seconds * SAMPLE_RATE)]

    @cached_property
    def trial(self) -> Trial:
        """The test sound, encoded on the CPU."""
        latents: list[NDArray[np.float32]] = []
        seconds: list[float] = []
        busy: list[float] = []
        for _ in range(RUNS):
            wall, cpu = time.perf_counter(), time.process_time()
            latents += self.encoder.encode([self.sound])
            seconds.append(time.perf_counter() - wall)
            busy.append((time.process_time() - cpu) / seconds[-1])
        return Trial(tuple(latents), statistics.median(seconds[1:]), statistics.median(busy[1:]))

    @cached_property
    def gpu_trial(self) -> GpuTrial:
        """The test sound, encoded on the first GPU, in the job's batches where they fit into its memory."""
        codec, chosen = self.encoder.codec, self.config.encoder.batch_size
        try:
            speeds = batch_speeds(lambda size: Encoder(codec, "gpu", size), BATCH_SIZES, self.sound)
            latents = Encoder(codec, "gpu", min(chosen, max(speeds, default=1))).encode([self.sound])[0]
            return GpuTrial(speeds, latents)
        except torch.cuda.OutOfMemoryError:
            return GpuTrial({}, np.zeros((codec.spec.dim, 0), np.float32))
        finally:
            codec.to("cpu")
            torch.cuda.empty_cache()


def batch_speeds(make: Callable[[int], Encoder], sizes: Sequence[int], sound: Samples) -> dict[int, float]:
    """Windows like `sound` [n] that an encoder of each batch size encodes a second; sizes past the memory are left out.

    The first batch of each is not timed; the median of the others is.
    """
    found: dict[int, float] = {}
    for size in sizes:
        seconds: list[float] = []
        try:
            encoder = make(size)
            for _ in range(RUNS):
                began = time.perf_counter()
                encoder.encode([sound] * encoder.batch_size)
                seconds.append(time.perf_counter() - began)
        except torch.cuda.OutOfMemoryError:
            break
        found[encoder.batch_size] = encoder.batch_size / statistics.median(seconds[1:])
    return found
