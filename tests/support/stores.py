"""A store's file as another program sees it, and another process that stores into it."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from views_runs import Storage
from views_runs.database.schema import TABLES

#: The names of the columns of each table, and the tables that are this package's.
COLUMNS = {table: [column.split()[0] for column in columns.split(",")] for table, _, columns in TABLES}
OWN_TABLES = [table for table in COLUMNS if not table.startswith("sqlite_")]

#: What `leftovers` finds in a store that nothing interrupted.
NOTHING = {"parts": 0, "uploads": 0}


def leftovers(store: Storage) -> dict[str, int]:
    """Count what should not be in the file: parts that no model has, and uploads."""
    connection = sqlite3.connect(store.path)
    try:
        orphans = (
            "SELECT count(*) FROM model_parts WHERE upload NOT IN (SELECT upload FROM models WHERE upload NOT NULL)"
        )
        return {
            "parts": connection.execute(orphans).fetchone()[0],
            "uploads": connection.execute("SELECT count(*) FROM uploads").fetchone()[0],
        }
    finally:
        connection.close()


def wait_for_workers() -> None:
    """Wait for the threads of operations that were interrupted."""
    until = time.monotonic() + 10
    while workers := [one for one in threading.enumerate() if one.name.startswith("views_runs-") and one.is_alive()]:
        assert time.monotonic() < until, workers
        time.sleep(0.001)


def copied(store: Storage, path: Path) -> Storage:
    """Return a copy of a store that nobody is using, with its journal: to make it anew takes longer."""
    for suffix in ("", "-journal"):
        shutil.copy(f"{store.path}{suffix}", f"{path}{suffix}")
    return Storage(path)


def damage(sql: sqlite3.Connection, part: int) -> None:
    """Flip one byte in the middle of a part, as a disk would."""
    table, column, where = ("models", "pickle", "1") if part == 0 else ("model_parts", "data", f"part = {part}")
    row, data = sql.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchone()
    middle = len(data) // 2
    broken = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    sql.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (broken, row))


def behind_the_index(path: Path, index: str, change: str) -> None:
    """Change a table while one of its indexes is not kept up."""

    def execute(*statements: tuple[str, tuple[object, ...]]) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            rows = connection.execute(*statement).fetchall()
        connection.commit()
        connection.close()
        return rows

    [row] = execute(("DELETE FROM sqlite_schema WHERE name = ? RETURNING *", (index,)))
    execute((change, ()), ("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row))


#: How many megabytes a store has that `start_storing` starts.
LENGTH = 40

STORING = f"""
import os, sys
from views_runs import Storage
from views_runs.database.schema import TABLES
class Model(list):
    def __reduce__(self):
        def parts():
            for number in range({LENGTH}):
                if number == 20:
                    print("under way", flush=True)
                if number == {LENGTH} - 1:
                    sys.stdin.read()
                yield os.urandom(1_000_000)
        return list, (), None, parts()
Storage(sys.argv[1]).store("m", Model())
"""


def start_storing(store: Storage) -> "subprocess.Popen[str]":
    """Start a store in a process, and return when it has written parts; it does not end before its input is closed."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", STORING, str(store.path)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout and process.stdout.readline() == "under way\n"
    deadline = time.monotonic() + 30
    while not leftovers(store)["parts"] and time.monotonic() < deadline:
        time.sleep(0.005)
    assert leftovers(store)["parts"]
    return process


def store_some(store: Storage, worker: int) -> list[str]:
    """Store models of one and of several parts, in a thread or a process; return the names that were acknowledged."""
    done = []
    for number in range(4):
        name = f"{worker}-{number}"
        store.store(name, bytes([worker]) * (10 if number % 2 else 1_500_000), {"worker": worker})
        assert store.fetch(name)[0] == worker
        done.append(name)
        if number == 3:
            store.delete(done.pop(0))
    return done


def fill(folder: Path) -> None:
    """Leave not one free byte."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
