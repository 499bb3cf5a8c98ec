"""What all verbs share: the store, ``--store`` and ``--json``, how a value is shown, and how a command ends."""

import errno
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from views_runs.exceptions import StorageError

if TYPE_CHECKING:
    from views_runs.records import Damage
    from views_runs.storage import Storage

C = TypeVar("C", bound=click.Command)


class Main(click.Group):
    """The whole command line, and the one place where an error becomes a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (StorageError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                # Whoever read the output has enough; click ends quietly.
                raise
            from views_runs.rendering import console

            console.show_error(str(error))
            ctx.exit(1)
        except (KeyboardInterrupt, click.Abort) as error:
            # A prompt turns Ctrl-C into the same exception as the answer no.
            if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            click.echo("\nAborted!", err=True)
            ctx.exit(130)


class Verbs(click.Group):
    """A group of verbs whose modules are imported when they are needed.

    Args:
        families: the names of the verbs, by module of this package.
    """

    def __init__(self, *args: Any, families: Mapping[str, tuple[str, ...]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.families = families

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return [name for names in self.families.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that a verb is in, and return the verb."""
        for family, names in self.families.items():
            if cmd_name in names:
                found = vars(import_module(f"views_runs.cli.{family}")).values()
                return next(one for one in found if isinstance(one, click.Command) and one.name == cmd_name)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into the help, by family."""
        widest = max(map(len, self.list_commands(ctx)))
        for family, names in self.families.items():
            commands = [(name.ljust(widest), self.get_command(ctx, name)) for name in names]
            with formatter.section(family.capitalize()):
                formatter.write_dl([(name, command.get_short_help_str(100)) for name, command in commands if command])


def verb(
    name: str | None = None,
    *,
    opens: bool = True,
    fails: Callable[[Any], object] = lambda value: False,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function that takes a store and the arguments of the line.

    What the function returns is printed, as its view or as JSON; None is not.

    Args:
        name: of the verb; without it, that of the function.
        opens: pass the store to the function.
        fails: whether the value says that something failed; then the command exits with 1, as it does for `unreadable`.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            with session():
                value = function(open_store(), **arguments) if opens else function(**arguments)
                unreadable = getattr(value, "unreadable", [])
                show(value, unreadable)
            if unreadable or fails(value):
                click.get_current_context().exit(1)

        return shared_options(click.command(name)(run))

    return decorate


def open_store() -> "Storage":
    """Return the store that the line names; --help comes without it."""
    from views_runs.storage import Storage

    # The library takes a missing file for an empty store; a path on the line is more often a mistake.
    return Storage(given_store(), must_exist=True)


def show(value: Any, unreadable: "list[Damage]") -> None:
    """Print what a verb returned, and name the rows that it could not read."""
    from views_runs.rendering import console, views

    for row in unreadable:
        console.show_error(f"cannot read {console.printable(row.name)}:{row.version}: {row.trouble}")
    if value is None:
        return
    if click.get_current_context().meta.get("views_runs.json"):
        console.show_json(views.as_json(value))
    else:
        views.show(value)


def given_store() -> str | None:
    """Return the path that was given with ``--store``."""
    return click.get_current_context().meta.get("views_runs.store")


def shared_options(command: C) -> C:
    """Add the options that are taken anywhere on the line: ``--store`` and ``--json``."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        # All contexts of a line share `meta`, so it does not matter which command took the option.
        if value not in (None, False):
            ctx.meta[f"views_runs.{parameter.name}"] = value

    store = "The store file. Default: $VIEWS_RUNS_STORE, or models.db in your data folder."
    json = "Print JSON instead of text."
    command.params += [
        click.Option(["--store"], metavar="PATH", expose_value=False, callback=remember, help=store),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=remember, help=json),
    ]
    return command


@contextmanager
def session() -> Iterator[None]:
    """Show what the library logs, and let SIGTERM end a command as Ctrl-C does: it removes what it has half written."""
    import logging

    from views_runs.rendering import console

    log, handler = logging.getLogger("views_runs"), logging.Handler()
    handler.emit = lambda record: console.show_message(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    # Only the main thread can handle a signal; a handler of somebody else's stays.
    is_main = threading.current_thread() is threading.main_thread()
    handles = is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    if handles:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def restate(operation: str) -> Iterator[None]:
    """Let an error say what the user asked for, where a verb looks something up before it does that."""
    try:
        yield
    except StorageError as error:
        error.operation = error.operation and operation
        raise
