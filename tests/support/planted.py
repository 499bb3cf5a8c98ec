"""Pickles in a store as somebody puts them there who writes its file with other means than this package."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from views_runs import Storage
from views_runs.pickles.parts import FIRST_PART_SIZE, PART_SIZE


def plant(store: Storage, name: str, data: bytes) -> None:
    """Put bytes in the place of a model's pickle, with all digests right, and leave what was recorded of it."""
    if not store.path.exists() or not store.exists(name):
        store.store(name, "harmless")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        upload = None if len(data) <= PART_SIZE else _new_upload(sql)
        first, *others = [*_cut(data)]
        running = hashlib.sha256(first)
        row = (first, len(data), hashlib.sha256(data).hexdigest(), running.digest(), upload, name)
        sql.execute("UPDATE models SET pickle = ?, size = ?, sha256 = ?, digest = ?, upload = ? WHERE name = ?", row)
        for number, part in enumerate(others, 1):
            running.update(part)
            sql.execute("INSERT INTO model_parts VALUES (?, ?, ?, ?)", (upload, number, running.digest(), part))


def lie(store: Storage, name: str, environment: str) -> None:
    """Change what was recorded of a model."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        sql.execute("UPDATE models SET environment = ? WHERE name = ?", (environment, name))


def _new_upload(sql: sqlite3.Connection) -> int:
    return int(sql.execute("SELECT 1000 + ifnull(max(upload), 0) FROM model_parts").fetchone()[0])


def _cut(data: bytes) -> Iterator[bytes]:
    """Yield the parts of a pickle as a store has them."""
    if len(data) <= PART_SIZE:
        yield data
        return
    yield data[:FIRST_PART_SIZE]
    for start in range(FIRST_PART_SIZE, len(data), PART_SIZE):
        yield data[start : start + PART_SIZE]
