"""The command line: through click's runner, and as a process for exit codes and streams."""

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.budgets import IN_FULL
from tests.support.lines import environment, on_a_terminal, viewser_command
from tests.support.stores import damage
from views_runs import Storage
from views_runs.cli import FAMILIES, look, main
from views_runs.rendering import console, views
from views_runs.version import __version__

Viewser = Callable[..., Result]

VERBS = [verb for verbs in FAMILIES.values() for verb in verbs]

METADATA = {
    "seed": 7,
    "author": "testuser",
    "run_id": "2026-11",
    "level_of_analysis": "country_month",
    "train_start": 121,
    "train_end": 480,
    "training_date": datetime(2026, 11, 23, 8, 0, 5),
    "steps": [1, 2],
    "a note": "two\nlines \x1b[31m[bold]and markup[/bold]",
}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a process; among the quick tests in this one."""
    command = ["viewser", *arguments]
    if IN_FULL:
        command = [sys.executable, "-W", "error", "-m", "views_runs", *arguments]
        return subprocess.run(command, capture_output=True, text=True)
    result = CliRunner().invoke(main, arguments)
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)


def test_list_shows_every_column(store: Storage, viewser: Viewser) -> None:
    """What is not a terminal gets every column, and nothing of it cut, without colour."""
    name = "fatalities_" + "x" * 200
    store.store(name, list(range(1000)), METADATA)
    store.store("[red]bare[/red]", 1)
    lines = viewser("model", "list").stdout.splitlines()
    assert lines[0].split("  ")[0] == "name"
    for header in ("version", "author", "run", "level of analysis", "training period", "trained", "size", "stored"):
        assert header in lines[0]
    assert lines[1].startswith("[red]bare[/red] ")
    stored = store.inspect(name).stored_at.astimezone().isoformat(" ", "minutes")
    assert lines[2].split() == [
        *[name, "1", "testuser", "2026-11", "country_month", "121-480", "2026-11-23"],
        *["list", "2.8", "kB", *stored.split()],
    ]  # fmt: skip


@pytest.mark.abridged
@pytest.mark.parametrize("columns", [10, 40, 80, 140, 200] if IN_FULL else [10, 80, 200])
def test_a_terminal_of_any_width(store: Storage, columns: int) -> None:
    """In a narrow terminal the name is whole, folded where it must be, and columns are left out."""
    import pty
    import termios

    store.store("fatalities_sb_random_forest", 1, METADATA)
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, columns))
    environment = {**os.environ, "TERM": "xterm", "VIEWS_RUNS_STORE": str(store.path)}
    code = [sys.executable, "-m", "views_runs", "model", "list"]
    result = subprocess.run(code, stdout=terminal, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(terminal)
    shown = re.sub(r"\x1b\[[\d;]*m", "", os.read(main, 10_000).decode().replace("\r\n", "\n"))
    os.close(main)
    assert all(len(line) <= columns for line in shown.splitlines())
    first_column = [line[: min(columns, 30)].split("  ")[0].strip() for line in shown.splitlines()[1:]]
    assert "".join(first_column).startswith("fatalities_sb_random_forest")
    assert ("level of analysis" in shown) == (columns >= 140)
    assert ("Some columns are hidden" in result.stderr) == (columns < 200)
    assert result.stderr.splitlines()[0] == "1 model, 5 bytes"


@pytest.mark.parametrize(
    "columns, head, row",
    [
        ("name,outcome,mse", "name  outcome  mse", "m     ged_sb   0.25"),
        ("mse, name", "mse   name", "0.25  m"),
        ("tuned.depth,train_end", "tuned.depth  train_end", "3            480 (Dec 2019)"),
        ("type,version,current", "type  version  current", "list        1  true"),
        ("metadata.version,run_id,run", "metadata.version  run_id  run", "two                       "),
        ("run", "run", ""),
        ('"a, b"', None, "invalid field"),
        ("name,,mse", None, "a column has no name. Give names, as in name,mse"),
        ("+", None, "a column has no name"),
    ],
)
def test_chosen_columns(store: Storage, viewser: Viewser, columns: str, head: str | None, row: str) -> None:
    """Titles of the usual columns, and any field that a condition can ask for."""
    store.store("m", [1], {"outcome": "ged_sb", "mse": 0.25, "tuned": {"depth": 3}, "train_end": 480, "version": "two"})
    if head is None:
        assert row in viewser("model", "list", "--columns", columns, exit_code=1).stderr
        return
    assert viewser("model", "list", "--columns", columns).stdout.split("\n")[:2] == [head, row.rstrip()]


def test_one_more_column(store: Storage, viewser: Viewser) -> None:
    """It follows the usual ones, and is there however narrow the terminal is; a misspelt one is told."""
    store.store("m" * 30, [1], {"mse": 0.25})
    usual = viewser("model", "list").stdout.splitlines()
    shown = viewser("model", "list", "--columns", "+mse,+msee")
    assert shown.stdout.splitlines() == [f"{usual[0].ljust(len(usual[1]))}  mse   msee", f"{usual[1]}  0.25"]
    assert shown.stderr == "No model in this list has a field 'msee'.\n"
    assert views.fit({"name": 40, "size": 6, "mse": 8}, 20, ["mse"]) == {"name": 10, "mse": 8}
    assert views.fit({"mse": 8, "name": 40}, 20, ["mse", "name"]) == {"mse": 8, "name": 40}


def test_the_end_of_a_list_on_a_terminal(store: Storage) -> None:
    """How many models there are and how large; versions, if there are several of one model; nothing without a table."""
    for model in b"x" * 1000, b"y" * 1000:
        store.store("m", model, overwrite=True)
    variables = environment(store, TERM="dumb")
    for line, last in {"": "1 model, 1.0 kB", "--all-versions": "2 versions, 2.0 kB"}.items():
        shown = on_a_terminal(viewser_command("model", "list", *line.split()), variables)
        assert shown.splitlines()[-2:][0] == last or shown.splitlines()[-1] == last
    assert on_a_terminal(viewser_command("model", "list", "-q"), variables) == "m\n"


def test_the_caret_on_a_terminal(store: Storage) -> None:
    """It is under the mistake, also in a condition that is longer than a line."""
    store.store("m", 1)
    condition = " and ".join(["author = ines"] * 20 + ["train_end > soon"])
    shown = on_a_terminal(viewser_command("model", "list", "-w", condition), environment(store, TERM="dumb"))
    _, text, pointer = shown.splitlines()
    assert len(text) <= 80 and text[pointer.index("^") :] == "soon"


def test_message_when_nothing_is_found(store: Storage) -> None:
    """It shows the values of all options, whatever their type."""
    store.store("m", 1)
    said = look.explain_empty(store, ["a or b"], {"author": ["x", "y"], "step": [1, 3], "number": 5})
    assert "meets these conditions: author x or y, step 1 or 3, number 5, a or b." in said


def test_list_newest_first_and_by_name(store: Storage, viewser: Viewser) -> None:
    """A glob selects; -q prints names only, for a shell."""
    for name in ("a1", "b1", "a2"):
        store.store(name, 1)
    store.store("a1", 2, overwrite=True)
    assert viewser("model", "list", "-q").stdout == "a1\na2\nb1\n"
    assert viewser("model", "list", "a*", "--quiet", "--all-versions").stdout == "a1:2\na2:1\na1:1\n"
    records = json.loads(viewser("model", "list", "--json").stdout)
    assert records == [record.as_json() for record in store.find()]


def test_an_empty_store_says_what_to_do_next(viewser: Viewser, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    """No table without rows: the two lines that store a model; JSON stays JSON."""
    monkeypatch.delenv("VIEWS_RUNS_STORE")
    result = viewser("model", "list")
    assert result.stdout == ""
    assert "There is no store yet at" in result.stderr and "Storage().store('my-model', my_model" in result.stderr
    assert viewser("model", "list", "--json").stdout == "[]\n"
    assert list(own_home.iterdir()) == []


def test_no_name_fits(store: Storage, viewser: Viewser) -> None:
    """A glob that finds nothing says so."""
    store.store("m", 1)
    assert "meets these conditions" in viewser("model", "list", "x*").stderr


def test_inspect_shows_the_metadata_first(store: Storage, viewser: Viewser) -> None:
    """Known fields in their order, then others; months with their names; nothing that moves the cursor."""
    record = store.store("m", [1], METADATA)
    shown = viewser("model", "inspect", "m").stdout
    lines = [" ".join(line.strip("│ ").split()) for line in shown.splitlines()]
    assert "m, version 1" in lines[0]
    assert lines[1:10] == [
        "author testuser",
        "run_id 2026-11",
        "level_of_analysis country_month",
        "train_start 121 (Jan 1990)",
        "train_end 480 (Dec 2019)",
        "training_date 2026-11-23 08:00:05",
        "steps [1, 2]",
        r"a note two\nlines \x1b[31m[bold]and markup[/bold]",
        "seed 7",
    ]
    assert lines[11:14] == ["type builtins.list", f"size {record.size} bytes", f"sha256 {record.sha256}"]
    assert lines[14].endswith(f"by {record.stored_by}")
    assert lines[15].startswith("made with CPython")
    assert "\x1b" not in shown


def test_inspect_without_metadata_and_of_a_version(store: Storage, viewser: Viewser) -> None:
    """A version that is not current says so."""
    store.store("m", [1])
    store.store("m", [2], overwrite=True)
    assert "stored without metadata" in viewser("model", "inspect", "m").stdout
    assert "m, version 1 (not current)" in viewser("model", "inspect", "m:1").stdout
    assert json.loads(viewser("model", "inspect", "m:1", "--json").stdout) == store.inspect("m:1").as_json()


def test_download(store: Storage, viewser: Viewser) -> None:
    """The file is the pickle, byte for byte: sha256sum says what inspect says."""
    record = store.store("m", os.urandom(2_500_000))
    result = viewser("model", "download", "m")
    assert (result.stdout, result.stderr) == ("", "Wrote m to m.pickle (2.5 MB).\n")
    data = Path("m.pickle").read_bytes()
    assert hashlib.sha256(data).hexdigest() == record.sha256
    assert os.listdir() == ["m.pickle"]
    assert json.loads(viewser("model", "download", "m", "other", "--json").stdout) == {
        "name": "m",
        "file": "other",
        "size": record.size,
    }


def test_download_keeps_a_file(store: Storage, viewser: Viewser) -> None:
    """An existing file is replaced only with --force."""
    store.store("m", [1])
    Path("m.pickle").write_text("mine")
    said = viewser("model", "download", "m", exit_code=1).stderr
    assert "the file already exists and was not changed. Replace it with overwrite=True (--force)" in said
    assert Path("m.pickle").read_text() == "mine"
    viewser("model", "download", "m", "--force")
    assert pickle.loads(Path("m.pickle").read_bytes()) == [1]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", ".", "..", ".bashrc", "-rf", "a/b\\c", "é" * 255, 'a:b*?"<>|']
)
def test_a_name_cannot_lead_the_file_out_of_the_folder(store: Storage, viewser: Viewser, name: str) -> None:
    """Whatever the name, the file lies in this folder, and is not hidden in it."""
    store.store(name, [1])
    viewser("model", "download", "--", name)
    (file,) = os.listdir()
    assert file.endswith(".pickle") and not file.startswith((".", "-"))
    assert pickle.loads(Path(file).read_bytes()) == [1]


def test_download_into_a_folder(store: Storage, viewser: Viewser) -> None:
    """A folder gets a file named after the model and the version asked for."""
    store.store("m", [1])
    Path("folder").mkdir()
    viewser("model", "download", "m:1", "folder")
    assert os.listdir("folder") == ["m_1.pickle"]


def test_download_never_harms_the_store(store: Storage, viewser: Viewser, tmp_path: Path) -> None:
    """Neither the store nor its journal is overwritten, also not through a link, also not with --force."""
    store.store("m", [1])
    (tmp_path / "link").symlink_to(store.path)
    before = store.path.read_bytes()
    for target in (str(store.path), f"{store.path}-journal", str(tmp_path / "link"), "../models.db"):
        assert "the store itself" in viewser("model", "download", "m", target, "--force", exit_code=1).stderr
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("target", ["/dev/null", "missing/folder/file", "/proc/file"])
def test_download_to_where_no_file_can_be(store: Storage, viewser: Viewser, target: str) -> None:
    """The message names the file."""
    store.store("m", [1])
    assert target in viewser("model", "download", "m", target, "--force", exit_code=1).stderr
    assert os.listdir() == []


def test_download_of_a_damaged_model(store: Storage, viewser: Viewser, sql: object) -> None:
    """A damaged model leaves no file, neither whole nor half."""
    store.store("m", os.urandom(3_000_000))
    damage(sql, 1)  # type: ignore[arg-type]
    assert "part 1 of its pickle does not match its digest" in viewser("model", "download", "m", exit_code=1).stderr
    assert os.listdir() == []


def test_download_to_stdout(store: Storage) -> None:
    """- is the standard output, with nothing but the pickle in it."""
    model = os.urandom(2_500_000)
    store.store("m", model)
    command = [sys.executable, "-m", "views_runs", "model", "download", "m", "-", "--store", str(store.path)]
    result = subprocess.run(command, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
    assert pickle.loads(result.stdout) == model


def test_a_reader_that_goes_away(store: Storage) -> None:
    """`views-runs model download m - | head -c 1` ends without a traceback."""
    store.store("m", os.urandom(5_000_000))
    command = f"{sys.executable} -m views_runs model --store {store.path} download m - | head -c 1 | wc -c"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("1", "")


def test_delete_asks(store: Storage, viewser: Viewser) -> None:
    """It says what is freed and asks; anything but yes keeps the models."""
    store.store("m", os.urandom(2_000_000))
    store.store("n", 1)
    for answer in ("n\n", "\n", ""):
        result = viewser("model", "delete", "m", "n", exit_code=1, input=answer)
        assert re.search(r"^m +1 +\S+@\S+ +2.0 MB$", result.stderr, re.MULTILINE)
        assert "Deleting 2 versions frees 2.0 MB." in result.stderr and result.stdout == ""
    assert store.list() == ["n", "m"]
    viewser("model", "delete", "m", input="y\n")
    assert store.list() == ["n"]


def test_delete_says_which_version_is_current_now(store: Storage, viewser: Viewser) -> None:
    """Deleting the current version makes the one before it current."""
    for number in range(3):
        store.store("m", number, overwrite=True)
    result = viewser("model", "delete", "m:3", "m:3", "--yes")
    assert result.stderr.splitlines() == ["Deleted m, version 3 (5 bytes).", "The current version of m is now 2."]
    deleted = json.loads(viewser("model", "delete", "m", "--yes", "--json").stdout)
    assert [(record["version"], record["current"]) for record in deleted] == [(2, True), (1, False)]
    assert store.list() == []


def test_delete_of_a_missing_model_deletes_nothing(store: Storage, viewser: Viewser) -> None:
    """A mistake in one name keeps the others."""
    store.store("m", 1)
    assert "there is no model 'n'" in viewser("model", "delete", "m", "n", "--yes", exit_code=1).stderr
    assert store.list() == ["m"]


@pytest.mark.abridged
def test_options_stand_anywhere(store: Storage, tmp_path: Path) -> None:
    """--store and --json are taken before, between and after the commands."""
    store.store("m", 1)
    path = str(store.path)
    lines = [
        ("--store", path, "--json", "model", "list"),
        ("--json", "model", "--store", path, "list"),
        ("model", "list", "--store", path, "--json"),
    ]
    results = [run(*line) for line in lines]
    assert [json.loads(result.stdout)[0]["name"] for result in results] == ["m"] * 3


@pytest.mark.abridged
def test_exit_codes_and_streams(store: Storage) -> None:
    """0 done, 1 an error of the store, 2 wrong usage; data on stdout, messages on stderr."""
    store.store("m", 1)
    path = str(store.path)
    done = run("model", "list", "-q", "--store", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "m\n", "")
    missing = run("model", "inspect", "n", "--store", path)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith(f"Error: cannot inspect 'n': {path}: there is no model 'n'")
    for wrong in (("model", "inspect"), ("model", "nothing"), ("model", "list", "--nothing"), ("model", "delete")):
        result = run(*wrong)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Usage:" in result.stderr


@pytest.mark.abridged
def test_a_given_store_that_is_not_there(tmp_path: Path) -> None:
    """The line says which file, and --help needs none."""
    result = run("--store", str(tmp_path / "gone.db"), "model", "list")
    assert (result.returncode, result.stdout) == (1, "")
    trouble = f"cannot list models: {tmp_path / 'gone.db'}: the store does not exist yet. Check the path"
    assert result.stderr.startswith(f"Error: {trouble}")
    assert run("--store", str(tmp_path / "gone.db"), "model", "list", "--help").returncode == 0
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("command", [[], ["model"], *(["model", verb] for verb in VERBS)])
def test_help_has_an_example(viewser: Viewser, command: list[str]) -> None:
    """A newcomer sees what to type."""
    shown = viewser(*command, "--help").stdout
    assert "Example" in shown and "views-runs model" in shown and "--store PATH" in shown and "--json" in shown


def test_version(viewser: Viewser) -> None:
    """The version is the package's."""
    assert viewser("--version").stdout == f"views_runs, version {__version__}\n"


@pytest.mark.abridged
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"] if IN_FULL else ["latin-1"])
def test_a_terminal_without_the_characters(store: Storage, encoding: str) -> None:
    """A name that cannot be shown is escaped; JSON is always JSON."""
    store.store("日本", 1, {"note": "ž"})
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "VIEWS_RUNS_STORE": str(store.path)}
    for arguments in (("list",), ("list", "-q"), ("inspect", "日本")):
        command = [sys.executable, "-m", "views_runs", "model", *arguments]
        result = subprocess.run(command, capture_output=True, env=environment)
        assert (result.returncode, result.stderr) == (0, b"")
        assert ("日本" if encoding == "utf-8" else r"\u65e5\u672c") in result.stdout.decode(encoding)
        if "-q" not in arguments:
            data = subprocess.run([*command, "--json"], capture_output=True, env=environment).stdout
            shown = json.loads(data.decode(encoding))
            assert (shown[0] if arguments[0] == "list" else shown)["name"] == "日本"


@pytest.mark.parametrize(
    "field, value, shown",
    [
        ("train_start", 0, "0"),
        ("train_end", True, "true"),
        ("train_end", "480", "480"),
        ("nested", {"when": datetime(2026, 1, 2)}, '{"when": "2026-01-02T00:00:00"}'),
        ("empty", None, ""),
        ("share", 0.5, "0.5"),
    ],
)
def test_values(field: str, value: object, shown: str) -> None:
    """Only a month is shown as a month."""
    assert console.text(field, value) == shown


def test_scripts_are_installed() -> None:
    """viewser and views-runs have the same commands."""
    from importlib.metadata import entry_points

    scripts = {
        script.name: script.load() for script in entry_points(group="console_scripts") if "views_runs" in script.value
    }
    assert set(scripts) == {"viewser", "views-runs"}
    assert scripts["viewser"].commands is scripts["views-runs"].commands


def test_listing_loads_no_more_than_it_needs(store: Storage) -> None:
    """Neither what only fetching or storing needs, nor the console of rich, is imported to list."""
    store.store("m", 1)
    code = "import sys; from views_runs.cli import main; main(sys.argv[1:], standalone_mode=False); "
    code += "names = ('difflib', 'numpy', 'importlib.metadata', 'asyncio', 'rich.console'); "
    code += "print([name for name in names if name in sys.modules])"
    command = [sys.executable, "-c", code, "model", "list", "--store", str(store.path)]
    result = subprocess.run(command, capture_output=True, text=True)
    header, record, modules = result.stdout.splitlines()
    assert (header.split()[0], record.split()[0], modules) == ("name", "m", "[]")


def test_delete_of_a_model_named_twice(store: Storage, viewser: Viewser) -> None:
    """With a version and without: each version is deleted once."""
    for number in range(2):
        store.store("m", number, overwrite=True)
    result = viewser("model", "delete", "m", "m:2", "m:02", "--yes")
    assert result.stderr.splitlines() == ["Deleted m, version 2 (5 bytes).", "Deleted m, version 1 (5 bytes)."]
    assert store.list() == []


@pytest.mark.abridged
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "2>&-"])
def test_streams_that_are_closed_or_full(store: Storage, redirection: str) -> None:
    """No traceback, and an exit code that tells."""
    store.store("m", 1)
    verbs = ("list", "list --json", "list -q", "inspect m", "download m -")
    for verb in verbs if IN_FULL else verbs[::4]:
        command = f"{sys.executable} -m views_runs model --store {store.path} {verb} {redirection}"
        result = subprocess.run(command, shell=True, capture_output=True)
        assert b"Traceback" not in result.stderr, (verb, result.stderr)
        assert result.returncode == (0 if redirection == "2>&-" else result.returncode)
        if redirection == ">/dev/full":
            assert result.returncode == 1
