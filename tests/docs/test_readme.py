"""The README: its code runs, its commands work, and what it shows is what they print."""

import configparser
import inspect
import re
import shlex
import shutil
import sqlite3
import textwrap
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import views_runs
from tests.support.machine import ROOT
from views_runs import ModelMetadata, ModelRecord, QueryError, Storage, StorageError
from views_runs.cli import model

#: Runs Python with arguments in a folder, and returns what it prints.
Run = Callable[[list[str], Path], str]

README = (ROOT / "README.rst").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    """Return the README's blocks of code in a language."""
    blocks = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks]


def sessions(program: str) -> list[tuple[str, str]]:
    """Return the README's commands that begin with a program, each with the output it shows."""
    commands = [block.removeprefix("$ ").partition("\n") for block in code_blocks("console")]
    return [(command, output) for command, _, output in commands if command.startswith(f"{program} ")]


def one_line_commands() -> list[list[str]]:
    """Return the README's lines that make a virtual environment, each as its steps."""
    lines = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    return [line.split(" && ") for line in lines]


def section(title: str, underline: str = "-") -> str:
    """Return the text under a title, up to the next title of its kind."""
    parts = re.split(rf"^(.+)\n\{underline}{{3,}}\n", README, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title]


def normal(output: str) -> str:
    """Return an output without what differs from one run, computer or version to the next."""
    output = re.sub(r"[0-9a-f]{64}", "SHA256", output)
    output = re.sub(r"[\w.-]+@[\w.-]+", "user@host", output)
    output = re.sub(r"CPython \S+ on \S+,", "PYTHON on PLATFORM,", output)
    output = re.sub(r'"platform": ".*"', '"platform": "PLATFORM"', output)
    output = re.sub(r"\d[\d.,]*( bytes| [kMG]B)", "0 B", output)
    output = re.sub(r"\d+(\.\d+)*", "0", output)
    output = re.sub(r"─+", "─", output)
    lines = [re.sub(r" +", " ", line).strip() for line in output.splitlines()]
    # What a model imports, and of which packages, changes with their versions.
    return "\n".join(
        line
        for line in lines
        if not re.search(r'(numpy|sklearn)\.\w|^(│ )?(scikit-learn|numpy) 0:|^"[\w-]+": "0"', line)
    )


@pytest.fixture
def folder(store_a_model: tuple[Storage, object, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, which holds a copy of the example's store."""
    shutil.copy(store_a_model[0].path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "own.db"))
    return tmp_path


@pytest.mark.parametrize("code", code_blocks("python"))
def test_python_code_runs(code: str, folder: Path) -> None:
    """Each block of Python code runs as it stands, and returns what its comments say."""
    names: dict[str, Any] = {}
    exec(compile(code, "README.rst", "exec"), names)
    for expression, value in re.findall(r"^(\S.*)  # (\[.*\])$", code, re.MULTILINE):
        assert repr(eval(expression, names)) == value


def test_code_without_this_package_reads_a_model_of_several_parts(folder: Path) -> None:
    """The code that uses sqlite3 and pickle alone gets what `fetch` returns."""
    [code] = [code for code in code_blocks("python") if "import pickle" in code]
    assert "views_runs" not in code
    # A forest of few countries is small.
    forest = Storage("example.db").fetch("fatalities_sb_rf")
    forest.estimators_ = [deepcopy(tree) for tree in 4 * forest.estimators_]
    Storage("example.db").store("fatalities_sb_rf", forest, overwrite=True)
    names: dict[str, Any] = {}
    exec(compile(code, "README.rst", "exec"), names)
    assert names["rest"]
    fetched = Storage("example.db").fetch("fatalities_sb_rf")
    assert names["my_model"].get_params() == fetched.get_params()
    assert (names["my_model"].feature_importances_ == fetched.feature_importances_).all()


def test_sessions_print_what_the_readme_shows(run: Run, folder: Path) -> None:
    """The commands, one after the other, print what is shown under each, but for dates, sizes, digests and versions."""
    shown = [(command, normal(output)) for command, output in sessions("viewser") if " doctor " not in command]
    printed = []
    for command, _ in shown:
        output = run(["-m", "views_runs", *shlex.split(command)[1:]], folder).replace(str(folder), "/home/ines")
        printed.append((command, normal(output).strip()))
    assert printed == shown


def test_doctor_looks_at_what_the_readme_shows(folder: Path) -> None:
    """What is said differs from one computer to the next, but not of what."""
    [(command, shown)] = [one for one in sessions("viewser") if " doctor " in one[0]]
    topics = re.findall(r"^ok  (\w+(?: \w+)?)  ", shown, re.MULTILINE)
    assert len(topics) == len(shown.splitlines())
    findings = Storage("example.db").doctor()
    assert [one for one in topics if one not in {finding.topic for finding in findings}] == []
    assert "layout 1, 3.0 MB; 3 models, 3 versions" in shown


def test_error_points_where_the_readme_shows(folder: Path) -> None:
    """The condition that cannot be read is shown with what is said of it."""
    shown = re.findall(r"^    \$ viewser model list --where '(.*)'\n((?:    .+\n)+)", README, re.MULTILINE)
    [(condition, output)] = shown
    with pytest.raises(QueryError) as caught:
        Storage("example.db").find(condition)
    assert textwrap.dedent(output).strip() == f"Error: {caught.value}"


def test_sessions_show_every_command() -> None:
    """Each verb of the command line is shown at work."""
    shown = {shlex.split(command)[2] for command, _ in sessions("viewser")}
    assert shown == set(model.commands)


def test_query_prints_what_the_readme_shows(folder: Path) -> None:
    """The query for the sqlite3 shell finds what is shown under it."""
    [(command, output)] = sessions("sqlite3")
    _, file, query = shlex.split(command)
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute(query).fetchall()
    assert ["|".join(map(str, row)) for row in rows] == output.splitlines()


def test_columns_are_those_of_the_file(folder: Path) -> None:
    """The README describes each column of the table, in its order."""
    with closing(sqlite3.connect("example.db")) as connection:
        columns = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info('models')")]
    table = section("What is stored, and how to read it without this package")
    assert re.findall(r"^``(\w+)`` ", table, re.MULTILINE) == columns


def test_first_command_comes_first() -> None:
    """The first line of code makes the environment, and installs, trains, lists and inspects."""
    first_code = re.search(r"^    (.*)$", README, re.MULTILINE)
    assert first_code and first_code[1] == " && ".join(one_line_commands()[0])
    assert [shlex.split(step)[0] for step in one_line_commands()[0]] == [
        "python3",
        ".venv/bin/pip",
        ".venv/bin/python",
        ".venv/bin/viewser",
        ".venv/bin/viewser",
    ]


def test_first_command_runs_what_exists(run: Run, folder: Path) -> None:
    """After the installation, each step of the first command works."""
    for step in one_line_commands()[0][2:]:
        program, *arguments = shlex.split(step)
        if program == ".venv/bin/python":
            assert (ROOT / arguments[0]).is_file()
            run([str(ROOT / arguments[0]), *arguments[1:]], folder)
        else:
            run(["-m", "views_runs", *arguments], folder)


def test_commands_install_extras_that_exist() -> None:
    """What the two lines install are this package's extras."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    asked = [re.fullmatch(r"\.\[(\w+)\]", shlex.split(steps[1])[-1]) for steps in one_line_commands()]
    assert [match and match[1] for match in asked] == ["examples", "test"]
    assert {"examples", "test"} <= set(setup["options.extras_require"])


def test_second_command_runs_the_tests() -> None:
    """The second line makes an environment and runs the tests in it."""
    [_, steps] = one_line_commands()
    assert steps == [
        "python3 -m venv .venv",
        ".venv/bin/pip install --quiet -e '.[test]'",
        ".venv/bin/python -m pytest",
    ]


def test_commands_of_the_package_exist() -> None:
    """The names that the README gives for the command line are those that are installed."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = re.findall(r"^(\S+) =", setup["options.entry_points"]["console_scripts"].strip(), re.MULTILINE)
    assert installed == ["viewser", "views-runs"]
    assert all(f"``{name}``" in README for name in installed)


def signature(method: str) -> str:
    """Return a method of Storage as the README writes it."""
    parameters = [*inspect.signature(getattr(Storage, method)).parameters.values()][1:]
    bare = inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters])
    return f"{method}{bare}"


def test_every_method_is_listed() -> None:
    """The methods in the README are the public ones of Storage, with their parameters."""
    methods = [name for name, value in vars(Storage).items() if inspect.isfunction(value) and name[0] != "_"]
    listed = re.findall(r"``([a-z_]+\(.*?\))``", section("Storage", "~"))
    assert sorted(listed) == sorted(map(signature, methods))


def test_conditions_can_be_asked(folder: Path) -> None:
    """Each condition that the README explains can be read, and finds the models that are like this."""
    conditions = re.findall(r"^``(.+?)`` ", section("Conditions", "~"), re.MULTILINE)
    found = {condition: len(Storage("example.db").find(condition)) for condition in conditions}
    assert len(found) == 13
    assert found["author = ines"] == found["train_end >= 2019-12"] == found["stored_by ~ ines@*"] == 3
    assert found["type ~ *RandomForest*"] == 1
    assert found["!outcome"] == found["tuned.depth > 3"] == found["version > 1"] == 0


def test_storage_is_made_as_the_readme_says() -> None:
    """The parameters of Storage are those in the README."""
    assert f"``{signature('__init__').replace('__init__', 'Storage')}``" in section("Storage", "~")


def test_every_error_is_listed() -> None:
    """The table has each public error, with the builtin error that it is too."""
    errors = [value for value in vars(views_runs).values() if isinstance(value, type) and issubclass(value, Exception)]
    table = dict(re.findall(r"^``(\w+Error)`` +(?:``(\w+)``)?", section("Errors", "~"), re.MULTILINE))
    assert table == {
        error.__name__: "".join(base.__name__ for base in error.__bases__[1:])
        for error in errors
        if error is not StorageError
    }


@pytest.mark.parametrize("title, kind", [("Metadata", ModelMetadata), ("ModelRecord", ModelRecord)])
def test_every_field_is_listed(title: str, kind: type[ModelMetadata] | type[ModelRecord]) -> None:
    """The README names each field of a record, and of the metadata."""
    assert [field for field in kind.__dataclass_fields__ if f"``{field}``" not in section(title, "~")] == []


def test_changes_begin_with_this_version() -> None:
    """The newest change is the version that is installed."""
    assert section("Changes").split()[0] == views_runs.__version__


def test_every_public_name_is_in_the_readme() -> None:
    """What can be imported from the package is mentioned."""
    names = [name for name in views_runs.__all__ if name != "__version__"]
    assert [name for name in names if not re.search(rf"\b{name}\b", README)] == []
