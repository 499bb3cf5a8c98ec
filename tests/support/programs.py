"""Python programs, run as a user named ines runs them whose home is a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.support.budgets import IN_FULL
from tests.support.machine import ROOT

#: Runs each program in a fork of a process that has imported what the examples need, which takes seconds otherwise. It
#: is told in a line what to run, and answers with the exit code. Nothing is trained before a fork: OpenMP's threads
#: would not survive it.
SERVER = """
import json, os, runpy, sys, traceback, warnings
import pandas, sklearn.ensemble, sklearn.linear_model, sklearn.multioutput, sklearn.pipeline, sklearn.preprocessing
import views_runs.cli
def run(arguments, folder, environment, output):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    warnings.simplefilter("error", FutureWarning)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")
def exit_code(told):
    try:
        run(**json.loads(told))
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
for told in sys.stdin:
    child = os.fork()
    if not child:
        code = exit_code(told)
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a user named ines whose home, and whose store, is in a folder."""
    own = {"LOGNAME": "ines", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "PYTHONUTF8": "1"}
    unwanted = {"VIEWS_RUNS_STORE", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    smaller = {} if IN_FULL else {"EXAMPLE_COUNTRIES": "5", "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name not in unwanted} | own | smaller


class Programs:
    """Runs programs: among the quick tests in forks of one process, in full each in an interpreter of its own."""

    def __init__(self) -> None:
        self._server: "subprocess.Popen[str] | None" = None

    def __enter__(self) -> "Programs":
        if not IN_FULL and hasattr(os, "fork"):
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                cwd=ROOT,
                env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        if self._server:
            self._server.communicate()

    def run(self, arguments: list[str], folder: Path) -> str:
        """Run Python with arguments in a folder, and return all that it prints."""
        output = folder / ".output"
        code = self._run(arguments, folder, output)
        printed = output.read_text(encoding="utf-8")
        output.unlink()
        assert code == 0, printed
        return printed

    def _run(self, arguments: list[str], folder: Path, output: Path) -> int:
        if self._server is None:
            command = [sys.executable, "-W", "error::FutureWarning", *arguments]
            with output.open("wb") as file:
                return subprocess.call(command, cwd=folder, env=environment(folder), stdout=file, stderr=file)
        assert self._server.stdin and self._server.stdout
        told = {"arguments": arguments, "folder": str(folder), "output": str(output)}
        print(json.dumps({**told, "environment": environment(folder)}), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())
