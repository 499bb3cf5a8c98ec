"""The command ``viewser`` beside the package viewser, whose command has the same name and other groups.

That package is looked for and imported only when a command is handed to it: its import takes seconds, and fails where
its settings cannot be read.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from views_runs.cli.command import Main
from views_runs.exceptions import StorageError

#: The version of viewser whose commands these are. Commands that are not listed are handed over all the same.
VIEWSER_VERSION = "6.6"
VIEWSER_COMMANDS = ("config", "features", "help", "notebooks", "queryset", "system", "transform", "transforms")

#: The options that viewser takes before a command and this package does not have; a command of this one ignores them.
VIEWSER_OPTIONS = ("--formatted", "--debug", "--no-debug")


class Beside(Main):
    """The command line as ``viewser``: hands each command that is not its own to the package of that name."""

    def __init__(self, main: Main) -> None:
        ignored = [click.Option([name], is_flag=True, hidden=True, expose_value=False) for name in VIEWSER_OPTIONS]
        super().__init__("viewser", main.commands, params=[*main.params, *ignored], help=main.help)
        self.context_settings = main.context_settings

    def main(self, *given: Any, **settings: Any) -> Any:
        """Run the line here, or in the package viewser exactly as it was typed."""
        line = given[0] if given else settings.get("args")
        name = command(sys.argv[1:] if line is None else line)
        is_own = not name or name in self.commands or self._is_meant(name)
        other = None if is_own else find_other(name)
        return (other or super().main)(*given, **settings)

    def _is_meant(self, name: str) -> bool:
        """Return whether a command looks like one of this package's, mistyped or without its group."""
        from difflib import get_close_matches

        context = click.Context(self)
        groups = [group for group in self.commands.values() if isinstance(group, click.Group)]
        own = [*self.commands, *(verb for group in groups for verb in group.list_commands(context))]
        return name in own or (name not in VIEWSER_COMMANDS and bool(get_close_matches(name, own)))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help, and those of viewser."""
        super().format_commands(ctx, formatter)
        with formatter.section(f"Commands of the package viewser ({VIEWSER_VERSION}), if it is installed"):
            formatter.write_text(", ".join(VIEWSER_COMMANDS))


def command(line: Sequence[str]) -> str:
    """Return the first argument that is not an option or its value, or an empty string.

    >>> command(["--store", "models.db", "--json", "config", "list"])
    'config'
    """
    arguments = iter(line)
    for argument in arguments:
        if argument == "--store":
            next(arguments, None)
        elif not argument.startswith("-"):
            return argument
    return ""


def find_other(name: str) -> Callable[..., Any] | None:
    """Return the command of the package viewser; None if it is not installed and not known to have this command."""
    from views_runs.health import commands

    try:
        if found := commands.find_viewser():
            return commands.load(*found)
        if name in VIEWSER_COMMANDS:
            advice = commands.advise_installing(VIEWSER_VERSION)
            raise StorageError(f"the package viewser is not installed in {sys.prefix}", advice)
    except StorageError as error:
        from views_runs.rendering import console

        console.show_error(str(error.locate(f"run `viewser {name}`")))
        sys.exit(1)
    return None
