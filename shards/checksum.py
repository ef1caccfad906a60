"""CRC-32, the polynomial of zip and gzip, from the library that computes it fastest. Its one door."""

from __future__ import annotations

from zlib_ng import zlib_ng


def crc32(payload: bytes | memoryview, start: int = 0) -> int:
    """CRC-32 of a payload; `start` is that of what came before it."""
    return int(zlib_ng.crc32(payload, start))
