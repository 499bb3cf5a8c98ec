"""The guide: its pages do what they show, name what there is, and can be read in a terminal."""

import inspect
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import views_runs
from tests.support.pages import GUIDE, README, ROOT, commands, run_command, run_page, section, statements
from views_runs import ModelMetadata, ModelRecord, Storage, StorageError
from views_runs.cli import main

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(GUIDE.glob("*.rst"))}

#: A terminal's width.
COLUMNS = 80

#: Folders in which pages name files: those of the package are named without it.
FOLDERS = ("tests", "views_runs", "cli", "rendering", "health", "database", "pickles", "guide")


@pytest.mark.parametrize("topic", PAGES)
def test_page_does_what_it_shows(topic: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code and its commands, one after the other, print what is shown under each."""
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(reader / "example.db"))
    assert list(run_page(PAGES[topic])) == []


@pytest.mark.parametrize("topic", PAGES)
def test_page_fits_a_terminal(topic: str) -> None:
    """No line is wider than a terminal, and each title is underlined to its end."""
    lines = PAGES[topic].splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []
    titles = [(title, line) for title, line in zip(lines, lines[1:]) if re.fullmatch(r"([=~-])\1{2,}", line) and title]
    assert titles and all(len(title) == len(line) for title, line in titles)


@pytest.mark.parametrize("topic", PAGES)
def test_links_lead_to_pages(topic: str) -> None:
    """Each link has its target at the end of the page, and each target is a page that is linked."""
    targets = dict(re.findall(r"^\.\. _(\w+): (\S+)$", PAGES[topic], re.MULTILINE))
    assert targets == {name: f"{name}.rst" for name in targets}
    assert set(targets) <= set(PAGES)
    assert set(re.findall(r"\b([a-z]+)_(?![\w`])", PAGES[topic])) == set(targets)


@pytest.mark.parametrize("topic", PAGES)
def test_links_are_not_shown(topic: str) -> None:
    """In the terminal, a page has neither the marks of its links nor their targets; no other line is missing."""
    shown = CliRunner().invoke(main, ["model", "guide", topic]).stdout
    assert re.findall(r"\b([a-z]+)_(?![\w`])|^\.\. ", shown, re.MULTILINE) == []
    assert len(shown.splitlines()) == len(PAGES[topic].split("\n.. _")[0].rstrip().splitlines())


def test_index_names_each_page() -> None:
    """The topics in the index are the pages beside it."""
    assert sorted(re.findall(r"^(\w+)_ +\S", PAGES["index"], re.MULTILINE)) == sorted(set(PAGES) - {"index"})


def test_every_command_is_shown() -> None:
    """The guide has an example of each command of `views-runs model` and of `views-runs run`."""
    context = click.Context(main)
    lines = [text for page in PAGES.values() for _, text, _ in commands(page)]
    for name in "model", "run":
        group = main.get_command(context, name)
        assert isinstance(group, click.Group)
        shown = {text.split()[2] for text in lines if text.startswith(f"views-runs {name} ")}
        assert sorted(shown) == sorted(group.list_commands(context))


def signature(method: str) -> str:
    """Return a method of Storage as the guide writes it."""
    parameters = [*inspect.signature(getattr(Storage, method)).parameters.values()][1:]
    bare = inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters])
    return f"{method}{bare}"


def entries() -> dict[str, str]:
    """Return the calls that the page on the API describes, each with what it says of them."""
    parts = re.split(r"^``(\w+\([^`]*\))``\n\n(?=    )", PAGES["api"], flags=re.MULTILINE)
    return {" ".join(call.split()): text for call, text in zip(parts[1::2], parts[2::2])}


def lines_to_type() -> list[str]:
    """Return the commands of the README, the guide and the help of each command, except those of a POSIX pipe."""
    context = click.Context(main)
    groups = [one for one in main.commands.values() if isinstance(one, click.Group)]
    verbs = [group.get_command(context, name) for group in groups for name in group.list_commands(context)]
    pages = [README.read_text(encoding="utf-8"), *PAGES.values(), *(verb.help or "" for verb in verbs if verb)]
    lines = re.findall(r"^ +(?:\$ )?((?:views-runs|pip) .*)$", "\n".join(pages), re.MULTILINE)
    assert len(lines) > 60
    return [line for line in lines if "xargs" not in line and "| tr" not in line and "$file" not in line]


def test_commands_work_in_every_shell() -> None:
    """In cmd, single quotes are nothing and a > outside of double quotes is a file; bash replaces !NAME in both."""
    bare = [re.sub(r'"(\\.|[^"\\])*"', "", line) for line in lines_to_type()]
    assert [line for line in bare if re.search(r"['<>*?&^%`]", line.replace("| sha256sum", ""))] == []
    assert [line for line in lines_to_type() if re.search(r"![^= ]|[$`]", line)] == []


def test_each_system_has_its_row() -> None:
    """The table of systems has a row for each that the README names, and says whether it was tested."""
    page = PAGES["systems"]
    rows = dict(re.findall(r"^\| (\w+)[^|]*\| (Not supported|Not tested|Tested)", page, re.MULTILINE))
    assert rows == {
        "Linux": "Tested",
        "Windows": "Not tested",
        "macOS": "Not tested",
        "NFS": "Tested",
        "GlusterFS": "Tested",
        "SMB": "Not supported",
        "CephFS": "Not tested",
    }
    assert re.search(r"^\| Windows, a local +\| Tested under +\|.*\n\| disk +\| Wine ", page, re.MULTILINE)
    assert [name for name in rows if name not in README.read_text(encoding="utf-8")] == ["CephFS"]


def test_every_method_is_listed() -> None:
    """The API has the public methods of Storage, with their parameters and a call that runs."""
    methods = [name for name, value in vars(Storage).items() if inspect.isfunction(value) and name[0] != "_"]
    described = entries()
    storage = signature("__init__").replace("__init__", "Storage")
    assert sorted(described) == sorted([storage, *map(signature, methods)])
    assert [name for name in methods if not re.search(rf">>> .*\.{name}\(", described[signature(name)])] == []


def test_every_public_name_is_mentioned() -> None:
    """What can be imported from the package is in the guide."""
    names = [name for name in views_runs.__all__ if name != "__version__"]
    text = "\n".join(PAGES.values())
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_error_is_listed() -> None:
    """The page has each public error, with the built-in error that it is too."""
    errors = [value for value in vars(views_runs).values() if isinstance(value, type) and issubclass(value, Exception)]
    listed = re.findall(r"^``(\w+Error)``(?: \(also an? ``(\w+)``\))?$", PAGES["errors"], re.MULTILINE)
    assert dict(listed) == {
        error.__name__: "".join(base.__name__ for base in error.__bases__[1:])
        for error in errors
        if error is not StorageError
    }


def test_errors_that_methods_raise_exist() -> None:
    """What the API says is raised is an error of this package."""
    raised = set(re.findall(r"``(\w+Error)``", PAGES["api"]))
    assert {name for name in raised if not issubclass(getattr(views_runs, name, object), StorageError)} == set()


@pytest.mark.parametrize(
    "topic, title, kind", [("metadata", "Known fields", ModelMetadata), ("api", "Values", ModelRecord)]
)
def test_every_field_is_listed(topic: str, title: str, kind: Any) -> None:
    """The guide names each field of a record, and of the metadata."""
    text = section(PAGES[topic], title)
    assert [field for field in kind.__dataclass_fields__ if f"``{field}``" not in text] == []


def test_conditions_find_what_they_explain(reader: Path) -> None:
    """Each condition in the table is valid, and finds the models that are like this."""
    conditions = re.findall(r"^``(.+?)`` ", section(PAGES["conditions"], "Conditions"), re.MULTILINE)
    store = Storage("example.db")
    store.annotate("fatalities_sb_rf", tuned={"depth": 4}, size=3)
    found = {condition: len(store.find(condition)) for condition in conditions}
    assert found == {
        "author = ines": 3,
        "train_end >= 2019-12": 3,
        "queryset_name ~ fatalities*": 0,
        "outcome in (ged_sb, ged_ns)": 3,
        "steps has 3": 3,
        "outcome": 3,
        "! outcome": 0,
        "tuned.depth > 3": 1,
        "'tuned.depth' > 3": 0,
        "size > 100MB": 0,
        "stored_at >= 2026-11-01": found["stored_at >= 2026-11-01"],
        "stored_at >= 7d": 3,
        "stored_by ~ ines@*": 3,
        "type ~ *RandomForest*": 1,
        "version > 1": 0,
        "not current": 0,
        "alias = production": 0,
        "run = 2026-11": 0,
        "metadata.size = 3": 1,
    }


def test_shortcuts_are_the_same_question(reader: Path) -> None:
    """The options and the arguments in a line of the table find the same models."""
    table = re.findall(r"^``list (.+?)`` +``find\((.+)\)``$", section(PAGES["conditions"], "Shortcuts"), re.MULTILINE)
    assert len(table) == 9
    for options, arguments in table:
        found = eval(f"store.list({arguments})", {"store": Storage("example.db")})
        printed = run_command(f"views-runs model --store example.db list --json {options}")
        assert [record["name"] for record in json.loads(printed)] == found


def test_tables_and_columns_are_those_of_the_file(reader: Path) -> None:
    """The page on the file describes each column of `models`, in its order, and each other table."""
    with closing(sqlite3.connect("example.db")) as connection:
        columns = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info('models')")]
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    described = re.findall(r"^``(\w+)`` {2,}\S", section(PAGES["file"], "The tables"), re.MULTILINE)
    assert described[: len(columns)] == columns
    others = {name for name in tables if not name.startswith("sqlite_")} - {"models"}
    assert sorted(described[len(columns) :]) == sorted(others)


def test_code_without_this_package_reads_a_model_of_several_parts(reader: Path) -> None:
    """The statements that use sqlite3 and pickle alone get what `fetch` returns."""
    model = [bytes(range(256)) * 12_000, "a model"]
    Storage("example.db").store("fatalities_sb_rf", model, overwrite=True)
    code = "".join(one.source for _, one in statements(PAGES["file"]))
    assert "views_runs" not in code
    names: dict[str, Any] = {}
    exec(compile(code, "file.rst", "exec"), names)
    assert names["parts"] and names["model"] == model


@pytest.mark.parametrize("topic", PAGES)
def test_places_that_pages_name_exist(topic: str) -> None:
    """Each file and folder that a page names is there."""
    named = re.findall(rf"(?<![\w/~])((?:{'|'.join(FOLDERS)})/[\w/]*(?:\.\w+)?)", PAGES[topic])
    missing = [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "views_runs"))]
    assert missing == []


def test_wrong_output_is_noticed(reader: Path) -> None:
    """A command, a statement and a comment that show something else than is printed are all found."""
    page = """
Page
====

    $ views-runs --version
    views_runs, version 1.0

>>> 1 + 1
3

.. code-block:: python

    one = 1
    [one]  # [2]
    [one]  # [1]
"""
    assert [step.strip() for step, _, _ in run_page(page)] == ["views-runs --version", "1 + 1", "[one]"]
    assert list(run_page(page.replace("version 1.0", "...").replace("\n3", "\n2").replace("# [2]", "# [1]"))) == []
