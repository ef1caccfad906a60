"""Containers of sound whose bytes run out before their header says: decoders take what is there, and say nothing.

FLAC is missing here because its decoder does complain. Lengths that a writer never learnt, as when it wrote to a
pipe, are believed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from io import FileIO
from typing import NamedTuple

UNKNOWN_LENGTHS = {0, 0x7FFFF000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1}
"""What writers to a pipe leave; the second is SoX's, the fourth FFmpeg's."""

IN_RIFF64 = 0xFFFFFFFF
"""Length of a chunk of RF64 whose real length stands in the chunk `ds64`."""

W64_HEADER = 24
"""Bytes of a chunk's name and length in W64, which that length counts as well."""

W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")

OGG_PAGE_HEADER = 27
OGG_FIRST_PAGE, OGG_LAST_PAGE = 2, 4
SEARCH_BYTES = 1 << 16

MPEG_KILOBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By version (2.5 counts as 2) and layer (ISO/IEC 11172-3 and 13818-3)."""

MPEG_VERSIONS = {3: (1, 1), 2: (2, 2), 0: (2, 4)}
"""Of the two bits in a frame's header: the version, and what it divides the rates by."""

MPEG_RATES = (44_100, 48_000, 32_000)


class Fault(NamedTuple):
    """What is wrong with a container: `reason` is one word for tables, `detail` a short phrase for people."""

    reason: str
    detail: str


def find_fault(file: FileIO) -> Fault | None:
    """Look for sound that a WAV, RF64, W64, AIFF, Ogg or MP3 file should have and has not."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return Fault("empty", "the file has no bytes")
    start = _after_tags(file)
    head = _bytes(file, start, 12)
    match head[:4], head[8:]:
        case (b"RIFF" | b"RIFX" | b"RF64", b"WAVE"):
            return _wave(file, start, size, ">" if head[:4] == b"RIFX" else "<")
        case b"FORM", b"AIFF" | b"AIFC":
            return _aiff(file, start, size)
        case b"riff", _:
            return _wave64(file, start, size)
        case b"OggS", _:
            return _ogg(file, start, size)
    return _mpeg(file, start) if _frame(head) else None


def mpeg_samples(file: FileIO) -> int | None:
    """Count the samples of an MPEG file that does not tell how many it has; None for one that does."""
    start = _after_tags(file)
    if _promised_frames(file, start):
        return None
    return sum(frame.samples for _, frame in _frames(file, start, _before_tags(file)))


def _bytes(file: FileIO, place: int, count: int) -> bytes:
    return os.pread(file.fileno(), count, place)


def _missing(place: int, length: int, size: int) -> Fault | None:
    """Compare sound that starts at byte `place` and claims `length` bytes with the file's size."""
    lost = place + length - size
    if lost <= 0 or length in UNKNOWN_LENGTHS:
        return None
    return Fault("truncated", f"{lost} of {length} bytes of sound are missing")


def _chunks(file: FileIO, start: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Walk the chunks of a RIFF or IFF file: name, place of the content, length."""
    place = start + 12
    while len(head := _bytes(file, place, 8)) == 8:
        name, length = struct.unpack(f"{order}4sI", head)
        yield name, place + 8, length
        place += 8 + length + length % 2


def _wave(file: FileIO, start: int, size: int, order: str) -> Fault | None:
    real = IN_RIFF64
    for name, place, length in _chunks(file, start, order):
        if name == b"ds64" and len(sizes := _bytes(file, place + 8, 8)) == 8:
            real = int.from_bytes(sizes, "little")
        if name == b"fmt " and len(layout := _bytes(file, place, 16)) == 16:
            channels, block, bits = struct.unpack(f"{order}2xH8xHH", layout)
            if block * 8 < max(channels * bits, 1):
                return Fault("unreadable", f"its header gives {block} bytes to {channels} samples of {bits} bits")
        if name == b"data":
            return _missing(place, real if length == IN_RIFF64 else length, size)
    return None


def _aiff(file: FileIO, start: int, size: int) -> Fault | None:
    for name, place, length in _chunks(file, start, ">"):
        if name == b"SSND":
            return _missing(place, length, size)
    return None


def _wave64(file: FileIO, start: int, size: int) -> Fault | None:
    place = start + W64_HEADER + 16
    while place < size and len(head := _bytes(file, place, W64_HEADER)) == W64_HEADER:
        claimed = int.from_bytes(head[16:], "little")
        if head[:16] == W64_DATA:
            return _missing(place + W64_HEADER, 0 if claimed in UNKNOWN_LENGTHS else claimed - W64_HEADER, size)
        place += max(-(-claimed // 8) * 8, W64_HEADER)
    return None


def _ogg(file: FileIO, start: int, size: int) -> Fault | None:
    """Walk the pages of an Ogg file (RFC 3533): the last one ends a stream, and all of it is there."""
    place, flags, sounding = start, OGG_LAST_PAGE, False
    while place < size:
        head = _bytes(file, place, OGG_PAGE_HEADER + 255)
        if not head.startswith(b"OggS"):
            # Decoders pass over what stands between pages; behind the last one it is a tag, or nothing.
            found = _bytes(file, place, SEARCH_BYTES).find(b"OggS")
            if found < 0:
                break
            place += found
            continue
        segments = head[OGG_PAGE_HEADER - 1] if len(head) >= OGG_PAGE_HEADER else 0
        length = OGG_PAGE_HEADER + segments + sum(head[OGG_PAGE_HEADER : OGG_PAGE_HEADER + segments])
        if len(head) < OGG_PAGE_HEADER or place + length > size:
            return Fault("truncated", f"the last page is cut after {size - place} bytes")
        flags = head[5]
        if flags & OGG_FIRST_PAGE and sounding:
            return Fault("unsupported", f"a second stream starts at byte {place}, and only one would be decoded")
        sounding = not flags & OGG_FIRST_PAGE
        place += length
    if not flags & OGG_LAST_PAGE:
        return Fault("truncated", f"no page ends the stream; the bytes end at {place}")
    return None


class Frame(NamedTuple):
    """What the header of an MPEG frame says: its length in bytes, and in samples."""

    length: int
    samples: int


def _mpeg(file: FileIO, start: int) -> Fault | None:
    """Compare the frames with the file's end, and with the number that the first of them may tell."""
    promised, end = _promised_frames(file, start), _before_tags(file)
    whole, last = 0, start
    for place, frame in _frames(file, start, end):
        last = place + frame.length
        if last > end:
            return Fault("truncated", f"{last - end} of {frame.length} bytes of the last frame are missing")
        whole += 1
    # The frame that tells the number holds no sound, but there are writers that count it. What looks like no frame
    # at all is left to the decoder.
    if last == end and whole < promised:
        return Fault("truncated", f"{promised - whole} of {promised} frames are missing")
    return None


def _frames(file: FileIO, place: int, end: int) -> Iterator[tuple[int, Frame]]:
    """Walk the frames of an MPEG file, over what stands between them: the place of each, and the frame."""
    while place < end:
        frame = _frame(_bytes(file, place, 4))
        if frame is None:
            place = _next_frame(file, place + 1, end)
        else:
            yield place, frame
            place += frame.length


def _next_frame(file: FileIO, place: int, end: int) -> int:
    """Find where two frames follow one another; `end` where they never do again."""
    while place < end:
        piece = _bytes(file, place, SEARCH_BYTES)
        found = piece.find(b"\xff")
        while found >= 0:
            frame = _frame(piece[found : found + 4])
            if frame and _frame(_bytes(file, place + found + frame.length, 4)):
                return place + found
            found = piece.find(b"\xff", found + 1)
        place += len(piece) - 3 if len(piece) > 3 else end
    return end


@lru_cache(maxsize=1024)  # a file has few that differ
def _frame(head: bytes) -> Frame | None:
    """Read the four bytes that a frame starts with; None where they are others, or leave the length open."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, divisor = MPEG_VERSIONS.get(head[1] >> 3 & 3, (0, 0))
    layer = 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 0 or layer == 4 or bits in {0, 15} or rate == 3:
        return None
    bytes_a_second, hertz = MPEG_KILOBITS[version, layer][bits - 1] * 125, MPEG_RATES[rate] // divisor
    if layer == 1:
        return Frame((96 * bytes_a_second // hertz + padding) * 4, 384)
    samples = 576 if (version, layer) == (2, 3) else 1152
    return Frame(samples * bytes_a_second // hertz + padding, samples)


def _promised_frames(file: FileIO, place: int) -> int:
    """Frames that the Xing or Info header in the first frame counts; 0 where it does not."""
    head = _bytes(file, place, 64)
    for name in (b"Xing", b"Info"):
        found = head.find(name)
        if found > 0 and len(head) >= found + 12 and head[found + 7] & 1:
            return int.from_bytes(head[found + 8 : found + 12], "big")
    return 0


def _after_tags(file: FileIO) -> int:
    """Pass over ID3v2 tags in front of the sound."""
    place = 0
    while len(head := _bytes(file, place, 10)) == 10 and head.startswith(b"ID3"):
        # Four times seven bits, and a footer as long as the header where a flag says so.
        place += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:])) + (head[5] >> 4 & 1) * 10
    return place


def _before_tags(file: FileIO) -> int:
    """Pass over ID3v1 and APE tags behind the sound."""
    end = os.fstat(file.fileno()).st_size
    if _bytes(file, max(end - 128, 0), 3) == b"TAG":
        end = max(end - 128, 0)
    foot = _bytes(file, max(end - 32, 0), 32)
    if foot.startswith(b"APETAGEX"):
        # Its length counts the footer, and not the header that a flag tells of.
        length, has_header = int.from_bytes(foot[12:16], "little"), foot[23] >> 7
        end = max(end - length - 32 * has_header, 0)
    return end
