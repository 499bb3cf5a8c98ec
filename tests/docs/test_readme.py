"""The README: its code runs, its commands work, and what it shows is what they print."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import views_runs
from tests.support.pages import GUIDE, README, ROOT, run_page, section
from views_runs.cli import main

PAGE = README.read_text(encoding="utf-8")

#: No longer than this, so that it is read to its end.
MOST_LINES = 250


def one_line_commands() -> list[list[str]]:
    """Return the README's lines that make a virtual environment, each as its steps."""
    lines = re.findall(r"^    (python3 -m venv .*)$", PAGE, re.MULTILINE)
    return [line.split(" && ") for line in lines]


def setup() -> configparser.ConfigParser:
    """Return what the package is set up as."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_readme_is_short() -> None:
    """The reference is in the guide."""
    assert PAGE.count("\n") <= MOST_LINES


def test_readme_does_what_it_shows(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code and its commands, one after the other, print what is shown under each."""
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(reader / "own.db"))
    assert list(run_page(PAGE)) == []


def test_first_command_comes_first() -> None:
    """The first line of code makes the environment, and installs, trains, lists and inspects."""
    first_code = re.search(r"^    (.*)$", PAGE, re.MULTILINE)
    assert first_code and first_code[1] == " && ".join(one_line_commands()[0])
    assert [shlex.split(step)[0] for step in one_line_commands()[0]] == [
        "python3",
        ".venv/bin/pip",
        ".venv/bin/python",
        ".venv/bin/views-runs",
        ".venv/bin/views-runs",
    ]


def test_first_command_runs_what_exists(reader: Path) -> None:
    """After the installation and the training, which made the store, each step of the first command works."""
    _, _, train, *others = map(shlex.split, one_line_commands()[0])
    assert train[0] == ".venv/bin/python" and (ROOT / train[1]).is_file()
    for program, *arguments in others:
        assert program == ".venv/bin/views-runs"
        subprocess.run([sys.executable, "-m", "views_runs", *arguments], check=True, capture_output=True)


def test_commands_install_extras_that_exist() -> None:
    """What the two lines install are this package's extras."""
    asked = [re.fullmatch(r"\.\[(\w+)\]", shlex.split(steps[1])[-1]) for steps in one_line_commands()]
    assert [match and match[1] for match in asked] == ["examples", "test"]
    assert {"examples", "test"} <= set(setup()["options.extras_require"])


def test_second_command_runs_the_tests() -> None:
    """The second line makes an environment and runs the tests in it."""
    [_, steps] = one_line_commands()
    assert steps == [
        "python3 -m venv .venv",
        '.venv/bin/pip install --quiet -e ".[test]"',
        ".venv/bin/python -m pytest",
    ]


def test_powershell_does_the_same() -> None:
    """Each of the two lines has a form for PowerShell: the same steps with the folders of Windows, and no &&."""
    lines = re.findall(r"^    (python -m venv .*)$", PAGE, re.MULTILINE)
    steps = [[step.replace("\\", "/").replace("/Scripts/", "/bin/") for step in line.split("; ")] for line in lines]
    assert steps == [[step.replace("python3 ", "python ") for step in each] for each in one_line_commands()]


def test_programs_of_the_package_exist() -> None:
    """The names that the README gives for the command line are those that are installed."""
    scripts = setup()["options.entry_points"]["console_scripts"].strip()
    installed = re.findall(r"^(\S+) =", scripts, re.MULTILINE)
    assert installed == ["viewser", "views-runs"]
    assert all(f"``{name}``" in PAGE for name in installed)


def test_every_command_has_a_line() -> None:
    """The table has each command of `views-runs model`."""
    context = click.Context(main)
    model = main.get_command(context, "model")
    assert isinstance(model, click.Group)
    table = re.findall(r"^``([a-z]+)`` +\S", section(PAGE, "On the command line"), re.MULTILINE)
    assert sorted(table) == sorted(model.list_commands(context))


def test_every_page_of_the_guide_is_linked() -> None:
    """Each page has its line and its link; the index is what these lines are."""
    links = dict(re.findall(r"^\.\. _(\w+): views_runs/guide/(\S+)$", PAGE, re.MULTILINE))
    pages = sorted(path.name for path in GUIDE.glob("*.rst") if path.stem != "index")
    assert sorted(links.values()) == pages
    assert re.findall(r"^- (\w+)_: ", PAGE, re.MULTILINE) == list(links)


def test_changes_begin_with_this_version() -> None:
    """The newest change is the version that is installed."""
    changes = (GUIDE / "changes.rst").read_text("utf-8")
    assert changes.split()[2] == views_runs.__version__
