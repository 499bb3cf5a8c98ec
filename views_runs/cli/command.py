"""The groups of verbs, and what all verbs share: ``--store`` and ``--json``, how they run, and how they exit."""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import click

import views_runs
from views_runs.exceptions import StorageError
from views_runs.texts import printable_lines


def decode(text: str) -> str:
    """Decode an argument as UTF-8 whatever the locale; not for paths, whose bytes must stay as they are."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # In an ASCII locale each byte of a character arrives as a lone surrogate.
        with suppress(UnicodeError):
            return os.fsencode(text).decode("utf-8")
    return text


def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep the value of an option that can stand anywhere on the line."""
    # All contexts share `meta`, so it does not matter which command parsed the option.
    if value not in (None, False):
        ctx.meta[f"views_runs.{parameter.name}"] = value


#: The options of the groups and of all verbs.
SHARED_OPTIONS = [
    click.Option(
        ["--store"],
        metavar="PATH",
        expose_value=False,
        callback=remember,
        help="The store file. Default: $VIEWS_RUNS_STORE or, if not set, models.db in your data folder.",
    ),
    click.Option(["--json"], is_flag=True, expose_value=False, callback=remember, help="Print JSON instead of text."),
]


class Main(click.Group):
    """The whole command line, and the one place where an error becomes a message and an exit code."""

    def main(self, *given: Any, **settings: Any) -> Any:
        """Run the line as it was typed: on Windows, click would expand a glob of models to files, and ``$X``."""
        return super().main(*given, **{"windows_expand_args": False, **settings})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a group; for a verb without its group, say which group."""
        for name, group in self.commands.items():
            if isinstance(group, Verbs) and cmd_name in group.list_commands(ctx):
                ctx.fail(f"No such command {cmd_name!r}. Did you mean '{ctx.command_path} {name} {cmd_name}'?")
        return super().get_command(ctx, cmd_name)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Parse the options of the group itself."""
        with escaped():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with escaped():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader closed the pipe; click exits quietly.
            raise
        except (StorageError, OSError) as error:
            from views_runs.rendering import console

            console.show_error(str(error))
            ctx.exit(1)
        except (KeyboardInterrupt, click.Abort) as error:
            # A prompt turns Ctrl-C into the same exception as the answer no.
            if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            from views_runs.rendering import console

            console.show_message("\nAborted!")
            ctx.exit(130)


@contextmanager
def escaped() -> Iterator[None]:
    """Escape control characters in the messages that click prints itself: they quote the line."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable_lines(error.message)  # type: ignore[misc]
        raise


class Verbs(click.Group):
    """A group of verbs, given by module of this package; a module is imported when a verb of it is used."""

    def __init__(self, name: str, families: Mapping[str, tuple[str, ...]], help: str) -> None:
        super().__init__(name, params=[*SHARED_OPTIONS], help=help)
        self.families = families

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return [name for names in self.families.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb and return the verb; for a misspelt one, suggest similar ones."""
        for family, names in self.families.items():
            if cmd_name in names:
                found = vars(import_module(f"views_runs.cli.{family}")).values()
                return next(one for one in found if isinstance(one, click.Command) and one.name == cmd_name)
        if cmd_name.startswith("-"):
            return None
        from difflib import get_close_matches

        close = " or ".join(map(repr, get_close_matches(cmd_name, self.list_commands(ctx))))
        ctx.fail(f"No such command {cmd_name!r}." + (f" Did you mean {close}?" if close else ""))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs in the help, by family."""
        widest = max(map(len, self.list_commands(ctx)))
        for family, names in self.families.items():
            commands = [(name.ljust(widest), self.get_command(ctx, name)) for name in names]
            with formatter.section(family.capitalize()):
                formatter.write_dl([(name, command.get_short_help_str(100)) for name, command in commands if command])


def verb(
    *, opens: bool = True, fails: Callable[[Any], object] = lambda value: False, **settings: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Turn a function into a command that prints the function's result, as text or as JSON, unless it is None.

    The function takes a store, and those of the command's arguments that are on the line; several values are a list.

    Args:
        opens: pass the store to the function.
        fails: tells from the result whether the command exits with 1; it also does if the result has `unreadable` rows.
        settings: of the `click.command`.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            given = {
                name: [*value] if isinstance(value, tuple) else value
                for name, value in arguments.items()
                if value not in (None, ())
            }
            context = click.get_current_context()
            with session():
                if opens:
                    # The library treats a missing file as an empty store; here, the path is more likely a mistake.
                    given["storage"] = views_runs.Storage(context.meta.get("views_runs.store"), must_exist=True)
                value = function(**given)
                if value is not None:
                    from views_runs.rendering import views

                    views.show(value, "views_runs.json" in context.meta)
            if getattr(value, "unreadable", ()) or fails(value):
                context.exit(1)

        command: click.Command = click.command(**settings)(run)
        command.params += SHARED_OPTIONS
        return command

    return decorate


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
