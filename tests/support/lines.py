"""Command lines that are run as processes."""

import os
import sys

from views_runs import Storage


def viewser_command(*arguments: str) -> list[str]:
    """Return the arguments of a process that is the command `viewser`."""
    return [sys.executable, "-W", "error", "-m", "views_runs", *arguments]


def environment(store: Storage, **variables: str) -> dict[str, str]:
    """Return the variables of a process that uses a store."""
    return {**os.environ, "VIEWS_RUNS_STORE": str(store.path), **variables}
