"""A store's file as another program sees it, and another process that stores into it."""

import sqlite3
import subprocess
import sys
import time

from views_runs import Storage

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


def damage(sql: sqlite3.Connection, part: int) -> None:
    """Flip one byte in the middle of a part, as a disk would."""
    table, column, where = ("models", "pickle", "1") if part == 0 else ("model_parts", "data", f"part = {part}")
    row, data = sql.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchone()
    middle = len(data) // 2
    broken = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    sql.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (broken, row))


STORING = """
import os, sys
from views_runs import Storage
class Model(list):
    def __reduce__(self):
        def parts():
            for number in range(400):
                if number == 20:
                    print("under way", flush=True)
                yield os.urandom(1_000_000)
        return list, (), None, parts()
Storage(sys.argv[1]).store("m", Model())
"""


def start_storing(store: Storage) -> "subprocess.Popen[str]":
    """Start a store of 400 MB in a process, and return when it has written parts."""
    process = subprocess.Popen(
        [sys.executable, "-c", STORING, str(store.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "under way\n"
    deadline = time.monotonic() + 30
    while not leftovers(store)["parts"] and time.monotonic() < deadline:
        time.sleep(0.005)
    assert leftovers(store)["parts"]
    return process
