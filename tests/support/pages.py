"""The README and the pages of the guide: what a reader would run, and what is printed when a test runs it.

A page is run in its order. ``>>>`` begins a Python statement, and ``$`` in an indented block a command; under either
stands what it prints, where ``...`` is anything. A ``code-block:: python`` runs as a whole; a comment after one of its
expressions is its value.
"""

import ast
import doctest
import re
import shlex
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from views_runs.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.rst"
GUIDE = ROOT / "views_runs" / "guide"

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL

_COMMAND = re.compile(r"^    \$ ((?:.*\\\n)*.*)\n((?:(?!    \$ )(?:    .*)?\n)*)", re.MULTILINE)
_CODE = re.compile(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", re.MULTILINE)

_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( ?[+-]\d\d:?\d\d| [A-Z]{2,5}\b)?"


def commands(page: str) -> list[tuple[int, str, str]]:
    """Return where each command of a page begins, the command, and what is shown under it."""
    return [(one.start(), one[1].replace("\\\n", " "), one[2]) for one in _COMMAND.finditer(page)]


def code_blocks(page: str) -> list[tuple[int, str]]:
    """Return where each block of Python code of a page begins, and the code."""
    return [(one.start(), textwrap.dedent(one[1])) for one in _CODE.finditer(page)]


def statements(page: str) -> list[tuple[int, doctest.Example]]:
    """Return where each Python statement of a page begins, and the statement."""
    starts = [0, *(one.end() for one in re.finditer("\n", page))]
    return [(starts[one.lineno], one) for one in doctest.DocTestParser().get_examples(page)]


def section(page: str, title: str, underline: str = "-") -> str:
    """Return the text under a title, up to the next title of its kind."""
    parts = re.split(rf"^(.+)\n\{underline}{{3,}}\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title]


def normal(output: str) -> str:
    """Return an output without what differs from one run or computer to the next."""
    for pattern, word in (
        (r"[0-9a-f]{64}", "SHA256"),
        (r"[\w.-]+@[\w.-]+", "USER@HOST"),
        (_TIME, "TIME"),
        (r"\d[\d,]*(\.\d+)? ?(bytes|[kMG]B)", "SIZE"),
        (r"[─╭╮╰╯│]+", ""),
    ):
        output = re.sub(pattern, word, output)
    return " ".join(output.split())


def run_command(text: str) -> str:
    """Run a command in the current folder, and return all that it prints."""
    if text.startswith("views-runs ") and " | " not in text:
        # In this process: to start another takes a hundred times as long.
        result = CliRunner().invoke(main, shlex.split(text)[1:], prog_name="views-runs")
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.output
    if text.startswith("sqlite3 "):
        # The shell of this name is not everywhere.
        _, file, query = shlex.split(text)
        with closing(sqlite3.connect(file)) as connection:
            return "".join("|".join(map(str, row)) + "\n" for row in connection.execute(query).fetchall())
    line = text.replace("views-runs ", f"{shlex.quote(sys.executable)} -m views_runs ")
    process = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert process.returncode == 0, process.stdout
    return process.stdout


def run_page(page: str) -> Iterator[tuple[str, str, str]]:
    """Run what a page shows in the current folder; yield each step that prints something else than is shown.

    Yields:
        The step, what it printed, and what the page shows.
    """
    names: dict[str, Any] = {"__name__": "page"}
    steps: list[tuple[Any, ...]] = [*commands(page), *code_blocks(page), *statements(page)]
    for _, step, *shown in sorted(steps, key=lambda one: one[0]):
        if shown:
            printed, wanted = normal(run_command(step)), normal(*shown)
            if not re.fullmatch(".*".join(re.escape(piece.strip()) for piece in wanted.split("...")), printed):
                yield step, printed, wanted
        elif isinstance(step, str):
            yield from _run_block(step, names)
        else:
            test, said = doctest.DocTest([step], names, "page", None, step.lineno, None), list[str]()
            doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
            names = test.globs
            if said:
                yield step.source, "".join(said), step.want


def _run_block(code: str, names: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Run a block of Python code; yield each expression that has another value than the comment after it."""
    for node in ast.parse(code).body:
        source = ast.get_source_segment(code, node) or ""
        value = re.search(r"  # (\[.*\])$", code.splitlines()[(node.end_lineno or 1) - 1])
        if value is None:
            exec(compile(ast.Module([node], []), "page", "exec"), names)
        elif (printed := repr(eval(source, names))) != value[1]:
            yield source, printed, value[1]
