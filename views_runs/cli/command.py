"""What all verbs share: ``--store`` and ``--json``, how a result is shown, and how a command exits."""

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the line names; for a verb without its group, say which group."""
        for name, group in self.commands.items():
            if args[0] not in self.commands and isinstance(group, click.Group) and group.get_command(ctx, args[0]):
                ctx.fail(f"No such command {args[0]!r}. Did you mean '{ctx.command_path} {name} {args[0]}'?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (StorageError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                # The reader closed the pipe; click exits quietly.
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
    """A group of verbs; the module of a verb is imported when the verb is used.

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
        """Import the module of a verb and return the verb."""
        for family, names in self.families.items():
            if cmd_name in names:
                found = vars(import_module(f"views_runs.cli.{family}")).values()
                return next(one for one in found if isinstance(one, click.Command) and one.name == cmd_name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the line names; for a misspelt one, suggest similar ones."""
        if not args[0].startswith("-") and not self.get_command(ctx, args[0]):
            from difflib import get_close_matches

            close = " or ".join(map(repr, get_close_matches(args[0], self.list_commands(ctx))))
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs in the help, by family."""
        widest = max(map(len, self.list_commands(ctx)))
        for family, names in self.families.items():
            commands = [(name.ljust(widest), self.get_command(ctx, name)) for name in names]
            with formatter.section(family.capitalize()):
                formatter.write_dl([(name, command.get_short_help_str(100)) for name, command in commands if command])


def verb(
    name: str | None = None,
    *,
    opens: bool = True,
    extra: bool = False,
    fails: Callable[[Any], object] = lambda value: False,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Turn a function that takes a store and the command's arguments into a command.

    The function's result is printed, as text or as JSON, unless it is None.

    Args:
        name: of the verb; by default, the function's name.
        opens: pass the store to the function.
        extra: leave arguments that are too many in the context, for the function to explain.
        fails: tells from the result whether the command exits with 1; it also does if the result has `unreadable` rows.
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

        return shared_options(click.command(name, context_settings={"allow_extra_args": extra})(run))

    return decorate


def open_store() -> "Storage":
    """Return the store that the command line names."""
    # Imported lazily to keep --help fast.
    from views_runs.storage import Storage

    # The library treats a missing file as an empty store; on the command line, the path is more likely a mistake.
    return Storage(given_store(), must_exist=True)


def show(value: Any, unreadable: "list[Damage]") -> None:
    """Print the result of a verb, and report the rows that could not be read."""
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
    """Add the options that can stand anywhere on the line: ``--store`` and ``--json``."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        # All contexts share `meta`, so it does not matter which command parsed the option.
        if value not in (None, False):
            ctx.meta[f"views_runs.{parameter.name}"] = value

    store = "The store file. Default: $VIEWS_RUNS_STORE or, if not set, models.db in your data folder."
    json = "Print JSON instead of text."
    command.params += [
        click.Option(["--store"], metavar="PATH", expose_value=False, callback=remember, help=store),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=remember, help=json),
    ]
    return command


@contextmanager
def session() -> Iterator[None]:
    """Show what the library logs, and let SIGTERM end a command as Ctrl-C does, removing unfinished files."""
    import logging

    from views_runs.rendering import console

    log, handler = logging.getLogger("views_runs"), logging.Handler()
    handler.emit = lambda record: console.show_message(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    # Only the main thread can handle signals. Keep a handler that somebody else installed.
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
    """Name the user's operation in errors of a lookup that the verb does first."""
    try:
        yield
    except StorageError as error:
        error.operation = error.operation and operation
        raise
