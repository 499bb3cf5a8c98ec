"""How a command ends: exit codes, rows that cannot be read, and mistakes on the line."""

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.lines import environment, viewser_command
from views_runs import Storage

Viewser = Callable[..., Result]


def test_ctrl_c(store: Storage, viewser: Viewser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is interrupted exits with 130, and says so on stderr."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    store.store("m", 1)
    monkeypatch.setattr(Storage, "inspect", interrupt)
    result = viewser("model", "inspect", "m", exit_code=130)
    assert (result.stdout, result.stderr) == ("", "\nAborted!\n")


def test_ctrl_c_at_a_question(store: Storage) -> None:
    """Ctrl-C in place of an answer exits with 130, unlike the answer no, and nothing is deleted."""
    store.store("m", 1)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(viewser_command("model", "delete", "m"), env=environment(store), **pipes) as process:
        assert process.stderr is not None
        said = b""
        while b"[y/N]" not in said:
            said += os.read(process.stderr.fileno(), 1000)
        for _ in range(60):
            # A signal that comes just before the answer is read does not interrupt the reading.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        process.kill()
    assert process.returncode == 130
    assert store.list() == ["m"]


@pytest.mark.skipif(os.name == "nt", reason="sh closes its input")
def test_a_question_without_input(store: Storage) -> None:
    """It is not asked: the message says how to answer it, and nothing is deleted."""
    store.store("m", 1)
    line = ["sh", "-c", '"$@" <&-', "sh", *viewser_command("model", "delete", "m")]
    done = subprocess.run(line, env=environment(store), capture_output=True, text=True)
    assert done.returncode == 1 and store.list() == ["m"]
    said = "Error: there is no input to read the answer from. Give --yes if the answer is yes"
    assert done.stderr.splitlines()[-1] == said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written(store: Storage) -> None:
    """The message says that it is the output."""
    store.store("m", 1)
    with open("/dev/full", "w") as full:
        command = viewser_command("model", "list")
        done = subprocess.run(command, env=environment(store), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize(
    "arguments, shown",
    [
        (["list", "-q"], ["n", "m"]),
        (["list", "--json"], ["n", "m"]),
        (["check", "--all"], ["loads", "n:1", "loads", "m:1"]),
        (["check", "--all", "--json"], ["n", "m"]),
    ],
)
def test_a_row_that_cannot_be_read(
    store: Storage, sql: sqlite3.Connection, viewser: Viewser, arguments: list[str], shown: list[str]
) -> None:
    """The other models are shown, a line on stderr names the row, and the exit code is 1."""
    for name in ("m", "x", "n"):
        store.store(name, 1)
    sql.execute("UPDATE models SET environment = '{', name = 'x' || char(27) || '[31m' WHERE name = 'x'")
    result = viewser("model", *arguments, exit_code=1)
    [line] = result.stderr.splitlines()
    assert line.startswith(r"Error: cannot read x\x1b[31m:1: ") and "x1b" not in result.stdout
    names = [one["name"] for one in json.loads(result.stdout)] if "--json" in arguments else result.stdout.split()
    assert names == shown


def test_a_damaged_table_is_no_version(store: Storage, sql: sqlite3.Connection, viewser: Viewser) -> None:
    """If no version can be found any more, none is intact, rather than less than none."""
    store.store("m", 1)
    [(page,)] = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'restored'").fetchall()
    sql.close()
    with store.path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(bytes(16384))
    result = viewser("model", "verify", exit_code=1)
    assert "(the table restored)" in result.stdout and result.stderr.startswith("0 of 1 version in ")


def test_what_all_versions_lists_is_what_is_deleted(store: Storage, viewser: Viewser) -> None:
    """The names that `list --all-versions -q` prints, given to `delete`, delete these versions and no other."""
    for number in range(3):
        store.store("m", number, overwrite=True)
    listed = viewser("model", "list", "--all-versions", "-q", "-w", "version < 3").stdout.split()
    assert listed == ["m:2", "m:1"]
    viewser("model", "delete", *listed, "--yes")
    assert [record.version for record in store.versions("m")] == [3]


def test_two_files_to_upload(store: Storage, viewser: Viewser) -> None:
    """A NAME that is a file was meant as a second file: nothing is stored, and it is said how to store both."""
    Path("A.pkl").write_bytes(pickle.dumps(1))
    Path("it's B.pkl").write_bytes(pickle.dumps(2))
    said = viewser("model", "upload", "A.pkl", "it's B.pkl", exit_code=2).stderr
    line = 'for file in A.pkl \'it\'"\'"\'s B.pkl\'; do views-runs model upload "$file"; done'
    assert line in said and not store.path.exists()
    # The name of a shell function has no hyphen.
    line = line.replace("views-runs", "viewser")
    subprocess.run(["sh", "-c", f"viewser() {{ {sys.executable} -m views_runs \"$@\"; }}; {line}"], check=True)
    assert store.list() == ["it's B", "A"]


def test_two_models_to_download(store: Storage, viewser: Viewser) -> None:
    """A FILE that is a model was meant as a second model; with a folder before it, it is a file."""
    store.store("A", 1)
    store.store("B", 2)
    for other in ("B", "B:1"):
        said = viewser("model", "download", "A", other, exit_code=2).stderr
        assert f"  views-runs model download A {other} --to .\n" in said and f"./{other}" in said
    assert os.listdir() == []
    viewser("model", "download", "A", "./B")
    assert pickle.loads(Path("B").read_bytes()) == 1


def test_download_to_what_is_no_models_name(store: Storage, viewser: Viewser) -> None:
    """A folder stays a folder when there is a model of its name, and a FILE may be what no model can be called."""
    store.store("A", 1)
    store.store("B", 2)
    Path("B").mkdir()
    viewser("model", "download", "A", "B")
    viewser("model", "download", "A", "a\tb")
    assert sorted(os.listdir()) == ["B", "a\tb"] and os.listdir("B") == ["A.pickle"]


@pytest.mark.parametrize("verb", [["list"], ["inspect", "m"], ["verify"], ["check", "--all"], ["backup", "copy.db"]])
@pytest.mark.parametrize(
    "path, trouble", [("gone.db", "the store does not exist yet"), ("share/gone.db", "the folder does not exist")]
)
def test_a_named_store_that_is_missing(viewser: Viewser, verb: list[str], path: str, trouble: str) -> None:
    """A store that the line or the environment names has to exist, and nothing is made."""
    assert trouble in viewser("--store", path, "model", *verb, exit_code=1).stderr
    named = viewser("model", *verb, exit_code=1, env={"VIEWS_RUNS_STORE": path})
    assert trouble in named.stderr and named.stdout == "" and os.listdir() == []


def test_a_default_store_that_is_missing(viewser: Viewser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no store yet no condition is to blame."""
    monkeypatch.delenv("VIEWS_RUNS_STORE")
    assert viewser("model", "list", "--author", "me").stderr.startswith("There is no store yet at ")


def test_a_limit_of_nothing(store: Storage, viewser: Viewser) -> None:
    """With --limit 0 no condition is to blame either."""
    store.store("m", 1)
    assert viewser("model", "list", "--limit", "0").stderr == "--limit 0 lists nothing.\n"


@pytest.mark.parametrize(
    "arguments, operation",
    [
        (["delete", "n"], "delete"),
        (["annotate", "n", "--author", "me"], "annotate"),
        (["diff", "n"], "compare"),
        (["trust", "n"], "trust"),
    ],
)
def test_a_missing_model_is_not_said_to_be_inspected(
    store: Storage, viewser: Viewser, arguments: list[str], operation: str
) -> None:
    """The message names what was asked for, although a verb looks the model up before."""
    store.store("m", 1)
    said = viewser("model", *arguments, exit_code=1).stderr
    assert said.startswith(f"Error: cannot {operation} 'n': {store.path}: there is no model 'n'")


def test_a_name_that_no_model_can_have(viewser: Viewser) -> None:
    """It is refused before the store is looked for."""
    for verb in (["inspect", ""], ["delete", "x" * 256], ["diff", "m", "a\nb"]):
        said = viewser("model", *verb, exit_code=1, env={"VIEWS_RUNS_STORE": "gone.db"}).stderr
        assert "cannot be the name of a model" in said


def test_a_topic_that_is_missing(viewser: Viewser, guide: Path) -> None:
    """The message names the topics."""
    said = viewser("model", "guide", "nothing", exit_code=2).stderr
    assert "there is no topic 'nothing'. The topics are conditions, index." in said


@pytest.mark.parametrize(
    "arguments, suggestion",
    [
        (["list"], "No such command 'list'. Did you mean 'main model list'?"),
        (["modle"], "No such command 'modle'."),
        (["model", "inspct"], "No such command 'inspct'. Did you mean 'inspect'"),
        (["model", "xyz"], "No such command 'xyz'.\n"),
        (["model", "--where"], "No such option"),
    ],
)
def test_a_mistyped_command(viewser: Viewser, arguments: list[str], suggestion: str) -> None:
    """The message suggests the commands that were probably meant."""
    assert suggestion in viewser(*arguments, exit_code=2).stderr


def test_several_files_or_models(store: Storage, viewser: Viewser, tmp_path: Path) -> None:
    """Commands that take one of them show a line for all that were given, and do nothing."""
    files = [str(tmp_path / name) for name in ("a.pickle", "b.pickle", "c.pickle")]
    for file in files:
        Path(file).write_bytes(pickle.dumps(1))
    assert f"for file in {' '.join(files)}; do" in viewser("model", "upload", *files, exit_code=2).stderr
    assert "extra argument: model." in viewser("model", "upload", files[0], "my", "model", exit_code=2).stderr
    assert store.list() == []
    for name in "abc":
        store.store(name, 1)
    assert "download a b c --to ." in viewser("model", "download", "a", "b", "c", exit_code=2).stderr
    assert "extra arguments: d 'e f'." in viewser("model", "download", "a", "x", "d", "e f", exit_code=2).stderr
    assert not Path("a.pickle").exists()


def test_conditions_that_no_model_meets(store: Storage, viewser: Viewser) -> None:
    """The message repeats them, so that a typo or a missing quote can be seen."""
    store.store("m", 1)
    said = viewser("model", "list", "x*", "--author", "a", "--author", "b", "-w", "train_nd > 3").stderr
    assert f"No model in {store.path} meets these conditions: author a or b, name x*, train_nd > 3. `views" in said


def test_messages_that_say_what_happened(store: Storage, viewser: Viewser) -> None:
    """A rename that changes nothing, a search that finds nothing, and options that are not understood."""
    store.store("m", 1, {"mse": 2.5})
    assert viewser("model", "rename", "m", "m").stderr == "m already has this name.\n"
    assert viewser("model", "log", "--since", "2099-01-01").stderr == "No changes found.\n"
    said = viewser("model", "list", "--since", "7x", exit_code=1).stderr
    assert said.endswith("7d, 2w or yesterday, not '7x'\n")
    assert len(viewser("model", "list", "-w", f"note = '{'x' * 10_000}'").stderr) < 600
