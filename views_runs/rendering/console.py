"""The two streams of a command: data goes to stdout, messages and progress to stderr.

All text of a command leaves through this module, which escapes what would move the cursor or change the terminal. Views
also escape the texts whose width they measure, or in which a line break must not begin another line.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

import click

from views_runs.exceptions import StorageError
from views_runs.metadata import KNOWN_FIELDS, MONTH, month_name, to_jsonable
from views_runs.texts import printable, printable_lines

# rich.console takes as long to import as all else that `list` needs besides click: only views that use it import it.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType

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


def write(text: str, err: bool = False, **style: Any) -> None:
    """Write text and a line break at once, with escapes for control characters."""
    _echo(click.style(printable_lines(text), **style) if style else printable_lines(text), err)


def _echo(text: str, err: bool = False) -> None:
    """Write text as it is; styles show only on a terminal that has them."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    try:
        click.echo(text, file=stream(err), color=False if is_plain else None)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"the output cannot be written: {error.strerror}") from error


def draw(drawing: "RenderableType", err: bool = False, wrap: bool = True) -> None:
    """Print what rich renders, without the spaces that it puts after each line, and with escapes in its text."""
    from rich.segment import Segment, Segments

    console = page(err, wrap)
    pieces = [Segment(printable_lines(text), style) for text, style, _ in console.render(drawing)]
    with console.capture() as captured:
        console.print(Segments(pieces), crop=False)
    _echo("\n".join(line.rstrip() for line in captured.get().splitlines()), err)


def show_lines(lines: Iterable[str]) -> None:
    """Print texts, one per line."""
    if text := "\n".join(lines):
        write(text)


def show_names(names: Iterable[str]) -> None:
    """Print names that models can have: in a pipe as they are, for another command to find."""
    if stream().isatty():
        show_lines(map(printable, names))
    elif text := "\n".join(names):
        _echo(text)


def show_pages(text: str) -> None:
    """Print a long text, on a terminal through a pager."""
    if stream().isatty():
        click.echo_via_pager(printable_lines(text))
    else:
        write(text.rstrip("\n"))


def show_message(message: str) -> None:
    """Print a message for people."""
    write(message, err=True)


def show_error(message: str) -> None:
    """Print what went wrong."""
    _echo(click.style("Error: ", fg="red", bold=True) + printable_lines(message), err=True)


def confirm(question: str) -> None:
    """Ask a question, and abort the command unless the answer is yes."""
    if sys.stdin is None:
        # The shell closed it, as with <&-.
        raise StorageError("there is no input to read the answer from", "Give --yes if the answer is yes")
    click.confirm(printable_lines(question), abort=True, err=True)


@contextmanager
def progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; yield a function that takes the bytes done and the total."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = page(err=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        number = shown.add_task(task, total=None)
        yield lambda done, total: shown.update(number, completed=done, total=total)


@contextmanager
def late_progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """Like `progress`, but import and show nothing before there is something to report."""
    with ExitStack() as stack:
        report: Callable[[int, int], None] | None = None

        def start(done: int, total: int) -> None:
            nonlocal report
            report = report or stack.enter_context(progress(task))
            report(done, total)

        yield start


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
