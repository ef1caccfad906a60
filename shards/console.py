"""The manners of every command line here: errors in one line, exit codes 0, 1 and 2, `--json`, progress."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shards.errors import CascadenceError, Interrupted, printable

# In a pipe or a log there is no width to fit into, and a cut key is no key.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]
SetOptions = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set one configuration key; repeatable.")
]


def make_app(description: str) -> typer.Typer:
    """Make a command-line application with this project's manners."""
    return typer.Typer(
        help=description + "\n\nAdd --debug to see the traceback of an error.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def run(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> None:
    """Run an application and exit: 0 done, 1 problems found or the work failed, 2 misused, 130 stopped by Ctrl-C.

    An error that a person can mend becomes one line on stderr; `--debug`, anywhere, shows its traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        app(args=[a for a in given if a != "--debug"], prog_name=program)
    except Interrupted as stop:
        err.print(escape(str(stop)), soft_wrap=True)
        raise SystemExit(stop.exit_code) from None
    except CascadenceError as error:
        _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:  # whoever reads has seen enough, as in `| head`
        out.on_broken_pipe()
    except OSError as error:
        place = error.filename2 or error.filename  # of a rename: not the temporary name
        name = f"{place}: " if place else ""
        mend = "; make room, and run the same command again" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        _fail(f"{name}{error.strerror or error}{mend}", 1, debug)


def _fail(message: str, exit_code: int, debug: bool) -> None:
    if debug:
        err.print_exception()
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise SystemExit(exit_code)


def escape(text: str) -> str:
    """Keep brackets in file names and the like from being read as markup, and control characters from working."""
    return printable(text).replace("[", r"\[")


def print_json(content: Any) -> None:
    """Print a document for programs."""
    sys.stdout.write(json.dumps(content, indent=2, sort_keys=True) + "\n")
    sys.stdout.flush()  # here, where a reader that has gone is noticed


def facts(title: str, rows: Sequence[tuple[str, object]]) -> None:
    """Print names and values under a title."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(str(value)))
    out.print(table)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print rows under headings; a cell that is a `Text` keeps its style and its lines."""
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="cyan", box=None)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else escape(str(cell)) for cell in row))
    out.print(grid)


class _Note(ProgressColumn):
    """The task's `note`, where it has one."""

    def render(self, task: Task) -> Text:
        """Show it as it is, without markup."""
        return Text(str(task.fields.get("note", "")))


def progress(unit: str) -> Progress:
    """Make a progress bar on stderr that counts in `unit`; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),  # leaves the note room: on 80 columns it takes two lines at most
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        _Note(),
        console=err,
        disable=not err.is_terminal,
    )
