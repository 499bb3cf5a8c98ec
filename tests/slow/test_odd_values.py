"""Odd values in every column of every table: every verb answers right or raises a `StorageError`.

What is in the other rows is still listed, found and fetched.
"""

import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.stores import COLUMNS
from tests.support.trials import Known, Trial, run
from tests.support.verbs import Truth, Verbs, build, change

#: What is known not to work yet: delete a line when it does.
KNOWN: Known = []

PLACES = [(table, column) for table, columns in COLUMNS.items() for column in columns]

INTEGERS = [0, 1, 2, 3, -1, 101, 255, 2**31, 2**32 + 1, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
REALS = [0.0, 0.5, -1.5, 1e18, 1e19, 1e300, math.inf, -math.inf, math.nan, 5e-324]
WORDS = [
    *("", " ", "abc", "0", "12", "1e999", "NaN", "null", "true", '"text"', "0x10", "alpha:1", "name\0hidden", "\0"),
    *("\x1b[31mred\x1b[0m", "a\nb", "a\r\tb", "\x9b31m", "\u202eabc", "\ud7ff\ue000", "\U0010ffff", "e\u0301"),
    *("x" * 100_000, "é" * 70_000),
]
JSON = [
    *("[]", "{}", "[1,", '{"a": 1e999}', '{"a": -1e999}', '{"a": NaN}', '{"a": 1, "a": 2}', "{a: 1, 'b': +.5,}"),
    *("[" * 5000, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, '{"number": 123456789012345678901234567890}'),
    *('{"when": 5, "note": null}', "{'a': 1}", '{"\\u0000": "\\u0000"}', '{"a": "\\ud800"}', '{"": ""}'),
    *('{"number": {"b": []}}', '{"train_end": "x"}', '[["when"]]', '[["number"]]', "[[]]", "[null]", "[[0]]"),
    *('[["a", 99999999999999999999]]', '{"when": 1}', '[["note"], ["note"]]'),
]
TIMES = [
    *("0000-00-00T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2026-01-01", "12:00"),
    *("2026-01-01T00:00:00.000000+00:00", "2026-01-01T00:00:00Z", "20260101", "2026-01-01T24:00:00", "2026-W01-1"),
]
OBJECTS = [
    *('{"type": 1, "python": [], "platform": {}, "protocol": "x"}', '{"protocol": 1e999, "imports": "os.system"}'),
    *('{"imports": [1, null, "\\u001b[0m"], "packages": {"a": 1}, "suppliers": []}', '{"type": "\\u001b"}'),
    *('{"imports": null, "packages": {"": ""}, "suppliers": {"x": "y"}, "has_code": 1}', '{"protocol": true}'),
    *('{"imports": ["a.b.c", "..", ""], "packages": {"pip": "not a version", "../x": "1"}, "python": "CPython x.y"}',),
    *('{"python": "CPython 99999999999999999999.1", "packages": {"numpy": "1!0.0.dev999"}}', '{"protocol": 99}'),
    *('{"type": "' + "x" * 70_000 + '"}', '{"user": 1, "pid": "x", "kernel": [], "start": 1e999, "token": {}}'),
    *('{"pid": 99999999999999999999999}', '{"type": "a.b", "python": "CPython 3.11.7", "protocol": 5}'),
]
BLOBS = [b"", b"\0", b"\xff", b"abc", b"\xed\xa0\x80", b"\x80\x04N.", b"{}", b"x" * 100_000, bytes(32)]

#: Those with many rows show little more, and take longer.
LAYOUTS = ["small"] * 5 + ["left"] * 3 + ["wide", "parts", "many"]

#: Texts that Python cannot make: bytes that are no UTF-8.
RAW = [b"\xff", b"abc\xff", b"\xed\xa0\x80", b"\xc0\x80", b'{"a": "\xff"}', b'["\xff"]', b"\xf4\x90\x80\x80"]


def _value(trial: Trial) -> tuple[str, Any]:
    """Return an expression in SQL, and its parameter."""
    kind = trial.choose.randrange(10)
    if kind == 0:
        return "CAST(? AS TEXT)", trial.choose.choice(RAW)
    if kind == 1:
        return "?", None
    return "?", trial.choose.choice(trial.choose.choice([INTEGERS, REALS, BLOBS, WORDS, JSON, TIMES, OBJECTS]))


def _lift(sql: sqlite3.Connection, table: str) -> str:
    """Lift the constraints of a table for connections opened from now on, and return its SQL."""
    sql.execute("PRAGMA writable_schema = ON")
    [(text,)] = sql.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
    lifted = text.replace(" NOT NULL", "").replace("BLOB", "").replace(" TEXT", " ").replace("n INTEGER", "n")
    sql.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (lifted, table))
    return str(text)


def _restore(sql: sqlite3.Connection, table: str, text: str) -> None:
    sql.execute("PRAGMA writable_schema = ON")
    sql.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, table))


def _write(sql: sqlite3.Connection, trial: Trial, truth: Truth, table: str, column: str) -> None:
    """Write a value into a column of one row; or add a row that differs from another by it."""
    sql.execute("PRAGMA ignore_check_constraints = ON")
    expression, value = _value(trial)
    trial.steps[-1] += f" = {expression} {value!r:.60}"
    columns = COLUMNS[table]
    rows = sql.execute(f"SELECT {columns[0]}, {columns[1] if columns[1:] else 1} FROM {table}").fetchall()
    if table == "models":
        found = sql.execute("SELECT id, name, version FROM models").fetchall()
        id, name, version = trial.choose.choice([row for row in found if row[1:] in truth.there])
        truth.touched.add((name, version))
        truth.unsure.add(name)
        sql.execute(f"UPDATE models SET {column} = {expression} WHERE id = ?", (value, id))
        return
    if table == "model_parts":
        upload = trial.choose.choice(rows)[0] if rows else 1
        found = sql.execute("SELECT name, version FROM models WHERE upload = ?", (upload,)).fetchall()
        truth.touched.update(place for place in found if place in truth.there)
        part = "part = (SELECT max(part) FROM model_parts WHERE upload = ?2)"
        sql.execute(f"UPDATE model_parts SET {column} = ?1 WHERE upload = ?2 AND {part}", (value, upload))
        return
    if table == "names":
        # Numbers of deleted versions may be given again.
        for name, _ in [*truth.tokens]:
            truth.loosen(name)
    if rows and trial.choose.random() < 0.7:
        key, other = trial.choose.choice(rows)
        where = f"{columns[0]} IS ?" + (f" AND {columns[1]} IS ?" if columns[1:] else "")
        parameters = [value, key, other] if columns[1:] else [value, key]
        sql.execute(f"UPDATE {table} SET {column} = {expression} WHERE {where}", parameters)
    else:
        usual = {"owner": "{}", "started_at": "2026-01-01", "host": "h", "name": "new", "field": "f", "since": 1.5e9}
        values = [expression if one == column else "?" for one in columns]
        parameters = [value if one == column else usual.get(one, 1) for one in columns]
        sql.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)})", parameters)


def _touch(trial: Trial, path: Path, truth: Truth) -> bool:
    """Write an odd value somewhere, perhaps one that the table's constraints forbid; return whether SQLite let it."""
    table, column = trial.choose.choice(PLACES)
    trial.step(f"{table}.{column}")
    lifts = table != "sqlite_sequence" and trial.choose.random() < 0.3
    if lifts:
        trial.steps[-1] += " (without constraints)"
        with closing(sqlite3.connect(path, isolation_level=None)) as sql:
            text = _lift(sql, table)
    done = change(path, lambda sql: _write(sql, trial, truth, table, column))
    if lifts:
        change(path, lambda sql: _restore(sql, table, text))
    if done:
        trial.counts[f"values in {table}.{column}"] += 1
    return done


def test_odd_values(memory_path: Path) -> None:
    """Whatever another program writes into a row, it does no harm but to that row."""
    layouts = build(memory_path)

    def attack(trial: Trial) -> None:
        _, now, truth = layouts[trial.choose.choice(LAYOUTS)]
        truth = truth.copy()
        path = trial.folder / "models.db"
        shutil.copy(now, path)
        if not any([_touch(trial, path, truth) for _ in range(trial.choose.choice([1, 1, 1, 3]))]):
            return
        verbs = Verbs(trial, path, truth)
        verbs.tries(trial.choose.sample(verbs.READING, 8))
        verbs.shows_the_rest()
        for verb in trial.choose.sample(verbs.WRITING, 3):
            verbs.tries([verb, trial.choose.choice(verbs.READING)])
        verbs.shows_the_rest()

    run(attack, memory_path, KNOWN)
