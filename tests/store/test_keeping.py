"""Verifying a store, and backing it up, while others write to it."""

import itertools
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.machine import need
from tests.support.stores import NOTHING, behind_the_index, copied, leftovers
from views_runs import (
    Backup,
    BackupError,
    CorruptModelError,
    Damage,
    ModelNotFoundError,
    Storage,
)
from views_runs.pickles.parts import PART_SIZE

LARGE = os.urandom(5 * PART_SIZE)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A store of small and large models, some with metadata and older versions, of which some were deleted."""
    store = Storage(tmp_path_factory.mktemp("template") / "models.db")
    store.store("small", [1, 2], {"author": "testuser", "train_end": 480})
    store.store("large", LARGE, {"author": "testuser"})
    store.store("gone", 1)
    store.delete("gone")
    store.store("small", [3], overwrite=True)
    store.store("large", LARGE[::-1], overwrite=True)
    return store


@pytest.fixture
def filled(store: Storage, template: Storage) -> Storage:
    """A copy of the template."""
    return copied(template, store.path)


def damage(sql: sqlite3.Connection, place: str) -> None:
    """Change a byte of the second version of 'large', or lose a part of it."""
    sql.execute(
        {
            "first part": "UPDATE models SET pickle = x'00' || substr(pickle, 2) WHERE id = 5",
            "later part": "UPDATE model_parts SET data = x'00' || substr(data, 2) WHERE part = 3 AND "
            "upload = (SELECT upload FROM models WHERE id = 5)",
            "missing part": "DELETE FROM model_parts WHERE part = 2 AND "
            "upload = (SELECT upload FROM models WHERE id = 5)",
            "digest": "UPDATE models SET sha256 = 'x' WHERE id = 5",
            "size": "UPDATE models SET size = size + 1 WHERE id = 5",
        }[place]
    )


def test_all_is_whole(filled: Storage) -> None:
    """It reads every byte of every version, and says how much that was."""
    seen: list[tuple[int, int]] = []
    verification = filled.verify(progress=lambda done, total: seen.append((done, total)))
    size = sum(record.size for record in filled.find(all_versions=True))
    assert (verification.versions, verification.size, verification.damaged) == (4, size, ())
    assert seen[0] == (0, size) and seen[-1] == (size, size) and len(seen) > 4


@pytest.mark.parametrize("place", ["first part", "later part", "missing part", "digest", "size"])
def test_damage_is_found(filled: Storage, sql: sqlite3.Connection, viewser: Callable[..., Result], place: str) -> None:
    """The version that is damaged is named, the others are whole, and the exit code is 1."""
    damage(sql, place)
    verification = filled.verify()
    [found] = verification.damaged
    assert (found.name, found.version, verification.versions) == ("large", 2, 4)
    assert found.trouble.startswith("the model is damaged: ")
    assert filled.verify("small", "large:1").damaged == ()
    assert filled.verify("large").damaged == filled.verify("large:2").damaged == (found,)
    result = viewser("model", "verify", exit_code=1)
    assert result.stdout.startswith("large:2  the model is damaged: ")
    assert "3 of 4 versions" in result.stderr
    assert json.loads(viewser("model", "verify", "--json", exit_code=1).stdout)["damaged"] == [found._asdict()]
    assert viewser("model", "verify", "small").stderr.startswith("2 versions in ")
    with pytest.raises(CorruptModelError):
        filled.fetch("large")


def test_an_index_that_lacks_a_model(filled: Storage) -> None:
    """A model whose row is there, and which is not listed, is damaged too."""
    copied = "stored_at, stored_by, metadata, datetimes, environment, size, sha256, digest, pickle"
    hidden = (
        f"INSERT INTO models (name, version, {copied}) SELECT 'hidden', 1, {copied} FROM models WHERE name = 'small'"
    )
    behind_the_index(filled.path, "models_record", f"{hidden} LIMIT 1")
    [found] = filled.verify().damaged
    assert (found.name, found.version) == ("hidden", 1)
    assert "an index of the file is damaged and does not lead to 'hidden'. Run REINDEX" in found.trouble


def test_an_index_that_has_too_much(filled: Storage) -> None:
    """A model that is listed, and whose row is gone, is damaged."""
    behind_the_index(filled.path, "models_record", "DELETE FROM models WHERE name = 'small' AND version = 1")
    [found] = filled.verify().damaged
    assert (found.name, found.version) == ("small", 1)
    assert "an index of the file leads to 'small', but its row is missing" in found.trouble
    copy = filled.backup("copy.db")
    assert copy.deleted == () and "its row is missing" in copy.damaged[0].trouble


def exchange_roots(path: Path, one: str, other: str) -> None:
    """Let each of two indexes lead to the pages of the other."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    for name, page in (one, roots[other]), (other, roots[one]):
        connection.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = ?", (page, name))
    connection.close()


UPLOADS, NAMES = "sqlite_autoindex_models_1", "sqlite_autoindex_models_2"
INDEXES = ["models_record", UPLOADS, NAMES, "sqlite_autoindex_model_parts_1"]


@pytest.mark.parametrize("one, other", [*itertools.combinations(INDEXES, 2)])
def test_indexes_that_lead_astray(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str
) -> None:
    """Reading everything ends, also where an index leads in a circle; a backup takes the models from their table."""
    monkeypatch.setattr("views_runs.database.verification.ROWS_PER_READ", 10)
    for number in range(45):
        store.store(f"m{number}", number, {"number": number})
    exchange_roots(store.path, one, other)
    damaged = store.verify().damaged
    is_used = {one, other} & {"models_record", NAMES}
    assert len(damaged) == (45 if is_used else 0)
    copy = store.backup(tmp_path / "copy.db")
    assert (copy.versions, copy.damaged, copy.deleted) == (45, (), ())
    found = Storage(copy.path).find(sort="number")
    assert [record.metadata for record in found] == [{"number": number} for number in range(45)]


def test_a_name_that_an_index_does_not_lead_to(store: Storage) -> None:
    """A name that one index knows and the other does not is not recommended in its own place."""
    for number in range(3):
        store.store(f"m{number}", number)
    exchange_roots(store.path, UPLOADS, NAMES)
    with pytest.raises(ModelNotFoundError, match="'m1' has just been stored, or an index in the file is damaged. Try"):
        store.fetch("m1")
    with pytest.raises(ModelNotFoundError, match="there is no model 'm7'"):
        store.fetch("m7")


def test_a_name_that_is_null(filled: Storage, tmp_path: Path) -> None:
    """Damage can make a name NULL: the others are verified and copied, and it is reported."""
    rewrite = "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = 'models'"
    for old, new in ("name TEXT NOT NULL", "name TEXT"), ("name TEXT", "name TEXT NOT NULL"):
        with closing(sqlite3.connect(filled.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(rewrite, (old, new))
        if new == "name TEXT":
            with closing(sqlite3.connect(filled.path, isolation_level=None)) as connection:
                connection.execute("UPDATE models SET name = NULL WHERE name = 'small' AND version = 1")
    verification = filled.verify()
    assert [found.name for found in verification.damaged] == [""]
    copy = filled.backup(tmp_path / "copy.db")
    assert (copy.versions, len(copy.damaged)) == (verification.versions - 1, 1)
    assert len(filled.find(all_versions=True)) == verification.versions - 1


def test_nobody_waits(filled: Storage) -> None:
    """Between any two reads others can take the file for themselves."""
    other = sqlite3.connect(filled.path, isolation_level=None, timeout=0)

    def take(done: int, total: int) -> None:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("ROLLBACK")

    assert filled.verify(progress=take).versions == 4
    assert filled.backup("copy.db", progress=take).versions == 4
    other.close()


def test_deleted_while_it_is_verified(filled: Storage) -> None:
    """What is not there any more is not damaged."""

    def delete(done: int, total: int) -> None:
        if done and filled.exists("large"):
            filled.delete("large")

    verification = filled.verify(progress=delete)
    assert (verification.versions, verification.damaged) == (2, ())


def test_a_version_that_is_named_otherwise(filled: Storage) -> None:
    """What is named is read, however its number is written."""
    assert filled.verify("small:01").versions == filled.verify("small:1", "small:01").versions == 1
    assert filled.verify("small", "small:1").versions == 2
    with pytest.raises(ModelNotFoundError, match="'small' has no version 7"):
        filled.verify("small:7")


def test_nothing_to_verify() -> None:
    """The default store that is not there yet is empty; a name that is not there is an error."""
    assert Storage().verify().versions == 0
    with pytest.raises(ModelNotFoundError, match="the store does not exist yet"):
        Storage().verify("m")
    Storage().store("forest", 1)
    with pytest.raises(ModelNotFoundError, match="Did you mean 'forest'"):
        Storage().verify("forst")


def contents(store: Storage) -> list[tuple[object, ...]]:
    """Return all that a store holds: records, models, required fields and the counters of versions."""
    connection = sqlite3.connect(store.path)
    names = connection.execute("SELECT * FROM names ORDER BY name").fetchall()
    connection.close()
    records = store.find(all_versions=True)
    return [
        *((record, store.fetch(record.name, record.version)) for record in records),
        *names,
        tuple(store.required()),
    ]


def test_a_backup_is_the_same_store(filled: Storage, tmp_path: Path) -> None:
    """Records, bytes, versions and what is required are the same, and it is one file that can be stored into."""
    filled.require("author")
    folder = tmp_path / "backups"
    folder.mkdir()
    seen: list[tuple[int, int]] = []
    made = filled.backup(folder, progress=lambda done, total: seen.append((done, total)))
    size = sum(record.size for record in filled.find(all_versions=True))
    assert made == Backup(folder / "models.db", 4, size, (), ())
    assert seen[-1] == (2 * size, 2 * size)
    assert os.listdir(folder) == ["models.db"]
    copy = Storage(made.path)
    assert contents(copy) == contents(filled)
    # What is stored into the copy gets ids that nothing in it has.
    assert copy.store("large", LARGE, {"author": "me"}, overwrite=True).version == 3
    assert copy.store("gone", LARGE, {"author": "me"}).version == 2
    assert copy.verify().damaged == () and copy.fetch("gone") == LARGE == copy.fetch("large:1")
    assert leftovers(copy) == leftovers(filled) == NOTHING


def test_a_backup_is_of_one_moment(filled: Storage) -> None:
    """What others store, annotate and delete meanwhile does not show, but what is deleted is missing, and said."""
    before = filled.inspect("small")

    def change(done: int, total: int) -> None:
        if done and not filled.exists("new"):
            filled.store("new", 1)
            filled.annotate("small", note="later")
            filled.delete("large")

    made = filled.backup("copy.db", progress=change)
    assert made.deleted == ("large:1", "large:2") and made.versions == 2
    copy = Storage("copy.db")
    assert copy.list() == ["small"] and copy.inspect("small") == before
    assert leftovers(copy) == NOTHING


def test_a_damaged_model_is_not_copied(
    filled: Storage, sql: sqlite3.Connection, viewser: Callable[..., Result]
) -> None:
    """The others are, and it is said."""
    damage(sql, "later part")
    result = viewser("model", "backup", "copy.db", exit_code=1)
    assert "not copied: large:2: the model is damaged" in result.stderr
    assert "Copied and verified 3 versions" in result.stderr
    assert [record.version for record in Storage("copy.db").versions("large")] == [1]
    [found] = json.loads(viewser("model", "backup", "again.db", "--json", exit_code=1).stdout)["damaged"]
    assert found == Damage("large", 2, found["trouble"])._asdict()


@pytest.mark.parametrize(
    "row",
    [
        "environment = '{'",
        "environment = CAST(x'7bff7d' AS TEXT)",
        "name = CAST(x'6cff' AS TEXT)",
        "stored_at = 'x'",
        "size = 'x'",
        "metadata = '{'",
    ],
)
def test_a_row_that_is_damaged(filled: Storage, sql: sqlite3.Connection, row: str) -> None:
    """It is named, and does not keep the others from being verified and copied."""
    for (index,) in sql.execute("SELECT name FROM sqlite_schema WHERE sql LIKE '%metadata ->>%'").fetchall():
        # They refuse what is no JSON.
        sql.execute(f"DROP INDEX {index}")
    sql.execute("PRAGMA ignore_check_constraints = ON")
    sql.execute(f"UPDATE models SET {row} WHERE id = 5")
    verification = filled.verify()
    made = filled.backup("copy.db")
    assert [one.version for one in verification.damaged] == [2] == [one.version for one in made.damaged]
    assert (verification.versions, made.versions) == (4, 3)
    assert Storage("copy.db").verify().damaged == () and Storage("copy.db").fetch("large") == LARGE


def test_files_that_must_not_be_written(filled: Storage, tmp_path: Path) -> None:
    """Never the store itself, by whatever name, never another file unasked, never one that others use."""
    (tmp_path / "link.db").symlink_to(filled.path)
    journal = tmp_path / "models.db-journal"
    for target in (filled.path, tmp_path, tmp_path / "link.db", journal):
        with pytest.raises(BackupError, match="this is the store itself"):
            filled.backup(target)
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(BackupError, match="cannot back up .*thesis.tex: the file already exists.*Remove it first"):
        filled.backup(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "important"
    with pytest.raises(BackupError, match="nowhere/copy.db: "):
        filled.backup(tmp_path / "nowhere" / "copy.db")
    with pytest.raises(BackupError, match="File name too long"):
        filled.backup(tmp_path / ("x" * 250))
    (tmp_path / "lost.db-journal").write_bytes(b"x" * 600)
    with pytest.raises(BackupError, match="lost.db-journal exists and belongs to another database"):
        filled.backup(tmp_path / "lost.db")
    assert contents(filled) and not [*tmp_path.glob(".views_runs*")]


def test_a_link_as_a_target(filled: Storage, tmp_path: Path) -> None:
    """What a link leads to is not replaced, and no link that leads nowhere is followed; no name is no file."""
    Path("other.db").write_text("other")
    Path("link.db").symlink_to("other.db")
    Path("nowhere.db").symlink_to("missing/copy.db")
    for target in "link.db", "nowhere.db":
        with pytest.raises(BackupError, match="this is a link to .* Give that file itself"):
            filled.backup(target)
    assert Path("other.db").read_text() == "other"
    with pytest.raises(BackupError, match="file name is empty"):
        filled.backup("")


@pytest.mark.parametrize(
    "damaged, table",
    [
        ("names", "names"),
        ("sqlite_autoindex_names_1", "names"),
        ("restored", "restored"),
        ("aliases", "aliases"),
        ("events", "events"),
        ("events_model", "events"),
        ("runs", "runs"),
        ("run_models", "run_models"),
        ("run_models_version", "run_models"),
        ("run_processes", "run_processes"),
    ],
)
def test_small_tables_that_are_damaged(filled: Storage, sql: sqlite3.Connection, damaged: str, table: str) -> None:
    """verify names them too, also if only an index is damaged, or only the table and not its index."""
    filled.alias("small", "production")
    [(page,)] = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (damaged,)).fetchall()
    sql.close()
    with filled.path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(bytes(16384))
    found = [one for one in filled.verify().damaged if not one.version]
    assert [one.name for one in found] == [f"(the table {table})"] and "Run REINDEX" in found[0].trouble
    if damaged != "restored":
        assert filled.verify("small").damaged == ()
    # The advice is to download what can be read.
    assert filled.download("small:1", "saved.pickle").exists()


def test_ended_by_a_signal(filled: Storage, tmp_path: Path) -> None:
    """A backup that is asked to end leaves nothing."""
    need(os.name == "posix", "there are no such signals")
    filled.store("larger", os.urandom(30_000_000))
    folder = tmp_path / "backups"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "views_runs",
        "model",
        "--store",
        str(filled.path),
        "backup",
        str(folder / "copy.db"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not os.listdir(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM and os.listdir(folder) == []


def test_no_backup_over_another_file(filled: Storage, viewser: Callable[..., Result]) -> None:
    """An existing file is kept, whatever it is; the message says what to do."""
    viewser("model", "backup", "copy.db")
    before = Path("copy.db").read_bytes()
    refused = viewser("model", "backup", "copy.db", exit_code=1).stderr
    assert "copy.db: the file already exists and was not changed. Remove it first" in refused
    assert Path("copy.db").read_bytes() == before
    Path("copy.db").unlink()
    assert filled.backup("copy.db").versions == 4


def test_a_backup_beside_what_a_database_in_wal_mode_left(filled: Storage) -> None:
    """Its -wal would be played into the copy."""
    other = sqlite3.connect("copy.db", isolation_level=None)
    other.executescript("PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; CREATE TABLE own (x)")
    Path("copy.db").rename("elsewhere.db")
    with pytest.raises(BackupError, match="copy.db-wal exists and belongs to another database"):
        filled.backup("copy.db")
    Path("elsewhere.db").rename("copy.db")
    assert other.execute("SELECT count(*) FROM own").fetchall() == [(0,)]
    other.close()


def test_what_a_killed_backup_left(filled: Storage, tmp_path: Path) -> None:
    """Doctor names it, and the next backup to that folder removes it; that of a backup that runs is left alone."""
    need(sys.platform == "linux", "only Linux tells which process had an id")
    code = """
import sys
from views_runs import Storage
def wait(done, total):
    if done:
        print(flush=True)
        input()
Storage(sys.argv[1]).backup(sys.argv[2], progress=wait)
"""
    command = [sys.executable, "-c", code, str(filled.path), str(filled.path.with_name("copy.db"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as process:
        assert process.stdout and process.stdout.readline()
        [left] = filled.path.parent.glob(".views_runs*")
        filled.backup(filled.path.with_name("beside.db"))
        assert left.exists()
        findings = [one for one in filled.doctor() if str(left) in one.text]
        assert [(one.topic, one.state) for one in findings] == [("backups", "ok")]
        process.kill()
    [finding] = [one for one in filled.doctor() if str(left) in one.text]
    assert (finding.topic, finding.state) == ("backups", "warning")
    filled.backup(filled.path.with_name("another.db"))
    assert not [*filled.path.parent.glob(".views_runs*")]


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_a_private_store_has_private_backups(filled: Storage, mode: int) -> None:
    """The copy can be read by nobody who cannot read the store, from its first byte on."""
    need(os.name == "posix", "there are no mode bits")
    filled.path.chmod(mode)
    seen = []

    def look(done: int, total: int) -> None:
        seen.extend(stat.S_IMODE(file.stat().st_mode) for file in Path().glob(".views_runs*"))

    assert stat.S_IMODE(filled.backup("copy.db", progress=look).path.stat().st_mode) == mode
    assert set(seen) == {mode | 0o600}


def test_a_store_that_is_gone_when_it_is_copied(filled: Storage) -> None:
    """Everything was read before the file was deleted, or its share went away: that is a backup."""

    def take_away(done: int, total: int) -> None:
        if done > total / 2:
            filled.path.unlink(missing_ok=True)

    filled.backup("copy.db", progress=take_away)
    assert not filled.path.exists() and Storage("copy.db").verify().versions == 4


def test_a_backup_on_a_full_disk(filled: Storage, small_disk: Path) -> None:
    """It says so, and leaves nothing."""
    filled.store("larger", LARGE + LARGE)
    with pytest.raises(BackupError, match="copy.db: the disk is full. Free some space there"):
        filled.backup(small_disk / "copy.db")
    assert os.listdir(small_disk) == []


def test_a_copy_that_is_not_what_was_written(filled: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is read back: a disk that loses bytes is noticed, and no copy is left."""
    from views_runs.database import backup

    fill = backup._copy_all

    def lose(source: object, copy: object, *others: object) -> object:
        result = fill(source, copy, *others)  # type: ignore[arg-type]
        copy.change("UPDATE model_parts SET data = x'00' WHERE part = 2")  # type: ignore[attr-defined]
        return result

    monkeypatch.setattr(backup, "_copy_all", lose)
    with pytest.raises(BackupError, match="the copy differs from what was written: .* Try another disk"):
        filled.backup("copy.db")
    assert os.listdir() == []
