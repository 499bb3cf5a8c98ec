"""Files with an earlier layout: read as they are, and upgraded by whoever first changes them."""

import gzip
import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.replay import Unrecorded, troubles
from tests.support.stores import fill
from views_runs import Storage
from views_runs.database import database, schema, verification
from views_runs.database.connection import JOURNAL_SIZE, Connection
from views_runs.exceptions import StorageError, StoreReadOnlyError
from views_runs.files import companion

LAYOUTS = sorted((Path(__file__).parent / "layouts").glob("*.db.gz"))

#: What is in each of the files.
NAMES = ["boosted:1", "forest:1", "forest:2", "tree:1"]


def unpack(file: Path, path: Path) -> Storage:
    """Return a store as an earlier version of the package left it."""
    path.write_bytes(gzip.decompress(file.read_bytes()))
    database._recommend_backup.cache_clear()
    return Storage(path)


@pytest.fixture(params=LAYOUTS, ids=lambda file: file.name)
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A store with each of the earlier layouts."""
    return unpack(request.param, tmp_path / "old.db")


@pytest.fixture
def old(tmp_path: Path) -> Storage:
    """A store with the last of them."""
    return unpack(LAYOUTS[-1], tmp_path / "old.db")


def layout(store: Storage) -> int:
    """Return the number of a file's layout, as SQLite reads it."""
    connection = sqlite3.connect(store.path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_reading_changes_nothing(each: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Everything that only reads works, says once that an upgrade is ahead, and leaves each byte as it is."""
    before = each.path.read_bytes()
    assert sorted(each.list(all_versions=True)) == NAMES
    assert each.fetch("forest") == [4, 5, 6] and each.fetch("forest:1") == [1, 2, 3]
    assert each.fetch("boosted") == b"x" * 1_500_000
    assert each.list("train_end = 2020-12", "current") == ["forest"]
    assert each.inspect("tree").aliases == () and each.versions("forest")[0].current
    assert each.verify().damaged == () and each.log() == [] and len(each.history("forest")) == 2
    assert each.required() in ([], ["author"])
    [finding] = [finding for finding in each.doctor() if finding.topic == "file"]
    assert finding.state == "warning" and "layout 1" in finding.text and "backup" in finding.advice
    assert each.path.read_bytes() == before
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "earlier layout" in warnings[0] and "backup" in warnings[0]


CHANGES = {
    "stored": lambda store: store.store("new", 1, {"author": "jo"}),
    "annotated": lambda store: store.annotate("forest", note="x"),
    "deleted": lambda store: store.delete("boosted"),
    "aliased": lambda store: store.alias("forest", "production", 1),
    "required": lambda store: store.require("author"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_first_change_upgrades(old: Storage, change: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line names both layouts."""
    caplog.set_level(logging.INFO, "views_runs")
    CHANGES[change](old)
    [line] = [record.getMessage() for record in caplog.records if "upgraded" in record.getMessage()]
    assert f"upgraded {old.path} from layout 1 to layout {schema.SCHEMA_VERSION}" in line and "2.1.0" in line
    assert layout(old) == schema.SCHEMA_VERSION
    assert [event.action for event in old.log()] == [change]


def test_an_upgraded_file(each: Storage) -> None:
    """The models and the numbers of deleted versions are kept; the indexes on single fields are gone."""
    assert each.store("tree", 3, {"author": "jo"}, overwrite=True).version == 3
    assert each.store("gone", 3, {"author": "jo"}).version == 3
    assert each.fetch("forest") == [4, 5, 6] and each.fetch("boosted") == b"x" * 1_500_000
    assert each.verify().damaged == ()
    connection = sqlite3.connect(each.path)
    indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'models' AND sql IS NOT NULL"
    assert connection.execute(indexes).fetchone() == (1,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_copy_has_the_same_layout(each: Storage, tmp_path: Path) -> None:
    """So an earlier version of the package can go back to it; numbers are not given again there either."""
    before = each.path.read_bytes()
    copy = Storage(each.backup(tmp_path / "copy.db").path)
    assert layout(copy) == 1 and each.path.read_bytes() == before
    assert sorted(copy.list(all_versions=True)) == NAMES and copy.verify().damaged == ()
    assert copy.store("gone", 3, {"author": "jo"}).version == 3 and layout(copy) == schema.SCHEMA_VERSION


def test_on_a_full_disk(small_disk: Path) -> None:
    """The upgrade takes the space that is reserved for the journal: on a full disk, deleting is what one does next."""
    store = unpack(LAYOUTS[-1], small_disk / "old.db")
    companion(store.path, "-journal").write_bytes(bytes(JOURNAL_SIZE))
    fill(small_disk)
    assert store.delete("tree") is None and layout(store) == schema.SCHEMA_VERSION
    assert store.log(limit=1)[0].action == "deleted"


def test_upgraded_while_it_is_copied(old: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with the earlier layout would lack the alias that was acknowledged."""
    select = verification.select_models

    def upgrade(connection: Connection) -> verification.Selection:
        old.alias("tree", "production")
        return select(connection)

    with monkeypatch.context() as patch:
        patch.setattr(verification, "select_models", upgrade)
        with pytest.raises(StorageError, match="was upgraded while"):
            old.backup(tmp_path / "copy.db")
    assert Storage(old.backup(tmp_path / "copy.db").path).inspect("tree").aliases == ("production",)


def test_a_file_that_may_only_be_read(old: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as it is; what would change it says why it cannot."""

    def refuse(connection: object) -> None:
        raise StoreReadOnlyError("the file may only be read")

    # As root, every file can be written to.
    monkeypatch.setattr(schema, "upgrade", refuse)
    assert old.fetch_or_train("forest", lambda: pytest.fail("trained"), {"train_end": 492}) == [4, 5, 6]
    assert old.fetch("forest") == [4, 5, 6]
    for change in (
        lambda: old.alias("forest", "production"),
        lambda: old.restore("forest:1"),
        lambda: old.rename("forest", "wood"),
        lambda: old.run("2026-11").expect(["forest"]),
        lambda: old.run("2026-11").__enter__(),
        *(lambda change=change: change(old) for change in CHANGES.values()),
    ):
        with pytest.raises(StoreReadOnlyError, match="write permission was denied"):
            change()
    assert layout(old) == 1


@pytest.mark.parametrize("name", ["events", "aliases", "model_records"])
def test_a_name_that_another_program_took(old: Storage, name: str) -> None:
    """The file can be read; the upgrade names the table and changes nothing."""
    connection = sqlite3.connect(old.path)
    connection.execute(f"CREATE TABLE {name} (mine)")
    connection.commit()
    assert old.fetch("forest") == [4, 5, 6] and old.log() == []
    before = old.path.read_bytes()
    with pytest.raises(StorageError, match=f"another program has added '{name}' to the file.*Rename or drop it"):
        old.store("new", 1, {"author": "jo"})
    assert old.path.read_bytes() == before
    connection.execute(f"ALTER TABLE {name} RENAME TO theirs")
    connection.commit()
    connection.close()
    assert old.store("new", 1, {"author": "jo"}).version == 1


def test_a_broken_view_of_another_program(old: Storage) -> None:
    """It does not keep the file from being upgraded."""
    connection = sqlite3.connect(old.path)
    connection.execute("CREATE VIEW broken AS SELECT * FROM no_such_table")
    connection.commit()
    connection.close()
    assert old.store("new", 1, {"author": "jo"}).version == 1


#: The id of each version, the number of its model, and its own.
VERSIONS = "SELECT models.id, names.id, version FROM models JOIN names USING (name)"


def publish_as_before(connection: sqlite3.Connection, name: str) -> None:
    """Add a version with the statements of a package that knows layout 1 only."""
    connection.execute("BEGIN IMMEDIATE")
    given = "INSERT INTO names (name, versions) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET versions = versions + 1 "
    [(version,)] = connection.execute(f"{given} RETURNING versions", (name,)).fetchall()
    connection.execute(
        "INSERT INTO models (name, version, stored_at, stored_by, metadata, datetimes, environment, size, sha256, "
        "digest, upload, pickle) SELECT name, ?, stored_at, stored_by, metadata, datetimes, environment, size, sha256, "
        "digest, upload, pickle FROM models WHERE name = 'forest' AND version = 1",
        (version,),
    )
    connection.execute("COMMIT")


def test_a_store_that_an_older_package_began(old: Storage) -> None:
    """Its version is valid, and is current instead of the one that was restored meanwhile."""
    older = sqlite3.connect(old.path, isolation_level=None)
    assert older.execute("SELECT count(*) FROM models").fetchone() == (4,)
    old.restore("forest:1")
    assert old.fetch("forest") == [1, 2, 3] and old.versions("forest")[0].current is False
    before = [Unrecorded(0, *row) for row in older.execute(VERSIONS)]
    publish_as_before(older, "forest")
    event = old.log(limit=1)[0].id
    after = [Unrecorded(event, *row) for row in older.execute(VERSIONS) if row[0] not in {one.id for one in before}]
    older.close()
    assert len(after) == 1 and troubles(old, [*before, *after], old.required()) == []
    assert [(one.version, one.current) for one in old.versions("forest")] == [(3, True), (2, False), (1, False)]
    assert old.verify().damaged == ()
    # The restored version does not come back when the newer one is deleted.
    assert old.delete("forest:3").version == 2
    assert troubles(old, [*before, *after], old.required()) == []


def store_one(path: Path, number: int, barrier: "multiprocessing.synchronize.Barrier") -> None:
    """Store a model at the same time as others."""
    barrier.wait()
    Storage(path).store(f"new-{number}", number, {"author": "jo"})


def test_two_upgrade_at_once(old: Storage) -> None:
    """One of them does it, the other goes on."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=store_one, args=(old.path, number, barrier)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert {"new-0", "new-1"} < set(old.list()) and old.verify().damaged == ()


KILLED = """
import os, sys
from views_runs import Storage
from views_runs.database import connection
left = int(sys.argv[2])
execute = connection.Connection._execute
def counted(self, sql, parameters):
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1
    return execute(self, sql, parameters)
connection.Connection._execute = counted
Storage(sys.argv[1]).store("new", 1, {"author": "jo"})
print("stored")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed in another way")
def test_killed_at_any_statement(tmp_path: Path) -> None:
    """The file has either layout, whole, and the next change completes what is missing."""
    packed = LAYOUTS[-1].read_bytes()
    for statements in range(0, 60, 3):
        path = tmp_path / f"{statements}.db"
        path.write_bytes(gzip.decompress(packed))
        command = [sys.executable, "-c", KILLED, str(path), str(statements)]
        done = subprocess.run(command, capture_output=True, text=True)
        store = Storage(path)
        assert {*NAMES} <= {*store.list(all_versions=True)}
        assert layout(store) in (1, schema.SCHEMA_VERSION)
        if "stored" in done.stdout:
            assert store.fetch("new") == 1
            return
        assert done.returncode == -signal.SIGKILL
        store.store("other", 2, {"author": "jo"})
        assert store.verify().damaged == () and layout(store) == schema.SCHEMA_VERSION
    pytest.fail("the store never ended")
