"""Audio in: tracks decoded and screened, each refusal with its reason; nothing is replaced by another file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from shards.audio import AudioError, Recording, Samples, read
from shards.files import sha256_file
from shards.settings import Settings


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

    def window(self, start: int, length: int, screening: ScreeningConfig) -> Samples:
        """Cut samples [start, start + length). Raises `AudioError` where they are not all there, or silent."""
        cut = self.samples[start : start + length]
        if len(cut) < length:
            have, want = len(self.samples) / length, (start + length) / length
            detail = f"{have:.2f} windows long, the pair needs {want:.2f}"
            raise AudioError(self.path, "too_short", detail)
        rms = float(np.sqrt(np.mean(np.square(cut, dtype=np.float64))))
        if rms < screening.silence_rms:
            raise AudioError(self.path, "silent", f"RMS {rms:.2g} from sample {start} on")
        return cut


def load_track(
    path: Path,
    sample_rate: int,
    screening: ScreeningConfig,
    loudness: float | None = None,
    expected_sha256: str | None = None,
) -> Track:
    """Decode, screen, mix to mono and resample a file. Raises `AudioError` with the reason of a refusal."""
    try:
        if not path.is_file():
            raise AudioError(path, "missing", "there is no such file")
        _check_size(path)
    except OSError as error:
        raise AudioError(path, "unreadable", error.strerror or str(error)) from None
    recording = read(path)
    _screen(path, recording, screening)
    source = recording.source
    sha256 = sha256_file(path)
    if expected_sha256 not in {None, sha256}:
        raise AudioError(path, "changed", "it is another file than the one that was paired")
    return Track(path, sha256, source.sample_rate, source.channels, recording.mono(sample_rate))


def _screen(path: Path, recording: Recording, screening: ScreeningConfig) -> None:
    channels = recording.channels
    if len(channels) == 0:
        raise AudioError(path, "empty", "no samples")
    if not np.isfinite(channels).all():
        raise AudioError(path, "not_finite", "samples that are NaN or infinite")
    clipped = float(np.mean(np.abs(channels) >= 1 - 2**-15))
    if clipped > screening.clipped_fraction:
        raise AudioError(path, "clipped", f"{clipped:.1%} of the samples at full scale")
    loud = float(np.sqrt(np.mean(np.square(channels, dtype=np.float64))))
    mixed = float(np.sqrt(np.mean(np.square(channels.mean(axis=1, dtype=np.float64)))))
    if loud > screening.silence_rms and mixed < screening.cancelling_ratio * loud:
        raise AudioError(path, "cancelling", "the channels cancel out in the mono mix")


def _check_size(path: Path) -> None:
    """Raise `AudioError` for an empty file, and a WAV or AIFF that claims more bytes than it has.

    Decoders take what is there of those, and say nothing.
    """
    size = path.stat().st_size
    if size == 0:
        raise AudioError(path, "empty", "the file has no bytes")
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"FORM" and head[8:] in {b"AIFF", b"AIFC"}:
            if (missing := 8 + int.from_bytes(head[4:8], "big") - size) > 0:
                raise AudioError(path, "truncated", f"{missing} of {missing + size} bytes are missing")
            return
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                # Streaming encoders leave 0 or all ones where they never learnt the length.
                if length not in {0, 0xFFFFFFFF} and file.tell() + length > size:
                    missing = file.tell() + length - size
                    raise AudioError(path, "truncated", f"{missing} of {length} bytes of sound are missing")
                return
            file.seek(length + length % 2, 1)
