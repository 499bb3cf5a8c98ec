"""Probable mistakes in a question: a field that no model has, or a comparison with a type that no value has."""

from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from typing import Any

from views_runs.conditions import NUMERIC, OWN_FIELDS, Condition, Field, Parameters
from views_runs.database.connection import Connection
from views_runs.database.models import TABLE
from views_runs.metadata import KNOWN_FIELDS, to_jsonable
from views_runs.query import Question

#: JSON types in words.
TYPES = {"integer": "numeric", "real": "numeric", "text": "text", "true": "true or false", "false": "true or false"}
TYPES |= {"array": "a list", "object": "a dict"}

#: The names of the fields in the metadata of the latest models, and of nested fields. For all models, this would take
#: ten times as long.
NAMES = f"""SELECT DISTINCT outside.key, inside.key
    FROM (SELECT metadata FROM {TABLE} ORDER BY id DESC LIMIT 1000) AS latest
    JOIN json_each(latest.metadata) AS outside
    LEFT JOIN json_each(iif(outside.type = 'object', outside.value, '{{}}')) AS inside
    WHERE json_type(latest.metadata) = 'object' LIMIT 5000"""


def find_complaints(connection: Connection, question: Question) -> Iterator[str]:
    """Yield a sentence for each mistake in a question, in its order; nothing for an empty store.

    Each check is a statement that usually ends at the first model, and reads all models only if there is a mistake.
    """
    if not connection.value(f"SELECT EXISTS (SELECT 1 FROM {TABLE})"):
        return
    complaints = [one for condition in question.conditions for one in _check_condition(connection, condition)]
    if question.sort is not None:
        complaints += _check_condition(connection, Condition(question.sort, "exists"))
    yield from dict.fromkeys(complaints)


def _check_condition(connection: Connection, condition: Condition) -> Iterator[str]:
    field = condition.field
    if condition.cut in ("AND", "OR"):
        yield (
            f"{_show(condition.values[0])} was read as one value; write {condition.cut.lower()!r} in lower case to "
            "join conditions, or quote the value"
        )
    elif field.own:
        return
    elif not _has_type(connection, field, "<> 'null'"):
        # Looking for models that lack a known field is not a mistake.
        if condition.operator != "lacks" or str(field) not in KNOWN_FIELDS:
            yield _describe_absence(connection, condition)
    elif condition.operator == "has" and not _has_type(connection, field, "= 'array'"):
        yield f"{field} is {_find_types(connection, field)} in every model, but 'has' is for lists"
    else:
        # Values of the same type are checked once: there may be thousands.
        for types, value in {_types_of(value): value for value in reversed(condition.values)}.items():
            if not _has_type(connection, field, f"IN ({types})", condition.operator == "has"):
                yield _describe_type(connection, condition, value)


def _types_of(value: Any) -> str:
    """Return SQL for the JSON types of the values that can be compared with a value."""
    if isinstance(value, bool):
        return "'true', 'false'"
    return "'text'" if isinstance(value, (str, date)) else NUMERIC


def _has_type(connection: Connection, field: Field, test: str, in_list: bool = False) -> bool:
    """Return whether any model has a value, or a list with a member, whose JSON type passes a test in SQL."""
    table, column, bind = _build_types(field, in_list)
    return bool(connection.value(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} {test})", tuple(bind)))


def _find_types(connection: Connection, field: Field, in_list: bool = False) -> str:
    """Return the types of a field's values, or of the members of its lists, in words."""
    table, column, bind = _build_types(field, in_list)
    rows = connection.rows(f"SELECT DISTINCT {column} FROM {table}", tuple(bind))
    return " or ".join(sorted({TYPES[type] for (type,) in rows if type in TYPES}))


def _build_types(field: Field, in_list: bool) -> tuple[str, str, Parameters]:
    """Return SQL for a table and its column with the JSON types of a field, and the parameters of either."""
    bind = Parameters()
    if in_list:
        return f"{TABLE} JOIN {field.members(bind)} AS member", "member.type", bind
    return TABLE, field.sql("type", bind), bind


def _describe_absence(connection: Connection, condition: Condition) -> str:
    field = f"metadata.{condition.field}" if str(condition.field) in OWN_FIELDS else str(condition.field)
    names = {*OWN_FIELDS}
    for outside, inside in connection.rows(NAMES):
        names |= {outside} if inside is None else {outside, f"{outside}.{inside}"}
    complaint = f"no model has a field {field!r}"
    if condition.cut:
        return f"{complaint}; quote the value before it if {f'{condition.cut} {field}'!r} is part of that value"
    folded = {name.casefold(): name for name in sorted(names)}
    close = get_close_matches(field.casefold(), folded, n=1)
    return f"{complaint}; did you mean {folded[close[0]]!r}?" if close else complaint


def _describe_type(connection: Connection, condition: Condition, value: Any) -> str:
    field, in_list = condition.field, condition.operator == "has"
    types = _find_types(connection, field, in_list)
    if types == TYPES["array"] and condition.operator in ("=", "!="):
        return f"{field} is a list in every model; use '{field} has {_show(value).strip(chr(39))}' to find a member"
    subject = f"each member of {field}" if in_list else str(field)
    return f"{subject} is {types or 'missing'} in every model, but {_show(value)} is {_name_type(value)}"


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(to_jsonable(value)).lower()


def _name_type(value: Any) -> str:
    if isinstance(value, date):
        return "a date or a time"
    return "text" if isinstance(value, str) else "not" if isinstance(value, bool) else "a number"
