"""The bytes of a shard: plain ustar members around `.npy` arrays, written and walked strictly.

The writer makes one byte sequence for one content, and the walker takes no other: no PAX headers, no links, no
sparse files, no gaps, two zero blocks at the end and nothing after them.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shards.errors import DatasetError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
_ZEROS = bytes(BLOCK)
MEMBER_MODE = 0o444
SUFFIXES = ("input.npy", "json", "target.npy")
"""The members of every sample, in the order in which they lie in the shard."""

MEMBERS = ("input.flac", "input.npy", "json", "target.flac", "target.npy")
"""All members that a sample may have, in that order."""

HEAD_BYTES = 256
"""More than the header of any `.npy` payload of the format."""

RECORD_LIMIT = 2**20
ARRAY_LIMIT = 2**30
"""A record or an array of more bytes is refused before it is read: a hole in a file costs whoever made it nothing."""

MOST_DIMENSIONS = 8
KEY_LENGTH = 32
_KEY = re.compile(rb"[0-9a-f]{32}")

_MEMBER_NAME = re.compile(r"([0-9a-f]{32})\.((?:input|target)\.(?:npy|flac)|json)")
_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<[fiu][248])', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)


class Member(NamedTuple):
    """A member of a shard: its sample's key, its suffix, and where its payload lies."""

    key: str
    suffix: str
    offset: int
    size: int


def member_header(name: str, size: int) -> bytes:
    """Make the ustar header block of a regular file, without time, owner or host."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = MEMBER_MODE
    info.mtime = 0  # an int: a float would add a PAX header to every member
    return info.tobuf(tarfile.USTAR_FORMAT)


def size_limit(member: str) -> int:
    """Bytes that a member, named by its suffix, may have at most."""
    return RECORD_LIMIT if member == "json" else ARRAY_LIMIT


def padding(size: int) -> bytes:
    """Zeros that fill a payload up to whole blocks."""
    return bytes(-size % BLOCK)


def encode_array(array: NDArray[Any]) -> bytes:
    """Serialise an array as `.npy` version 1, little-endian, C order."""
    buffer = io.BytesIO()
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    np.lib.format.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@lru_cache(maxsize=16)
def array_header(dtype: DTypeLike, shape: tuple[int, ...]) -> bytes:
    """Make the header that every `.npy` payload of this dtype and shape starts with, byte for byte."""
    empty: NDArray[Any] = np.lib.stride_tricks.as_strided(
        np.empty((), dtype), shape, tuple(0 for _ in shape), writeable=False
    )
    buffer = io.BytesIO()
    content = np.lib.format.header_data_from_array_1_0(empty)
    content["fortran_order"] = False
    np.lib.format.write_array_header_1_0(buffer, content)
    return buffer.getvalue()


class ArrayLayout(NamedTuple):
    """What the header of a `.npy` payload says, and where the values begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def array_layout(head: bytes | memoryview, size: int) -> ArrayLayout:
    """Read the header of a `.npy` payload of `size` bytes from its first `HEAD_BYTES`.

    Raises `ValueError` unless it is in the form that `encode_array` writes and asks for exactly `size` bytes. No
    other form is parsed, so nothing that a header holds is ever evaluated.
    """
    return _layout(bytes(head[: 10 + int.from_bytes(head[8:10], "little")]), size)


@lru_cache(maxsize=64)
def _layout(header: bytes, size: int) -> ArrayLayout:
    matched = _ARRAY_HEADER.fullmatch(header)
    if matched is None or len(header) % 64:
        raise ValueError("its header is not in the plain .npy form of the format")
    shape = tuple(int(length) for length in matched[2].split(b",") if length.strip())
    if len(shape) > MOST_DIMENSIONS or math.prod(max(length, 1) for length in shape) > ARRAY_LIMIT:
        raise ValueError("its shape is none that an array of the format has")
    dtype = np.dtype(matched[1].decode())
    asked = len(header) + dtype.itemsize * math.prod(shape)
    if asked != size:
        raise ValueError(f"it has {size} bytes, its header asks for {asked}")
    return ArrayLayout(dtype, shape, len(header))


def decode_array(payload: bytes | memoryview) -> NDArray[Any]:
    """Read a `.npy` payload, without a copy. Raises `ValueError` as `array_layout` does."""
    dtype, shape, offset = array_layout(payload[:HEAD_BYTES], len(payload))
    return np.frombuffer(payload, dtype, offset=offset).reshape(shape)


class Named(Protocol):
    """A member, or what is known of one."""

    @property
    def key(self) -> str:
        """The key of its sample."""

    @property
    def suffix(self) -> str:
        """What comes after the key."""


Part = TypeVar("Part", bound=Named)


def samples(members: Iterable[Part]) -> Iterator[tuple[Part, ...]]:
    """Gather a walk's members into samples, whole or not.

    A sample ends with its last suffix, where another key follows, or where the order of the suffixes begins anew. A
    sample that the walk's error cuts short is given before the error is raised.
    """
    gathered: list[Part] = []
    try:
        for member in members:
            last = gathered[-1] if gathered else None
            if last and (last.key != member.key or MEMBERS.index(last.suffix) >= MEMBERS.index(member.suffix)):
                yield tuple(gathered)
                gathered = []
            gathered.append(member)
            if member.suffix == MEMBERS[-1]:
                yield tuple(gathered)
                gathered = []
    except DatasetError:
        if gathered:
            yield tuple(gathered)
        raise
    if gathered:
        yield tuple(gathered)


def layout(audio: Collection[str]) -> tuple[str, ...]:
    """Suffixes of a sample with FLAC of these sides, in the order in which they lie in the shard."""
    return tuple(suffix for suffix in MEMBERS if suffix in SUFFIXES or suffix.removesuffix(".flac") in audio)


def held_audio(sample: Sequence[Named]) -> tuple[str, ...]:
    """Sides of which a sample holds FLAC."""
    return tuple(member.suffix.removesuffix(".flac") for member in sample if member.suffix.endswith(".flac"))


def is_whole(sample: Sequence[Named], audio: Collection[str] | None = None) -> bool:
    """Whether a sample of `samples` has all its members: with FLAC of the sides `audio`, or, for None, of any."""
    held = held_audio(sample) if audio is None else audio
    return tuple(member.suffix for member in sample) == layout(held)


class Sliced(Protocol):
    """Bytes that lie in memory, or pass as a `shards.tape.Tape`."""

    def __len__(self) -> int:
        """Count the bytes."""

    def __getitem__(self, part: slice, /) -> bytes | memoryview:
        """Give some of them."""


def walk(shard: Sliced) -> Iterator[Member]:
    """Walk the members of a whole shard, strictly, in one pass.

    Every header must be, bit for bit, what `member_header` writes. Raises `DatasetError`, with the byte offset,
    at the first thing that is not so; the members before it have been given.
    """
    offset = 0
    while True:
        block = bytes(shard[offset : offset + BLOCK])
        if len(block) < BLOCK:
            raise DatasetError(f"ends at byte {len(shard)} without the end marker: it was cut")
        if block == _ZEROS:
            break
        member = _plain_member(block, offset) or _member(block, offset)
        end = member.offset + member.size
        filled = end + -member.size % BLOCK
        if filled > len(shard):
            raise DatasetError(
                f"member {member.key}.{member.suffix} at byte {offset} claims {member.size} bytes; "
                f"{len(shard) - member.offset} are there: it was cut"
            )
        yield member
        if bytes(shard[end:filled]) != _ZEROS[: filled - end]:
            raise DatasetError(f"bytes after member {member.key}.{member.suffix} at byte {end} are not zero")
        offset = filled
    if len(shard) - offset != len(END) or bytes(shard[offset:]) != END:
        raise DatasetError(f"the end marker at byte {offset} is not two zero blocks at the end of the file")


class _Plain(NamedTuple):
    """What the headers of one suffix and size have in common: all but the key, and the checksum, which it changes."""

    suffix: str
    size: int
    sum: int
    tail: bytes


@lru_cache(maxsize=4096)
def _plain(middle: bytes) -> _Plain | None:
    """Read a header from what stands between its key and its checksum; None where `member_header` writes no such."""
    suffix, digits = middle[1 : 100 - KEY_LENGTH].rstrip(b"\0").decode("ascii", "replace"), middle[92:103]
    if suffix not in MEMBERS or not re.fullmatch(rb"[0-7]{11}", digits) or int(digits, 8) > size_limit(suffix):
        return None
    header = member_header(f"{'0' * KEY_LENGTH}.{suffix}", int(digits, 8))
    if header[KEY_LENGTH:148] != middle:
        return None
    return _Plain(suffix, int(digits, 8), int(header[148:154], 8) - KEY_LENGTH * ord("0"), header[156:])


def _plain_member(block: bytes, offset: int) -> Member | None:
    """Recognise a header that is what `member_header` writes; None for any other, which `_member` looks at closely."""
    key, plain = block[:KEY_LENGTH], _plain(block[KEY_LENGTH:148])
    if plain is None or not _KEY.fullmatch(key) or block[148:] != b"%06o\0 " % (plain.sum + sum(key)) + plain.tail:
        return None
    return Member(key.decode(), plain.suffix, offset + BLOCK, plain.size)


def _member(block: bytes, offset: int) -> Member:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        canonical = member_header(info.name, info.size)
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise DatasetError(f"bad tar header at byte {offset}: {error}") from None
    matched = _MEMBER_NAME.fullmatch(info.name)
    if matched is None:
        raise DatasetError(f"unexpected member {info.name!r} at byte {offset}")
    if info.size > size_limit(matched[2]):
        raise DatasetError(f"member {info.name} at byte {offset} claims {info.size} bytes, more than any has")
    if canonical != block:
        raise DatasetError(f"tar header of {info.name} at byte {offset} is not in the plain form of the format")
    return Member(matched[1], matched[2], offset + BLOCK, info.size)
