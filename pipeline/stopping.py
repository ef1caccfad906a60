"""How a person, or a scheduler, stops a job: the first signal lets the running shards finish, the second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self.signal: int | None = None
        self._on_request = on_request
        self._listening = False

    @property
    def exit_code(self) -> int:
        """What a process that was stopped so exits with: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over for a while; outside the main thread, where Python gives none, nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._listening = True
        self.listen()
        try:
            yield
        finally:
            self._listening = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals once more, from a library that took them for itself meanwhile, as `ray.init` does."""
        if self._listening:
            for number in SIGNALS:
                signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._on_request()
