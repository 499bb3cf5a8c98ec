"""Files whose schema somebody made to hang, to fill memory, or to mislead: an answer or a `StorageError`, soon."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.stores import COLUMNS, OWN_TABLES
from tests.support.trials import Known, Trial, run
from tests.support.verbs import Verbs, build, change

#: What is known not to work yet: delete a line when it does.
KNOWN: Known = [
    # The text of tables and indexes is not compared: comments differ between versions, and a team may add indexes.
    (r"instr\(hex", "an expression in a CHECK, a DEFAULT or an index can take hours when a row is written"),
]


#: Never ends, or takes more and more memory, or takes all of it at once.
ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"
HUGE = ["zeroblob(1000000000)", "hex(zeroblob(450000000))", "printf('%.*c', 900000000, 'x')", "randomblob(900000000)"]

#: Takes hours, in one step of SQLite that nothing interrupts.
HOURS = "instr(hex(zeroblob(10000000)), hex(zeroblob(5000000)) || '1') = 0"

#: What a statement can be made to do.
DEEDS = [
    f"INSERT INTO other {ENDLESS} SELECT x FROM r",
    f"SELECT count(*) FROM ({ENDLESS} SELECT x FROM r)",
    "SELECT RAISE(ABORT, 'no')",
    "SELECT RAISE(IGNORE)",
    "SELECT RAISE(ROLLBACK, char(27) || '[31m')",
    "DELETE FROM models",
    "UPDATE models SET name = 'alpha'",
    "INSERT INTO other VALUES (zeroblob(900000000))",
]


def _table(trial: Trial) -> str:
    return trial.choose.choice([*OWN_TABLES, "models", "models"])


def _odd_case(trial: Trial, name: str) -> str:
    return trial.choose.choice([name, name, name.upper(), f'"{name}"', name.title()])


def view(trial: Trial) -> str:
    """Put a view in the place of a table."""
    name = _table(trial)
    query = trial.choose.choice(
        [
            f"{ENDLESS} SELECT {', '.join(f'x AS {column}' for column in COLUMNS[name])} FROM r",
            f"SELECT {', '.join(f'{trial.choose.choice(HUGE)} AS {column}' for column in COLUMNS[name])}",
            "SELECT * FROM hidden",
            "SELECT a.* FROM hidden AS a, hidden, hidden, hidden, hidden, hidden, hidden, hidden",
            f"SELECT * FROM {name}",
            "SELECT * FROM missing",
        ]
    )
    return f"ALTER TABLE {name} RENAME TO hidden; CREATE VIEW {_odd_case(trial, name)} AS {query}"


def generated(trial: Trial) -> str:
    """Compute a column when it is read."""
    name = _table(trial)
    column = trial.choose.choice(COLUMNS[name])
    kind, value = trial.choose.choice(["VIRTUAL", "STORED"]), trial.choose.choice([*HUGE, "1", "'x'", "random()"])
    columns = [f"{one} AS ({value}) {kind}" if one == column else one for one in COLUMNS[name]]
    if trial.choose.random() < 0.3:
        return f"ALTER TABLE {name} ADD COLUMN more AS ({value}) VIRTUAL"
    return f"ALTER TABLE {name} RENAME TO hidden; CREATE TABLE {name} ({', '.join(columns)}, more)"


def trigger(trial: Trial) -> str:
    """Let a statement do something else too."""
    name = _table(trial)
    when = f"{trial.choose.choice(['BEFORE', 'AFTER'])} {trial.choose.choice(['INSERT', 'DELETE', 'UPDATE'])}"
    return f"CREATE TRIGGER odd {when} ON {_odd_case(trial, name)} BEGIN {trial.choose.choice(DEEDS)}; END"


def other_objects(trial: Trial) -> str:
    """Add what a team may add, and what nobody would: it is never read."""
    return trial.choose.choice(
        [
            f"CREATE VIEW endless AS {ENDLESS} SELECT x FROM r",
            "CREATE VIEW broken AS SELECT * FROM missing",
            "CREATE VIEW sqlite AS SELECT * FROM sqlite_schema",
            "CREATE TABLE \"models_record \" (a)",
            "CREATE TABLE \"odd\x1b[31m\nname\" (\"\x1b\")",
            f"CREATE TRIGGER odd AFTER INSERT ON other BEGIN {trial.choose.choice(DEEDS)}; END",
            "CREATE VIRTUAL TABLE search USING fts5(text)",
            "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b)",
            "ANALYZE",
            "ANALYZE; UPDATE sqlite_stat1 SET stat = '1 1 1'",
            "ANALYZE; INSERT INTO sqlite_stat1 VALUES ('models', NULL, '99999999999')",
            "ANALYZE; UPDATE sqlite_stat1 SET stat = zeroblob(10), idx = 'missing'",
            "ANALYZE; INSERT INTO sqlite_stat1 VALUES ('model_parts', 'models_record', 'x noskipscan')",
            "CREATE TEMP TABLE models (a)",
            ";".join(f"CREATE TABLE t{number} (a)" for number in range(300)),
        ]
    )


def virtual(trial: Trial) -> str:
    """Put a virtual table in the place of a table: it runs code when it is read."""
    name = _table(trial)
    columns = ", ".join(COLUMNS[name])
    using = trial.choose.choice([f"fts5({columns})", f"rtree({columns})", "dbstat", f"fts4({columns})"])
    return f"ALTER TABLE {name} RENAME TO hidden; CREATE VIRTUAL TABLE {_odd_case(trial, name)} USING {using}"


def index(trial: Trial) -> str:
    """Add an index on expressions, with another collation, or of some rows; or put it in the place of the usual one."""
    columns = [
        *("name COLLATE NOCASE", "name DESC", "version", "size", "id", "upload", "metadata", "stored_at DESC"),
        *("json_extract(metadata, '$.note')", "length(pickle)", "lower(name)", "environment ->> '$.type'", "-version"),
        trial.choose.choice(["length(zeroblob(900000000))", "name || 'x'", "abs(-9223372036854775807 - 1)"]),
        trial.choose.choice(["json(name)", "sha256"]),
        trial.choose.choice(["name", f"iif(id > 1000, {HOURS}, 1)", "stored_by"]),
    ]
    chosen = ", ".join(trial.choose.sample(columns, trial.choose.randint(1, 5)))
    if trial.choose.random() < 0.3:
        chosen = ", ".join(COLUMNS["models"][:10])
    where = trial.choose.choice(["", "", "WHERE size > 100", "WHERE 0", "WHERE version IS NOT NULL", "WHERE id > 3"])
    unique = trial.choose.choice(["", "", "UNIQUE"])
    if trial.choose.random() < 0.5:
        return f"CREATE {unique} INDEX odd ON models ({chosen}) {where}"
    usual = f"CREATE {unique} INDEX models_record ON models ({chosen}) {where}"
    other = "CREATE INDEX models_record ON names (name)"
    made = trial.choose.choice([usual, usual, other, "CREATE TABLE models_record (a)", ""])
    return f"DROP INDEX models_record; {made}"


def part_index(trial: Trial) -> str:
    """Add an index on another table."""
    name = _table(trial)
    column = trial.choose.choice(COLUMNS[name])
    unique, order = trial.choose.choice(["", "UNIQUE"]), trial.choose.choice(["", "DESC", "COLLATE NOCASE"])
    where = trial.choose.choice(["", f"WHERE {column} > 1", f"WHERE {column} IS NULL"])
    return f"CREATE {unique} INDEX odd ON {name} ({column} {order}) {where}"


def missing(trial: Trial) -> str:
    """Drop or rename a table, or a column of it."""
    name = _table(trial)
    column = trial.choose.choice(COLUMNS[name])
    return trial.choose.choice(
        [
            f"DROP TABLE {name}",
            f"ALTER TABLE {name} RENAME TO hidden",
            f"ALTER TABLE {name} DROP COLUMN {column}",
            f"ALTER TABLE {name} RENAME COLUMN {column} TO other",
            f"ALTER TABLE {name} ADD COLUMN other",
            "DELETE FROM sqlite_sequence",
            "DROP INDEX models_record",
        ]
    )


def remade(trial: Trial) -> str:
    """Make a table again, with the same columns and other types, keys, constraints and defaults."""
    name = _table(trial)
    columns = COLUMNS[name]
    odd = ["", "", "TEXT", "INTEGER", "REAL", "BLOB", "COLLATE NOCASE", "NOT NULL", "NUMERIC", "DEFAULT (random())"]
    odd += ["UNIQUE", "UNIQUE ON CONFLICT REPLACE", "UNIQUE ON CONFLICT IGNORE", "REFERENCES names ON DELETE CASCADE"]
    odd += [f"CHECK (length({trial.choose.choice(HUGE)}) > 0)", f"DEFAULT ({trial.choose.choice(HUGE)})"]
    odd += [f"CHECK ({HOURS})", f"DEFAULT ({HOURS})"]
    texts = [f"{column} {trial.choose.choice(odd)}" for column in columns]
    key, ending = trial.choose.choice(
        [("", ""), (f", PRIMARY KEY ({columns[0]})", "WITHOUT ROWID"), (f", UNIQUE ({', '.join(columns[:2])})", "")]
        + [(f", PRIMARY KEY ({columns[-1]} DESC)", "")]
    )
    if trial.choose.random() < 0.4:
        texts[0] = f"{columns[0]} INTEGER PRIMARY KEY"
        key, ending = "", ""
    made = f"CREATE TABLE {name} ({', '.join(texts)}{key}) {ending}"
    record = f"; DROP INDEX IF EXISTS models_record; CREATE INDEX models_record ON models ({', '.join(columns[:10])})"
    again = f"INSERT OR IGNORE INTO {name} SELECT {', '.join(columns)} FROM hidden"
    return f"ALTER TABLE {name} RENAME TO hidden; {made}; {again}{record if name == 'models' else ''}"


def _odd_schema(sql: sqlite3.Connection, trial: Trial) -> str:
    """Swap the root pages of two tables or indexes, or write something else into the schema itself."""
    rows = sql.execute("SELECT rowid, name, rootpage FROM sqlite_schema WHERE rootpage > 0").fetchall()
    (one, name, page), (other, other_name, other_page) = trial.choose.sample(rows, 2)
    kind = trial.choose.choice(["swap", "swap", "swap", "same", "page", "text", "row", "field"])
    if kind == "swap":
        return (
            f"UPDATE sqlite_schema SET rootpage = {other_page} WHERE rowid = {one};"
            f"UPDATE sqlite_schema SET rootpage = {page} WHERE rowid = {other} -- {name} and {other_name}"
        )
    if kind == "same":
        return f"UPDATE sqlite_schema SET rootpage = {other_page} WHERE rowid = {one} -- {name} like {other_name}"
    if kind == "page":
        root = trial.choose.choice(["1", "0", "2", "-1", "NULL", "1000000", "'x'", "3", "4", "1e300", "zeroblob(9)"])
        return f"UPDATE sqlite_schema SET rootpage = {root} WHERE rowid = {one} -- {name}"
    if kind == "text":
        text = trial.choose.choice(["NULL", "''", "'CREATE'", "x'00ff'", "'CREATE TABLE x (a, a)'", "sql || ' STRICT'"])
        text = trial.choose.choice([text, "replace(sql, 'models', 'names')", "replace(sql, ',', ' COLLATE odd,')"])
        text = trial.choose.choice([text, "replace(sql, 'name', char(27) || '[31m')", "CAST(x'80ff' AS TEXT)"])
        text = trial.choose.choice([text, "replace(sql, 'UNIQUE', 'CHECK (1) --')", "replace(sql, 'NOT NULL', '')"])
        return f"UPDATE sqlite_schema SET sql = {text} WHERE rowid = {one} -- {name}"
    if kind == "row":
        return trial.choose.choice(
            [
                f"INSERT INTO sqlite_schema SELECT * FROM sqlite_schema WHERE rowid = {one} -- {name}",
                f"DELETE FROM sqlite_schema WHERE rowid = {one} -- {name}",
                f"INSERT INTO sqlite_schema VALUES ('table', 'odd', 'odd', {page}, 'CREATE TABLE odd (a)')",
                f"INSERT INTO sqlite_schema VALUES ('index', 'i', 'models', {page}, 'CREATE INDEX i ON models (name)')",
            ]
        )
    field = trial.choose.choice(["type", "name", "tbl_name"])
    values = ["'view'", "'index'", "NULL", "'models'", "'names'", "'other'", "1", "x'00'", "upper(name)"]
    value = trial.choose.choice(values)
    return f"UPDATE sqlite_schema SET {field} = {value} WHERE rowid = {one} -- {name}"


HOSTILE = [view, generated, trigger, other_objects, virtual, index, index, part_index, missing, remade, remade]


def _change(trial: Trial, path: Path) -> bool:
    """Change the schema; return whether SQLite let it."""
    change(path, lambda sql: sql.execute("CREATE TABLE IF NOT EXISTS other (data)"))
    if trial.choose.random() < 0.3:
        with closing(sqlite3.connect(path)) as sql:
            kind, text = "writable_schema", _odd_schema(sql, trial)
        script = f"PRAGMA writable_schema = ON; BEGIN; {text}\n; COMMIT"
    else:
        function = trial.choose.choice(HOSTILE)
        kind, text = function.__name__, function(trial)
        script = f"PRAGMA ignore_check_constraints = ON; PRAGMA legacy_alter_table = ON; BEGIN; {text}\n; COMMIT"
    if trial.skips(text):
        return False
    trial.step(text[:300])
    done = change(path, lambda sql: sql.executescript(script))
    trial.counts[f"schemas: {kind}" if done else "refused by SQLite"] += 1
    return done


def test_hostile_schemas(memory_path: Path) -> None:
    """No schema makes a verb hang, take much memory, or return a wrong object."""
    layouts = build(memory_path)

    def attack(trial: Trial) -> None:
        _, now, truth = layouts[trial.choose.choice(["small", "small", "many", "narrow", "left", "wide"])]
        path = trial.folder / "models.db"
        shutil.copy(now, path)
        if _change(trial, path):
            verbs = Verbs(trial, path, truth.copy())
            verbs.tries(trial.choose.sample(verbs.READING, 8))
            for verb in trial.choose.sample(verbs.WRITING, 2):
                verbs.tries([verb, trial.choose.choice(verbs.READING)])

    run(attack, memory_path, KNOWN)
