"""Conditions on models, and their SQL. `query` reads them; nothing here opens a file.

What a user gave is always passed as a parameter, never as SQL.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time
from functools import lru_cache, partial, reduce
from math import inf
from operator import eq, ge, getitem, gt, le, lt
from types import NoneType
from typing import Any, NamedTuple

from views_runs.metadata import TEXT, TIME, Kind

#: SQL for whether a row of ``models`` is the current version.
CURRENT = """models.version = ifnull(
    (
        SELECT pointed.version FROM restored JOIN models AS pointed ON pointed.id = restored.version
        WHERE restored.name = models.name AND pointed.name = models.name AND restored.highest >= (
            SELECT max(version) FROM models AS newest WHERE newest.name = models.name
        )
    ),
    (SELECT max(version) FROM models AS newest WHERE newest.name = models.name)
)"""

#: SQL for whether a row has an alias.
HAS_ALIAS = "EXISTS (SELECT 1 FROM aliases WHERE aliases.version = models.id AND alias = {})"

#: SQL for the runs that used a row: those that have it in their list, and the one in its metadata, unless that one used
#: another version of the model.
RUNS = """(
    SELECT 'text' AS type, run_models.run AS value FROM run_models WHERE run_models.version = models.id
    UNION ALL
    SELECT 'text', models.metadata ->> '$.run_id' WHERE json_type(models.metadata, '$.run_id') = 'text'
        AND NOT EXISTS (
            SELECT 1 FROM names JOIN run_models ON run_models.model = names.id
            WHERE names.name = models.name AND run_models.run = models.metadata ->> '$.run_id'
                AND run_models.version IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT 1 FROM models AS later WHERE later.name = models.name AND later.id > models.id
                AND later.metadata ->> '$.run_id' = models.metadata ->> '$.run_id'
        )
)"""

NUMBER = Kind("a number", lambda value: type(value) in (int, float))
SIZE = Kind("a number of bytes, as in 100MB", NUMBER.accepts)
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
COMPARABLE = Kind(
    "a string, a number, a time, or a list of these", lambda value: not isinstance(value, (dict, list, NoneType))
)

#: SQL for the JSON types that are comparable with a number.
NUMERIC = "'integer', 'real'"

_COMPARISONS = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Parameters(list[Any]):
    """The parameters of a statement; call it in the order of the statement's text."""

    def __call__(self, value: Any) -> str:
        """Add a parameter, and return its placeholder."""
        self.append(value)
        return "?"


class OwnField(NamedTuple):
    """A field of the record itself, which does not stand in the metadata."""

    kind: Kind
    #: SQL for its JSON type, and for its value; NULL if a model has none.
    type: str
    value: str
    #: SQL for a table with the columns ``type`` and ``value``, if a model can have several; one match is enough.
    members: str = ""


OWN_FIELDS = {
    "name": OwnField(TEXT, "'text'", "models.name"),
    "version": OwnField(NUMBER, "'integer'", "models.version"),
    "current": OwnField(BOOLEAN, f"iif({CURRENT}, 'true', 'false')", f"({CURRENT})"),
    "stored_at": OwnField(TIME, "'text'", "models.stored_at"),
    "stored_by": OwnField(TEXT, "'text'", "models.stored_by"),
    "size": OwnField(SIZE, "'integer'", "models.size"),
    "alias": OwnField(
        TEXT,
        "(SELECT 'text' FROM aliases WHERE aliases.version = models.id)",
        "(SELECT min(alias) FROM aliases WHERE aliases.version = models.id)",
        "(SELECT 'text' AS type, alias AS value FROM aliases WHERE aliases.version = models.id)",
    ),
    "run": OwnField(TEXT, f"(SELECT type FROM {RUNS})", f"(SELECT max(value) FROM {RUNS})", RUNS),
    "type": OwnField(TEXT, "json_type(models.environment, '$.type')", "(models.environment ->> '$.type')"),
}


class Field(NamedTuple):
    """A field of the metadata or of the record itself."""

    #: The keys of a metadata field, or the name of a field of the record.
    path: tuple[str, ...]
    #: Whether this is a field of the record.
    own: bool = False
    #: Whether a model without the nested field may have a field of this name, dots included.
    dotted: bool = False

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The paths at which to look for it in the metadata; the first that exists is used."""
        return (self.path, (str(self),)) if self.dotted else (self.path,)

    def __str__(self) -> str:
        return ".".join(self.path)

    def sql(self, column: str, bind: Parameters) -> str:
        """Return SQL for the field's JSON ``type``, or its ``value``; it is NULL if a model lacks the field."""
        if self.own:
            return str(getattr(OWN_FIELDS[self.path[0]], column))
        found = [_extract(path, column, bind) for path in self.paths]
        return f"ifnull({', '.join(found)})" if self.dotted else found[0]

    def value_in(self, metadata: Mapping[str, Any]) -> Any:
        """Return the value that a metadata field has; None if it is missing."""
        with suppress(LookupError):
            return _look_up(metadata, self.paths)

    def members(self, bind: Parameters) -> str:
        """Return SQL for a table of its several values, with the columns ``type`` and ``value``: a list's members."""
        if self.own:
            return OWN_FIELDS[self.path[0]].members
        return f"json_each(iif({self.sql('type', bind)} = 'array', {self.sql('value', bind)}, '[]'))"


class Condition(NamedTuple):
    """A condition on one field."""

    field: Field
    #: One of `OPERATORS`, or ``has``, ``exists`` or ``lacks``.
    operator: str
    #: The values to compare the field with; one match is enough.
    values: tuple[Any, ...] = ()
    #: What may be a mistake: a value without quotes ended at this word right before ``exists``, or has it in it.
    cut: str = ""

    def singles(self) -> list["Condition"]:
        """Return the conditions on one field that it consists of."""
        return [self]

    def sql(self, bind: Parameters) -> str:
        """Return SQL for the condition on a row of ``models``; it may call `compare_time` and `compare_large`."""
        field = self.field
        if self.operator == "exists":
            return f"{field.sql('type', bind)} <> 'null'"
        if self.operator == "lacks":
            return f"ifnull({field.sql('type', bind)}, 'null') = 'null'"
        if self.operator == "!=":
            # A value of another type is not equal; a missing field matches neither = nor !=.
            return f"{field.sql('type', bind)} <> 'null' AND ({self._replace(operator='=').sql(bind)}) IS NOT TRUE"
        if self.operator == "has" or (field.own and OWN_FIELDS[field.path[0]].members):
            members = field.members(bind)
            return f"EXISTS (SELECT 1 FROM {members} AS member WHERE {self._compare('member.{}'.format, bind)})"
        return self._compare(partial(field.sql, bind=bind), bind)

    def _compare(self, column: Callable[[str], str], bind: Parameters) -> str:
        """Return SQL that compares a value with those wanted, given SQL for the columns ``type`` and ``value``."""
        operator = {"=": "IN", "has": "IN", "~": "GLOB"}.get(self.operator, self.operator)
        pieces = []
        alike: dict[str, list[Any]] = {}
        for one in self.values:
            if isinstance(one, date):
                pieces.append(self._compare_time(column, one, bind))
            elif isinstance(one, (int, float)) and abs(one) >= 2**63:
                pieces.append(self._compare_large(column, one, bind))
            else:
                alike.setdefault(_find_json_types(one), []).append(one)
        for types, values in alike.items():
            # The type comes second: both expressions parse the JSON, and the value alone rules out most models.
            value, wanted = column("value"), ", ".join(map(bind, values))
            pieces.append(f"{value} {operator} ({wanted}) AND {column('type')} IN ({types})")
        return join(pieces, "OR") or "FALSE"

    def _compare_time(self, column: Callable[[str], str], wanted: date, bind: Parameters) -> str:
        value = column("value")
        if not self.field.own:
            operator = "=" if self.operator == "has" else self.operator
            return f"compare_time({value}, '{operator}', {bind(wanted.isoformat())})"
        # `stored_at` contains strings in UTC, all in the same format; a time without an offset is local.
        first, last = (convert_to_utc(moment) for moment in find_span(wanted.isoformat()))
        if self.operator == "=":
            return f"{value} BETWEEN {bind(first)} AND {bind(last)}"
        return f"{value} {self.operator} {bind(last if self.operator in ('<=', '>') else first)}"

    def _compare_large(self, column: Callable[[str], str], wanted: int | float, bind: Parameters) -> str:
        field = self.field
        if field.own:
            # The numbers that the store records are smaller.
            return f"{column('value')} {self.operator} {bind(inf if wanted > 0 else -inf)}"
        types = f"{column('type')} IN ({NUMERIC})"
        paths, number = bind(json.dumps(field.paths)), bind(json.dumps(wanted))
        return f"{types} AND compare_large(models.metadata, {paths}, '{self.operator}', {number})"


class Compound(NamedTuple):
    """Conditions joined by ``and`` or ``or``, or the negation of one by ``not``."""

    word: str
    parts: tuple["Condition | Compound", ...]

    def singles(self) -> list[Condition]:
        """Return the conditions on one field that it consists of."""
        return [single for part in self.parts for single in part.singles()]

    def sql(self, bind: Parameters) -> str:
        """Return SQL for the condition on a row of ``models``."""
        if self.word == "not":
            # What compares with a missing field is NULL, and does not hold: so its negation does.
            return f"({self.parts[0].sql(bind)}) IS NOT TRUE"
        return join([part.sql(bind) for part in self.parts], self.word.upper())


def compare_time(stored: Any, operator: str, wanted: str) -> bool:
    """Compare a stored ISO 8601 text with a wanted date or time; return False if it is not a time.

    A wanted date covers its whole day. Times that both have offsets are compared as instants; otherwise the offsets are
    ignored.
    """
    try:
        moment = datetime.fromisoformat(stored if _DAY.match(stored) else "")
    except (TypeError, ValueError):
        return False
    first, last = find_span(wanted)
    if (moment.tzinfo is None) != (first.tzinfo is None):
        moment, first, last = (one.replace(tzinfo=None) for one in (moment, first, last))
    return {
        "=": first <= moment <= last,
        "<": moment < first,
        "<=": moment <= last,
        ">": moment > last,
        ">=": moment >= first,
    }[operator]


def compare_large(metadata: str, paths: str, operator: str, wanted: str) -> bool:
    """Compare a number in the metadata with one of 2**63 or more, exactly: SQLite reads such integers as floats.

    All arguments but the operator are JSON. To refuse such numbers would be shorter, but half of all 64-bit hashes are.
    """
    with suppress(LookupError, TypeError, ValueError, RecursionError):
        stored, number = _look_up(json.loads(metadata), json.loads(paths)), json.loads(wanted)
        return number in stored if operator == "has" else bool(_COMPARISONS[operator](stored, number))
    return False


def rank_large(metadata: str, paths: str) -> str | None:
    """Return a text by which numbers of 2**63 or more in the metadata sort, as those that are equal as floats do not.

    >>> sorted([2**64 + 1, 2**64], key=lambda number: rank_large(f'{{"seed": {number}}}', '[["seed"]]'))
    [18446744073709551616, 18446744073709551617]
    """
    with suppress(LookupError, TypeError, ValueError, RecursionError, OverflowError):
        number = int(_look_up(json.loads(metadata), json.loads(paths)))
        digits = f"{abs(number):x}"
        # Longer numbers are larger, or smaller if they are negative.
        rank = f"{len(digits):04x}{digits}"
        return f"1{rank}" if number >= 0 else f"0{rank.translate(_COMPLEMENTS)}"
    return None


#: For negative numbers, of which the larger is the one with the smaller digits.
_COMPLEMENTS = str.maketrans("0123456789abcdef", "fedcba9876543210")


def _look_up(metadata: Mapping[str, Any], paths: Iterable[Iterable[str]]) -> Any:
    """Return the value at the first of the paths that is there; raise a LookupError if none is."""
    for path in paths:
        with suppress(LookupError, TypeError):
            return reduce(getitem, path, metadata)
    raise LookupError


@lru_cache(maxsize=1024)
def find_span(wanted: str) -> tuple[datetime, datetime]:
    """Return the first and last moments of a date, or a datetime twice."""
    first = datetime.fromisoformat(wanted)
    return first, datetime.combine(first, time.max) if _DAY.fullmatch(wanted) else first


def convert_to_utc(moment: datetime) -> str:
    try:
        moment = moment.astimezone(UTC)
    except (OverflowError, ValueError, OSError):
        # The first and last days of the calendar cannot be converted in every time zone.
        moment = moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds")


def _find_json_types(value: Any) -> str:
    """Return SQL for the JSON types that are comparable with a value: neither true nor '1' equals 1."""
    if isinstance(value, bool):
        return "'true'" if value else "'false'"
    return "'text'" if isinstance(value, str) else NUMERIC


def join(pieces: list[str], word: str) -> str:
    """Return pieces of SQL, each in parentheses, with a word between them."""
    return f" {word} ".join(f"({piece})" for piece in pieces)


def _extract(path: tuple[str, ...], column: str, bind: Parameters) -> str:
    """Return SQL for the JSON ``type`` or the ``value`` at a path of keys in the metadata."""
    if all(key.isascii() and key.isprintable() and not set(key) & set("\"\\'") for key in path):
        function = "json_type" if column == "type" else "json_extract"
        steps = "".join(f'."{key}"' for key in path)
        return f"{function}(models.metadata, {bind(f'${steps}')})"
    # SQLite compares the keys of a path with the raw JSON, including its escapes; json_each decodes them.
    tables, parent = [], "models.metadata"
    for depth in range(len(path)):
        tables.append(f"json_each({parent}) AS key{depth}")
        parent = f"iif(key{depth}.type = 'object', key{depth}.value, NULL)"
    keys = " AND ".join(f"key{depth}.key = {bind(key)}" for depth, key in enumerate(path))
    return f"(SELECT key{len(path) - 1}.{column} FROM {' CROSS JOIN '.join(tables)} WHERE {keys})"


def build_order(field: Field, descends: bool, bind: Parameters) -> str:
    """Return the beginning of SQL for sorting by a field: missing values last; what follows it orders ties."""
    direction, absent = ("DESC", "FIRST") if descends else ("ASC", "LAST")
    order = f"{field.sql('value', bind)} {direction} NULLS LAST, "
    if field.own:
        return order
    # Integers of 2**63 and above are floats in SQLite, where neighbours are equal.
    value, large = field.sql("value", bind), f"{field.sql('value', bind)} NOT BETWEEN -9.2e18 AND 9.2e18"
    rank = f"rank_large(models.metadata, {bind(json.dumps(field.paths))})"
    return f"{order}CASE typeof({value}) WHEN 'real' THEN iif({large}, {rank}, NULL) END {direction} NULLS {absent}, "
