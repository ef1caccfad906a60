"""A process that has imported the pipeline and forks a copy of itself for each command: starts in milliseconds.

It is the real command line in a real process of its own, which a test may kill; only the imports are shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class Preloaded:
    """Starts commands of `python -m pipeline` in processes of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, arguments: Sequence[object], log: Path) -> int:
        """Start a command, its output in `log`; gives its process id."""
        return self._ask({"arguments": [str(argument) for argument in arguments], "log": str(log)})

    def wait(self, pid: int) -> int:
        """Wait for a command to end; gives its exit code, or the negative number of the signal that ended it."""
        return self._ask({"wait": pid})

    def run(self, arguments: Sequence[object], log: Path) -> int:
        """Run a command to its end; gives its exit code."""
        return self.wait(self.start(arguments, log))

    def _ask(self, request: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def preloaded() -> Iterator[Preloaded]:
    """Run such a process; it ends with the context."""
    command = [sys.executable, str(Path(__file__).resolve())]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
    ) as process:
        assert process.stdin is not None
        yield Preloaded(process)
        process.stdin.close()


def _serve() -> None:
    import pipeline.job  # noqa: F401 - everything that a command needs
    import shards.codec.mdct  # noqa: F401
    from pipeline.cli.app import app
    from shards import console

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setpgid(0, 0)
            code: object = 70
            try:
                console.run(app, "python -m pipeline", request["arguments"])
            except SystemExit as exited:
                code = exited.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 0 if code is None else 70)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
