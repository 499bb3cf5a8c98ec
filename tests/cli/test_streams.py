"""What is printed: on terminals, into pipes, and in encodings that lack characters."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.lines import environment, on_a_terminal, viewser_command
from tests.support.pages import GUIDE
from views_runs import Storage
from views_runs.cli import FAMILIES, main

Viewser = Callable[..., Result]


def test_inspect_in_a_pipe(store: Storage, viewser: Viewser) -> None:
    """A long value is wrapped at 100 columns where there is no terminal, and none of it is lost."""
    store.store("m", 1, {"numbers": [*range(3000)], "key " * 30: "value"})
    lines = viewser("model", "inspect", "m").stdout.splitlines()
    assert {len(line) for line in lines} == {100}
    assert "".join(map(str, range(3000))) in "".join(filter(str.isdecimal, "".join(lines)))


def test_diff_in_a_pipe(store: Storage, viewser: Viewser) -> None:
    """Each of two long values is wrapped at 100 columns; a digest stays whole."""
    records = [store.store(name, name, {"numbers": [*range(start, 3000)]}) for start, name in enumerate("ab")]
    shown = viewser("model", "diff", "a", "b").stdout
    assert max(map(len, shown.splitlines())) < 220
    assert all(record.sha256 in shown for record in records)


def test_a_list_in_a_pipe(store: Storage, viewser: Viewser) -> None:
    """A list has one line for each model, however long it is."""
    store.store("m" * 200, 1, {"author": "a" * 500})
    _, line = viewser("model", "list").stdout.splitlines()
    assert line.startswith("m" * 200) and "a" * 500 in line


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "latin-1"])
def test_a_rule_that_the_encoding_has(store: Storage, encoding: str) -> None:
    """The lines of the panel are drawn with characters, and not with escapes."""
    store.store("m", 1, {"author": "me"})
    line = ["model", "--store", str(store.path), "inspect", "m"]
    lines = CliRunner(charset=encoding).invoke(main, line).stdout_bytes.decode(encoding).splitlines()
    assert set(lines[2]) == {"|", "-", " "} and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("encoding", ["cp437", "cp1252"])
def test_all_that_is_shown_in_a_code_page(store: Storage, encoding: str) -> None:
    """Redirected on Windows, a command prints no escapes of its own, and those of users' texts where it must."""
    store.store("m", 1, {"author": "me"})
    store.store("m", 2, {"author": "日本"}, overwrite=True)
    verbs = [["list"], ["inspect", "m:1"], ["diff", "m:1", "m:1"], ["check", "m"], ["verify"], ["doctor"], ["require"]]
    topics = [["guide", path.stem] for path in GUIDE.glob("*.rst")]
    helps = [[verb, "--help"] for names in FAMILIES.values() for verb in names]
    runner = CliRunner(charset=encoding)
    for line in [*verbs, *topics, *helps, ["trust", "m:1", "--yes"], ["backup", "copy.db"], ["download", "m"]]:
        result = runner.invoke(main, ["model", "--store", str(store.path), *line])
        assert result.exit_code == 0, (line, result.output)
        shown = (result.stdout_bytes + result.stderr_bytes).decode(encoding)
        allowed = r"\u017e" if line[0] == "guide" else "\\u65e5\\u672c"
        assert "\\u" not in shown.replace(allowed, ""), line
    assert "\\u65e5\\u672c" in runner.invoke(main, ["model", "--store", str(store.path), "inspect", "m"]).stdout
    assert runner.invoke(main, ["model", "--store", str(store.path), "inspect", "日"]).stderr.count("\\u65e5") == 2


def test_a_name_in_the_c_locale(store: Storage) -> None:
    """A name that is not ASCII is reached in a locale that is, with its conditions, fields and metadata."""
    store.store("modèle", 1, {"author": "žofie"})
    variables = environment(store, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    def run(*arguments: str) -> str:
        command = viewser_command("model", *arguments)
        return subprocess.run(command, capture_output=True, env=variables, check=True, encoding="ascii").stdout

    assert json.loads(run("inspect", "modèle", "--json"))["name"] == "modèle"
    assert run("list", "-q", "modè*", "--author", "žofie", "-w", "author = žofie") == "mod\\xe8le\n"
    run("annotate", "modèle", "--outcome", "é", "--set", "note=ñ")
    assert store.fetch_metadata("modèle") == {"author": "žofie", "outcome": "é", "note": "ñ"}
    run("download", "modèle", "m.pickle")
    os.rename("m.pickle", "é.pickle")
    run("upload", "é.pickle")
    assert store.list() == ["é", "modèle"]


def test_an_argument_that_is_not_utf_8(store: Storage) -> None:
    """Bytes that are no text are an error, and no traceback."""
    store.store("m", 1)
    command = [os.fsencode(one) for one in viewser_command("model", "inspect")] + [b"mod\xe8le"]
    result = subprocess.run(command, capture_output=True, env=environment(store))
    assert result.returncode == 1 and b"cannot be the name of a model" in result.stderr


def test_times_say_their_zone(store: Storage, viewser: Viewser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are local, with their offset; JSON is in UTC."""
    store.store("m", 1)
    store.store("m", 2, overwrite=True)
    monkeypatch.setenv("TZ", "UTC-05:30")
    time.tzset()
    try:
        for arguments in (["list", "--all-versions"], ["inspect", "m"], ["diff", "m", "--all"]):
            assert viewser("model", *arguments).stdout.count("+05:30") == (1 if "inspect" in arguments else 2)
        assert json.loads(viewser("model", "inspect", "m", "--json").stdout)["stored_at"].endswith("+00:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_names_on_a_terminal(store: Storage, sql: sqlite3.Connection) -> None:
    """A name cannot turn the line around, nor can one that another program gave a model move the cursor."""
    store.store("m\u202e", 1)
    assert on_a_terminal(viewser_command("model", "list", "-q"), environment(store)) == "m\\u202e\n"
    sql.execute("UPDATE models SET name = 'm' || char(27) || '[2J'")
    for options in (["-q"], []):
        shown = on_a_terminal(viewser_command("model", "list", *options), environment(store))
        assert r"m\x1b[2J" in shown and "\x1b[2J" not in shown


def test_a_page_of_the_guide(viewser: Viewser, guide: Path) -> None:
    """In a pipe a page is plain text; without a topic it is the index."""
    page = (guide / "conditions.rst").read_text("utf-8")
    assert viewser("model", "guide", "conditions").stdout == page
    assert viewser("model", "guide").stdout == (guide / "index.rst").read_text()
    assert json.loads(viewser("model", "guide", "conditions", "--json").stdout) == {"topic": "conditions", "text": page}


def test_the_guide_on_a_terminal(store: Storage, guide: Path, tmp_path: Path) -> None:
    """On a terminal a page goes through the user's pager."""
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho through the pager\ncat\n")
    pager.chmod(0o700)
    code = "from importlib import resources; from pathlib import Path; from views_runs.cli import main\n"
    code += f"resources.files = lambda package: Path({str(guide.parent)!r}); main(['model', 'guide'])"
    shown = on_a_terminal([sys.executable, "-c", code], environment(store, PAGER=str(pager)))
    assert shown.startswith("through the pager\nThe guide\n")
