"""Finding by metadata: conditions, their errors, and a plain filter in Python that says the same."""

import fnmatch
import json
import pickle
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.budgets import budget
from tests.support.stores import copied
from views_runs import ModelRecord, QueryError, Storage, StorageError
from views_runs.conditions import Compound, Condition, Field, compare_time, rank_large
from views_runs.query import OPERATORS, Question, parse, parse_assignment, parse_value, refuse_beyond_limits

Viewser = Callable[..., Result]

DAY = date(2026, 11, 23)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A store of a few models that differ."""
    store = Storage(tmp_path_factory.mktemp("template") / "models.db")
    common = {"level_of_analysis": "country_month", "train_start": 121}
    store.store("forest", b"x" * 5000, {**common, "author": "ines", "run_id": "2026-11", "train_end": 480, "seed": 1})
    store.store("boosted", 2, {**common, "author": "ola", "run_id": "007", "train_end": 492, "seed": True})
    store.store("ridge", 3, {**common, "author": "ines", "run_id": "2026-12", "tuning": {"depth": 3, "a.b": "x"}})
    store.store("odd", 4, {"a.b": 1, "size": 3, 'with "quotes"': "yes", "ž": {"é": 1}, "none": None, "flag": False})
    store.store("bare", 5)
    return store


@pytest.fixture
def models(store: Storage, template: Storage) -> Storage:
    """A copy of the template."""
    return copied(template, store.path)


@pytest.mark.parametrize(
    "condition, names",
    [
        ("author=ines", "ridge forest"),
        ("author = ines", "ridge forest"),
        ("author='ines'", "ridge forest"),
        ("author!=ines", "boosted"),
        ("author~i*", "ridge forest"),
        ("author~[io]*", "ridge boosted forest"),
        ("author>ines", "boosted"),
        ("author", "ridge boosted forest"),
        ("!author", "bare odd"),
        ("! author", "bare odd"),
        ("run_id=2026-11", "forest"),
        ("run_id=007", "boosted"),
        ("run_id=7", ""),
        ("train_end>=2020-01", "boosted"),
        ("train_end=2019-12", "forest"),
        ("train_end<492", "forest"),
        ("train_end='480'", ""),
        ("seed=1", "forest"),
        ("seed=true", "boosted"),
        ("seed!=1", "boosted"),
        ("seed=1.0", "forest"),
        ("flag=false", "odd"),
        ("flag=0", ""),
        ("none", ""),
        ("!none", "bare odd ridge boosted forest"),
        ("tuning.depth>2", "ridge"),
        ('tuning."a.b"=x', "ridge"),
        ("tuning.a.b=x", ""),
        ('"a.b"=1', "odd"),
        ("a.b=1", "odd"),
        ("a.b!=2", "odd"),
        ("!a.b", "bare ridge boosted forest"),
        ('a."b"=1', ""),
        ("metadata.a.b=1", "odd"),
        ("size>1kB", "forest"),
        ("size>=0.001MB", "forest"),
        ("metadata.size=3", "odd"),
        ('"size"=3', "odd"),
        ('"with \\"quotes\\""=yes', "odd"),
        ("'with \"quotes\"'=yes", "odd"),
        ("ž.é=1", "odd"),
        ('"ž"."é">0', "odd"),
        ("type=builtins.bytes", "forest"),
        ("type~*.int", "bare odd ridge boosted"),
        ("version=1", "bare odd ridge boosted forest"),
        ("name~*o*", "odd boosted forest"),
        ("stored_by~*@*", "bare odd ridge boosted forest"),
        ("stored_at>=2020-01-01", "bare odd ridge boosted forest"),
        ("stored_at<2020-01-01", ""),
        ("author=ines' OR '1'='1", ""),
        ("author') OR 1 --=x", None),
        ('"author\') OR 1 --"=x', ""),
        ('"x\' OR 1=1 --"', ""),
    ],
)
def test_conditions(models: Storage, condition: str, names: str | None) -> None:
    """Each operator on each kind of field; whatever is written stays a value."""
    if names is None:
        with pytest.raises(QueryError):
            models.list(condition)
        return
    assert models.list(condition) == names.split()


def test_equality_by_keyword(models: Storage) -> None:
    """A list means any of; None asks that the field is lacking; numbers of numpy are numbers."""
    assert models.list(author="ines") == ["ridge", "forest"]
    assert models.list(author=["ola", "nobody"], run_id="007") == ["boosted"]
    assert models.list(author=[]) == []
    assert models.list(author=None) == ["bare", "odd"]
    assert models.list(train_end=np.int64(480)) == ["forest"]
    assert models.list(train_end="2019-12") == models.list(train_end="480") == ["forest"]
    assert models.list(seed=1) == ["forest"] and models.list(seed=True) == ["boosted"]
    assert models.list(**{"tuning.depth": 3}) == ["ridge"]
    assert models.list(size="3", version=1) == [] and models.list(**{"metadata.size": 3}) == ["odd"]
    for value in ({"depth": 3}, object(), float("nan"), (1, 2)):
        with pytest.raises(QueryError, match="tuning cannot be compared"):
            models.find(tuning=value)


def test_versions_names_order_and_limit(models: Storage) -> None:
    """Only current versions are found unless all are asked for."""
    models.store("forest", 6, {"author": "ola", "train_end": 500}, overwrite=True)
    assert models.list(author="ines") == ["ridge"]
    assert models.list(author="ines", all_versions=True) == ["ridge:1", "forest:1"]
    assert models.list(name="*o*", limit=2) == ["forest", "odd"]
    assert models.list(name="[fb]*") == ["forest", "bare", "boosted"]
    assert models.list(limit=0) == []
    assert len(models.list(limit=2**70)) == 5
    assert models.list(sort="train_end") == ["boosted", "forest", "bare", "odd", "ridge"]
    assert models.list(sort="-train_end") == ["forest", "boosted", "bare", "odd", "ridge"]
    assert models.list("author", sort="-author") == ["forest", "boosted", "ridge"]
    assert models.list(sort="-size", limit=1) == ["forest"]
    assert models.list(sort="tuning.depth", limit=1) == ["ridge"]
    for limit in (-1, 1.5, "3"):
        with pytest.raises(QueryError, match="limit must be 0, a positive integer or None"):
            models.list(limit=limit)


@pytest.mark.parametrize(
    "condition, place, said",
    [
        ("", 0, "name of a field"),
        ("   ", 3, "name of a field"),
        ("=3", 0, "name of a field"),
        ("author==3", 7, "unknown operator"),
        ("author=~3", 7, "unknown operator"),
        ("author<>3", 7, "unknown operator"),
        ("author ? 3", 7, "one of != <= >= = < > ~"),
        ("author like 3", 7, "one of"),
        ("author=", 7, "a value"),
        ("author='ines", 7, "quote is not closed"),
        ('"author=ines', 0, "quote is not closed"),
        ("author='ines' x", 14, "the value ends here"),
        ("a..b=1", 2, "name of a field"),
        ("a.=1", 2, "name of a field"),
        ("!author=1", 7, "!FIELD takes no operator"),
        ("train_end>=2019-13", 11, "no month 13"),
        ("train_end>=2019-0", 11, "no month 0"),
        ("train_end>=soon", 11, "expected a month"),
        ("training_date>2026-02-30", 14, "invalid date or time"),
        ("stored_at>soon", 10, "expected a date or a time"),
        ("stored_at>3m", 10, "expected a date or a time"),
        ("stored_at>999999999w", 10, "does not go back so far"),
        ("size>big", 5, "a number of bytes"),
        ("size>3XB", 5, "a number of bytes"),
        ("version=one", 8, "expected a number"),
        ("version=true", 8, "expected a number"),
        ("size~3", 5, "~ matches strings only"),
        ("seed>true", 5, "true and false have no order"),
    ],
)
def test_what_cannot_be_read(models: Storage, condition: str, place: int, said: str) -> None:
    """The error points at the place in the condition."""
    with pytest.raises(QueryError, match=re.escape(said)) as caught:
        models.find(condition)
    assert (caught.value.place, caught.value.condition) == (place, condition)
    lines = str(caught.value).splitlines()
    assert lines[2].index("^") == place + 2 or not condition.strip()
    assert isinstance(caught.value, ValueError)


def test_a_condition_that_is_no_text(models: Storage) -> None:
    """A mistake in Python is told too."""
    for wrong in (7, None, b"author", Path("x")):
        with pytest.raises(QueryError, match="must be a string"):
            models.find(wrong)  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        models.find(sort="")
    with pytest.raises(QueryError):
        models.find(sort="author desc")
    with pytest.raises(QueryError):
        models.find(since="soon")


def test_many_conditions_and_values(models: Storage) -> None:
    """500 conditions, and a list of 10,000 values, are answered; a value or a key may be long."""
    assert models.list(*["author=ines"] * 500) == ["ridge", "forest"]
    assert models.list(*[f"!field{number}" for number in range(500)], author="ola") == ["boosted"]
    assert models.list(author=[f"a{number}" for number in range(10_000)] + ["ola"]) == ["boosted"]
    assert models.list(train_end=list(range(100, 481))) == ["forest"]
    text = "ž" * 1_000_000
    models.store("large", 1, {"note": text, "k" * 100_000: 1})
    assert models.list(note=text) == models.list(f"note={text}") == models.list("k" * 100_000) == ["large"]
    with pytest.raises(QueryError) as caught:
        models.find("x" * 1_000_000 + " ?")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "where, options, said",
    [
        (["author"] * 2000, {}, "maximum depth"),
        ([], {"when": [DAY] * 2000}, "maximum depth"),
        ([], {"name": "*a" * 30_000}, "pattern too complex"),
        (["author~" + "*a" * 30_000], {}, "pattern too complex"),
        ([".".join(["é"] * 100) + "=1"], {}, "at most 64 tables"),
    ],
)
def test_questions_too_large_for_sqlite(models: Storage, where: list[str], options: Any, said: str) -> None:
    """They are errors of the question, and not of the file."""
    with pytest.raises(QueryError, match=rf"exceed a limit of SQLite \(.*{said}"):
        models.find(*where, **options)


@pytest.mark.parametrize(
    "limit, sql, parameters",
    [
        (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, f"SELECT {','.join('?' * 51)}", range(51)),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, "SELECT 1" + "+1" * 51, ()),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, "SELECT 1" + " " * 51, ()),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, "SELECT 'a' GLOB ?", ["a" * 51]),
        (None, "SELECT 1 FROM " + ",".join(f"json_each('1') AS t{number}" for number in range(65)), ()),
    ],
)
def test_limits_of_sqlite(limit: int | None, sql: str, parameters: Any) -> None:
    """Each of them makes a question too large."""
    with pytest.raises(QueryError, match="exceed a limit of SQLite"):
        execute(sql, parameters, limit)


@pytest.mark.parametrize("sql", ["SELECT nothing", "SELECT * FROM nothing", "SELECT '", "SELECT json('[')"])
def test_mistakes_in_sql_stay_as_they_are(sql: str) -> None:
    """Their code is the same as for the limits, but the question is not to blame."""
    with pytest.raises(StorageError, match="^SQLite failed$"):
        execute(sql)


def execute(sql: str, parameters: Any = (), limit: int | None = None) -> None:
    """Execute a statement with one of SQLite's limits set to 50; fail as a store does."""
    connection = sqlite3.connect(":memory:")
    if limit is not None:
        connection.setlimit(limit, 50)
    try:
        connection.execute(sql, parameters)
    except sqlite3.Error as error:
        failure = StorageError("SQLite failed")
        failure.__cause__ = error
        refuse_beyond_limits(failure)
        raise failure


def test_metadata_of_other_programs(models: Storage, sql: sqlite3.Connection) -> None:
    """What is not an object has no fields; numbers that are stored as text are texts."""
    for name, metadata in {"odd": "[1]", "bare": '"author"', "ridge": "3", "boosted": '{"train_end": "492"}'}.items():
        sql.execute("UPDATE models SET metadata = ?, datetimes = NULL WHERE name = ?", (metadata, name))
    assert models.list("author") == ["forest"]
    assert models.list("!author") == ["bare", "odd", "ridge", "boosted"]
    assert models.list("train_end>1") == ["forest"]
    assert models.list("train_end='492'") == ["boosted"]
    assert models.list(sort="author")[0] == "forest"


def test_keys_as_other_programs_write_them(models: Storage, sql: sqlite3.Connection) -> None:
    """Escapes in a key are resolved, and what holds a key has to be an object."""
    for name, metadata in {
        "odd": '{"\\u017e": {"\\u00e9": {"a": 1}}}',
        "bare": '{"ž": [{"é": {"a": 1}}]}',
        "ridge": '{"ž": "{\\"é\\": {\\"a\\": 1}}"}',
        "boosted": '{"ž": {"é": null}}',
    }.items():
        sql.execute("UPDATE models SET metadata = ?, datetimes = NULL WHERE name = ?", (metadata, name))
    assert models.list("ž.é.a=1") == models.list("ž.é") == ["odd"]
    assert models.list("ž") == ["bare", "odd", "ridge", "boosted"]
    assert models.list("!ž.é") == ["bare", "ridge", "boosted", "forest"]
    assert models.list("ž.0=1") == models.list("author.é=1") == []
    assert models.list(sort="ž.é.a", limit=1) == ["odd"]


PLUS2 = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "stored, condition, found",
    [
        (datetime(2026, 11, 23, 8), "when=2026-11-23", True),
        (datetime(2026, 11, 23, 23, 59, 59, 999999), "when<=2026-11-23", True),
        (datetime(2026, 11, 24), "when<=2026-11-23", False),
        (datetime(2026, 11, 23, 8), "when>2026-11-23", False),
        (datetime(2026, 11, 24), "when>2026-11-23", True),
        (datetime(2026, 11, 23), "when<2026-11-23", False),
        (DAY, "when=2026-11-23", True),
        (DAY, "when!=2026-11-23", False),
        (DAY, "when<2026-11-23T00:00:00.000001", True),
        ("2026-11-23", "when=2026-11-23", True),
        ("soon", "when>2000-01-01", False),
        (datetime(2026, 11, 23, 8, tzinfo=PLUS2), "when=2026-11-23T06:00+00:00", True),
        (datetime(2026, 11, 23, 8, tzinfo=PLUS2), "when=2026-11-23T08:00", True),
        (datetime(2026, 11, 23, 8, tzinfo=PLUS2), "when<2026-11-23T06:30+00:00", True),
        (datetime(2026, 11, 23, 8), "when=2026-11-23T08:00+05:00", True),
        (datetime(2026, 11, 23, 8, 0, 1), "when>2026-11-23T08:00", True),
        (datetime.max, "when=9999-12-31", True),
        (datetime.min, "when=0001-01-01", True),
    ],
)
def test_times(store: Storage, stored: Any, condition: str, found: bool) -> None:
    """A date covers its day; instants are compared where both have an offset, clocks where one has none."""
    # A training date is always a time; another field may be anything.
    for field in ("when", "training_date") if stored != "soon" else ("when",):
        store.store(field, 1, {field: stored})
        assert (store.list(condition.replace("when", field)) == [field]) is found


def test_when_it_was_stored(store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds without an offset are local time, and a date is its whole local day."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for name, stored in {"late": "2026-11-23T14:59:59.999999", "next": "2026-11-23T15:00:00.000000"}.items():
            store.store(name, 1)
            sql.execute("UPDATE models SET stored_at = ? WHERE name = ?", (f"{stored}+00:00", name))
        assert store.list(until="2026-11-23") == store.list(until=DAY) == ["late"]
        assert store.list(since="2026-11-24") == store.list(since=datetime(2026, 11, 24)) == ["next"]
        assert store.list(since="2026-11-23", until="2026-11-24") == ["next", "late"]
        assert store.list(since="2026-11-23T15:00+00:00") == store.list("stored_at>2026-11-23") == ["next"]
        assert store.list(since=datetime(2026, 11, 23, 15, tzinfo=UTC)) == ["next"]
        assert store.list("stored_at=2026-11-23") == store.list("stored_at!=2026-11-24") == ["late"]
        assert store.list(since="0001-01-01", until="9999-12-31") == ["next", "late"]
    finally:
        monkeypatch.undo()
        time.tzset()


FIELDS = ("author", "run_id", "train_end", "training_date", "seed", "nested.a", "nested.b", "tags", "steps")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.5, 2.0**63, 2.0**64]),
    st.sampled_from([2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]),
    st.sampled_from(["", "a", "b", "1", "true", "[1]", "a*", "2026-11-23"]),
    st.sampled_from([DAY, datetime(2026, 11, 23, 8), datetime(2026, 11, 22, 23, 30, tzinfo=UTC)]),
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "author": st.sampled_from(["", "a", "b", "[1]"]),
        "run_id": st.sampled_from(["1", "007", "a"]),
        "train_end": st.integers(478, 482),
        "training_date": st.sampled_from([DAY, datetime(2026, 11, 23, 8), "2026-11-24", None]),
        "seed": SCALARS,
        "nested": st.dictionaries(st.sampled_from(["a", "b"]), SCALARS) | SCALARS,
        "nested.a": SCALARS,
        "tags": st.lists(SCALARS, max_size=3) | SCALARS | st.dictionaries(st.sampled_from(["a", "1"]), SCALARS),
        "steps": st.lists(st.integers(1, 3), max_size=3),
    },
)
VALUES = st.sampled_from(
    ["a", "b", "''", "1", "007", "0", "true", "false", "480", "2019-12", "0.5", "-2", "'1'", "[1]"]
    + ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "1.8446744073709552e19"]
    + ["18446744073709551615", "1e999", "True", "None", "null", "'None'", "481", "2020-01", "nor", "'a) and (b'"]
)
TIMES = st.sampled_from(["2026-11-23", "2026-11-23T08:00", "2026-11-23T01:30+02:00", "2026-11-24"])
SINGLES = st.one_of(
    st.builds(lambda *parts: "".join(parts), st.sampled_from(FIELDS), st.sampled_from(OPERATORS), VALUES | TIMES),
    st.builds(lambda *parts: "".join(parts), st.sampled_from(["", "!"]), st.sampled_from(FIELDS)),
    st.builds("{} has {}".format, st.sampled_from(FIELDS), VALUES | TIMES),
    st.builds(
        lambda field, values: f"{field} in ({', '.join(values)})",
        st.sampled_from(FIELDS),
        st.lists(VALUES | TIMES, min_size=1, max_size=3),
    ),
)


class Meant(NamedTuple):
    """A condition, and what it means: whether a model with some metadata meets it."""

    text: str
    holds: Callable[[dict[str, Any]], bool]


def can_be_read(text: str) -> bool:
    """Return whether a condition is valid; `test_what_cannot_be_read` has those that are not."""
    try:
        return bool(parse(text))
    except QueryError:
        return False


def single(text: str) -> Meant:
    """Return a condition on one field."""
    return Meant(text, lambda metadata: holds(parse(text), metadata))


def negated(one: Meant) -> Meant:
    return Meant(f"not {one.text}", lambda metadata: not one.holds(metadata))


def joined(parts: list[list[Meant]]) -> Meant:
    """Return alternatives, each of conditions that all have to hold."""
    text = " or ".join(" and ".join(one.text for one in several) for several in parts)
    return Meant(text, lambda metadata: any(all(one.holds(metadata) for one in several) for several in parts))


def grouped(one: Meant) -> Meant:
    return Meant(f"({one.text})", one.holds)


def lists(units: st.SearchStrategy[Meant]) -> st.SearchStrategy[Meant]:
    return st.builds(joined, st.lists(st.lists(units, min_size=1, max_size=3), min_size=1, max_size=3))


UNITS = st.recursive(
    st.builds(single, SINGLES.filter(can_be_read)),
    lambda units: st.builds(negated, units) | st.builds(grouped, lists(units)),
    max_leaves=6,
)
CONDITIONS = lists(UNITS)


def holds(condition: Condition | Compound, metadata: dict[str, Any]) -> bool:
    """Say the same as the SQL, in plain Python."""
    if isinstance(condition, Compound):
        held = [holds(part, metadata) for part in condition.parts]
        return {"and": all(held), "or": any(held), "not": not held[0]}[condition.word]
    value = value_of(condition.field, metadata)
    if condition.operator in ("exists", "lacks"):
        return (value is None) == (condition.operator == "lacks")
    if value is None:
        return False
    if condition.operator == "has":
        members = value if isinstance(value, list) else []
        return any(compare(member, "=", wanted) for member in members for wanted in condition.values)
    if condition.operator == "!=":
        return not any(compare(value, "=", wanted) for wanted in condition.values)
    return any(compare(value, condition.operator, wanted) for wanted in condition.values)


def value_of(field: Field, metadata: dict[str, Any]) -> Any:
    """A name with dots is a nested field or, if there is none, a field of that name."""
    value: Any = metadata
    for key in field.path:
        if not isinstance(value, dict) or key not in value:
            return metadata.get(str(field)) if field.dotted else None
        value = value[key]
    return value


def compare(value: Any, operator: str, wanted: Any) -> bool:
    if isinstance(wanted, date):
        text = value.isoformat() if isinstance(value, date) else value
        return compare_time(text, operator, wanted.isoformat())
    if isinstance(value, date):
        value = value.isoformat()
    kinds = [str if isinstance(one, str) else bool if isinstance(one, bool) else float for one in (value, wanted)]
    if not isinstance(value, (str, bool, int, float)) or kinds[0] is not kinds[1]:
        return False
    if operator == "~":
        return fnmatch.fnmatchcase(value, wanted)
    return bool(
        {
            "=": value == wanted,
            "<": value < wanted,
            ">": value > wanted,
            "<=": value <= wanted,
            ">=": value >= wanted,
        }[operator]
    )


@settings(max_examples=budget(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(METADATA, min_size=1, max_size=8), st.lists(CONDITIONS, min_size=1, max_size=3))
def test_find_is_a_plain_filter(tmp_path: Path, metadata: list[dict[str, Any]], meant: list[Meant]) -> None:
    """What find returns is what a filter over all records returns, in the same order."""
    store = Storage(tmp_path / "filtered.db")
    if store.path.exists():
        for name in store.list():
            store.delete(name)
    for number, one in enumerate(metadata):
        store.store(f"m{number}", number, one)
    texts = [one.text for one in meant]
    conditions = [parse(text) for text in texts]
    records: list[ModelRecord] = store.find()
    expected = [one for one in records if all(each.holds(one.metadata or {}) for each in meant)]
    assert store.find(*texts) == expected
    assert [one for one in records if all(holds(each, one.metadata or {}) for each in conditions)] == expected


@settings(max_examples=budget(300), deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    """Never a traceback of another kind."""
    for read in (parse, parse_assignment, partial(parse_value, "seed"), partial(parse_value, "train_end")):
        try:
            read(text)
        except QueryError as error:
            assert 0 <= error.place <= len(text)


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("note", "a b", "a b"),
        ("note", "'7'", "7"),
        ("note", "'tis", "'tis"),
        ("note", "", ""),
        ("note", "  ", "  "),
        ("note", "7", 7),
        ("note", "-7", -7),
        ("note", "7.0", 7.0),
        ("note", "1e3", 1000.0),
        ("note", "true", True),
        ("note", "2026-11-23", DAY),
        ("author", "007", "007"),
        ("author", "'x'", "'x'"),
        ("train_end", "2019-12", 480),
        ("training_date", "2026-11-23T08:00", datetime(2026, 11, 23, 8)),
    ],
)
def test_values_as_they_are_written(name: str, text: str, value: Any) -> None:
    """What a text stands for depends on the field, and keeps its type."""
    parsed = parse_value(name, text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_find_on_the_command_line(models: Storage, viewser: Viewser) -> None:
    """Every option of list; repeated ones mean any of."""

    def names(*arguments: str) -> list[str]:
        return viewser("model", "list", "-q", *arguments).stdout.split()

    assert names("--author", "ines") == ["ridge", "forest"]
    assert names("--author", "ines", "--author", "ola", "--run-id", "007") == ["boosted"]
    assert names("--loa", "country_month", "--train-end", "2019-12") == ["forest"]
    assert names("--train-start", "121", "--limit", "1", "--sort", "author") == ["ridge"]
    assert names("--outcome", "x") == names("--queryset", "x") == []
    assert names("-w", "size>1kB", "--where", "author=ines", "f*") == ["forest"]
    assert names("--since", "2020-01-01", "--until", "2020-12-31") == []
    models.store("forest", 1, overwrite=True)
    assert names("--all-versions", "--author", "ines") == ["ridge:1", "forest:1"]
    assert "meets these conditions" in viewser("model", "list", "--author", "nobody").stderr
    assert json.loads(viewser("model", "list", "--json", "--author", "nobody").stdout) == []
    error = viewser("model", "list", "-w", "train_end>=2019-13", exit_code=1).stderr
    assert error == "Error: invalid condition:\n  train_end>=2019-13\n             ^ there is no month 13\n"
    assert viewser("model", "list", "--limit", "-1", exit_code=2).stdout == ""


def test_numbers_beyond_those_of_sqlite(models: Storage) -> None:
    """The largest integer that SQLite can hold is compared exactly, and so are those that are larger."""
    models.store("huge", 1, {"seed": 2**63 - 1})
    assert models.list(seed=2**63 - 1) == models.list(f"seed={2**63 - 1}") == ["huge"]
    assert models.list(seed=2**63) == models.list(seed=2**63 - 2) == []
    assert models.list(seed=10**400) == models.list(f"seed>{10**400}") == []
    assert models.list(seed=[10**400, 1]) == ["forest"]
    assert models.list(f"seed<{10**400}") == models.list("seed>-1e999") == ["huge", "forest"]


LARGE = [2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, 10**40, -(2**63), -(2**63) - 1]


@pytest.mark.parametrize("key", ["seed", "a.b", "ž"])
def test_large_integers_are_told_apart(store: Storage, key: str) -> None:
    """Half of all 64-bit hashes are integers that SQLite reads as floats, where neighbours are equal."""
    for number in LARGE:
        store.store(f"m{number}", 1, {key: number, "nested": {key: number}})
    store.store("float", 1, {key: 2.0**64})
    store.store("others", 1, {key: str(2**64)})
    for field in (f'"{key}"', f'nested."{key}"'):
        for number in LARGE:
            same = ["float"] if number == 2**64 and "nested" not in field else []
            assert store.list(f"{field} = {number}") == store.list(**{field: number}) == [*same, f"m{number}"]
            less = [f"m{one}" for one in reversed(LARGE) if one < number]
            assert [one for one in store.list(f"{field} < {number}") if one != "float"] == less
    assert store.list(**{f'"{key}"': [2**63, 7, 2.0**64]}) == ["float", f"m{2**64}", f"m{2**63}"]
    assert f"m{2**63}" not in store.list(f'"{key}" != {2**63}') and f"m{2**63 + 1}" in store.list(f'"{key}" != {2**63}')
    assert store.list(size=2**64) == store.list(f"version >= {2**63}") == store.list(f"version < -{2**64}") == []


@pytest.mark.parametrize("key", ["seed", "a.b", "ž"])
def test_large_integers_are_sorted(store: Storage, key: str) -> None:
    """Those that are equal as floats, too; a float among them, and what is no number, have their place."""
    numbers = [*LARGE, 2.0**64, 5, -1.5, 10**400, -(10**400), -(10**40), 2**64 + 1]
    for index, number in enumerate(numbers):
        store.store(f"m{index}", 1, {key: number})
    store.store("text", 1, {key: "9" * 30})
    store.store("none", 1)
    ascending = [record.metadata[key] for record in store.find(f'"{key}"', sort=f'"{key}"') if record.metadata]
    assert ascending == [*sorted(numbers), "9" * 30]
    descending = [record.metadata[key] for record in store.find(f'"{key}"', sort=f'-"{key}"') if record.metadata]
    assert descending == ["9" * 30, *sorted(numbers, reverse=True)]
    assert store.list(sort=f'-"{key}"')[-1] == "none"


def test_large_integers_on_the_command_line(store: Storage, viewser: Viewser) -> None:
    """What --set stores is what it was given, and is found."""
    store.store("m", 1)
    for number in LARGE:
        viewser("model", "annotate", "m", "--set", f"fingerprint={number}", "--set", f"list=[{number}]")
        assert store.fetch_metadata("m") == {"fingerprint": number, "list": [number]}
        assert isinstance(store.fetch_metadata("m").fingerprint, int)
        assert viewser("model", "list", "-q", "-w", f"fingerprint = {number}").stdout == "m\n"
    assert "cannot represent" in viewser("model", "annotate", "m", "--set", f"x={'9' * 5000}", exit_code=1).stderr


def test_numbers_of_another_program(store: Storage, sql: sqlite3.Connection) -> None:
    """What no number is equal to does not stop the search."""
    for number, value in enumerate(["1e999", "9" * 5000, '"text"', "null", "[1]", "true"]):
        store.store(f"m{number}", 1)
        sql.execute("UPDATE models SET metadata = ? WHERE name = ?", (f'{{"x": {value}}}', f"m{number}"))
    assert store.list(f"x > {2**64}") == store.list("x = 1e999") == ["m0"]


def test_true_is_not_one(store: Storage) -> None:
    """Booleans and numbers are never equal, alone, in a list, or in a list of both."""
    for name, value in {"one": 1, "zero": 0, "true": True, "false": False, "float": 1.0, "text": "1"}.items():
        store.store(name, 1, {"draft": value})
    assert store.list(draft=[True, False]) == ["false", "true"]
    assert store.list(draft=[0, 1]) == ["float", "zero", "one"]
    assert store.list(draft=[True, 0, "1"]) == ["text", "true", "zero"]
    assert store.list(draft=True) == store.list("draft=true") == ["true"]
    assert store.list(draft=1) == store.list("draft=1") == ["float", "one"]
    assert store.list("draft!=true") == ["text", "float", "false", "zero", "one"]


def test_current(models: Storage) -> None:
    """Whether a version is the current one is a flag of the record, and metadata may have another of this name."""
    models.store("forest", 2, {"current": "yes"}, overwrite=True)
    models.store("ridge", 2, {"current": False}, overwrite=True)

    def found(*where: str, **options: Any) -> list[str]:
        return [f"{record.name}:{record.version}" for record in models.find(*where, all_versions=True, **options)]

    older = ["ridge:1", "forest:1"]
    assert found("current=false") == found("current!=true") == found("!current") == found(current=False) == older
    assert found("current") == found("current = true") == found(current=True) == found(current="true")
    assert found("current") == ["ridge:2", "forest:2", "bare:1", "odd:1", "boosted:1"]
    assert found("current", "author=ines") == [] and found("!current", "author=ines") == older
    assert found(sort="current", limit=2) == older
    assert found("metadata.current=false") == ["ridge:2"] and found("metadata.current") == ["ridge:2", "forest:2"]
    assert models.list("!current") == found(current=None) == []
    for wrong, place in {"current=1": 8, "current=yes": 8, "current<true": 8, "current~t*": 8}.items():
        with pytest.raises(QueryError) as caught:
            models.find(wrong)
        assert caught.value.place == place
    with pytest.raises(QueryError, match="current cannot be compared with 1: expected true or false"):
        models.find(current=1)


def test_a_model_without_a_type(models: Storage, tmp_path: Path) -> None:
    """An uploaded pickle has no type that is known: it lacks one."""
    file = tmp_path / "uploaded.pkl"
    file.write_bytes(pickle.dumps(1))
    models.upload(file, "uploaded")
    assert models.list("!type") == models.list(type=None) == ["uploaded"]
    assert models.list("type") == models.list("type!=x") == ["bare", "odd", "ridge", "boosted", "forest"]


def test_finding_reads_no_pickles(models: Storage, sql: sqlite3.Connection) -> None:
    """One index has all that conditions, orders and records need; `models` has no other index except for its keys."""
    sql.create_function("compare_time", 3, compare_time)
    sql.create_function("rank_large", 2, rank_large)
    named = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'models' AND sql IS NOT NULL"
    indexes = sql.execute(named).fetchall()
    assert indexes == [("models_record",)]
    where = [*(f"{name}!=1" for name in ("name", "type", "stored_by")), "size>1", "version>1", "stored_at>2026-01-01"]
    where += ["a.é=1", "when>2026-01-01", "author", "not (a.b in (1, x) or steps has 3)", "é has 1"]
    question = Question.of(where, {}, since=DAY, name="*", sort="-tuning.depth")
    plan = sql.execute(
        f"EXPLAIN QUERY PLAN SELECT metadata FROM models INDEXED BY models_record {question.sql}",
        question.parameters,
    ).fetchall()
    steps = [step for *_, step in plan if re.match("(SCAN|SEARCH) models ", step)]
    assert steps and all("USING COVERING INDEX models_record" in step for step in steps)


@pytest.mark.parametrize("wrong", [5, True, 1.5, ["a"], ["2026-11-23"], [], {}, pd.NaT, (DAY,)])
def test_bounds_and_orders_of_another_type(models: Storage, wrong: Any) -> None:
    """They are refused, and not taken for no models."""
    for ask in (
        lambda: models.find(since=wrong),
        lambda: models.find(until=wrong),
        lambda: models.find(sort=wrong),
        lambda: models.find(stored_at=[wrong]),
    ):
        with pytest.raises(QueryError):
            ask()
    with pytest.raises(QueryError):
        models.find(size=DAY)


def test_globs_with_a_literal_beginning(models: Storage) -> None:
    """Characters in brackets and beyond the ASCII ones are no exception."""
    models.store("z", 1, {"author": "žofie", "outcome": "\U0010fffe"})
    assert models.list("author~žo*") == models.list("author~ž?fie") == models.list("author~[ž]ofie") == ["z"]
    assert models.list("author~ines") == ["ridge", "forest"]
    assert models.list("outcome~\U0010fffe*") == ["z"]
    assert models.list("author~x*") == models.list("train_end~4*") == []


@pytest.mark.parametrize("size", ["99999999TB", "9" * 400 + "TB", "1" + "0" * 30])
def test_sizes_larger_than_any_file(models: Storage, size: str) -> None:
    """They are compared, although SQLite has no integers of this size."""
    assert models.list(f"size > {size}") == []
    assert len(models.list(f"size < {size}")) == len(models.list())
