"""One pass over a shard: its samples, and of each payload its CRC-32 and whether its values can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.errors import DatasetError
from shards.latents import all_finite
from shards.schema import CODEBOOK_SIZE
from shards.tape import Excerpts, Tape
from shards.wire import HEAD_BYTES, ArrayLayout, Member, array_layout, samples, walk


class Payload(NamedTuple):
    """A member of a shard as a scan met it.

    `head` is the beginning of its payload, of a record all of it. `crc32` is that of the whole payload, and `flaw` says
    which values of an array can't be; both are None where the scan looked at headers and records alone. `array` is
    what the header of an array says, or why it can't be read.
    """

    key: str
    suffix: str
    offset: int
    size: int
    head: bytes
    array: ArrayLayout | str | None
    crc32: int | None = None
    flaw: str | None = None


class Scan:
    """Reads a shard once, in order; `whole` looks at every payload, `hashed` also hashes the file."""

    def __init__(self, file: IO[bytes], *, whole: bool, hashed: bool = False) -> None:
        self._file = file
        self._excerpts = Excerpts(file)
        self._tape = Tape(file, hashed=hashed) if whole else None

    def samples(self) -> Iterator[tuple[Payload, ...]]:
        """Give the samples, whole or not. Raises `DatasetError`, with the byte offset, where the shard is damaged."""
        return samples(map(self._glance, walk(self._excerpts)) if self._tape is None else self._look(self._tape))

    def sha256(self) -> str:
        """Read what the samples left, and give the SHA-256 of the file in hex."""
        assert self._tape is not None, "the scan was made to read all"
        return self._tape.sha256()

    def read(self, payload: Payload) -> bytes:
        """Read a payload once more, whole. Raises `DatasetError` where it is not all there any more."""
        content = self._excerpts[payload.offset : payload.offset + payload.size]
        if len(content) != payload.size:
            raise DatasetError(f"ends at byte {payload.offset + len(content)}: it was cut while it was read")
        return content

    def _glance(self, member: Member) -> Payload:
        key, suffix, start, size = member
        head = self._excerpts[start : start + (size if suffix == "json" else min(size, HEAD_BYTES))]
        return Payload(key, suffix, start, size, head, _layout(head, suffix, size))

    @staticmethod
    def _look(tape: Tape) -> Iterator[Payload]:
        for key, suffix, start, size in walk(tape):
            end = start + size
            if suffix == "json":
                content = b"".join(map(bytes, tape.pieces(start, end)))
                yield Payload(key, suffix, start, size, content, None, crc32(content))
                continue
            head = bytes(tape[start : min(start + HEAD_BYTES, end)])
            array = _layout(head, suffix, size)
            checksum, flaw, skipped = 0, None, array.offset if isinstance(array, ArrayLayout) else 0
            for piece in tape.pieces(start, end):
                checksum = crc32(piece, checksum)
                if isinstance(array, ArrayLayout) and flaw is None:
                    flaw = _flaw(np.frombuffer(piece, array.dtype, offset=skipped))
                skipped = 0
            yield Payload(key, suffix, start, size, head, array, checksum, flaw)


def _layout(head: bytes, suffix: str, size: int) -> ArrayLayout | str | None:
    if not suffix.endswith(".npy"):
        return None
    try:
        return array_layout(head, size)
    except ValueError as error:
        return str(error)


def _flaw(values: NDArray[Any]) -> str | None:
    """Say what is wrong with some values of an array: latents are finite, codes name an entry of a codebook."""
    if values.dtype.kind == "f":
        return None if all_finite(values) else "holds values that are not finite"
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < CODEBOOK_SIZE:
        return f"holds codes outside [0, {CODEBOOK_SIZE})"
    return None
