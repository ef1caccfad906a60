"""Memory that batches give back: fresh pages cost as much time as reading into them."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUFFERS = 16
"""Kept at most; a loader has about five batches of two sides on the way."""
_UNUSED = 3  # references to an array that the pool alone holds: its list, the loop's name and `getrefcount`'s argument


class BufferPool:
    """Hands out arrays, and hands one out again once nothing else refers to its memory.

    A tensor made from such an array refers to it for as long as the tensor, or any view of it, lives.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Give an array of any content, in C order."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self._lock:
            for buffer in self._buffers:
                if len(buffer) == size and sys.getrefcount(buffer) == _UNUSED:
                    return buffer.view(dtype).reshape(shape)
            buffer = np.empty(size, np.uint8)
            if len(self._buffers) >= BUFFERS:
                self._buffers.pop(0)
            self._buffers.append(buffer)
            return buffer.view(dtype).reshape(shape)
