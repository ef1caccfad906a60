"""`python -m shards`, run inside the test's process."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import typer

from shards.cli.app import app
from shards.console import run

COMMAND: Any = typer.main.get_command(app)  # made once: making it takes longer than most verbs


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_shards(*arguments: object) -> Outcome:
    """Run a verb; gives its exit code and, without colours, what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(COMMAND, "shards", [str(argument) for argument in arguments])
        except SystemExit as exited:
            code = exited.code
    assert isinstance(code, int)
    return Outcome(code, *(re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue()) for text in (out, err)))


def assert_one_line(outcome: Outcome, code: int, *parts: str) -> None:
    """Assert that a verb said one line of error, with all parts in it, and nothing else."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for part in parts:
        assert part in outcome.err
