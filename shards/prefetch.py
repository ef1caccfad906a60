"""One thread that works ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Callable[[], Iterator[T]], depth: int) -> Iterator[T]:
    """Run an iterator in one thread, `depth` items ahead; its exception is raised to the consumer.

    One thread and not worker processes: reading is a copy from the page cache, which releases the interpreter, and
    handing a batch to another process would copy it once more. The thread ends with the iteration, however it ends.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items():
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="shards-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
