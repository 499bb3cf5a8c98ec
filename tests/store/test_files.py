"""Paths, permissions, and files that are not a store: handled, or refused and left as they are."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.budgets import budget
from tests.support.machine import as_nobody, need
from views_runs import (
    Damage,
    DownloadError,
    InvalidMetadataError,
    InvalidPathError,
    MetadataExistsError,
    NotAStoreError,
    Storage,
    StorageError,
    StoreDamagedError,
    StoreNotFoundError,
)
from tests.support.refusal import every_operation, refused
from views_runs.database import schema
from views_runs.database.schema import APPLICATION_ID, SCHEMA_VERSION


def test_not_sqlite(store: Storage) -> None:
    """A text file stays a text file."""
    store.path.write_text("these are my notes\n" * 100)
    refused(store, NotAStoreError, "is not an SQLite database")


@pytest.mark.parametrize("journal_mode", ["DELETE", "WAL"])
def test_another_programs_sqlite(store: Storage, journal_mode: str) -> None:
    """The tables of another program stay its own, and so does its journal mode."""
    connection = sqlite3.connect(store.path)
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute("CREATE TABLE models (id, name)")
    connection.commit()
    connection.close()
    refused(store, NotAStoreError, "belongs to another program")


def test_a_newer_layout(store: Storage, sql: sqlite3.Connection) -> None:
    """The message names both layouts and says how to upgrade."""
    store.store("m", 1)
    sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    said = f"layout {SCHEMA_VERSION + 1}, but this .* supports layout {SCHEMA_VERSION}. .*: upgrade views_runs"
    refused(store, NotAStoreError, said)


@pytest.mark.parametrize("size", [1, 50, 100, 5000, 16384, 40000])
def test_truncated(store: Storage, size: int) -> None:
    """A copy that was cut off is refused before anything of it is used."""
    store.store("m", 1)
    os.truncate(store.path, size)
    refused(store, StorageError, "is not an SQLite database|is damaged|belongs to another program")


def test_empty(store: Storage) -> None:
    """A file of 0 bytes is refused when it is read; a store makes it a store, as after a crash in its first second."""
    store.path.touch()
    for operation in every_operation(store)[3:]:
        with pytest.raises(NotAStoreError, match=r"models.db: the file is empty \(0 bytes\)"):
            operation()
    assert store.path.stat().st_size == 0
    store.store("m", 1)
    assert store.fetch("m") == 1


def test_no_folder(tmp_path: Path) -> None:
    """A given folder is not made: the share may not be mounted."""
    store = Storage(tmp_path / "share" / "models.db")
    for operation in every_operation(store):
        with pytest.raises(StoreNotFoundError, match="share: the folder does not exist. Check the path") as caught:
            operation()
        assert isinstance(caught.value, FileNotFoundError)
    assert not store.path.parent.exists()


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", b"models.db"])
def test_impossible_paths(path: object) -> None:
    """What names no file is refused at once."""
    with pytest.raises(InvalidPathError, match="store"):
        Storage(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["what?.db", "a#b.db", "100%25.db", "file:x.db", "a b.db", "é.db", "mode=memory&.db", "\udcff.db"],
)
def test_unusual_paths(name: str) -> None:
    """A path is a path, and not a part of a URI; a relative one stays the same file after a chdir."""
    store = Storage(name)
    store.store("m", 1)
    assert sorted(os.listdir()) == sorted([name, f"{name}-journal"])
    os.chdir("/")
    assert store.fetch("m") == 1
    assert store.path.is_absolute()


def test_home_in_a_path(own_home: Path) -> None:
    """~ is the home folder, as in a shell."""
    Storage("~/models.db").store("m", 1)
    assert (own_home / "models.db").exists()


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    """The message says to give the file in it."""
    with pytest.raises(InvalidPathError, match="is a folder. Give a file in it"):
        Storage(tmp_path).list()


def test_a_pipe_is_not_a_store(tmp_path: Path) -> None:
    """Nothing waits for the other end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidPathError, match="not a regular file"):
        Storage(tmp_path / "pipe").list()


def test_hard_links_are_refused(store: Storage, tmp_path: Path) -> None:
    """Two names mean two journals, and each program would miss the other's."""
    store.store("m", 1)
    os.link(store.path, tmp_path / "another.db")
    refused(store, InvalidPathError, "several hard links")


def test_a_link_is_followed(store: Storage, tmp_path: Path) -> None:
    """The journal lies beside the file itself, so that both paths share it."""
    store.store("m", 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.db").symlink_to(store.path)
    link = Storage(tmp_path / "folder" / "link.db")
    link.store("n", 2)
    assert store.list() == ["n", "m"]
    assert os.listdir(tmp_path / "folder") == ["link.db"]


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    """It reads as a file that is not there."""
    (tmp_path / "link.db").symlink_to(tmp_path / "gone" / "models.db")
    with pytest.raises(StoreNotFoundError):
        Storage(tmp_path / "link.db").list()


READ = "print(store.list(), store.fetch('m'), store.inspect('m').version)"
WRITE = """
for operation in (
    lambda: store.store('n', 1),
    lambda: store.delete('m'),
    lambda: store.store_metadata('m', {}),
    lambda: store.fetch_or_train('m', lambda: print('trained'), {'author': 'me'}),
):
    try:
        operation()
    except StoreReadOnlyError as error:
        assert sys.argv[1] in str(error) and isinstance(error, PermissionError), error
        print('refused')
"""


@pytest.mark.parametrize("folder, file, journal", [(0o555, 0o444, 0o444), (0o775, 0o444, 0o664), (0o755, 0o644, 0o644)])
def test_read_only(store: Storage, folder: int, file: int, journal: int) -> None:
    """Whoever may not write can read, and is told what is missing when they write; nothing changes."""
    store.store("m", 1)
    store.path.with_name("models.db-journal").chmod(journal)
    store.path.chmod(file)
    before = store.path.read_bytes()
    store.path.parent.chmod(folder)
    result = as_nobody(READ + WRITE, store)
    assert (result.stdout, result.stderr) == ("['m'] 1 1\n" + "refused\n" * 4, "")
    assert store.path.read_bytes() == before


def test_a_folder_that_may_not_be_written(store: Storage) -> None:
    """A store that cannot be made says why."""
    store.path.parent.chmod(0o555)
    result = as_nobody("store.store('m', 1)", store)
    assert "StoreReadOnlyError: cannot store 'm'" in result.stderr and "cannot be opened" in result.stderr
    assert not store.path.exists()


@pytest.mark.parametrize("left", ["none", "another user's"])
def test_nothing_is_trained_where_no_journal_can_be_written(store: Storage, left: str) -> None:
    """SQLite begins a transaction there, and fails when it writes: that is found out before the training."""
    store.store("m", 1)
    store.path.chmod(0o666)
    journal = store.path.with_name("models.db-journal")
    if left == "none":
        journal.unlink()
    else:
        journal.chmod(0o644)
    store.path.parent.chmod(0o755)
    code = "store.fetch_or_train('n', lambda: print('trained'), {})"
    result = as_nobody(code, store, VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS="1")
    assert "StoreReadOnlyError: cannot store 'n'" in result.stderr and result.stdout == ""


def test_a_file_that_may_not_be_read(store: Storage) -> None:
    """Reading says that permission is missing."""
    store.store("m", 1)
    store.path.chmod(0o600)
    result = as_nobody(READ, store)
    assert "StoreReadOnlyError: cannot find models" in result.stderr and "permissions" in result.stderr


def test_a_journal_that_may_not_be_written(store: Storage) -> None:
    """The second user of a file whose journal is the first's alone is told so, and can read."""
    store.store("m", 1)
    store.path.chmod(0o666)
    store.path.parent.chmod(0o777)
    store.path.with_name("models.db-journal").chmod(0o644)
    result = as_nobody(READ + "\nstore.store('n', 1)", store, VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS="1")
    assert result.stdout == "['m'] 1 1\n"
    assert "StoreReadOnlyError" in result.stderr and "write permission on models.db-journal was denied" in result.stderr


def test_no_home(store: Storage) -> None:
    """A user without a home folder is told to give a path."""
    for home in ("", "/nonexistent"):
        result = as_nobody("Storage().store('m', 1)", store, HOME=home)
        assert "StorageError" in result.stderr or "StoreReadOnlyError" in result.stderr
        assert "VIEWS_RUNS_STORE" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_group_shares_a_store(store: Storage, mask: int) -> None:
    """In a folder that a group may write, the file and its journal are the group's to write too."""
    need(os.name == "posix", "mode bits are POSIX")
    store.path.parent.chmod(0o2770)
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os; os.umask({mask}); from views_runs import *; Storage({str(store.path)!r}).store('m', 1)",
        ],
        check=True,
    )
    for path in (store.path, store.path.with_name("models.db-journal")):
        assert path.stat().st_mode & 0o060 == 0o060, path
    store.path.parent.chmod(0o755)


def test_what_the_file_is(store: Storage, sql: sqlite3.Connection) -> None:
    """The settings that the design depends on are in the file, and its journal has its space."""
    store.store("m", 1)
    sql.execute("SELECT count(*) FROM models").fetchone()
    values = [sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "auto_vacuum", "application_id")]
    assert values == [16384, 2, APPLICATION_ID]
    assert sorted(path.name for path in store.path.parent.iterdir() if path.is_file()) == [
        "models.db",
        "models.db-journal",
    ]
    assert store.path.with_name("models.db-journal").stat().st_size == 1 << 20


def test_wal_is_left_behind(store: Storage, sql: sqlite3.Connection) -> None:
    """Somebody set our file to WAL: the next to open it sets it back."""
    store.store("m", 1)
    assert sql.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    sql.close()
    store.store("n", 1)
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() != ("wal",)
    connection.close()


def test_replaced_under_an_open_storage(store: Storage, tmp_path: Path) -> None:
    """A Storage holds no file open: it uses what is at its path."""
    store.store("m", 1)
    shutil.copy(store.path, tmp_path / "copy.db")
    store.store("m", 2, overwrite=True)
    os.replace(tmp_path / "copy.db", store.path)
    assert store.fetch("m") == 1


def test_damage_in_the_index(store: Storage) -> None:
    """A page of zeros is said to be damage."""
    for number in range(300):
        store.store(f"m{number}", number, {"note": "x" * 300})
    with store.path.open("r+b") as file:
        for page in range(3, 12):
            file.seek(page * 16384)
            file.write(bytes(16384))
    with pytest.raises(StoreDamagedError, match="is damaged"):
        store.list()
        store.fetch("m1")


def test_an_old_sqlite(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python with an SQLite that lacks the JSON operators is refused by name."""
    store.store("m", 1)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.37.2")
    with pytest.raises(StorageError, match="needs SQLite 3.38 or later, but this Python has 3.37.2"):
        store.list()


@pytest.mark.abridged
def test_made_by_two_at_once(tmp_path: Path) -> None:
    """Several programs that store the first model of a file at once all succeed."""
    code = "import sys; from views_runs import Storage; input(); Storage(sys.argv[1]).store(sys.argv[2], 1)"
    for attempt in range(budget(5, 1)):
        path = str(tmp_path / f"{attempt}.db")
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, path, f"m{one}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for one in range(4)
        ]
        for writer in writers:
            assert writer.stdin
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        assert [writer.communicate()[1] for writer in writers] == [b""] * 4
        assert sorted(Storage(path).list()) == ["m0", "m1", "m2", "m3"]


def test_killed_while_it_is_made(store: Storage) -> None:
    """Whatever was written of a new store when its maker died, the next store finishes it."""
    connection = sqlite3.connect(store.path)
    connection.executescript(schema.NEW_FILE)
    connection.close()
    assert store.path.stat().st_size == 16384
    with pytest.raises(NotAStoreError, match="never finished"):
        store.list()
    store.store("m", 1)
    assert store.fetch("m") == 1


@pytest.mark.abridged
def test_made_by_two_threads_at_once(tmp_path: Path) -> None:
    """Neither sees what the other has only begun."""
    for attempt in range(budget(40)):
        store, barrier = Storage(tmp_path / f"{attempt}.db"), threading.Barrier(2)

        def begin(name: str, store: Storage = store, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            store.store(name, 1)

        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(begin, ["m", "n"])) == [None, None]


def test_another_programs_log_is_not_taken_in(store: Storage, tmp_path: Path) -> None:
    """A database in WAL mode that its program has open, or left so, is not even touched."""
    source = sqlite3.connect(tmp_path / "source.db")
    source.execute("PRAGMA journal_mode = WAL")
    source.execute("CREATE TABLE notes (id)")
    source.commit()
    for ending in ("", "-wal"):
        shutil.copy(tmp_path / f"source.db{ending}", f"{store.path}{ending}")
    source.close()
    wal = Path(f"{store.path}-wal").read_bytes()
    refused(store, NotAStoreError, "belongs to another program")
    assert Path(f"{store.path}-wal").read_bytes() == wal


def test_the_journal_of_a_link(store: Storage, tmp_path: Path) -> None:
    """The space is reserved in the journal that SQLite uses, beside the file and not beside the link."""
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.db"
    link.symlink_to(store.path)
    Storage(link).store("m", 1)
    assert os.listdir(link.parent) == ["link.db"]
    assert Path(f"{store.path}-journal").stat().st_size == 1 << 20


def test_the_journal_gets_its_space_again(store: Storage) -> None:
    """Another program may delete the journal; the next store makes it anew, with the mode of the file."""
    store.store("m", 1)
    store.path.chmod(0o664)
    Path(f"{store.path}-journal").unlink()
    store.store("n", 1)
    status = Path(f"{store.path}-journal").stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (1 << 20, 0o664)


@pytest.mark.parametrize("spelling", ["sub/../models.db-journal", "link/models.db-journal", "alias", "models.db-wal"])
def test_no_download_onto_what_belongs_to_the_store(store: Storage, spelling: str) -> None:
    """However the path of the journal is spelled."""
    folder = store.path.parent
    store.store("m", 1)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(folder)
    (folder / "alias").symlink_to(f"{store.path}-journal")
    before = Path(f"{store.path}-journal").read_bytes()
    with pytest.raises(DownloadError, match="the store itself"):
        store.download("m", folder / spelling, overwrite=True)
    assert Path(f"{store.path}-journal").read_bytes() == before


@pytest.mark.parametrize("target", ["x" * 300, "a\0b", "\ud800", "missing/file", 5])
def test_impossible_targets(store: Storage, target: object) -> None:
    """The error says which file, and nothing is left."""
    store.store("m", 1)
    with pytest.raises(DownloadError, match="cannot download 'm'"):
        store.download("m", target)  # type: ignore[arg-type]
    assert os.listdir() == []


def test_a_long_name_that_is_legal(store: Storage) -> None:
    """What the file system takes is written, whatever the name of the file beside it would be."""
    store.store("m", 1)
    assert store.download("m", "\N{CJK UNIFIED IDEOGRAPH-6A21}" * 80).exists()


def test_a_folder_that_is_closed(store: Storage) -> None:
    """What may not even be looked at is an error that names it."""
    store.store("m", 1)
    closed = store.path.parent / "closed"
    closed.mkdir(mode=0o700)
    code = "closed = Storage(sys.argv[1].replace('models.db', 'closed/models.db'))\n"
    code += "for operation in (lambda: closed.store('m', 1), closed.list, lambda: closed.exists('m')):\n"
    code += "    try: operation()\n    except StoreAccessError as error: print('Permission denied' in str(error))"
    result = as_nobody(code, store)
    assert (result.stdout, result.stderr) == ("True\n" * 3, "")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE models SET stored_at = 'garbage'",
        "UPDATE models SET environment = 'not json'",
        "UPDATE models SET environment = '[]'",
    ],
)
def test_rows_that_cannot_be_read(
    store: Storage, sql: sqlite3.Connection, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names the file and the model; where several are asked for, the others are returned."""
    store.store("m", 1)
    store.store("n", 2)
    sql.execute(f"{change} WHERE name = 'm'")
    with pytest.raises(StoreDamagedError, match="the row of the model 'm', version 1, cannot be read") as caught:
        store.inspect("m")
    assert str(store.path) in str(caught.value)
    assert store.list() == ["n"]
    assert "skipping m: the row of the model 'm', version 1, cannot be read" in caplog.text
    damaged: list[Damage] = []
    assert [record.name for record in store.find(on_damage=damaged.append)] == ["n"]
    assert [(one.name, one.version) for one in damaged] == [("m", 1)]
    assert [record.name for record, _ in store.check(on_damage=damaged.append)] == ["n"] and len(damaged) == 2


def test_a_text_that_is_damaged(store: Storage, sql: sqlite3.Connection) -> None:
    """A row whose text is not valid Unicode does not hide the others either."""
    for name in "abc":
        store.store(name, name)
    sql.execute("UPDATE models SET name = CAST(x'6cff' AS TEXT) WHERE name = 'b'")
    damaged: list[Damage] = []
    assert [record.name for record in store.find(on_damage=damaged.append)] == ["c", "a"]
    assert [one.name for one in damaged] == ["l\\xff"]


def test_rows_of_a_later_release(store: Storage, sql: sqlite3.Connection) -> None:
    """What a later version of this package notes in addition does no harm."""
    store.store("m", 1)
    sql.execute("UPDATE models SET environment = json_set(environment, '$.packages', json('{}'))")
    assert store.inspect("m").type == "builtins.int"


def test_metadata_of_another_program(store: Storage, sql: sqlite3.Connection) -> None:
    """Metadata that is not an object hides no model, and is not overwritten by the way."""
    store.store("m", 1, {"author": "testuser"})
    sql.execute("UPDATE models SET metadata = '[1, 2]'")
    assert store.inspect("m").metadata is None and store.fetch("m") == 1
    with pytest.raises(MetadataExistsError):
        store.store_metadata("m", {"author": "testuser"})
    with pytest.raises(InvalidMetadataError, match="not a JSON object"):
        store.annotate("m", author="testuser")
    store.store_metadata("m", {"author": "testuser"}, overwrite=True)
    assert store.fetch_metadata("m") == {"author": "testuser"}


def test_our_mark_without_our_tables(store: Storage, sql: sqlite3.Connection) -> None:
    """The file says that it is a store, and is none."""
    sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    with pytest.raises(StoreDamagedError, match="lacks the table 'aliases'"):
        store.list()
