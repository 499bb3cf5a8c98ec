"""System calls of a forked process that strace makes fail, on files that are put back as they were before each."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.budgets import FAULTS
from tests.support.machine import need

#: The system calls that SQLite makes on the store and its journal.
CALLS = ("pwrite64", "pread64", "fdatasync", "fsync", "fcntl", "ftruncate", "unlink")

#: What is made of a call, as strace's ``inject`` has it, and the errors that may come of it.
KILL = "signal=SIGKILL"
FULL = ("StoreFullError",)
FAILED = ("StoreAccessError",)
INJECTED = {
    ("pwrite64", "error=ENOSPC"): FULL,
    ("pwrite64", "error=EIO"): FAILED,
    ("pwrite64", "retval=0"): FULL,
    ("fdatasync", "error=EIO"): FAILED,
    ("fsync", "error=EIO"): FAILED,
    # SQLite takes a lock that cannot be had for a busy one, and tries again; one that cannot be given back is an error.
    ("fcntl", "error=ENOLCK"): FAILED,
    # SQLite takes a part of the file that cannot be read for a damaged one.
    ("pread64", "error=EIO"): (*FAILED, "StoreDamagedError", "CorruptModelError"),
    ("ftruncate", "error=EIO"): FAILED,
    ("unlink", "error=EIO"): ("StoreReadOnlyError",),
    **{(call, KILL): () for call in CALLS},
}

#: What strace writes of a call that it changed.
MET = ("(INJECTED)", "(DELAYED)", "killed by SIGKILL")

#: How a journal begins that has to be rolled back.
HOT = bytes.fromhex("d9d505f920a163d7")


@dataclass
class Outcome:
    """How an operation in a process of its own ended: its lines, what waitpid said, and whether the fault came up."""

    lines: list[str]
    status: int
    calls: "Counter[str]"
    was_hit: bool


class Tracer:
    """A store's files, and processes that do something with them while strace stands by.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        need(shutil.which("strace"), "strace is not installed")
        self.path = folder / "models.db"
        self.journal = folder / "models.db-journal"
        self._output = folder / "strace"
        self._kept = folder / "kept"
        self._kept.mkdir()

    def keep(self) -> None:
        """Take the files as they are for what every operation is to find."""
        for file in self.path, self.journal:
            shutil.copy(file, self._kept)

    def restore(self) -> None:
        """Put the files back as they were kept."""
        for file in self.path, self.journal:
            shutil.copy(self._kept / file.name, file)

    def trace(
        self,
        work: Callable[[Callable[[str], object]], object],
        *options: str,
        prepare: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Do something in a forked process under strace, on files as they were kept.

        Args:
            work: what; it is given a function that takes each line that it says.
            options: of strace.
            prepare: called in the process first.
        """
        self.restore()
        gate, go = os.pipe()
        outlet, inlet = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.read(gate, 1)
                prepare()
                work(lambda line: os.write(inlet, line.encode()))
                code = 0
            finally:
                os._exit(code)
        os.close(inlet)
        os.close(gate)
        command = ["strace", "-f", "-o", str(self._output), "-P", str(self.path), "-P", str(self.journal)]
        command += ["-P", str(self.path.parent), "-e", f"trace={','.join(CALLS)}", *options, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            said = strace.stderr.readline()
            os.write(go, b"!")
            os.close(go)
            _, status = os.waitpid(pid, 0)
        need(f"{pid} attached" in said, f"strace may not attach to a process: {said}")
        with open(outlet, encoding="utf-8") as file:
            lines = file.readlines()
        traced = self._output.read_text(encoding="utf-8", errors="replace")
        calls = Counter(re.findall(r"^\d+ +(\w+)\(", traced, re.MULTILINE))
        return Outcome(lines, status, calls, any(mark in traced for mark in MET))


def chosen(calls: int) -> list[int]:
    """Return which of so many calls are to fail."""
    if calls <= FAULTS:
        return [*range(1, calls + 1)]
    third = FAULTS // 3
    middle = [third + (calls - 2 * third) * step // (third + 1) for step in range(1, third + 1)]
    return sorted({*range(1, third + 1), *middle, *range(calls - third + 1, calls + 1)})
