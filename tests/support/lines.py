"""Command lines that are run as processes."""

import os
import subprocess
import sys

import click

from views_runs import Storage
from views_runs.cli import main


def viewser_command(*arguments: str) -> list[str]:
    """Return the arguments of a process that is the command `viewser`."""
    return [sys.executable, "-W", "error", "-m", "views_runs", *arguments]


def environment(store: Storage, **variables: str) -> dict[str, str]:
    """Return the variables of a process that uses a store."""
    return {**os.environ, "VIEWS_RUNS_STORE": str(store.path), **variables}


def on_a_terminal(command: list[str], variables: dict[str, str], typed: bytes = b"") -> str:
    """Return what a command prints on a terminal."""
    import pty

    reader, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(command, env=variables, **streams)
    os.close(terminal)
    os.write(reader, typed)
    shown = b""
    try:
        while piece := os.read(reader, 10_000):
            shown += piece
    except OSError:
        # That is how a terminal ends on Linux.
        pass
    finally:
        os.close(reader)
    process.wait(60)
    return shown.decode().replace("\r\n", "\n")


def verbs() -> dict[str, click.Command]:
    """Return all verbs of the command line, by name."""
    group = main.commands["model"]
    assert isinstance(group, click.Group)
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command}
