"""Identify the processes that write uploads, and determine whether they have ended."""

import json
import os
import platform
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

from views_runs import signals
from views_runs.database.connection import Connection
from views_runs.texts import printable

#: The uploads that this process is currently writing, by their tokens. One that is forgotten, because a signal handler
#: interrupted its end, is no longer written.
active_tokens: WeakValueDictionary[str, Any] = WeakValueDictionary()


def this_user() -> str:
    """Return ``user@host``."""
    try:
        import getpass

        user = getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        signals.let_through(error)
        # For a user id without a name, Python 3.13 raises OSError, and earlier versions KeyError.
        user = str(os.getuid()) if hasattr(os, "getuid") else "?"
    # A name that is not valid UTF-8 must not cause the loss of a model that took hours to train.
    return f"{user}@{platform.node()}".encode("utf-8", "backslashreplace").decode()


def this_host() -> str:
    """Return an identifier of this host among those that share a store; a host name alone may not be unique."""
    return f"{platform.node()} {kernel() or ''}"


def this_process(token: str = "") -> str:
    """Return the identity of this process, and of one of its uploads, as JSON."""
    pid = os.getpid()
    process = {"user": this_user(), "pid": pid, "kernel": kernel(), "start": start_time(pid), "token": token}
    return json.dumps(process)


def has_ended(owner: str) -> bool:
    """Return whether a process is known to have ended: it ran on this kernel, in this pid namespace, and is gone.

    This process counts as ended for an upload that it is no longer writing.
    """
    try:
        process: dict[str, Any] = json.loads(owner)
        pid, start = process["pid"], process["start"]
        if process["kernel"] is None or process["kernel"] != kernel() or start is None:
            return False
        if (pid, start) == (os.getpid(), start_time(os.getpid())):
            return process["token"] not in active_tokens
        return _is_gone(pid, start)
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def _is_gone(pid: int, start: int) -> bool:
    try:
        return _read_start(pid) != start
    except FileNotFoundError:
        # /proc may hide the processes of other users.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False
    except OSError:
        # It cannot be known, for example because this process has too many files open.
        return False


def is_own(owner: str) -> bool:
    """Return whether this process is writing the upload."""
    try:
        return json.loads(owner)["token"] in active_tokens
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def process_tag() -> str:
    """Return the identity of this process, for use in the name of a temporary file."""
    pid = os.getpid()
    return f"backup-{_hash_kernel()}-{pid}-{start_time(pid)}"


def has_tag_ended(name: str) -> bool:
    """Return whether the process identified by a temporary file's name is known to have ended.

    >>> has_tag_ended(f".views_runs.{process_tag()}.0123")
    False
    """
    try:
        _, kernel_tag, pid, start = name.split(".")[2].split("-")
        return kernel() is not None and kernel_tag == _hash_kernel() and _is_gone(int(pid), int(start))
    except (ValueError, LookupError):
        return False


def _hash_kernel() -> str:
    import hashlib

    return hashlib.sha256((kernel() or "").encode()).hexdigest()[:12]


@cache
def kernel() -> str | None:
    """Return an identifier of this boot and this pid namespace, or None on systems that have none."""
    try:
        return f"{boot()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def boot() -> str:
    """Return an identifier of this boot of the kernel, the same in all containers."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if that is not known."""
    try:
        return _read_start(pid)
    except OSError:
        return None


def _read_start(pid: int) -> int | None:
    """Return when a process started; None if it has ended, and only its parent has not noticed."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may contain spaces and parentheses; the fields after it do not.
            fields = file.read().rpartition(")")[2].split()
    except ProcessLookupError as error:
        raise FileNotFoundError from error
    return None if fields[0] in "ZX" else int(fields[19])


def describe_writers(connection: Connection) -> list[str]:
    """Describe the other processes that are storing a model of several parts, if this can be read without waiting."""
    found = connection.glance("SELECT owner, started_at FROM uploads WHERE NOT condemned ORDER BY id")
    return [*filter(None, (_describe(owner, started_at) for owner, started_at in found if not is_own(owner)))]


def describe_uploads(connection: Connection) -> tuple[list[str], list[str]]:
    """Describe the uploads that will never be finished, and those that may still be."""
    dead, alive = [], []
    for owner, started_at, condemned in connection.rows("SELECT owner, started_at, condemned FROM uploads ORDER BY id"):
        text = _describe(owner, started_at) or "an unknown process has been storing a model"
        if condemned or has_ended(owner):
            dead.append(text)
        else:
            alive.append(f"{text}, unless {_explain_end(owner)}")
    return dead, alive


def _explain_end(owner: str) -> str:
    """Say what may have ended a process unnoticed, and for how long what it left then stays."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        if json.loads(owner)["kernel"] is None:
            return (
                "it was killed: this cannot be determined on Windows and macOS, so its parts are removed by the first "
                "store or delete that finds no progress 10 minutes after an earlier one looked"
            )
    return "that computer has stopped"


def _describe(owner: str, started_at: str) -> str:
    try:
        process = json.loads(owner)
        since = datetime.fromisoformat(started_at).strftime("%Y-%m-%d %H:%M:%S UTC")
        return printable(f"{process['user']} (process {process['pid']}) has been storing a model since {since}")
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
