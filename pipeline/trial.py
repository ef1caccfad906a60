"""Files that kill their reader, found out in a child process: `python -m pipeline.trial` is that child.

A decoder may crash on a broken file and take its process along. An exception can be caught; this can't. Where an
attempt at a shard died, its sources are therefore read in a child first. Which file it died on is known, so no other
file is blamed, and a process that was killed from outside blames none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shards.audio import AudioError
from shards.errors import CascadenceError

TRIES = 3
"""How often a file must kill its reader to be refused: memory may be short for a moment."""


def find_killers(paths: Sequence[str], root: str) -> dict[str, AudioError]:
    """Read the files, given relative to `root`, in a child process; returns the refusals of those that kill it."""
    deaths: Counter[str] = Counter()
    killers: dict[str, AudioError] = {}
    left = list(paths)
    while left:
        survived, code = _read_in_child([str(Path(root, path)) for path in left])
        left = left[survived:]
        if not left:
            break
        if code >= 0:
            raise CascadenceError(f"{Path(root, left[0])}: a process to try it in ended with {code}; run it again")
        culprit = left[0]
        deaths[culprit] += 1
        if deaths[culprit] == TRIES:
            detail = f"killed its reader {TRIES} times ({signal.Signals(-code).name})"
            killers[culprit] = AudioError(Path(root, culprit), "deadly", detail)
            left = left[1:]
    return killers


def _read_in_child(paths: Sequence[str]) -> tuple[int, int]:
    """Let a child read the files one after another; returns how many it survived, and its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.trial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    marks, _ = child.communicate("\0".join(paths).encode("utf-8", "surrogateescape"))
    return marks.count(b"."), child.returncode


def _read_all() -> None:
    from pipeline.audio import ScreeningConfig, load_track

    for path in sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\0"):
        with suppress(AudioError, OSError):  # refused in words, which is no death
            load_track(Path(path), 24_000, ScreeningConfig())
        os.write(1, b".")


if __name__ == "__main__":
    _read_all()
