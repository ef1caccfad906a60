"""The one door to audio files: reading any format at any rate, and writing WAV and FLAC.

Order of the steps: decode to float32, mean to mono, resample the whole file. Windows are cut afterwards, so that a
resampler's edges fall on the ends of the file alone. soxr HQ resamples: common defaults alias audibly.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from shards.errors import CascadenceError
from shards.files import write_bytes
from shards.schema import ENVELOPE_SEGMENTS

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")

MP3_FRAME = 1152
"""Samples; an MP3 file without a length in its header is as long as its size lets one guess, to within a frame."""

FULL_SCALE = 1 << 15
"""Of 16-bit samples."""

LIBSNDFILE_VERSION: str = soundfile.__libsndfile_version__

Samples = NDArray[np.float32]


class AudioError(CascadenceError):
    """Audio that can't be used; `reason` is one word for tables, `detail` a short phrase for people."""

    def __init__(self, path: Path | str, reason: str, detail: str) -> None:
        super().__init__(f"{path}: {reason.replace('_', ' ')}: {detail}; repair the file or leave it out")
        self.reason = reason
        self.detail = detail


class Source(NamedTuple):
    """What a file's header says."""

    sample_rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class Recording(NamedTuple):
    """A decoded file: `channels` [n, C] at the source's own rate, float32 in [-1, 1]."""

    source: Source
    channels: Samples

    def mono(self, sample_rate: int) -> Samples:
        """Mix to mono [n] by the mean and resample to `sample_rate` (Hz)."""
        mixed: Samples = self.channels.mean(axis=1, dtype=np.float32)
        if self.source.sample_rate == sample_rate:
            return mixed
        return np.asarray(soxr.resample(mixed, self.source.sample_rate, sample_rate, "HQ"), np.float32)


def probe(path: Path) -> Source:
    """Read a file's header. Raises `AudioError` where it is no audio file."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(path, "unreadable", _reason(error)) from None
    return Source(info.samplerate, info.channels, info.frames)


def read(path: Path) -> Recording:
    """Decode a whole file. Raises `AudioError` where it can't be decoded, or ends before its header says."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            sample_rate, promised = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(path, "unreadable", _reason(error)) from None
    if (lost := promised - len(samples)) > MP3_FRAME:
        raise AudioError(path, "truncated", f"{lost} of {promised} samples are missing")
    return Recording(Source(sample_rate, samples.shape[1], samples.shape[0]), samples)


def write_wav(
    path: Path, samples: Samples, sample_rate: int, subtype: Literal["PCM_16", "PCM_24", "FLOAT"] = "PCM_16"
) -> None:
    """Write mono samples [n] as a WAV file, atomically.

    Raises `ValueError` for values that are not finite or, but for `FLOAT`, beyond [-1, 1].
    """
    limit = np.inf if subtype == "FLOAT" else 1.0
    if not np.isfinite(samples).all() or float(np.abs(samples).max(initial=0.0)) > limit:
        raise ValueError(f"{path}: samples must be finite{'' if subtype == 'FLOAT' else ' and within [-1, 1]'}")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype=subtype)
    write_bytes(path, _without_time(buffer.getvalue()))


def _without_time(wav: bytes) -> bytes:
    """Zero the time of writing, which libsndfile notes in the PEAK chunk before the data of float files."""
    place = wav.find(b"PEAK", 0, max(wav.find(b"data"), 0))
    return wav if place < 0 else wav[: place + 12] + bytes(4) + wav[place + 16 :]


def encode_flac(samples: Samples, sample_rate: int) -> bytes:
    """Encode mono samples [n] as 16-bit FLAC: the nearest of 65536 steps; what lies beyond full scale is clipped.

    No time, host or random serial number is in it: one version of libsndfile gives the same bytes each time.
    """
    steps = np.clip(np.rint(samples.astype(np.float64) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, steps, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(payload: bytes, sample_rate: int) -> Samples:
    """Decode a FLAC of `encode_flac` to mono samples [n]. Raises `ValueError` for anything else."""
    try:
        with soundfile.SoundFile(io.BytesIO(payload)) as file:
            if (file.format, file.subtype, file.channels, file.samplerate) != ("FLAC", "PCM_16", 1, sample_rate):
                raise ValueError(f"it is not mono 16-bit FLAC at {sample_rate} Hz")
            promised = file.frames
            samples: Samples = file.read(dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"it can't be decoded ({_reason(error)})") from None
    if len(samples) != promised:
        raise ValueError(f"{promised - len(samples)} of its {promised} samples are missing")
    return samples


def envelope(samples: Samples) -> tuple[float, ...]:
    """Peak of |samples| in each of 250 segments, as equal as whole samples allow."""
    edges = np.linspace(0, len(samples), ENVELOPE_SEGMENTS + 1).astype(int)[:-1]
    return tuple(short(peak) for peak in np.maximum.reduceat(np.abs(samples), edges))


def rms(samples: Samples) -> float:
    """Root of the mean square of samples [n]."""
    return short(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def short(value: float | np.floating) -> float:
    """Six significant digits: as exact as anyone needs, and short in JSON."""
    return float(f"{float(value):.6g}")


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", error))
    if "possibly a pipe" in text:  # what libsndfile says of a file that is there, and nothing that it knows
        return "no audio of a known format"
    return " ".join(text.rpartition(": ")[2].split()).rstrip(".") or type(error).__name__
