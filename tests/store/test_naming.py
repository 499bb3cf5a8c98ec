"""Restoring, aliases, renaming, events and history."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.support.recorded import OFTEN, VERBS, Told, Worker
from views_runs import Storage
from views_runs.database import deletion
from views_runs.database.connection import Connection
from views_runs.database.events import Events
from views_runs.database.models import Models
from views_runs.exceptions import (
    AliasNotFoundError,
    InvalidNameError,
    ModelExistsError,
    ModelInUseError,
    ModelNotFoundError,
    QueryError,
    StorageError,
    StoreBusyError,
)
from views_runs.records import Reference


@pytest.fixture
def three(store: Storage) -> Storage:
    """A store with a model of three versions."""
    for number in (1, 2, 3):
        store.store("forest", number, {"train_end": 480 + number}, overwrite=True)
    return store


def test_restore(three: Storage) -> None:
    """Everything follows the pointer, and the next store makes a new highest version, which is current."""
    assert three.restore("forest:1").current
    assert three.fetch("forest") == 1 and three.inspect("forest").version == 1
    assert [(one.version, one.current) for one in three.versions("forest")] == [(3, False), (2, False), (1, True)]
    assert [(one.name, one.version) for one in three.find()] == [("forest", 1)]
    assert [(one.name, one.version) for one in three.find("current")] == [("forest", 1)]
    assert three.fetch_or_train("forest", lambda: pytest.fail("trained"), {"train_end": 481}) == 1
    assert three.obtain("forest", lambda: 4, {"train_end": 483}).record.version == 4
    assert three.fetch("forest") == 4 and three.verify().damaged == ()


def test_restore_and_back(three: Storage) -> None:
    """Restoring the highest version undoes it; restoring what is current changes nothing."""
    three.restore("forest", 2)
    three.restore("forest:2")
    assert [event.action for event in three.log()] == ["restored", *["stored"] * 3]
    three.restore("forest:3")
    assert three.fetch("forest") == 3
    connection = sqlite3.connect(three.path)
    assert connection.execute("SELECT count(*) FROM restored").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("deleted, left", [(1, 3), (3, 1), (2, 1)])
def test_delete_after_restore(three: Storage, deleted: int, left: int) -> None:
    """When the current version is deleted, the highest that is left is current; otherwise nothing changes."""
    three.restore("forest:1")
    record = three.delete(f"forest:{deleted}")
    assert record is not None and record.version == left and three.inspect("forest").version == left


def test_restore_bad_input(three: Storage) -> None:
    """A version is needed, and it must exist."""
    with pytest.raises(InvalidNameError, match="no version was given. Give one, as in 'forest:2'"):
        three.restore("forest")
    three.delete("forest:2")
    with pytest.raises(ModelNotFoundError, match="no version 2; its versions are 3, 1"):
        three.restore("forest:2")
    with pytest.raises(ModelNotFoundError, match="no model 'tree'"):
        three.restore("tree:1")


def test_aliases(three: Storage) -> None:
    """An alias stays with its version until it is moved, wherever a name is taken."""
    assert three.alias("forest", "production", 1).aliases == ("production",)
    assert three.alias("forest:1", "a").aliases == ("a", "production")
    assert three.fetch("forest@production") == 1 and three.inspect("forest@production").version == 1
    assert three.fetch_metadata("forest@production") == {"train_end": 481}
    assert three.annotate("forest@production", note="x").version == 1
    assert three.diff("forest@production", "forest")[0].version == 1
    assert three.exists("forest@production") and not three.exists("forest@staging") is True
    assert three.find("version = 1", all_versions=True)[0].aliases == ("a", "production")
    assert three.alias("forest", "production").version == 3
    assert three.fetch("forest@production") == 3
    assert three.unalias("forest", "production").aliases == ()
    with pytest.raises(AliasNotFoundError, match="no alias 'production'. It has 'a'"):
        three.fetch("forest@production")


@pytest.mark.parametrize("look", ["fetch", "inspect", "check", "select", "fetch_metadata"])
def test_an_alias_that_is_moved_meanwhile(three: Storage, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    """Nobody is told that a version does not exist that they did not ask for."""
    three.alias("forest", "production", 1)
    other, resolve, failures = Storage(three.path, timeout=0), Models.resolve, []

    def overtaken(self: Models, reference: Reference) -> Reference:
        found = resolve(self, reference)
        if reference.name == "forest@production" and not failures:
            monkeypatch.undo()
            try:
                other.delete("forest:1", force=True)
            except StoreBusyError as error:
                failures.append(error)
        return found

    monkeypatch.setattr(Models, "resolve", overtaken)
    assert getattr(three, look)("forest@production") and failures


def test_find_by_alias(three: Storage) -> None:
    """An alias finds its version, whether it is current or not, by glob, by name and in conditions."""
    three.store("tree", 1)
    three.alias("forest", "production", 1)
    three.alias("forest", "staging", 2)
    three.alias("tree", "production")
    found = ["tree", "forest:1"]
    assert three.list(alias="production") == three.list(name="*@production") == found
    assert three.list(name="forest*@production") == ["forest:1"]
    assert three.list("alias = production or alias = staging", all_versions=True) == ["tree:1", "forest:2", "forest:1"]
    assert three.list("alias") == ["tree"] and three.list("not alias") == ["forest"]
    assert three.list("alias in (staging, x)", all_versions=True) == ["forest:2"]
    assert three.list("train_end = 481", name="*@production") == ["forest:1"]
    assert three.list(name="tree@nobody") == three.list(alias="nobody") == []


@pytest.mark.parametrize(
    "alias", ["", "a b", "ä", "🙂", "a" * 65, "a" * 255, "12", "current", "Latest", "a@b", None, 3]
)
def test_invalid_aliases(three: Storage, alias: str) -> None:
    """An alias cannot look like anything else, such as a version number."""
    with pytest.raises(InvalidNameError, match="cannot be an alias. Use up to 64 letters"):
        three.alias("forest", alias)
    assert three.log()[0].action == "stored"


def test_alias_bad_input(three: Storage) -> None:
    """The message says what is missing."""
    with pytest.raises(AliasNotFoundError, match="the model 'forest' has no alias 'nobody'. Set one"):
        three.fetch("forest@nobody")
    with pytest.raises(ModelNotFoundError, match="there is no model 'tree'"):
        three.fetch("tree@nobody")
    three.alias("forest", "production")
    with pytest.raises(InvalidNameError, match="'forest@production:2' gives both an alias and a version"):
        three.fetch("forest@production:2")
    with pytest.raises(ModelNotFoundError, match="'forest' alone is its current version"):
        three.fetch("forest:latest")
    with pytest.raises(ModelNotFoundError):
        three.alias("forest:9", "x")


def test_names_with_an_at_sign(store: Storage, sql: sqlite3.Connection) -> None:
    """New ones are refused; a model that has one is found first, and can get versions and another name."""
    for make in (lambda: store.store("a@b", 1), lambda: store.rename("plain", "a@b")):
        with pytest.raises(InvalidNameError, match="NAME@ALIAS refers to a version of NAME"):
            make()
        store.store("plain", 1, overwrite=True)
    for table in ("models", "names"):
        sql.execute(f"UPDATE {table} SET name = 'plain@x' WHERE name = 'plain'")
    store.store("plain", "other")
    store.alias("plain", "x")
    assert store.fetch("plain@x") == 1 and store.fetch("plain@x:1") == 1
    assert store.store("plain@x", 3, overwrite=True).version == 3
    assert store.rename("plain@x", "free").version == 3 and store.fetch("plain@x") == "other"


def test_delete_refuses_aliased(three: Storage) -> None:
    """Before anything is deleted."""
    three.alias("forest", "production", 3)
    with pytest.raises(ModelInUseError, match="forest:3 has the alias production"):
        three.delete("forest")
    with pytest.raises(ModelInUseError):
        three.delete("forest:3")
    assert len(three.versions("forest")) == 3
    assert three.delete("forest:2") and three.delete("forest", force=True) is None
    with pytest.raises(ModelNotFoundError):
        three.fetch("forest@production")
    assert three.store("forest", 4).version == 4 and three.inspect("forest").aliases == ()


@pytest.mark.parametrize(
    ("meanwhile", "error", "left"),
    [
        (lambda other: other.rename("forest", "tree"), "no model 'forest'. It was renamed to 'tree'", [1, 2, 3]),
        (lambda other: other.alias("forest", "draft", 2), "2 has the alias draft.*this version was kept", [2, 3]),
        (lambda other: other.delete("forest", 2), "", []),
    ],
)
def test_overtaken_while_deleting(
    three: Storage, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Storage], object], error: str, left: list[int]
) -> None:
    """Each version is checked again in the transaction that deletes it, in case others have changed it."""
    check = deletion._refuse_aliased

    def overtaken(*arguments: Any) -> None:
        check(*arguments)
        monkeypatch.undo()
        meanwhile(Storage(three.path))

    monkeypatch.setattr(deletion, "_refuse_aliased", overtaken)
    with pytest.raises(StorageError, match=error) if error else nullcontext():
        three.delete("forest")
    assert sorted(record.version for record in three.find(all_versions=True)) == left


def test_rename(three: Storage) -> None:
    """Versions, aliases, the pointer and the history follow; the old name says where the model is."""
    three.alias("forest", "production", 2)
    three.restore("forest:1")
    record = three.rename("forest", "tree")
    assert (record.name, record.version, record.current) == ("tree", 1, True)
    assert three.fetch("tree") == 1 and three.fetch("tree@production") == 2 and three.fetch("tree:3") == 3
    with pytest.raises(ModelNotFoundError, match="there is no model 'forest'. It was renamed to 'tree'"):
        three.fetch("forest")
    assert [event.action for event in three.log("tree")] == ["renamed", "restored", "aliased", *["stored"] * 3]
    assert {event.name for event in three.log()} == {"tree"}
    assert three.verify().damaged == ()
    assert three.store("forest", "new").version == 4 and three.store("tree", 4, overwrite=True).version == 4
    assert [event.action for event in three.log("forest")] == ["stored"]


def test_rename_bad_input(three: Storage) -> None:
    """Nothing is overwritten."""
    three.store("tree", 1)
    with pytest.raises(ModelExistsError, match="'tree' already exists: version 1.*nothing was changed"):
        three.rename("forest", "tree")
    with pytest.raises(InvalidNameError, match="a version cannot be renamed"):
        three.rename("forest:1", "x")
    with pytest.raises(AliasNotFoundError, match="'forest' alone is its current version"):
        three.fetch("forest@latest")
    three.alias("forest", "best")
    with pytest.raises(InvalidNameError, match="a version cannot be renamed.*Give the name alone"):
        three.rename("forest@best", "x")
    with pytest.raises(InvalidNameError):
        three.rename("forest", "x:1")
    with pytest.raises(ModelNotFoundError):
        three.rename("nobody", "x")
    assert three.rename("forest", "forest").version == 3
    assert len(three.log()) == 5


def test_rename_to_a_deleted_name(three: Storage) -> None:
    """A number that a name ever had is not given again, and its own history remains."""
    three.store("tree", "old")
    three.store("tree", "old 2", overwrite=True)
    three.delete("tree")
    assert three.rename("forest", "tree").version == 5
    assert [(one.version, one.is_deleted) for one in three.history("tree")] == [
        (5, False), (4, False), (3, False), (2, True), (1, True)
    ]
    assert three.fetch("tree:4") == 2
    with pytest.raises(ModelNotFoundError):
        three.fetch("tree:1")
    assert three.rename("tree", "forest").version == 6
    assert three.verify().damaged == ()


def test_numbers_stay_small(store: Storage) -> None:
    """When two names take turns, a number is used up by each version, and no more."""
    store.store("a", 0)
    for turn in range(30):
        old, new = ("a", "b") if turn % 2 == 0 else ("b", "a")
        store.store(new, turn, overwrite=True)
        store.delete(new)
        store.rename(old, new)
    assert store.inspect("a").version < 200


def test_no_numbers_are_left(three: Storage, sql: sqlite3.Connection) -> None:
    """Another program may have given the last: SQLite would go on in floating point."""
    three.store("tree", 1)
    three.delete("tree")
    sql.execute("UPDATE names SET versions = ? WHERE name = 'tree'", (2**63 - 2,))
    with pytest.raises(StorageError, match="there are no version numbers left"):
        three.rename("forest", "tree")
    assert three.versions("forest")[0].version == 3


def test_rename_and_back(three: Storage) -> None:
    """The model gets its own numbers back."""
    three.restore("forest:2")
    three.rename("forest", "tree")
    assert three.rename("tree", "forest").version == 2
    assert [one.version for one in three.versions("forest")] == [3, 2, 1]
    three.rename("forest", "tree")
    three.store("forest", "another")
    three.delete("forest")
    assert three.rename("tree", "forest").version == 6


def test_a_name_that_one_deleted_model_after_another_had(store: Storage) -> None:
    """The log and the history have all of them."""
    for name in "first", "second", "third":
        store.store(name, name)
        store.rename(name, "forest")
        assert all(event.name == "forest" for event in store.log())
        store.delete("forest")
    assert len(store.log("forest")) == 9
    assert [(one.version, one.is_deleted) for one in store.history("forest")] == [(3, True), (2, True), (1, True)]


def test_rename_during_a_fetch(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being read is read to its end."""
    store.store("m", Renamed(store.path))
    assert store.fetch("m") == "loaded" and store.exists("other")


class Renamed:
    """Renames its own model when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path, bytes], str], tuple[Path, bytes]]:
        return rename_now, (self.path, b"x" * 2_000_000)


def rename_now(path: Path, filling: bytes) -> str:
    """Rename a model."""
    if Storage(path).exists("m"):
        Storage(path).rename("m", "other")
    return "loaded"


def test_events(store: Storage) -> None:
    """Each change has one, with who and why; what changes nothing has none."""
    store.store("m", 1, {"a": 1}, why="first")
    store.annotate("m", a=2, why="wrong")
    store.annotate("m", a=2)
    store.store_metadata("m", {"a": 3}, overwrite=True)
    store.alias("m", "x")
    store.alias("m", "x")
    store.unalias("m", "x")
    store.require("a", why="rule")
    store.delete("m", why="done")
    events = store.log()
    assert [event.action for event in events] == [
        "deleted", "required", "unaliased", "aliased", "annotated", "annotated", "stored"
    ]
    assert [event.why for event in events] == ["done", "rule", None, None, None, "wrong", "first"]
    assert events[5].changes == {"fields": [["a", 1, 2]]} and events[1].changes == {"before": [], "after": ["a"]}
    assert {event.name for event in events} == {"m", None} and {event.by for event in events} == {events[0].by}
    assert [event.id for event in store.log(limit=2)] == [7, 6]
    assert store.log(since="2000-01-01", by=events[0].by) == events == store.log(by=events[0].by.split("@")[0])
    assert store.log(since="2100-01-01") == store.log(by="nobody") == []
    assert [event.action for event in store.log("m")][:2] == ["deleted", "unaliased"]
    with pytest.raises(StorageError, match="the reason for a change must be a string"):
        store.store("n", 1, why=3)
    with pytest.raises(StorageError, match="has 10,001 characters, but the limit is 10,000"):
        store.store("n", 1, why="x" * 10_001)


def test_the_events_agree_with_what_is_there(store: Storage) -> None:
    """Whatever is done, and in whatever order, the events lead to what is in the tables."""
    lines = list[str]()
    worker = Worker(store, "w", lines.append)
    for verb in ["store", *random.Random(1).sample([*VERBS, *OFTEN] * 2, 2 * len([*VERBS, *OFTEN]))]:
        worker.step(verb)
    told = Told(lines)
    assert told.troubles(store) == [] and len(store.log()) > 40


def test_a_version_that_was_deleted(three: Storage) -> None:
    """The message says so."""
    three.delete("forest:1")
    with pytest.raises(ModelNotFoundError, match="has no version 1; its versions are 3, 2. It was deleted"):
        three.restore("forest:1")
    with pytest.raises(ModelNotFoundError, match="has no version 4; its versions are 3, 2$"):
        three.restore("forest:4")


def test_arguments_of_other_types(three: Storage) -> None:
    """They are refused as errors of the store, whatever they are."""
    for value in 5, b"x", ["a"], object():
        for question in (
            lambda: three.log(value),
            lambda: three.history(value),
            lambda: three.log(by=value),
            lambda: three.log(since=value),
            lambda: three.log(limit=str(value)),
            lambda: three.prune(keep=value),
            lambda: three.select(where=value),
        ):
            with pytest.raises(StorageError):
                question()
    with pytest.raises(QueryError, match="limit must be"):
        three.log(limit=-1)


def test_the_reason_for_training(store: Storage) -> None:
    """It is recorded with what was trained, in a run too, and refused before the training."""
    assert store.fetch_or_train("m", lambda: 1, {"a": 1}, why="first") == 1
    assert store.fetch_or_train("m", lambda: pytest.fail("trained"), {"a": 1}, why="not needed") == 1
    with store.run("r") as run:
        assert run.fetch_or_train("m", lambda: 2, {"a": 2}, why="second") == 2
    assert [event.why for event in store.log("m") if event.action == "stored"] == ["second", "first"]
    with pytest.raises(StorageError, match="the reason for a change must be a string"):
        store.obtain("n", lambda: pytest.fail("trained"), {}, why=3)


def test_a_change_that_fails_has_no_event(three: Storage) -> None:
    """The event is written in the same transaction."""
    before = three.log()
    for change in (
        lambda: three.store("forest", 1),
        lambda: three.annotate("forest", unset=["none"]),
        lambda: three.rename("forest", "a@b"),
        lambda: three.unalias("forest", "none"),
        lambda: three.delete("nobody"),
    ):
        with pytest.raises(StorageError):
            change()
    assert three.log() == before


def test_events_stay_in_order(store: Storage, sql: sqlite3.Connection) -> None:
    """A clock that goes backwards does not change it."""
    for number in range(3):
        store.store(f"m{number}", number)
        at = f"20{30 - number}-01-01T00:00:00.000000+00:00"
        sql.execute("UPDATE events SET at = ? WHERE id = ?", (at, number + 1))
    assert [event.name for event in store.log()] == ["m2", "m1", "m0"]


def test_many_events(store: Storage, sql: sqlite3.Connection) -> None:
    """They are read a few at a time, by `log`, `backup` and `verify`."""
    store.store("m", 1)
    sql.executemany("INSERT INTO events (at, by, action) SELECT at, by, ? FROM events WHERE id = 1", [("x",)] * 2500)
    assert len(store.log()) == 2501 and len(store.log(limit=2100)) == 2100
    assert len(Storage(store.backup(store.path.with_name("copy.db")).path).log()) == 2501
    assert store.verify().damaged == ()


@pytest.mark.parametrize(
    "column, value",
    [
        *(("at", "x"), ("at", "0001-01-01"), ("changes", "{"), ("changes", "[" * 5000), ("changes", "[1]")),
        *((column, b"\xff") for column in ("by", "action", "run", "why")),
    ],
)
def test_an_event_that_cannot_be_read(three: Storage, sql: sqlite3.Connection, column: str, value: str | bytes) -> None:
    """The message names it; the models can still be used."""
    sql.execute(f"UPDATE events SET {column} = ? WHERE id = 2", (value,))
    with pytest.raises(StorageError, match="the event 2 cannot be read"):
        three.log()
    assert three.fetch("forest") == 3


def test_history(three: Storage) -> None:
    """All versions, what changed from one to the next, and who deleted what."""
    three.delete("forest:2", why="wrong data")
    last, second, first = three.history("forest")
    assert last.record and last.record.current and last.changes == (("train_end", 481, 483),)
    assert second.deletion and second.deletion.why == "wrong data" and second.record is None and second.size == 5
    assert (first.version, first.changes, first.is_deleted) == (1, (), False)
    three.delete("forest")
    assert [one.is_deleted for one in three.history("forest")] == [True] * 3
    with pytest.raises(ModelNotFoundError):
        three.history("nobody")


def test_a_damaged_version_that_was_deleted(
    three: Storage, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not hide the history of the others."""
    sql.execute("UPDATE models SET size = 'many' WHERE version = 2")
    three.delete("forest:2")
    assert [one.version for one in three.history("forest")] == [3, 1]
    assert "skipping a deleted version, 2" in caplog.text


def test_events_of_one_model_are_not_sorted_again(three: Storage, sql: sqlite3.Connection) -> None:
    """A model annotated a hundred thousand times took 20 seconds: each read of a thousand events sorted all of them."""
    asked: list[str] = []
    sql.set_trace_callback(asked.append)
    with Connection(three.path, 1) as connection:
        execute = lambda statement, given=(): sql.execute(statement, given).fetchall()  # noqa: E731
        connection.rows = execute  # type: ignore[method-assign]
        assert len([*Events(connection).search("forest")]) == 3
    sql.set_trace_callback(None)
    plan = [row[3] for row in sql.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    assert any("events_model" in step for step in plan) and not any("ORDER BY" in step for step in plan)


@pytest.mark.parametrize("name", [None, 5, b"x", "", "forest:2"])
def test_names_without_a_history(three: Storage, name: Any) -> None:
    """What is no name is refused as everywhere; so is a version, as a history is of a model."""
    for look in (three.history, lambda name: three.log(name) if name is not None else three.history(name)):
        with pytest.raises(StorageError):
            look(name)


@pytest.mark.parametrize("options", [{"limit": -1}, {"limit": "3"}, {"by": 5}, {"since": 5}])
def test_log_bad_input(three: Storage, options: dict[str, Any]) -> None:
    """It is refused as by `find`."""
    with pytest.raises(QueryError):
        three.log(**options)


@pytest.mark.parametrize("value", [b"\xff", b"\xc0\x80", 7])
def test_a_damaged_alias_hides_no_model(store: Storage, sql: sqlite3.Connection, value: bytes | int) -> None:
    """What another program wrote as an alias is shown as it can be, and `delete` still asks for force."""
    store.store("forest", 1)
    store.alias("forest", "production")
    kind = "INTEGER" if value == 7 else "TEXT"
    with sql:
        sql.execute(f"UPDATE aliases SET alias = CAST(? AS {kind})", (value,))
    shown = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "7"
    [record] = store.find()
    assert (record.name, record.aliases) == ("forest", (shown,))
    with pytest.raises(ModelInUseError, match="forest:1 has the alias"):
        store.delete("forest")
    store.delete("forest", force=True)
    assert store.find() == []


def test_a_history_by_an_alias(three: Storage) -> None:
    """An alias stands for the model, as wherever a name is taken."""
    three.alias("forest", "production", 1)
    assert three.history("forest@production") == three.history("forest")
    assert three.log("forest@production") == three.log("forest")
    with pytest.raises(AliasNotFoundError):
        three.log("forest@nobody")


def test_unalias_by_an_alias_or_a_version(three: Storage) -> None:
    """A version is not quietly ignored."""
    three.alias("forest", "production", 1)
    with pytest.raises(InvalidNameError, match="from a model, not from one version"):
        three.unalias("forest:2", "production")
    assert three.unalias("forest@production", "production").version == 1


def test_a_reason_that_is_no_text_is_refused_first(three: Storage) -> None:
    """Pickling may have taken hours when it would be written."""

    class Slow:
        def __reduce__(self) -> str:
            raise AssertionError("it was pickled")

    with pytest.raises(StorageError, match="cannot store 'slow': .*the reason for a change must be a string"):
        three.store("slow", Slow(), why="\ud800")


def test_a_copy_has_everything(three: Storage, tmp_path: Path) -> None:
    """Aliases, the pointer, events and numbers."""
    three.alias("forest", "production", 2)
    three.restore("forest:1")
    three.rename("forest", "tree")
    copy = Storage(three.backup(tmp_path / "copy.db").path)
    assert copy.log() == three.log() and copy.history("tree") == three.history("tree")
    assert copy.fetch("tree") == 1 and copy.fetch("tree@production") == 2
    assert copy.store("forest", 1).version == 4
    with pytest.raises(ModelInUseError):
        copy.delete("tree:2")


def test_the_view_for_other_programs(three: Storage, sql: sqlite3.Connection) -> None:
    """It shows what `list` shows, and reads no pickles."""
    three.alias("forest", "a", 2)
    three.restore("forest:2")
    rows = sql.execute("SELECT name, version, current, aliases, type FROM model_records ORDER BY version").fetchall()
    assert rows == [("forest", 1, 0, None, "builtins.int"), ("forest", 2, 1, "a", "builtins.int")] + rows[2:]
    plan = sql.execute("EXPLAIN QUERY PLAN SELECT * FROM model_records").fetchall()
    assert any("COVERING INDEX models_record" in row[3] for row in plan)
