"""Conditions as expressions: where values end, mistakes that are errors, and mistakes that are only reported."""

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result

from views_runs import InvalidMetadataError, QueryError, Storage, conditions, month
from views_runs.conditions import Condition, Field, OwnField
from views_runs.metadata import TEXT, explain_month
from views_runs.query import MAX_NESTED, Question, parse, parse_value

Viewser = Callable[..., Result]


@pytest.fixture
def models(store: Storage) -> Storage:
    """A store of a few models."""
    store.store("first", 1, {"auc": 0.95, "stage": "prod", "tags": ["eu", "af"], "outcome": "ged_sb", "steps": [1, 3]})
    store.store("second", 1, {"auc": 0.8, "stage": "test", "tags": [], "ok": True, "draft": False})
    store.annotate("second", note="a (b) and c")
    store.store("third", 1, {"auc": 0.7, "tags": "eu", "tuned": {"depth": 4, "é": [2**64, None]}, "author": "ines"})
    store.store("fourth", 1, {"not": 1, "in": 2, "tuned.depth": 5, "run": "x", "f(x)": 1})
    store.annotate("fourth", big=[2**64 + 1, "x", True])
    return store


@pytest.mark.parametrize(
    "condition, names",
    [
        ("auc > 0.9 and (stage = prod or stage = test)", "first"),
        ("stage = prod or stage = test", "second first"),
        ("author = ines or stage = prod and auc < 0.9", "third"),
        ("(author = ines or stage = prod) and auc < 0.9", "third"),
        ("not stage = prod", "fourth third second"),
        ("stage != prod", "second"),
        ("not (stage = prod or author)", "fourth second"),
        ("not not stage", "second first"),
        ("not draft and outcome in (ged_sb, ged_ns) and tags has eu", "first"),
        ("stage in (prod,test)", "second first"),
        ("stage in ('prod', \"x, y\")", "first"),
        ("stage in (prod, None)", "fourth third first"),
        ("auc in (0.7, prod, true)", "third"),
        ("not stage in (prod, test)", "fourth third"),
        ("tags has eu", "first"),
        ("tags has 'eu'", "first"),
        ("not tags has eu", "fourth third second"),
        ("steps has 3", "first"),
        ("steps has 3.0", "first"),
        ("steps has '3'", ""),
        ("tuned has 4", ""),
        (f"tuned.é has {2**64}", "third"),
        (f"big has {2**64}", ""),
        (f"big has {2**64 + 1}", "fourth"),
        ("big has true and big has x", "fourth"),
        ("ok = True", "second"),
        ("ok = true", "second"),
        ("draft = FALSE", "second"),
        ("stage = None", "fourth third"),
        ("stage = null", "fourth third"),
        ("stage != None", "second first"),
        ("stage = 'None'", ""),
        ("author = None and stage = null", "fourth"),
        ("note = 'a (b) and c'", "second"),
        ("note ~ 'a (*) and c'", "second"),
        ("note = a (b", ""),
        ("not = 1", "fourth"),
        ("in in (2)", "fourth"),
        ('"not" = 1 and not "not" > 1', "fourth"),
        ('"f(x)" = 1', "fourth"),
        ("tuned.depth > 3", "fourth third"),
        ("tuned.depth in (5, 4)", "fourth third"),
        ("not tuned.depth", "second first"),
        ("metadata.run = x and not run", "fourth"),
        ("stage = prod and  auc > 0.9", "first"),
        ("stage = prod\n  and auc > 0.9", "first"),
        ("(stage = prod)and(auc > 0.9)", "first"),
        ("((stage = prod))", "first"),
        ("author = ines) or (x = 1", None),
    ],
)
def test_expressions(models: Storage, condition: str, names: str | None) -> None:
    """not binds most tightly, then and, then or; a condition on a missing field is not met."""
    if names is None:
        with pytest.raises(QueryError):
            models.list(condition)
    else:
        assert models.list(condition) == names.split()


def test_several_conditions_are_joined_with_and(models: Storage) -> None:
    """Each of them is a whole: an or in one does not reach into the next."""
    assert models.list("stage = prod or author", "auc < 0.9") == ["third"]
    assert models.list("stage = prod or author", stage="prod") == ["first"]


@pytest.mark.parametrize(
    "condition, place, said",
    [
        ("note = salt and pepper too", 23, "ends at 'and': quote the value"),
        ("note = f(x)", 10, "there is no ( for this ); a value without quotes ends at ')'"),
        ("note = a or", 11, None),
        ("a = 1 and ", 10, "expected the name of a field"),
        ("a = and b", 4, 'expected a value ("" for an empty string)'),
        ("(a = 1", 6, "expected and, or, or )"),
        ("(a = 1) b", 8, "expected and, or, or the end"),
        ("a = 1)", 5, "there is no ( for this )"),
        ("a = 'x' y", 8, "the value ends here"),
        ("a in 3", 5, "expected ( and values"),
        ("a in ()", 6, "expected a value"),
        ("a in (1,)", 8, "expected a value"),
        ("a in (1", 7, "expected , or )"),
        ("a in (1 and 2)", 8, "expected , or )"),
        ("a not in (1)", 2, "put not before the field"),
        ("name has x", 5, "has is for lists, and name is not a list"),
        ("a has None", 6, "None can only be compared with = or !="),
        ("a < None", 4, "None can only be compared with = or !="),
        ("a AND b", 2, "expected one of"),
        ("f(x) = 1", 1, "expected one of"),
        ("!(a = 1)", 1, "expected the name of a field"),
        ("()", 1, "expected the name of a field"),
        ("not", 3, None),
        ("a = 1 and train_end = soon", 22, "expected a month"),
        ("(" * 10_000 + "a" + ")" * 10_000, MAX_NESTED, "inside one another"),
        ("not " * 10_000 + "a", MAX_NESTED * 4, "inside one another"),
        ("a = 1 or (" * 10_000, None, "inside one another"),
    ],
)
def test_the_place_of_a_mistake(models: Storage, condition: str, place: int | None, said: str | None) -> None:
    """The caret is under it, in a line that a terminal does not fold."""
    if said is None:
        models.find(condition)
        return
    with pytest.raises(QueryError, match=re.escape(said)) as caught:
        models.find(condition)
    assert place in (None, caught.value.place)
    first, shown, pointer = str(caught.value).splitlines()
    assert len(shown) < 80
    at = pointer.index("^")
    assert (shown + " ")[at] == (condition + " ")[caught.value.place]


def test_the_caret_under_wide_characters(models: Storage) -> None:
    """A terminal shows them in two columns, and a combining accent in none."""
    for condition, column in {"日本 ? 1": 5, "e\u0301 ? 1": 2}.items():
        with pytest.raises(QueryError) as caught:
            models.find(condition)
        assert str(caught.value).splitlines()[2].index("^") == 2 + column


def test_as_deep_as_allowed(models: Storage) -> None:
    """The statement is not too deep for SQLite, whatever is inside."""
    for innermost in ("a.b has 3", "ž.é != 2", "when > 2026-01-01", f"x in ({2**64}, y, None)"):
        models.find("(" * MAX_NESTED + innermost + ")" * MAX_NESTED)
        for depth, opening in (MAX_NESTED, f"{innermost} or ("), (MAX_NESTED // 2, f"{innermost} and not ("):
            models.find(opening * depth + innermost + ")" * depth)


def test_long_expressions(models: Storage) -> None:
    """500 alternatives and 10,000 values are answered."""
    assert models.list(" or ".join(["stage = prod"] * 500)) == ["first"]
    assert models.list(f"auc in ({', '.join(map(str, range(10_000)))}, 0.7)") == ["third"]
    with pytest.raises(QueryError, match="exceed a limit of SQLite"):
        models.find(" or ".join(["stage = prod"] * 2000))


def test_values_outside_of_conditions() -> None:
    """A value of --set ends at the end of the text, and may be one of the same words."""
    assert parse_value("note", "f(x) and b, or c") == "f(x) and b, or c"
    assert [parse_value("note", text) for text in ("True", "None", "null", "'None'")] == [True, None, None, "None"]
    assert parse_value("author", "None") == "None"
    with pytest.raises(QueryError, match="the value ends here"):
        parse_value("note", "'a' and 'b'")


def test_fields_of_several_values(models: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of the record that is a table: one match is enough."""
    members = "(SELECT 'text' AS type, value FROM json_each(models.metadata -> '$.tags'))"
    first = f"(SELECT min(value) FROM {members})"
    label = OwnField(TEXT, f"iif({first} IS NULL, NULL, 'text')", first, members)
    monkeypatch.setitem(conditions.OWN_FIELDS, "label", label)
    models.delete("third")
    assert models.list("label = af") == models.list("label in (af, x)") == models.list(label="eu") == ["first"]
    assert models.list("label ~ e*") == models.list("label") == models.list("label != x") == ["first"]
    assert models.list("label != eu") == []
    assert models.list("not label = eu") == models.list("!label") == ["fourth", "second"]
    assert models.list(sort="label", limit=1) == ["first"]


@pytest.mark.parametrize(
    "condition, complaint",
    [
        ("oucome = x", "no model has a field 'oucome'; did you mean 'outcome'?"),
        ("Outcome = x", "no model has a field 'Outcome'; did you mean 'outcome'?"),
        ("tuned.dept = x", "no model has a field 'tuned.dept'; did you mean 'tuned.depth'?"),
        ("metadata.size = 3", "no model has a field 'metadata.size'"),
        ("auc > '0,9'", "auc is numeric in every model, but '0,9' is text"),
        ("auc > 0,9", "auc is numeric in every model, but '0,9' is text"),
        ("auc in (soon, 7)", "auc is numeric in every model, but 'soon' is text"),
        ("auc = soon or auc = later", "auc is numeric in every model, but 'soon' is text"),
        ("auc > 2026-01-01", "auc is numeric in every model, but 2026-01-01 is a date or a time"),
        ("auc = true", "auc is numeric in every model, but true is not"),
        ("ok = 1", "ok is true or false in every model, but 1 is a number"),
        ("ok = false", None),
        ("stage = 3", "stage is text in every model, but 3 is a number"),
        ("stage ~ x*", None),
        ("steps = 3", "steps is a list in every model; use 'steps has 3' to find a member"),
        ("tags = x", None),
        ("steps has soon", "each member of steps is numeric in every model, but 'soon' is text"),
        ("auc has 3", "auc is numeric in every model, but 'has' is for lists"),
        ("stage = prod and pepper", "no model has a field 'pepper'; quote the value before it if 'and pepper' is part"),
        ("stage = a AND b = c", "'a AND b = c' was read as one value; write 'and' in lower case to join"),
        ("!train_end and stage = x", None),
        ("name = nobody and version > 7", None),
    ],
)
def test_what_is_probably_mistaken(
    models: Storage, caplog: pytest.LogCaptureFixture, condition: str, complaint: str | None
) -> None:
    """If nothing is found, fields that no model has and comparisons with a type that no value has are reported."""
    assert models.list(condition) == []
    assert [message[: len(complaint)] if complaint else message for message in caplog.messages[:1]] == (
        [complaint] if complaint else []
    )


def test_complaints_of_other_questions(models: Storage, caplog: pytest.LogCaptureFixture, viewser: Viewser) -> None:
    """By keyword and in sort; there is none if something is found, or nothing is stored."""
    models.find(oucome="x")
    models.find(steps=3)
    assert models.list(sort="-oucome") == ["fourth", "third", "second", "first"]
    told = [*caplog.messages]
    assert told[0] == told[2] == "no model has a field 'oucome'; did you mean 'outcome'?"
    assert told[1] == "steps is a list in every model; use 'steps has 3' to find a member"
    caplog.clear()
    models.find("oucome = x or auc > 0.9", sort="tuned.depth")
    models.find(sort="name")
    Storage(models.path.with_name("empty.db")).require("author")
    Storage(models.path.with_name("empty.db")).find("oucome = x")
    assert caplog.messages == []
    result = viewser("model", "list", "-w", "oucome = x", "--json")
    assert result.stdout == "[]\n"
    assert result.stderr.splitlines()[0] == "no model has a field 'oucome'; did you mean 'outcome'?"
    assert "'oucome'" in viewser("model", "list", "--sort", "oucome").stderr


def test_a_question_knows_its_conditions() -> None:
    """What a complaint can be about."""
    question = Question.of(["a = 1 or not (b and c)"], {"d": 2}, sort="e.f")
    assert [str(one.field) for one in question.conditions] == ["a", "b", "c", "d"]
    assert question.sort == Field(("e", "f"), dotted=True)
    assert question.conditions[1] == Condition(Field(("b",)), "exists")


@pytest.mark.parametrize("text, hours", [("7d", 7 * 24), ("2w", 14 * 24), ("3h", 3), ("0d", 0)])
def test_as_long_ago(store: Storage, text: str, hours: int) -> None:
    """A number of hours, days or weeks before now, in every field that is a time."""
    for offset in (-1, 1):
        moment = datetime.now().astimezone() - timedelta(hours=hours, minutes=offset)
        store.store(f"{offset}", 1, {"training_date": moment, "note": moment})
    assert store.list(f"training_date >= {text}") == store.list(f"not training_date < {text}") == ["-1"]
    assert store.list("stored_at >= 1h", since="1h") == ["1", "-1"]
    assert store.list(until="1h") == store.list("stored_at < yesterday") == []
    assert store.list(f"note = {text}") == []


def test_yesterday(store: Storage) -> None:
    """It is a day, as a date is."""
    yesterday = datetime.now().replace(hour=23, minute=59) - timedelta(days=1)
    store.store("m", 1, {"training_date": yesterday})
    assert store.list("training_date = yesterday") == store.list(training_date="yesterday") == ["m"]
    assert store.list("training_date = today") == store.list(until="yesterday") == []
    assert store.list(since="yesterday") == store.list(since="today") == store.list("stored_at = today") == ["m"]


def test_month() -> None:
    """The views month of a calendar month or a date."""
    assert [month("2019-12"), month("1980-01"), month("2079-12"), month(date(2019, 12, 31))] == [480, 1, 1200, 480]
    for wrong in ("1979-12", "2080-01", "2019-13", "2019", "", "soon", 480, None):
        with pytest.raises(InvalidMetadataError):
            month(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "number, field, said",
    [
        (2019, "train_end", "month 2019 is March 2148; did you mean 2019-12 (month 480)?"),
        (2019, "train_start", "month 2019 is March 2148; did you mean 2019-01 (month 469)?"),
        (201911, "train_end", "month 201911 is out of range; did you mean 2019-11 (month 479)?"),
        (0, "train_end", "month 0 is December 1979; views months go from 1 (January 1980) to 1200 (December 2079)"),
        (1201, "train_end", "month 1201 is January 2080; views months go from 1 (January 1980) to 1200"),
        (10**30, "train_end", f"month {10**30} is out of range; views months go from 1"),
        (-(10**400), "train_end", f"month -1{400 * '0'} is out of range"),
        (float("inf"), "train_end", "month inf is out of range"),
        (1, "train_start", ""),
        (1200, "train_end", ""),
    ],
)
def test_months_out_of_range(store: Storage, number: Any, field: str, said: str) -> None:
    """They are refused wherever they are given, with what was probably meant."""
    assert explain_month(number, field).startswith(said)
    if not said:
        store.store("m", 1, {field: number})
        assert store.list(f"{field} = {number}") == store.list(**{field: number}) == ["m"]
        return
    store.store("m", 1)
    if number != float("inf"):
        for give in (
            lambda: store.store("n", 1, {field: number}),
            lambda: store.annotate("m", **{field: number}),
            lambda: store.store_metadata("m", {field: number}, overwrite=True),
            lambda: store.fetch_or_train("n", int, {field: number}),
        ):
            with pytest.raises(InvalidMetadataError, match=re.escape(said)):
                give()
        for ask in (lambda: store.find(f"{field} >= {number}"), lambda: store.find(**{field: number})):
            with pytest.raises(QueryError, match=re.escape(said)):
                ask()
    assert store.list() == ["m"] and not store.has_metadata("m")


def test_months_on_the_command_line(store: Storage, viewser: Viewser) -> None:
    """Options and conditions alike."""
    store.store("m", 1)
    said = "month 2019 is March 2148; did you mean 2019-12 (month 480)?"
    for line in (["list", "--train-end", "2019"], ["list", "-w", "train_end > 2019"]):
        assert said in viewser("model", *line, exit_code=1).stderr
    for line in (["annotate", "m", "--train-end", "2019"], ["annotate", "m", "--set", "train_end=2019"]):
        assert said in viewser("model", *line, exit_code=1).stderr


def test_stored_months_out_of_range(store: Storage, sql: Any, viewser: Viewser) -> None:
    """An earlier version stored one: it is read, annotated in other fields, and backed up."""
    store.store("m", 1, {"train_end": 480})
    sql.execute("""UPDATE models SET metadata = '{"train_end": 2019}'""")
    assert store.fetch_metadata("m") == store.inspect("m").metadata == {"train_end": 2019}
    assert store.annotate("m", author="ines").metadata == {"train_end": 2019, "author": "ines"}
    assert "2019 (Mar 2148)" in viewser("model", "inspect", "m").stdout
    store.backup(store.path.with_name("copy.db"))
    assert Storage(store.path.with_name("copy.db")).fetch_metadata("m").train_end == 2019
    assert store.list("train_end > 480") == ["m"]
    with pytest.raises(InvalidMetadataError):
        store.annotate("m", train_end=2020)
    assert store.annotate("m", train_end=480).metadata == {"train_end": 480, "author": "ines"}


def test_nothing_is_left_of_a_parse() -> None:
    """A condition is a value: equal if it is written in another way."""
    assert parse("a = 1 and (b = 2)") == parse("( a=1 )  and b =2")
