"""Test whether a file system provides the byte-range locks that SQLite needs.

Child processes request the locks, on a temporary file beside the store. A request that hangs therefore does not hang
this process, which also never closes a file on which SQLite holds a lock.
"""

import errno
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Seconds that a child may take to start and to report a result.
PATIENCE = 10.0

#: The name prefix of the files on which locks are requested.
PROBE = ".views_runs-probe"

# The same requests as SQLite's, without waiting: to write, it turns its own shared lock on 510 bytes into an exclusive
# one. SMB servers refuse that, though they grant either lock alone. The child prints 0 once it has the lock, or the
# error number, and holds the lock until its standard input is closed.
_CHILD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 510, 0x40000002)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    sys.stdin.read()
"""


def find_trouble(folder: Path, processes: int = 2) -> str | None:
    """Describe what is wrong with the locks of a folder's file system; return None if nothing is.

    With one process, this tests whether locks are refused; with two, also whether a lock keeps a second process out.
    An OSError means that the test is not possible.
    """
    # In a frozen program, sys.executable is the program itself, which must not be started again.
    if sys.platform == "win32" or not sys.executable or getattr(sys, "frozen", False):
        raise OSError("locks cannot be tested on this system")
    file = folder / f"{PROBE}-{os.getpid()}-{os.urandom(4).hex()}"
    file.touch(exist_ok=False)
    try:
        with ExitStack() as stack:
            first, *others = [stack.enter_context(_request_lock(file)) for _ in range(processes)]
    finally:
        with suppress(OSError):
            file.unlink()
    if first == errno.ENOTSUP and sys.platform == "darwin":
        # On SMB, for example; SQLite then uses another kind of lock.
        raise OSError("this volume has no locks of this kind, and SQLite uses others")
    if first:
        return f"a lock is refused: {os.strerror(first)}"
    return None if all(others) else "two processes can hold the same lock at once, so locks have no effect"


@contextmanager
def _request_lock(file: Path) -> Iterator[int]:
    """Have a child process request and hold the lock; yield 0, or the error number."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(file)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin and child.stdout
    try:
        if not select.select([child.stdout], [], [], PATIENCE)[0]:
            raise OSError(f"a lock request was not answered within {PATIENCE:.0f} s")
        line = child.stdout.readline()
        if not line.strip().isdigit():
            # Not a Python interpreter, but a program that embeds Python.
            raise OSError(f"{sys.executable} cannot be run to request a lock")
        yield int(line)
    finally:
        child.kill()
        child.stdin.close()
        child.stdout.close()
        # A child that hangs in the system call cannot be killed: do not wait for it.
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)
