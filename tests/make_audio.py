"""Sound files for the tests, good and broken, written byte by byte where libsndfile would not write them."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24_000
Audio = NDArray[np.float64]


def tone(frequency: float = 1_000, seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> Audio:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def noise(seconds: float = 2.0, channels: int = 1, rate: int = RATE, level: float = 0.1) -> Audio:
    return level * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))


def encoded(
    samples: Audio, kind: str = "WAV", subtype: str | None = None, rate: int = RATE, **options: object
) -> bytes:
    """`samples` as the bytes of a file that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, length: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even length; `length` is what it says of itself."""
    return name + struct.pack("<I", len(content) if length is None else length) + content + b"\0" * (len(content) % 2)


def wav(
    content: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = RATE,
    block: int | None = None,
    bits: int = 16,
    claimed: int | None = None,
    before: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """A WAV file of these fields, whatever they say."""
    block = channels * bits // 8 if block is None else block
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    chunks = b"WAVE" + chunk(b"fmt ", fields) + before + chunk(b"data", content, claimed) + behind
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def pcm(samples: Audio) -> bytes:
    """16-bit samples, as a WAV file holds them."""
    return np.round(samples * 32767).astype("<i2").tobytes()


def id3(length: int = 500) -> bytes:
    """An ID3v2 tag, as it stands before the sound."""
    return b"ID3\x04\0\0" + bytes(length >> 7 * shift & 127 for shift in (3, 2, 1, 0)) + bytes(length)


def ape(length: int = 500) -> bytes:
    """An APE tag with header and footer, as it stands behind the sound."""
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, length + 32, 1, flags) + bytes(8) for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + bytes(length) + ends[1]


ID3V1 = b"TAG" + bytes(125)


def bare_mp3(seconds: float = 2.0, rate: int = 44_100) -> bytes:
    """An MP3 file of constant bit rate without the first frame, which would tell the number of frames."""
    content = encoded(tone(1_000, seconds, rate), "MP3", rate=rate, bitrate_mode="CONSTANT", compression_level=0.1)
    first = content.index(content[:2], 4)
    assert b"Info" in content[:first]
    return content[first:]


def ogg_pages(content: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [0]
    while (found := content.find(b"OggS", starts[-1] + 4)) > 0:
        starts.append(found)
    return [content[start:stop] for start, stop in zip(starts, [*starts[1:], len(content)], strict=True)]


def flac_of(content: bytes, total: int) -> bytes:
    """A FLAC file that says it has `total` samples."""
    changed = bytearray(content)
    changed[21] = changed[21] & 0xF0 | total >> 32
    changed[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(changed)
