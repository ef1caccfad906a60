"""`health`: whether a training is well, running, ended or crashed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from shards import console
from shards.console import Json

if TYPE_CHECKING:
    from training.health import Finding

COLOURS = {"green": "green", "red": "bold red", "unknown": "dim"}


def health(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The --run-dir of a training.")],
    json: Json = False,
) -> None:
    """Judge a training by what it has logged so far; exits with 1 where a rule is red."""
    from training.health import examine, read_run, report

    history = read_run(run_dir)
    findings = examine(history)
    found = report(findings, history)
    if json:
        console.print_json(found)
    else:
        title = f"{run_dir}: epoch {history.epoch}, step {history.step}"
        console.table(("rule", "", "found", "red when", "what helps"), [_row(one) for one in findings], title)
    if found["red"]:
        raise typer.Exit(1)


def _row(finding: Finding) -> tuple[object, ...]:
    colour = COLOURS[finding.verdict]
    mend = finding.mend if finding.verdict == "red" else ""
    return finding.rule, Text(finding.verdict, colour), finding.value, finding.red_when, mend
