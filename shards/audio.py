"""The one door to audio files: reading any format at any rate, and writing WAV and FLAC.

Order of the steps: decode to float32, mean to mono, resample the whole file. Windows are cut afterwards, so that a
resampler's edges fall on the ends of the file alone. soxr HQ resamples: common defaults alias audibly. Files are
decoded block by block, so that of a long one only the mono track need lie in memory.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from shards.containers import find_fault, mpeg_samples
from shards.errors import CascadenceError
from shards.files import write_bytes
from shards.schema import ENVELOPE_SEGMENTS

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")

MP3_FRAME = 1152
"""Samples; decoders of MP3 leave the first frame out where it needs one before it."""

FULL_SCALE = 1 << 15
"""Of 16-bit samples."""

FLAC_SAMPLES_A_BYTE = 1 << 13
"""No FLAC packs more: a frame of 65535 equal samples takes 11 bytes."""

UNKNOWN_FRAMES = 1 << 62
"""libsndfile gives more frames than this to a stream whose header does not tell its length."""

BLOCK_VALUES = 1 << 17
"""Samples, of all channels together, that are decoded at a time: half a megabyte."""

LIBSNDFILE_VERSION: str = soundfile.__libsndfile_version__

Samples = NDArray[np.float32]


class AudioError(CascadenceError):
    """Audio that can't be used; `reason` is one word for tables, `detail` a short phrase for people."""

    def __init__(
        self, path: Path | str, reason: str, detail: str, mend: str = "repair the file or leave it out"
    ) -> None:
        super().__init__(f"{path}: {reason.replace('_', ' ')}: {detail}; {mend}")
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
        return resample([mix(self.channels)], self.source.sample_rate, sample_rate)


class Decoder:
    """An open sound file; `container` and `encoding` are libsndfile's names, such as WAV and PCM_16.

    `frames` is its length in samples; None for a stream that does not tell it.
    """

    def __init__(self, path: Path, file: io.FileIO, sound: soundfile.SoundFile) -> None:
        self._path = path
        self._file = file
        self._sound = sound
        self.sample_rate: int = sound.samplerate
        self.channels: int = sound.channels
        self.container: str = sound.format
        self.encoding: str = sound.subtype
        self.frames: int | None = sound.frames if sound.frames < UNKNOWN_FRAMES else None
        if self.container == "MP3" and (counted := mpeg_samples(file)):
            self.frames = counted  # libsndfile guesses from the bytes, tags and all

    def blocks(self, frames: int = 0) -> Iterator[Samples]:
        """Give the sound, once, in blocks [frames, C] and a shorter last one; each overwrites the one before it.

        Raises `AudioError` where it can't be decoded to its end, or ends before the header says.
        """
        block = np.empty((frames or max(1, BLOCK_VALUES // self.channels), self.channels), np.float32)
        # Integers by a power of two are the very floats that libsndfile would give, in half the time.
        target = np.empty(block.shape, np.int16) if self.encoding == "PCM_16" else block
        decoded = 0
        # What stands behind the sound, such as tags, would be an error to some decoders.
        while count := self._read(target[: None if self.frames is None else self.frames - decoded], decoded):
            if target is not block:
                np.multiply(target[:count], np.float32(1 / FULL_SCALE), out=block[:count])
            decoded += count
            yield block[:count]
        lost = (self.frames or 0) - decoded
        if lost > (MP3_FRAME if self.container == "MP3" else 0):
            raise AudioError(self._path, "truncated", f"{lost} of {self.frames} samples are missing")

    def _read(self, target: NDArray[np.int16] | Samples, decoded: int) -> int:
        try:
            return len(self._sound.read(out=target)) if len(target) else 0
        except soundfile.SoundFileError as error:
            wrong = _reason(error)
            done = f"{decoded} of {self.frames} samples" if self.frames else f"{decoded} samples"
            # What libsndfile says of a FLAC frame that is cut, and of one that is damaged.
            if "lost sync" in wrong and self._file.tell() == os.fstat(self._file.fileno()).st_size:
                raise AudioError(self._path, "truncated", f"the bytes end after {done}") from None
            raise AudioError(self._path, "unreadable", f"{wrong} after {done}") from None


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file read from front to end: soundfile seeks after each read of one that can seek."""

    def seekable(self) -> bool:
        return False


@contextmanager
def opened(path: Path) -> Iterator[io.FileIO]:
    """Open a file of sound.

    Raises `AudioError` where it is missing, can't be read or is no file: a pipe would wait for ever.
    """
    try:
        str(path).encode()
        if not stat.S_ISREG(path.stat().st_mode):
            raise AudioError(path, "unreadable", "a folder, pipe or device, and no file")
        file = path.open("rb", buffering=0)  # libsndfile shares its place in the file
    except (FileNotFoundError, NotADirectoryError):
        wrong = "a link to a file that is not there" if path.is_symlink() else "there is no such file"
        raise AudioError(path, "missing", wrong) from None
    except UnicodeEncodeError:
        raise AudioError(path, "unreadable", "its name is no UTF-8", "rename the file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise AudioError(path, "unreadable", getattr(error, "strerror", None) or str(error)) from None
    try:
        with file:
            yield file
    except OSError as error:  # of a disk that fails
        raise AudioError(path, "unreadable", error.strerror or str(error)) from None


@contextmanager
def decoding(path: Path, file: io.FileIO) -> Iterator[Decoder]:
    """Decode an open file from its start. Raises `AudioError` where it is no audio file."""
    file.seek(0)
    try:
        # By its descriptor: libsndfile seeks before the start of broken files, which Python's files complain of.
        sound = _Forward(file.fileno(), closefd=False)
    except (soundfile.SoundFileError, OSError) as error:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(path, "empty", "the file has no bytes") from None
        raise AudioError(path, "unreadable", _reason(error)) from None
    with sound:
        yield Decoder(path, file, sound)


def check_whole(path: Path, file: io.FileIO) -> None:
    """Raise `AudioError` for an open file that holds less sound than it says, where decoders do not complain."""
    if fault := find_fault(file):
        raise AudioError(path, fault.reason, fault.detail)


def probe(path: Path) -> Source:
    """Read a file's header; a stream that does not tell its length is decoded to learn it.

    Raises `AudioError` where it is no audio file.
    """
    with opened(path) as file, decoding(path, file) as decoder:
        frames = decoder.frames
        if frames is None:
            frames = sum(len(block) for block in decoder.blocks())
        return Source(decoder.sample_rate, decoder.channels, frames)


def read(path: Path) -> Recording:
    """Decode a whole file. Raises `AudioError` where it can't be decoded, or ends before its header says."""
    with opened(path) as file:
        check_whole(path, file)
        with decoding(path, file) as decoder:
            # Samples of all channels after another: blocks of them join to one.
            channels = _joined(decoder.blocks()).reshape(-1, decoder.channels)
        return Recording(Source(decoder.sample_rate, decoder.channels, len(channels)), channels)


def mix(channels: Samples) -> Samples:
    """Mix channels [n, C] to mono [n] by the mean."""
    mixed = channels[:, 0].copy()
    # By columns, which is twenty times as fast as the mean of each row, and for a few channels the same sum.
    for channel in range(1, channels.shape[1]):
        mixed += channels[:, channel]
    mixed /= channels.shape[1]
    return mixed


def resample(blocks: Iterable[Samples], source_rate: int, sample_rate: int) -> Samples:
    """Resample mono sound [n], given in blocks that follow one another, from one rate to another (Hz).

    The result does not depend on where the blocks are cut.
    """
    if source_rate == sample_rate:
        return _joined(blocks)
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")

    def resampled() -> Iterator[Samples]:
        for block in blocks:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)

    return _joined(resampled())


def _joined(blocks: Iterable[Samples]) -> Samples:
    """Join blocks to one array [n] without ever holding them twice: a byte array grows where it lies."""
    joined = bytearray()
    for block in blocks:
        joined += block.data
    return np.frombuffer(joined, np.float32)


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


def encode_flac(samples: Samples, sample_rate: int, bits: Literal[16, 24] = 16) -> bytes:
    """Encode mono samples [n] as FLAC of 16 or 24 bits: the nearest step; what lies beyond full scale is clipped.

    No time, host or random serial number is in it: one version of libsndfile gives the same bytes each time.
    """
    full = 1 << (bits - 1)
    steps = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    # libsndfile takes the upper bits of an integer.
    whole = steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << 8
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, sample_rate, format="FLAC", subtype=f"PCM_{bits}")
    return buffer.getvalue()


def encode_vorbis(samples: Samples, sample_rate: int, quality: float = 0.5) -> bytes:
    """Encode mono samples [n] as Ogg Vorbis of a `quality` from 0 to 1: small, for listening.

    Its length is exact. Its serial number is random, so its bytes differ each time.
    """
    buffer = io.BytesIO()
    # soundfile counts compression from 0, the best, to 1.
    with soundfile.SoundFile(
        buffer, "w", sample_rate, 1, format="OGG", subtype="VORBIS", compression_level=1 - quality
    ) as file:
        for first in range(0, len(samples), BLOCK_VALUES):  # the encoder keeps a whole block on its stack
            file.write(samples[first : first + BLOCK_VALUES])
    return buffer.getvalue()


def decode_flac(payload: bytes, sample_rate: int) -> Samples:
    """Decode a FLAC of `encode_flac` to mono samples [n]. Raises `ValueError` for anything else."""
    try:
        with soundfile.SoundFile(io.BytesIO(payload)) as file:
            if (file.format, file.subtype, file.channels, file.samplerate) != ("FLAC", "PCM_16", 1, sample_rate):
                raise ValueError(f"it is not mono 16-bit FLAC at {sample_rate} Hz")
            promised = file.frames
            if promised > len(payload) * FLAC_SAMPLES_A_BYTE:
                raise ValueError(f"it claims {promised} samples in {len(payload)} bytes")
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
