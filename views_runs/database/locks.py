"""Whether a file system gives the byte-range locks that SQLite needs.

Only child processes ask for a lock, on a file of their own beside the store: a request that hangs does not hang this
process, and no descriptor is closed here on which SQLite holds a lock.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Seconds that a child may take to start and to be answered.
PATIENCE = 10.0

#: What a name of a file for this begins with.
PROBE = ".views_runs-probe"

# SQLite's own request: a byte at 1 GiB, without waiting. It prints nothing when it has the lock, or the error's number;
# and holds it until its input ends.
_CHILD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0x40000000)
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    sys.stdin.read()
"""


def refused(folder: Path) -> str | None:
    """Return why the file system that holds a folder refuses a lock; None when it gives it.

    Raises:
        OSError: that cannot be known: no file can be made there, or there is no answer.
    """
    with _probe(folder) as ask:
        return _refusal(ask())


def trouble(folder: Path) -> str | None:
    """Return what is wrong with the locks of the file system that holds a folder; None when they keep others out.

    Raises:
        OSError: as `refused`.
    """
    with _probe(folder) as ask:
        first, second = ask(), ask()
    return _refusal(first) or (None if second else "two processes got the same lock, so it keeps nobody out")


def _refusal(number: int) -> str | None:
    return os.strerror(number) if number else None


@contextmanager
def _probe(folder: Path) -> Iterator[Callable[[], int]]:
    """Make a file, and yield what asks for a lock on it in a new process, which holds it until the end."""
    # A frozen program's executable is the program itself, which would begin anew.
    if sys.platform == "win32" or not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this system has no way to ask for a lock")
    file = folder / f"{PROBE}-{os.getpid()}-{os.urandom(4).hex()}"
    file.touch(exist_ok=False)
    try:
        with ExitStack() as stack:
            yield lambda: _ask(file, stack)
    finally:
        with suppress(OSError):
            file.unlink()


def _ask(file: Path, stack: ExitStack) -> int:
    """Let a child ask for the lock and hold it until the stack ends; return the error's number, or 0."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(file)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stack.callback(_end, child)
    try:
        return int(_line(child))
    except ValueError as error:
        # It is no Python: a program that Python is a part of.
        raise OSError("a process that asks for a lock cannot be run") from error


def _line(child: "subprocess.Popen[bytes]") -> bytes:
    """Return the line that a child prints, if it does in time."""
    import select

    assert child.stdout
    if not select.select([child.stdout], [], [], PATIENCE)[0]:
        raise OSError(f"a request for a lock is not answered within {PATIENCE:.0f} s")
    line = child.stdout.readline()
    if not line:
        raise OSError("a process that asks for a lock cannot be run")
    return line


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    for stream in (child.stdin, child.stdout):
        if stream:
            stream.close()
    # A child that hangs in the system's lock request does not end: it is not waited for.
    with suppress(subprocess.TimeoutExpired):
        child.wait(1)
