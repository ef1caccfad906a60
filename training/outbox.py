"""A sink for places that are slow, or away for a while: events leave from a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from training.events import Event

PERIOD, RETRY = 1.0, 30.0
"""Seconds between two looks for something to send, and after it could not be sent."""
GROUP, BACKLOG = 100, 10_000
"""Events that are sent together, and that wait at most; of more than that the oldest are dropped."""


class Outbox:
    """Passes events on to `send`, in order, in groups, and never keeps the training waiting.

    `send` raises where the other side does not take a group. Then the group is kept and tried again, so `send` may see
    an event twice; `complain` is told of the first failure, and of no other.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Event]], None],
        complain: Callable[[Event, Exception], None],
        waiting: Iterable[Event] = (),
    ) -> None:
        self._send, self._complain = send, complain
        self._waiting, self._group = deque(waiting, BACKLOG), list[Event]()
        self._complained = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def log(self, event: Event) -> None:
        """Take one event, to be sent within a second or so."""
        self._waiting.append(event)

    def close(self) -> None:
        """Try to send what is left, and wait for that."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        wait, closed = PERIOD, False
        while not closed:
            closed = self._closed.wait(wait)
            wait = PERIOD if self._send_waiting() else RETRY

    def _send_waiting(self) -> bool:
        while self._group or self._waiting:
            while self._waiting and len(self._group) < GROUP:
                self._group.append(self._waiting.popleft())
            try:
                self._send(self._group)
            except Exception as error:  # whatever the other side's libraries raise: the training goes on
                if not self._complained:
                    self._complain(self._group[-1], error)
                self._complained = True
                return False
            self._group = []
        return True
