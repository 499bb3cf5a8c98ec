"""A run as a unit: the versions that it trained or reused, in one process or several, and how it ended."""

import logging
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import as_nobody
from views_runs import (
    DownloadError,
    InvalidMetadataError,
    InvalidNameError,
    ModelMetadata,
    ModelNotFoundError,
    Run,
    RunNotFoundError,
    Storage,
    StorageError,
    StoreNotFoundError,
)
from views_runs.database import runs

NEEDED = {"train_end": 480}


def states(run: Run) -> dict[str, tuple[int | None, str]]:
    """Return the version and state of each model of a run."""
    return {model.name: (model.version, model.state) for model in run.models()}


def actions(store: Storage) -> list[tuple[str, str | None, int | None]]:
    """Return the events of runs, the first one first."""
    return [(event.action, event.name, event.version) for event in reversed(store.log()) if event.run]


def test_trained_and_reused(store: Storage) -> None:
    """A second run reuses what the first trained, and knows which run trained it."""
    with store.run("2026-10") as first:
        assert first.fetch_or_train("a", lambda: "a", NEEDED, recorded={"author": "ines"}) == "a"
        first.fetch_or_train("b", lambda: "b", NEEDED)
    with store.run("2026-11") as second:
        assert second.fetch_or_train("a", lambda: "other", NEEDED, recorded={"author": "me"}) == "a"
        result = second.obtain("b", lambda: "b", ModelMetadata(train_end=492))
        assert result.trained and result.record.metadata == {"train_end": 492, "run_id": "2026-11"}
        second.store("c", 3)
    assert states(first) == {"a": (1, "trained"), "b": (1, "trained")}
    assert states(second) == {"a": (1, "reused"), "b": (2, "trained"), "c": (1, "trained")}
    assert [model.trained_in for model in second.models()] == ["2026-10", "2026-11", "2026-11"]
    assert store.fetch_metadata("a") == {**NEEDED, "author": "ines", "run_id": "2026-10"}
    assert store.list(run="2026-10", sort="name") == ["a", "b:1"]
    assert [str(one.reference) for one in store.find(run=["2026-11", "nothing"], sort="name")] == ["a:1", "b:2", "c:1"]
    assert store.list(run_id="2026-11", sort="name") == ["b", "c"]
    assert (first.fetch("b"), second.fetch("b"), second.fetch("b:2")) == ("b", "b", "b")
    assert [(one.id, one.models, one.state, one.complete) for one in store.runs()] == [
        ("2026-11", 3, "succeeded", None),
        ("2026-10", 2, "succeeded", None),
    ]
    assert actions(store) == [
        *[("entered", None, None), ("stored", "a", 1), ("stored", "b", 1), ("ended", None, None)],
        *[("entered", None, None), ("used", "a", 1), ("stored", "b", 2), ("stored", "c", 1), ("ended", None, None)],
    ]


def test_a_later_version_replaces_the_earlier(store: Storage) -> None:
    """One version of each model, the last that was used; using one again changes nothing."""
    with store.run("r") as run:
        for number in 1, 2:
            run.store("a", number, overwrite=True)
        run.fetch_or_train("a", lambda: 3, {})
        assert states(run) == {"a": (2, "trained")}
        store.store("a", 3, {"run_id": "other"}, overwrite=True)
        run.add("a")
        assert states(run) == {"a": (3, "reused")}
        run.add("a:1", why="version 3 is too large")
    assert states(run) == {"a": (1, "trained")} and run.fetch("a") == 1
    replaced = [event for event in store.log("a") if event.action == "replaced"]
    assert [(event.version, event.changes["instead_of"], event.run) for event in replaced] == [
        (1, 3, "r"),
        (3, 2, "r"),
        (2, 1, "r"),
    ]
    assert replaced[0].why == "version 3 is too large"


def test_the_metadata_names_the_run(store: Storage) -> None:
    """It is added unless it is given; another one is an error before anything is trained."""
    with store.run("r") as run:
        run.store("a", 1, {"run_id": "r"})
        run.fetch_or_train("b", lambda: 1, {"run_id": "r"}, recorded={"author": "ines"})
        run.fetch_or_train("c", lambda: 1, {}, recorded={"run_id": "r"})
        for needed, recorded in ({"run_id": "s"}, None), (NEEDED, {"run_id": "s"}):
            with pytest.raises(InvalidMetadataError, match="cannot store 'a': .*run_id is 's', but the run is 'r'"):
                run.fetch_or_train("a", lambda: pytest.fail("trained"), needed, recorded=recorded)
        with pytest.raises(InvalidMetadataError, match="run_id is 's'"):
            run.store("a", 1, ModelMetadata(run_id="s"), overwrite=True)
        with pytest.raises(InvalidMetadataError, match="given twice"):
            run.fetch_or_train("a", lambda: 1, NEEDED, recorded=NEEDED)
    assert {record.metadata and record.metadata.run_id for record in store.find()} == {"r"}


def test_earlier_runs_show_by_their_metadata(store: Storage) -> None:
    """The last version of each model that names the run, current or not, and no other type than text."""
    for number, run in enumerate(["old", "old", "new", 7, None]):
        store.store("a", number, {"run_id": run} if isinstance(run, str) else {"of": run}, overwrite=True)
    store.store("b", 1, {"run_id": "old"})
    assert states(store.run("old")) == {"a": (2, "trained"), "b": (1, "trained")}
    assert store.run("old").fetch("a") == 1
    assert [(one.id, one.models, one.state, one.ended_at) for one in store.runs()] == [
        ("new", 1, None, None),
        ("old", 2, None, None),
    ]
    # A run that is entered has what was stored outside of it too, unless it used another version.
    with store.run("old") as run:
        run.add("a:3")
    assert states(run) == {"a": (3, "reused"), "b": (1, "trained")}
    assert store.list(run="old", sort="name") == ["a:3", "b"]


def test_a_version_that_names_the_run(store: Storage) -> None:
    """Adding it is an event too: from then on no other version of the model counts."""
    for number in range(2):
        store.store("a", number, {"run_id": "r"}, overwrite=True)
    store.run("r").add("a:1")
    assert actions(store) == [("used", "a", 1)]
    assert states(store.run("r")) == {"a": (1, "trained")}


def test_expected_models(store: Storage) -> None:
    """Only a run that says what it expects is complete; the list is kept, and follows the names."""
    with store.run("r") as run:
        with pytest.raises(StorageError, match="cannot compare the run 'r': .*no models are expected .*expect"):
            run.missing()
        run.store("a", 1)
        assert run.inspect().complete is None
        run.expect(["a", "b", "c", "b"])
        assert (run.missing(), run.inspect().complete, run.inspect().missing) == (["b", "c"], False, 2)
    again = Storage(store.path).run("r")
    assert states(again) == {"a": (1, "trained"), "b": (None, "missing"), "c": (None, "missing")}
    again.store("b", 1)
    # Stored outside of the run, with its name in the metadata.
    store.store("c", 1, {"run_id": "r"})
    assert again.missing() == [] and again.inspect().complete is True
    assert [event.changes["models"] for event in store.log() if event.action == "expected"] == [["a", "b", "c"]]
    again.expect(["c", "b", "a"])
    again.expect(["a", "d"])
    assert again.missing() == ["d"] and {model.name for model in again.models()} == {"a", "b", "c", "d"}
    again.expect([])
    assert again.inspect().complete is None and {model.name for model in again.models()} == {"a", "b", "c"}
    assert len([event for event in store.log() if event.action == "expected"]) == 3
    with pytest.raises(InvalidNameError, match=r"expect takes a list of names, not 'abc'. Give \['abc'\]"):
        run.expect("abc")
    with pytest.raises(InvalidNameError):
        run.expect(["a", "b:1"])


def test_nothing_is_expected(store: Storage) -> None:
    """An empty list does not create a run."""
    store.store("a", 1)
    store.run("r").expect([])
    assert store.runs() == [] and actions(store) == []


def test_what_is_expected_is_no_model(store: Storage) -> None:
    """A name that is only expected has no log, is no version, and its first version is 1."""
    with store.run("r") as run:
        run.expect(["a"])
    assert store.list() == [] and not store.exists("a")
    with pytest.raises(ModelNotFoundError, match="there is no model 'a'"):
        store.log("a")
    with pytest.raises(ModelNotFoundError, match="there is no model 'a'"):
        run.fetch("a")
    assert store.store("a", 1).version == 1


def test_compare_with_another_run(store: Storage) -> None:
    """What the other run used, also what was deleted since; not what it only expected."""
    with store.run("2026-10") as first:
        first.expect(["a", "b", "c", "never"])
        for name in "abc":
            first.store(name, name)
    with store.run("2026-11") as second:
        second.add("a")
        store.delete("b")
        assert second.missing(like="2026-10") == ["b", "c"]
    with pytest.raises(RunNotFoundError, match="there is no run '2026-1'. Did you mean '2026-11' or '2026-10'"):
        second.missing(like="2026-1")


def test_unknown_run(store: Storage) -> None:
    """Each method that reads it raises an error with similar ids; a search for it finds nothing."""
    store.store("a", 1, {"run_id": "2026-11"})
    unknown = store.run("2026-12")
    questions: list[Callable[[], object]] = [unknown.models, unknown.inspect, unknown.check, unknown.missing]
    for question in (*questions, lambda: unknown.fetch("a"), lambda: unknown.download("pickles")):
        with pytest.raises(RunNotFoundError, match="there is no run '2026-12'. Did you mean '2026-11'?"):
            question()
    assert store.find(run="2026-12") == [] and not Path("pickles").exists()


def test_deleted_while_in_a_run(store: Storage) -> None:
    """It is shown as deleted, with its number, and the run is not complete; a later version is another use."""
    with store.run("r") as run:
        run.expect(["a", "b"])
        run.store("a", 1)
        run.store("b", 1)
        assert run.inspect().complete
        store.delete("a")
        assert states(run) == {"a": (1, "deleted"), "b": (1, "trained")}
        assert run.inspect().complete is False and run.missing() == ["a"]
        with pytest.raises(ModelNotFoundError, match="cannot fetch from the run 'r' 'a': .*version 1, which has been"):
            run.fetch("a")
        assert run.store("a", 2).version == 2
    assert states(run) == {"a": (2, "trained"), "b": (1, "trained")} and run.inspect().complete


def test_renamed_while_in_a_run(store: Storage) -> None:
    """The run follows, with what it expects, also onto a name that another run waits for."""
    with store.run("r") as run, store.run("s") as other:
        run.expect(["a", "b"])
        other.expect(["z"])
        run.store("a", 1)
        store.rename("a", "z")
        assert states(run) == {"z": (1, "trained"), "b": (None, "missing")} and run.missing() == ["b"]
        other.add("z")
        assert other.inspect().complete and states(other) == {"z": (1, "reused")}
        assert run.fetch("z") == 1
        with pytest.raises(ModelNotFoundError, match="It was renamed to 'z'"):
            run.fetch("a")
        # Another model gets the earlier name.
        store.store("a", "another")
        assert states(run) == {"z": (1, "trained"), "b": (None, "missing")}


def test_fetch_what_the_run_did_not_use(store: Storage) -> None:
    """The message says what it used instead."""
    store.store("other", 1)
    with store.run("r") as run:
        run.store("a", 1)
        with pytest.raises(ModelNotFoundError, match="the run 'r' did not use the model 'other'"):
            run.fetch("other")
        with pytest.raises(ModelNotFoundError, match="'r' used version 1. Give the name alone"):
            run.fetch("a:2")
        with pytest.raises(ModelNotFoundError, match="there is no model 'aa'. Did you mean 'a'"):
            run.fetch("aa")
        with pytest.raises(ModelNotFoundError, match="cannot add to the run 'r' 'aa'"):
            run.add("aa")


@pytest.mark.parametrize(
    "error, state, reason",
    [
        (ValueError("no data"), "failed", "ValueError: no data"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt: "),
        (SystemExit(1), "failed", "SystemExit: 1"),
        (SystemExit(0), "succeeded", None),
    ],
)
def test_how_the_block_ends(store: Storage, error: BaseException, state: str, reason: str | None) -> None:
    """The exception that ends the block is recorded and raised unchanged; stored models stay."""
    with pytest.raises(type(error)) as caught, store.run("r", why="monthly") as run:
        run.store("a", 1)
        assert run.inspect().state == "running"
        raise error
    assert caught.value is error
    found = run.inspect()
    assert found.state == state and found.ended_at and found.ended_at >= found.started_at and found.models == 1
    ended = store.log()[0]
    assert (ended.action, ended.changes.get("error")) == ("failed" if reason else "ended", reason)
    assert [event.why for event in store.log()] == [None, None, "monthly"]


def test_fetch_by_an_alias(store: Storage) -> None:
    """It must be an alias of the version that the run used."""
    with store.run("2026-11") as run:
        run.store("forest", "first")
    store.alias("forest", "production")
    store.store("forest", "second", overwrite=True)
    assert run.fetch("forest@production") == "first"
    store.alias("forest", "production")
    with pytest.raises(ModelNotFoundError, match="used version 1"):
        run.fetch("forest@production")


class Untold(Exception):
    """An exception that cannot say what happened."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("error, reason", [(OSError("\udcff"), "OSError: \\udcff"), (Untold(), "Untold: (its text")])
def test_an_error_that_cannot_be_stored(store: Storage, error: Exception, reason: str) -> None:
    """A file name that is not valid UTF-8, and an exception of the user: the end is recorded all the same."""
    with pytest.raises(type(error)), store.run("2026-11"):
        raise error
    assert store.runs()[0].state == "failed"
    assert store.log(limit=1)[0].changes["error"].startswith(reason)


def test_an_alias_is_not_expected(store: Storage) -> None:
    """No new model can get such a name."""
    with pytest.raises(InvalidNameError, match="NAME@ALIAS refers to a version"):
        store.run("2026-11").expect(["forest@production"])


def test_entered_again(store: Storage) -> None:
    """The same run, later or within itself, is one run, and the last end counts."""
    with pytest.raises(ZeroDivisionError), store.run("r") as run:
        run.store("a", 1 // 0)
    assert run.inspect().state == "failed"
    started = run.inspect().started_at
    with run, run, store.run("r") as third:
        third.store("a", 1)
        assert run.inspect().state == "running"
    assert (run.inspect().state, run.inspect().started_at) == ("succeeded", started)
    assert [one.id for one in store.runs()] == ["r"]


@pytest.mark.parametrize("run", ["", "a\nb", "x" * 10_000, "a\0b"])
def test_ids_that_cannot_be_new(store: Storage, run: str) -> None:
    """A run cannot be entered with such an id, and nothing is created; one that is known from metadata can be read."""
    one = store.run(run)
    changes: list[Callable[[], object]] = [one.__enter__, lambda: one.expect(["a"])]
    for change in changes:
        with pytest.raises(InvalidNameError, match="cannot be the id of a run: it (is|has|contains)"):
            change()
    assert not store.exists_file()
    is_metadata = "\0" not in run
    store.store("a", 1, {"run_id": run} if is_metadata else None)
    with pytest.raises(InvalidNameError):
        one.add("a")
    if is_metadata:
        assert states(one) == {"a": (1, "trained")} and one.inspect().id == store.runs()[0].id == run


@pytest.mark.parametrize("run", ["2026-11", "x" * 255, "a b", "☃/..:1@%'\"--", "NULL", "*"])
def test_ids_that_are_text(store: Storage, run: str) -> None:
    """Anything else can be an id, and means only itself."""
    with store.run("other") as other:
        other.store("b", 1)
    with store.run(run) as one:
        one.store("a", 1)
    assert states(one) == {"a": (1, "trained")} and store.list(run=run) == ["a"]


@pytest.mark.parametrize("run", [None, 7, b"r", ["r"], "\ud800"])
def test_ids_of_other_types(store: Storage, run: Any) -> None:
    """They are refused at once."""
    with pytest.raises(InvalidNameError, match="the id of a run must be a string"):
        store.run(run)
    with store.run("r") as known, pytest.raises((InvalidNameError, StorageError)):
        known.missing(like=run)


def test_nothing_is_there(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Entering creates the file, as storing does; a missing folder is an error before anything is trained."""
    assert store.runs() == []
    caplog.clear()
    with caplog.at_level(logging.INFO), store.run("r"):
        pass
    assert caplog.messages == [f"{store.path} does not exist; creating it", f"created a new store, {store.path}"]
    assert store.run("r").models() == []
    with pytest.raises(StoreNotFoundError, match="cannot enter the run 'r': "), Storage("nowhere/models.db").run("r"):
        pytest.fail("entered")


def test_a_file_that_may_only_be_read(store: Storage) -> None:
    """A run cannot be entered, and what it used can be read."""
    with store.run("r") as run:
        run.store("a", 1)
    code = """
run = store.run("r")
print(run.models()[0].state, run.fetch("a"), run.inspect().state)
try:
    with run:
        print("entered")
except StoreReadOnlyError as error:
    print(error)
"""
    store.path.chmod(0o444)
    result = as_nobody(code, store)
    assert not result.stderr
    first, second = result.stdout.splitlines()
    assert first == "trained 1 succeeded" and second.startswith(f"cannot enter the run 'r': {store.path}: ")


def test_an_end_that_cannot_be_recorded(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """The problem is logged; only the exception that ended the block is raised."""
    store.timeout = 0.1
    other = sqlite3.connect(store.path, isolation_level=None)
    with store.run("r") as run:
        run.store("a", 1)
        other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    assert f"cannot leave the run 'r': {store.path}: " in caplog.text
    # This process is no longer in it, although the file says so.
    assert run.inspect().state == "interrupted"
    with pytest.raises(ZeroDivisionError), run:
        other.execute("BEGIN IMMEDIATE")
        raise ZeroDivisionError
    other.close()
    with run:
        pass
    assert run.inspect().state == "succeeded"


def test_a_file_with_an_earlier_layout(store: Storage) -> None:
    """Its runs are those of the metadata; entering one upgrades the file."""
    import gzip

    store.path.write_bytes(gzip.decompress((Path(__file__).parent / "layouts" / "1-4.db.gz").read_bytes()))
    before = {run.id: run.models for run in store.runs()}
    assert store.find(run="nothing") == []
    record = store.annotate(store.list(name="tree")[0], author="ines", run_id="old")
    with store.run("new") as run:
        run.add(record.name)
    assert {one.id: one.models for one in store.runs()} == before | {"old": 1, "new": 1}


def test_in_a_backup(store: Storage, tmp_path: Path) -> None:
    """Runs are part of the copy, and nobody is in them there."""
    with store.run("r") as run:
        run.expect(["a", "b"])
        run.store("a", 1)
        copy = Storage(store.backup(tmp_path / "copy.db").path)
    assert states(copy.run("r")) == states(run) and copy.run("r").missing() == ["b"]
    assert copy.run("r").inspect().state is None


def test_used_by_a_complete_run(store: Storage, sql: sqlite3.Connection) -> None:
    """What a complete run used is known by id, also after one of its versions was deleted."""
    for run, names in ("complete", "ab"), ("without", "a"), ("lacking", "a"):
        with store.run(run) as one:
            for name in names:
                one.store(name, run, overwrite=True)
            if run != "without":
                one.expect(["a", "b"] if run == "complete" else ["a", "c"])

    def used() -> list[tuple[str, int]]:
        select = f"SELECT name, version FROM models WHERE id IN ({runs.USED_BY_COMPLETE}) ORDER BY name"
        return sql.execute(select).fetchall()

    assert used() == [("a", 1), ("b", 1)]
    store.delete("b")
    assert used() == [("a", 1)]
    last = f"SELECT name, version FROM models WHERE id IN ({runs.USED_BY_LAST}) ORDER BY id"
    assert sql.execute(last, (2,)).fetchall() == [("a", 2), ("a", 3)]


def test_two_computers_at_once(store: Storage) -> None:
    """Both use the one run; each version is there, and each model once."""
    here, there = store.run("r"), Storage(store.path).run("r")
    with here:
        with there:
            here.fetch_or_train("a", lambda: "here", NEEDED)
            assert there.fetch_or_train("a", lambda: "there", NEEDED) == "here"
            there.fetch_or_train("a", lambda: "there", NEEDED, retrain=True)
        assert here.inspect().state == "running"
    assert states(here) == {"a": (2, "trained")} and here.inspect().state == "succeeded"


def test_trained_by_another_at_the_same_time(store: Storage) -> None:
    """The version that the other process stored is used."""
    with store.run("r") as run:
        result = run.obtain("a", lambda: store.store("a", 1, {**NEEDED, "run_id": "s"}).version, NEEDED)
    assert result.trained and states(run) == {"a": (1, "reused")}


def train(run: Run, name: str) -> tuple[Any, int]:
    """Train a model in a worker."""
    return run.fetch_or_train(name, lambda: name, NEEDED), os.getpid()


def enter_and_train(path: str, name: str) -> tuple[Any, int]:
    """Enter the run in a worker, and train a model."""
    with Storage(path).run("r") as run:
        return train(run, name)


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & {*multiprocessing.get_all_start_methods()}))
def test_workers(store: Storage, method: str) -> None:
    """Workers can be given the run, or enter it themselves, while the first process is in it."""
    with store.run("r") as run, multiprocessing.get_context(method).Pool(2) as pool:
        first = pool.starmap(train, [(run, f"a{number}") for number in range(4)])
        second = pool.starmap(enter_and_train, [(str(store.path), f"b{number}") for number in range(4)])
        assert run.inspect().state == "running"
    assert os.getpid() not in {pid for _, pid in (*first, *second)}
    assert len(states(run)) == 8 and run.inspect().state == "succeeded"


def test_workers_of_joblib(store: Storage) -> None:
    """The same with joblib, which pickles in its own way."""
    joblib = pytest.importorskip("joblib")
    with store.run("r") as run:
        found = joblib.Parallel(2)(joblib.delayed(train)(run, f"a{number}") for number in range(4))
        found += joblib.Parallel(2)(joblib.delayed(enter_and_train)(str(store.path), f"b{one}") for one in range(4))
    assert [model for model, _ in found] == [*(f"a{one}" for one in range(4)), *(f"b{one}" for one in range(4))]
    assert len(states(run)) == 8 and run.inspect().state == "succeeded"


def test_threads(store: Storage) -> None:
    """Threads can use a run at once."""
    with store.run("r") as run, ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda number: run.fetch_or_train(f"m{number % 3}", lambda: number, NEEDED), range(12))]
    assert len(found) == 12 and {*states(run)} == {"m0", "m1", "m2"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_leaves_its_parents_block(store: Storage) -> None:
    """A forked child that ends inside of the block records nothing: the block is its parent's."""
    code = """
import os, sys
from views_runs import Storage
with Storage(sys.argv[1]).run("r") as run:
    if not os.fork():
        run.store("a", 1)
        raise ValueError("in the child")
    assert os.wait()[1]
    assert run.inspect().state == "running"
"""
    result = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True)
    assert result.returncode == 0 and "ValueError: in the child" in result.stderr
    run = store.run("r")
    assert run.inspect().state == "succeeded" and states(run) == {"a": (1, "trained")}
    assert [action for action, *_ in actions(store)] == ["entered", "stored", "ended"]


KILLED = """
import sys
from views_runs import Storage
with Storage(sys.argv[1]).run("r") as run:
    run.store("a", 1)
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not known whether a process has ended")
def test_killed_in_a_run(store: Storage, sql: sqlite3.Connection) -> None:
    """It counts as interrupted until somebody is in it again; on another computer, as running for a week."""
    arguments = [sys.executable, "-c", KILLED, str(store.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "inside\n"
        run = store.run("r")
        assert run.inspect().state == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run.inspect().state == "interrupted" and states(run) == {"a": (1, "trained")}
    elsewhere = "UPDATE run_processes SET owner = json_set(owner, '$.kernel', 'of another computer')"
    sql.execute(elsewhere)
    assert run.inspect().state == "running"
    then = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="microseconds")
    sql.execute("UPDATE run_processes SET entered_at = ?", (then,))
    assert run.inspect().state == "interrupted"
    with run:
        assert run.inspect().state == "running"
    assert run.inspect().state == "succeeded"


def test_check_and_download(store: Storage) -> None:
    """Both take the versions that the run used; no file is written if one is in the way."""
    with store.run("r") as run:
        assert run.check() == [] and run.download("empty") == []
        run.expect(["a", "b/c", "missing"])
        run.store("a", "first")
        run.store("b/c", 1)
        run.store("gone", 1)
        store.delete("gone")
    store.store("a", "second", overwrite=True)
    assert [(str(record.reference), found.verdict) for record, found in run.check()] == [
        ("a:1", "loads"),
        ("b/c:1", "loads"),
    ]
    assert sorted(path.name for _, path in run.download("pickles")) == ["a_1.pickle", "b_c.pickle"]
    assert pickle.loads(Path("pickles/a_1.pickle").read_bytes()) == "first"
    Path("pickles/a_1.pickle").unlink()
    with pytest.raises(DownloadError, match="the file already exists"):
        run.download("pickles")
    assert os.listdir("pickles") == ["b_c.pickle"]
    assert len(run.download(Path("pickles"), overwrite=True)) == 2


def test_rows_that_cannot_be_read(store: Storage, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture) -> None:
    """They are reported, and the rest is there."""
    with store.run("r") as run:
        for name in "ab":
            run.store(name, 1)
    sql.execute("UPDATE models SET stored_at = 'yesterday' WHERE name = 'a'")
    damaged: list[Any] = []
    assert [model.name for model in run.models(on_damage=damaged.append)] == ["b"] and damaged[0].name == "a"
    assert [model.name for model in run.models()] == ["b"] and "skipping a: " in caplog.text
    sql.execute("UPDATE runs SET started_at = 'yesterday'")
    with pytest.raises(StorageError, match="cannot list the runs: .*the run 'r' cannot be read: ValueError"):
        store.runs()


def test_a_run_is_text_and_can_be_pickled(store: Storage) -> None:
    """Its text says which store and which run, and a copy in another process is the same run."""
    run = store.run("r")
    assert repr(run) == f"Storage({str(store.path)!r}).run('r')"
    assert repr(pickle.loads(pickle.dumps(run))) == repr(run)
    # The store itself stays outside of the run.
    store.store("a", 1)
    with run:
        store.store("b", 1)
    assert states(run) == {}


def test_runs_with_a_clock_that_goes_backwards(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may end before it began; everything can still be read."""
    with store.run("r") as run:
        monkeypatch.setattr(runs, "_now", lambda later=timedelta(): "2001-01-01T00:00:00+00:00")
        run.store("a", 1)
    found = run.inspect()
    assert found.state == "succeeded" and found.ended_at and found.ended_at < found.started_at


@pytest.mark.parametrize(
    "condition, names",
    [
        ("run = r", "ab"),
        ("run = old", "c"),
        ("run = metadata", ""),
        ("run != r", "c"),
        ("run ~ o*", "c"),
        ("run in (s, old)", "bc"),
        ("run > r", "b"),
        ("run", "abc"),
        ("not run", "d"),
        ("!run", "d"),
        ("not run = r", "cd"),
        ("metadata.run = metadata", "a"),
        ("run = r and metadata.run", "a"),
        ("run_id = r", "a"),
    ],
)
def test_conditions(store: Storage, condition: str, names: str) -> None:
    """A model can be in several runs: it equals each of them, and is unequal to the others."""
    with store.run("r") as first, store.run("s") as second:
        first.store("a", 1, {"run": "metadata"})
        second.store("b", 2)
        first.add("b")
    store.store("c", 3, {"run_id": "old"})
    store.store("d", 4)
    assert "".join(sorted(store.list(condition))) == names


def test_sorted_by_run(store: Storage) -> None:
    """By the last of its runs, in the order of their ids; a model that no run used comes last."""
    with store.run("r") as first, store.run("s") as second:
        first.store("a", 1)
        second.store("b", 2)
        first.add("b")
    store.store("c", 3)
    assert store.list(sort="run") == ["a", "b", "c"] and store.list(sort="-run") == ["b", "a", "c"]
