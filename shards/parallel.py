"""Work on many shards at once: a few threads, results in order, never many of them in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8
"""Past this many, what is read from a disk or hashed waits for the disk or the memory."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """Give `work(item)` of every item, in the items' order, computed in `threads` threads (one a core unless given).

    At most one result a thread waits while another is used. What `work` raises is raised at its place in the order;
    no item is begun after that.
    """
    count = threads or min(os.cpu_count() or 1, MOST_THREADS)
    if count == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="shards-work") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
