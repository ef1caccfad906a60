"""The bytes of a shard: plain ustar members around `.npy` arrays, written and walked strictly.

The writer makes one byte sequence for one content, and the walker takes no other: no PAX headers, no links, no
sparse files, no gaps, two zero blocks at the end and nothing after them.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shards.errors import DatasetError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
MEMBER_MODE = 0o444
SUFFIXES = ("input.npy", "json", "target.npy")
"""The members of a sample, in the order in which they lie in the shard."""

_MEMBER_NAME = re.compile(r"([0-9a-f]{32})\.(input\.npy|json|target\.npy)")


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


def decode_array(payload: bytes | memoryview) -> NDArray[Any]:
    """Read a `.npy` payload. Raises `ValueError` for objects, another version, or a length that does not fit."""
    buffer = io.BytesIO(payload)
    array = np.lib.format.read_array(buffer, allow_pickle=False)
    if buffer.read(1):
        raise ValueError("bytes follow the array")
    return array


def walk(shard: bytes | memoryview) -> Iterator[Member]:
    """Walk the members of a whole shard, strictly.

    Every header must be, bit for bit, what `member_header` writes. Raises `DatasetError`, with the byte offset,
    at the first thing that is not so; the members before it have been given.
    """
    view = memoryview(shard)
    offset = 0
    while True:
        block = bytes(view[offset : offset + BLOCK])
        if len(block) < BLOCK:
            raise DatasetError(f"ends at byte {len(view)} without the end marker: it was cut")
        if not any(block):
            break
        member = _member(block, offset)
        end = member.offset + member.size
        if end + len(padding(member.size)) > len(view):
            raise DatasetError(
                f"member {member.key}.{member.suffix} at byte {offset} claims {member.size} bytes; "
                f"{len(view) - member.offset} are there: it was cut"
            )
        if any(view[end : end + len(padding(member.size))]):
            raise DatasetError(f"bytes after member {member.key}.{member.suffix} at byte {end} are not zero")
        yield member
        offset = end + len(padding(member.size))
    if bytes(view[offset:]) != END:
        raise DatasetError(f"the end marker at byte {offset} is not two zero blocks at the end of the file")


def _member(block: bytes, offset: int) -> Member:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        canonical = member_header(info.name, info.size)
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise DatasetError(f"bad tar header at byte {offset}: {error}") from None
    matched = _MEMBER_NAME.fullmatch(info.name)
    if matched is None:
        raise DatasetError(f"unexpected member {info.name!r} at byte {offset}")
    if canonical != block:
        raise DatasetError(f"tar header of {info.name} at byte {offset} is not in the plain form of the format")
    return Member(matched[1], matched[2], offset + BLOCK, info.size)
