"""Memory that a process keeps instead of handing it back to the system for a moment."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
NEVER = 2**31 - 1
GROWTH_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Let glibc's allocator keep large blocks that are freed, and grow by 64 MB at a time; elsewhere nothing happens.

    Activations are tens of megabytes each. glibc takes every block over 32 MB fresh from the system and gives it back
    at once; fetching its pages again costs an encoder as much time as computing on them, and a training step at batch
    16 a fifth of its time. What a process holds at most grows by about a tenth.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROWTH_BYTES), (ARENA_MAX, 1)):
        library.mallopt(option, value)
