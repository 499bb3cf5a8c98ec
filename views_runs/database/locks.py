"""Find out whether a file system provides the byte-range locks that SQLite needs.

Only child processes request a lock, on a file of their own beside the store: a request that hangs does not hang this
process, and no descriptor is closed here on which SQLite holds a lock.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Seconds that a child may take to start and to get an answer.
PATIENCE = 10.0

#: The prefix of the files on which locks are requested.
PROBE = ".views_runs-probe"

# SQLite's own request: a byte at 1 GiB, without waiting. The child prints 0 when it has the lock, or the number of the
# error, and holds the lock until its input ends.
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


def find_trouble(folder: Path, processes: int = 2) -> str | None:
    """Return what is wrong with the locks of the file system that holds a folder, or None if nothing is.

    Args:
        folder: the store's folder.
        processes: with 1, only find out whether a lock is refused; with 2, also whether it keeps a second process out.

    Raises:
        OSError: that cannot be found out: no file can be created there, or nothing answers.
    """
    # The executable of a frozen program is the program itself, which would start again.
    if sys.platform == "win32" or not sys.executable or getattr(sys, "frozen", False):
        raise OSError("locks cannot be requested on this system")
    file = folder / f"{PROBE}-{os.getpid()}-{os.urandom(4).hex()}"
    file.touch(exist_ok=False)
    try:
        with ExitStack() as stack:
            first, *others = [stack.enter_context(_request_lock(file)) for _ in range(processes)]
    finally:
        with suppress(OSError):
            file.unlink()
    if first:
        return os.strerror(first)
    return None if all(others) else "two processes got the same lock, so it keeps nobody out"


@contextmanager
def _request_lock(file: Path) -> Iterator[int]:
    """Let a child request the lock and hold it; yield the error's number, or 0."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(file)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin and child.stdout
    try:
        if not select.select([child.stdout], [], [], PATIENCE)[0]:
            raise OSError(f"a request for a lock was not answered within {PATIENCE:.0f} s")
        line = child.stdout.readline()
        if not line.strip().isdigit():
            # It is not Python: this is a program in which Python is embedded.
            raise OSError(f"{sys.executable} cannot be run to request a lock")
        yield int(line)
    finally:
        child.kill()
        child.stdin.close()
        child.stdout.close()
        # A child that hangs in the system's lock request does not end: do not wait for it.
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)
