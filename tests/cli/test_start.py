"""How the command line starts: what it imports, and what its help shows."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

import views_runs
from views_runs.cli import FAMILIES

Viewser = Callable[..., Result]


def modules(*arguments: str) -> set[str]:
    """Return the modules that are imported when a command has ended."""
    code = "import sys; from views_runs.cli import main\ntry: main()\nfinally: print('', *sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return {*result.stderr.split()}


@pytest.mark.parametrize("arguments", [["--help"], ["model", "--help"], ["model", "list", "-h"], ["--version"]])
def test_help_opens_nothing(arguments: list[str]) -> None:
    """Neither SQLite, the library nor rich is imported for help."""
    assert modules(*arguments) & {"sqlite3", "views_runs.storage", "views_runs.records", "rich"} == set()


def test_a_verb_is_imported_when_it_is_named() -> None:
    """Only the module of a verb that is named is imported."""
    families = {f"views_runs.cli.{family}" for family in FAMILIES}
    assert modules("--help") & families == set()
    assert modules("model", "delete", "--help") & families == {"views_runs.cli.change"}


def test_help_groups_the_verbs(viewser: Viewser) -> None:
    """The help of `model` shows each verb under the heading of its family, with a whole sentence."""
    shown = viewser("model", "--help", env={"COLUMNS": "200"}).stdout
    headings = re.split(r"^(\w+):\n", shown, flags=re.MULTILINE)
    sections = dict(zip(headings[1::2], headings[2::2]))
    for family, verbs in FAMILIES.items():
        lines = sections[family.capitalize()].strip().splitlines()
        assert [line.split()[0] for line in lines] == [*verbs]
        assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_public_names_are_imported_when_they_are_asked_for() -> None:
    """The package gives each of its public names, and imports the store with the first that needs it."""
    code = "import sys, views_runs; print('views_runs.storage' in sys.modules, views_runs.Storage.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False Storage\n"
    assert [name for name in views_runs.__all__ if getattr(views_runs, name, None) is None] == []
    assert {*views_runs.__all__, "metadata"} <= {*dir(views_runs), "metadata"}
    assert views_runs.metadata.ModelMetadata is views_runs.ModelMetadata
    with pytest.raises(AttributeError, match="'views_runs' has no attribute 'Model'"):
        views_runs.Model
