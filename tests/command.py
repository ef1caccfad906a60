"""`python -m shards`, `python -m pipeline` and `python -m training`, run inside the test's process."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import typer

from pipeline.cli.app import app as pipeline_app
from shards.cli.app import app
from shards.console import run
from training.cli.app import app as training_app

# Made once: making them takes longer than most verbs.
COMMAND: Any = typer.main.get_command(app)
PIPELINE: Any = typer.main.get_command(pipeline_app)
TRAINING: Any = typer.main.get_command(training_app)


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
    """Run a verb of `shards`; gives its exit code and, without colours, what it printed."""
    return _run(COMMAND, "shards", arguments)


def run_pipeline(*arguments: object) -> Outcome:
    """Run a command of `pipeline` likewise."""
    return _run(PIPELINE, "python -m pipeline", arguments)


def run_training(*arguments: object) -> Outcome:
    """Run a command of `training` likewise."""
    return _run(TRAINING, "python -m training", arguments)


def _run(command: Any, program: str, arguments: tuple[object, ...]) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(command, program, [str(argument) for argument in arguments])
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
