"""How a training is stopped: a signal leaves a note in the run directory, which rank 0 reads between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from shards.files import write_bytes

STOP = "STOP"
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


class StopNote:
    """The file RUN_DIR/STOP: whoever may write there can ask for a stop, from any machine; it holds an exit code.

    A note, and not a signal, because signals never reach the function that Ray Train runs in its workers.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / STOP

    def write(self, exit_code: int) -> None:
        """Ask for a stop."""
        write_bytes(self._path, b"%d\n" % exit_code)

    def read(self) -> int:
        """Give the exit code of a stop that is asked for, 0 where none is; an empty note stands for SIGTERM."""
        try:
            text = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else EXIT_CODES[signal.SIGTERM]

    def clear(self) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def on_signals(self, *, impatient: bool = True) -> Iterator[None]:
        """Write the note on the first SIGINT, SIGTERM or SIGUSR1; where `impatient`, a SIGINT after it stops at once.

        That is a `KeyboardInterrupt`. Outside the main thread, where Python gives none, nothing happens.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        asked = False

        def heard(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
            nonlocal asked
            if asked:  # by a signal, perhaps one whose note is being written: SLURM and its script both send SIGTERM
                if impatient and number == signal.SIGINT:
                    raise KeyboardInterrupt
                return
            asked = True
            self.write(EXIT_CODES[signal.Signals(number)])

        before = {number: signal.signal(number, heard) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
