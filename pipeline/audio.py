"""Audio in: tracks decoded and screened, each refusal with its reason; nothing is replaced by another file.

A file is read from front to end in blocks. Screening sums up each block and passes its mono mix on to the resampler,
so that of a long file nothing lies in memory but mono sound at the codec's rate.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.loudness import ABSOLUTE_GATE, SHORTEST_SECONDS, gain_to, integrated_loudness
from shards.audio import AudioError, Decoder, Samples, check_whole, decoding, mix, opened, resample
from shards.schema import LOUDEST
from shards.settings import Settings

CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3")
"""Of these a file that was cut short is told from a whole one."""

MOST_CHANNELS = 64
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Of source files, in Hz."""

FULL_SCALE = 1 - 2**-15
COARSE_FULL_SCALE = {"PCM_U8": 1 - 2**-7, "PCM_S8": 1 - 2**-7}
"""The largest sample that has a negative: of most encodings, and of those with fewer than 16 bits."""

BLOCKS_A_SECOND = 4


class ScreeningConfig(Settings):
    """When audio is refused."""

    silence_rms: float = Field(1e-4, ge=0, description="a window with a lower RMS is silent (-80 dB by default)")
    clipped_fraction: float = Field(0.01, gt=0, le=1, description="share of samples at full scale")
    cancelling_ratio: float = Field(0.1, ge=0, lt=1, description="RMS of the mono mix over that of the channels")


@dataclass(frozen=True)
class Track:
    """A whole source file, mono at the codec's rate, and what it was."""

    path: Path
    sha256: str
    sample_rate: int
    channels: int
    samples: Samples
    gain: float
    """What the sound was multiplied by to bring it to a loudness."""
    power: NDArray[np.float32]
    """[blocks, 2] mean square of the file's channels, and of their mix, before the gain."""
    block: float
    """Samples, at the codec's rate, in each row of `power`."""

    def window(self, start: int, length: int, screening: ScreeningConfig) -> Samples:
        """Cut samples [start, start + length).

        Raises `AudioError` where they are not all there, cancel out in the mix, or are silent in the file.
        """
        cut = self.samples[start : start + length]
        if len(cut) < length:
            have, want = len(self.samples) / length, (start + length) / length
            raise AudioError(self.path, "too_short", f"{have:.2f} windows long, the pair needs {want:.2f}")
        first = min(round(start / self.block), len(self.power) - 1)
        last = max(round((start + length) / self.block), first + 1)
        place = f" from sample {start} on"
        _check_cancelling(self.path, self.power[first:last], screening, place)
        if (rms := _deviation(cut) / self.gain) < screening.silence_rms:
            raise AudioError(self.path, "silent", f"RMS {rms:.2g}{place}")
        return cut


def load_track(
    path: Path,
    sample_rate: int,
    screening: ScreeningConfig,
    loudness: float | None = None,
    expected_sha256: str | None = None,
) -> Track:
    """Decode, screen, mix to mono and resample a file; bring it to `loudness` (LUFS) as a whole, where one is given.

    Raises `AudioError` with the reason of a refusal, and where the file's hash is not `expected_sha256`.
    """
    with opened(path) as file:
        written = _last_written(file)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if expected_sha256 not in {None, sha256}:
            detail = f"its SHA-256 is {sha256[:12]}..., and was {expected_sha256[:12]}... when it was paired"
            raise AudioError(path, "changed", detail, "pair again")
        check_whole(path, file)
        with decoding(path, file) as decoder:
            _check_kind(path, decoder)
            survey = _Survey(path, COARSE_FULL_SCALE.get(decoder.encoding, FULL_SCALE))
            frames = decoder.sample_rate // BLOCKS_A_SECOND
            samples = resample(survey.mixed(decoder.blocks(frames)), decoder.sample_rate, sample_rate)
        if _last_written(file) != written:
            raise AudioError(path, "changed", "it was written to while it was read", "run again when it is whole")
    power = survey.check(screening)
    gain = 1.0
    if loudness is not None:
        gain = _gain(path, samples, sample_rate, loudness)
        samples *= np.float32(gain)
    block = frames * sample_rate / decoder.sample_rate
    return Track(path, sha256, decoder.sample_rate, decoder.channels, samples, gain, power, block)


class _Survey:
    """What screening sums up of a track that passes by."""

    def __init__(self, path: Path, full_scale: float) -> None:
        self._path = path
        self._full_scale = full_scale
        self._frames = 0
        self._clipped = 0.0
        self._low, self._high = math.inf, -math.inf
        self._power: list[tuple[float, float]] = []

    def mixed(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Pass on the mono mix [n] of each block [n, C]. Raises `AudioError` for NaN, and what no sound reaches."""
        for block in blocks:
            peak = max(float(block.max()), -float(block.min()))
            if not peak < LOUDEST:  # NaN is not, either
                place, channel = np.argwhere(~(np.abs(block) < LOUDEST))[0]
                detail = f"sample {self._frames + place} of channel {channel + 1} is {block[place, channel]:g}"
                raise AudioError(self._path, "not_finite", detail)
            mono = mix(block)
            if peak >= self._full_scale:
                self._clipped += np.count_nonzero(np.abs(block) >= self._full_scale) / block.shape[1]
            self._low, self._high = min(self._low, float(mono.min())), max(self._high, float(mono.max()))
            self._power.append((_mean_square(block), _mean_square(mono)))
            self._frames += len(block)
            yield mono

    def check(self, screening: ScreeningConfig) -> NDArray[np.float32]:
        """Give the power [blocks, 2] of channels and mix. Raises `AudioError` where no window can be of use."""
        if self._frames == 0:
            raise AudioError(self._path, "empty", "no samples")
        clipped = self._clipped / self._frames
        if clipped > screening.clipped_fraction:
            raise AudioError(self._path, "clipped", f"{clipped:.1%} of the samples at full scale")
        power = np.array(self._power, np.float32)
        # No window's RMS is more than half of this; a single loud one is enough to keep a silent track.
        if (span := self._high - self._low) < 2 * screening.silence_rms:
            _check_cancelling(self._path, power, screening)
            raise AudioError(self._path, "silent", f"the mix moves by {span:.2g} in all")
        return power


def _check_kind(path: Path, decoder: Decoder) -> None:
    if decoder.container not in CONTAINERS:
        detail = f"a file of the kind {decoder.container}, and not one of {', '.join(CONTAINERS)}"
        raise AudioError(path, "unsupported", detail, "convert it or leave it out")
    if decoder.channels > MOST_CHANNELS:
        raise AudioError(path, "unsupported", f"{decoder.channels} channels, and {MOST_CHANNELS} are the most")
    if not LOWEST_RATE <= decoder.sample_rate <= HIGHEST_RATE:
        detail = f"{decoder.sample_rate} samples a second, not {LOWEST_RATE} to {HIGHEST_RATE}"
        raise AudioError(path, "unsupported", detail)


def _check_cancelling(path: Path, power: NDArray[np.float32], screening: ScreeningConfig, place: str = "") -> None:
    channels, mono = np.sqrt(np.mean(power, axis=0, dtype=np.float64))
    if channels > screening.silence_rms and mono < screening.cancelling_ratio * channels:
        detail = f"the channels' RMS is {channels:.2g}, that of their mix {mono:.2g}{place}"
        raise AudioError(path, "cancelling", detail)


def _gain(path: Path, samples: Samples, sample_rate: int, loudness: float) -> float:
    if (seconds := len(samples) / sample_rate) < SHORTEST_SECONDS:
        detail = f"{seconds:.2g} s, and a loudness takes {SHORTEST_SECONDS:g} s"
        raise AudioError(path, "too_short", detail)
    measured = integrated_loudness(samples, sample_rate)
    if measured == -math.inf:
        raise AudioError(path, "too_quiet", f"nothing in it is louder than {ABSOLUTE_GATE:g} LUFS")
    return gain_to(loudness, measured, samples)


def _last_written(file: io.FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _mean_square(samples: Samples) -> float:
    """Mean square to four digits, in a quarter of the time that double precision takes."""
    flat = samples.reshape(-1)
    return float(np.einsum("i,i->", flat, flat)) / len(flat)


def _deviation(samples: Samples) -> float:
    """RMS of samples [n] about their mean: a constant can't be heard."""
    square = float(np.einsum("i,i->", samples, samples, dtype=np.float64)) / len(samples)
    return math.sqrt(max(square - float(samples.mean(dtype=np.float64)) ** 2, 0.0))
