"""The two streams of a command: data goes to stdout, messages and progress to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

import click

from views_runs.metadata import KNOWN_FIELDS, MONTH, month_name, to_jsonable

# rich.console takes as long to import as all else that `list` needs besides click: only views that use it import it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: The width of a page when the output is not a terminal.
PAGE_WIDTH = 100

#: The width of output whose lines must not be wrapped.
UNLIMITED = 100_000


def stream(err: bool = False) -> TextIO:
    """Return stdout, or stderr."""
    found = sys.stderr if err else sys.stdout
    if found is None:
        # The shell closed the stream, as with >&-.
        return StringIO()
    if isinstance(found, TextIOWrapper):
        # Characters that the encoding lacks are shown as escapes.
        found.reconfigure(errors="backslashreplace")
    return found


def page(err: bool = False, wrap: bool = True) -> "Console":
    """Return a rich console for a stream; without `wrap`, lines are folded at the width of a terminal only."""
    from rich.console import Console

    file = stream(err)
    columns = None if file.isatty() else PAGE_WIDTH if wrap else UNLIMITED
    # Without `file`, rich assumes UTF-8 and draws lines that other encodings turn into escapes. Text is never markup.
    return Console(file=file, width=columns, highlight=False, emoji=False, markup=False)


def write(text: str, err: bool = False) -> None:
    """Write text and a line break at once; styles show only on a terminal that has them."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    click.echo(text, file=stream(err), color=False if is_plain else None)


def show_grid(grid: "Table", err: bool = False) -> None:
    """Print a table without the spaces that rich puts after each line."""
    console = page(err, wrap=False)
    with console.capture() as captured:
        console.print(grid)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()), err)


def show_lines(lines: Iterable[str]) -> None:
    """Print texts, one per line."""
    if text := "\n".join(lines):
        write(text)


def show_message(message: str) -> None:
    """Print a message for people."""
    write(printable_lines(message.split("\n")), err=True)


def show_error(message: str) -> None:
    """Print what went wrong."""
    write(click.style("Error: ", fg="red", bold=True) + printable_lines(message.split("\n")), err=True)


@contextmanager
def progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; yield a function that takes the bytes done and the total."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = page(err=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        number = shown.add_task(task, total=None)
        yield lambda done, total: shown.update(number, completed=done, total=total)


def local_time(moment: datetime) -> str:
    """Return a time in local time, with its offset from UTC."""
    return moment.astimezone().isoformat(" ", "minutes")


def text(field: str, value: Any) -> str:
    """Return the value of a metadata field for people to read.

    >>> text("train_end", 480), text("tuned", True), text("steps", [1, 2])
    ('480 (Dec 2019)', 'true', '[1, 2]')
    """
    if value is None:
        return ""
    is_month = field in KNOWN_FIELDS and KNOWN_FIELDS[field].kind == MONTH
    if is_month and type(value) is int and value > 0:
        return f"{value} ({month_name(value)})"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return printable(json.dumps(to_jsonable(value), ensure_ascii=False).strip('"'))


def printable(value: str) -> str:
    """Return text with escapes for characters that would move the cursor or change the terminal.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)


def printable_lines(lines: Iterable[str]) -> str:
    """Return texts as lines, each made `printable`."""
    return "\n".join(map(printable, lines))
