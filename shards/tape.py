"""The bytes of a file on the disk, to be sliced as if they were in memory: here and there, or all in one pass."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from typing import IO

from shards.errors import DatasetError

CAPACITY = 704 << 10
"""Bytes that are read at once: about a sample, so that they are in a core's cache when they are looked at."""

GRAIN = 64
"""Where pieces of a payload end: between two values, and where the next read begins at an even address."""


class Excerpts:
    """A file of which little is wanted: every slice is read when it is asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file.fileno()
        self._size = os.fstat(self._file).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._file, stop - start, start)


class Tape:
    """A file that is read once, from front to back, through one buffer; `hashed` takes its SHA-256 on the way.

    Slices rise, are at most `CAPACITY` long, and valid until the next one. What it takes does not grow with the file.
    Nothing is mapped: a file that is cut while it is read raises `DatasetError` here, and would end the process there.
    """

    def __init__(self, file: IO[bytes], *, hashed: bool = False) -> None:
        self._file = file.fileno()
        self._size = os.fstat(self._file).st_size
        self._buffer = memoryview(mmap.mmap(-1, CAPACITY))  # at a page: an odd address triples the time of a read
        self._start = self._end = 0  # of what the buffer holds, in the file
        self._digest = hashlib.sha256() if hashed else None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> memoryview:
        start, stop, _ = part.indices(self._size)
        if stop > self._end:
            self._move(start, stop)
        return self._buffer[start - self._start : stop - self._start]

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Give the bytes from `start` to `stop`, each piece but the last a multiple of `GRAIN` long."""
        while start < stop:
            if self._end < min(start + GRAIN, stop):
                self._move(start, min(start + GRAIN, stop))
            end = min(self._end, stop)
            end -= (end - start) % GRAIN if end < stop else 0
            yield self._buffer[start - self._start : end - self._start]
            start = end

    def sha256(self) -> str:
        """Read what is left, and give the SHA-256 of the whole file in hex."""
        assert self._digest is not None, "the tape was made to hash"
        while self._end < self._size:
            self._move(self._end, self._end + 1)
        return self._digest.hexdigest()

    def _move(self, start: int, stop: int) -> None:
        """Fill the buffer from `start` on, at least up to `stop`."""
        kept = self._end - start
        self._buffer[:kept] = self._buffer[start - self._start : start - self._start + kept]
        self._start = start
        while self._end < stop:
            free = self._buffer[self._end - start :]
            got = os.preadv(self._file, [free], self._end)
            if not got:
                raise DatasetError(f"ends at byte {self._end}, it had {self._size} bytes: it was cut while it was read")
            if self._digest is not None:
                self._digest.update(free[:got])
            self._end += got
