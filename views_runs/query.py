"""Search conditions: parse them and translate them to SQL. Nothing here opens a file.

A condition is ``FIELD OP VALUE``, ``FIELD`` (the model has it) or ``!FIELD`` (it is missing or null). User input is
always passed as a parameter, never as SQL.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time
from functools import lru_cache, reduce
from math import inf
from operator import eq, ge, getitem, gt, le, lt
from types import NoneType
from typing import Any, NamedTuple, NoReturn

from views_runs.exceptions import QueryError, StorageError
from views_runs.metadata import KNOWN_FIELDS, MONTH, TEXT, TIME, Kind, month_number, round_trip
from views_runs.names import MAX_INTEGER

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

#: SQL for the runs that used a row of ``models``: those that have it in their list, and the one in its metadata, unless
#: that one used another version of the model.
RUNS = """(
    SELECT run_models.run AS value FROM run_models WHERE run_models.version = models.id
    UNION ALL
    SELECT models.metadata ->> '$.run_id' WHERE json_type(models.metadata, '$.run_id') = 'text'
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

#: The fields of the record itself: their kind, and SQL for their JSON type and value.
OWN_FIELDS = {
    "name": (TEXT, "'text'", "models.name"),
    "version": (NUMBER, "'integer'", "models.version"),
    "current": (BOOLEAN, f"iif({CURRENT}, 'true', 'false')", f"({CURRENT})"),
    "stored_at": (TIME, "'text'", "models.stored_at"),
    "stored_by": (TEXT, "'text'", "models.stored_by"),
    "size": (SIZE, "'integer'", "models.size"),
    "type": (TEXT, "json_type(models.environment, '$.type')", "(models.environment ->> '$.type')"),
}

OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")

_COMPARISONS = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}

#: A key, or a quoted string in which a backslash escapes the next character.
_KEY = re.compile(
    r"""(?P<bare>[^\s."'=<>~!]+)|(?P<quote>["'])(?P<quoted>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)""", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")

#: SQLite's messages for a statement that exceeds a limit; the error code is the generic one for errors in SQL.
_LIMIT = re.compile(r"too (large|many|complex)|at most \d+ tables")

#: Adds a parameter to a statement and returns its placeholder: to be called in the order of the statement's text.
Bind = Callable[[Any], str]


class Question(NamedTuple):
    """A search: what follows ``FROM models`` in a statement, and its parameters."""

    sql: str
    parameters: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        where: Iterable[str],
        fields: Mapping[str, Any],
        *,
        name: str | None = None,
        run: str | list[str] | None = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        sort: str | None = None,
        limit: int | None = None,
    ) -> "Question":
        """Create a question from the arguments of `Storage.find`."""
        conditions = [Condition.parse(text) for text in where]
        conditions += [Condition.equal(name, value) for name, value in fields.items()]
        for operator, bound in ((">=", since), ("<=", until)):
            if bound is not None:
                conditions.append(Condition(STORED_AT, operator, STORED_AT.take([bound])))
        parameters: list[Any] = []

        def bind(value: Any) -> str:
            parameters.append(value)
            return "?"

        pieces = [condition.sql(bind) for condition in conditions]
        if name is not None:
            pieces.append(f"models.name GLOB {bind(str(name))}")
        if run is not None:
            asked = ", ".join(bind(str(one)) for one in (run if isinstance(run, list) else [run]))
            pieces.append(f"EXISTS (SELECT 1 FROM {RUNS} WHERE value IN ({asked}))")
        elif not all_versions:
            pieces.append(CURRENT)
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit must be 0, a positive integer or None, not {limit!r}")
        end = f"ORDER BY {_build_order(sort, bind)} LIMIT {bind(-1 if limit is None else min(limit, MAX_INTEGER))}"
        return cls(f"WHERE {_join(pieces, 'AND') or 'TRUE'} {end}", tuple(parameters))


class Field(NamedTuple):
    """A field of the metadata or of the record itself."""

    #: The keys of a metadata field, or the name of a field of the record.
    path: tuple[str, ...]
    #: Whether this is a field of the record.
    own: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of its values."""
        if self.own:
            return OWN_FIELDS[self.path[0]][0]
        return KNOWN_FIELDS[self.path[0]].kind if len(self.path) == 1 and self.path[0] in KNOWN_FIELDS else COMPARABLE

    def __str__(self) -> str:
        return ".".join(self.path)

    def sql(self, column: str, bind: Bind) -> str:
        """Return SQL for the field's JSON ``type``, or its value, ``atom``; it is NULL if a model lacks the field."""
        if self.own:
            _, json_type, value = OWN_FIELDS[self.path[0]]
            return json_type if column == "type" else value
        if all(key.isascii() and key.isprintable() and not set(key) & set("\"\\'") for key in self.path):
            function = "json_type" if column == "type" else "json_extract"
            path = "$" + "".join(f'."{key}"' for key in self.path)
            return f"{function}(models.metadata, {bind(path)})"
        # SQLite compares the keys of a path with the raw JSON, including its escapes; json_each decodes them.
        tables, parent = [], "models.metadata"
        for depth in range(len(self.path)):
            tables.append(f"json_each({parent}) AS key{depth}")
            parent = f"iif(key{depth}.type = 'object', key{depth}.value, NULL)"
        keys = " AND ".join(f"key{depth}.key = {bind(key)}" for depth, key in enumerate(self.path))
        return f"(SELECT key{len(self.path) - 1}.{column} FROM {' CROSS JOIN '.join(tables)} WHERE {keys})"

    def read(self, text: str) -> Any:
        """Convert an unquoted text to a value of this field; raise a ValueError if it is not valid."""
        kind = self.kind
        if kind is TEXT:
            return text
        if kind is TIME:
            return _parse_time(text)
        if kind is SIZE:
            return _parse_size(text)
        if _NUMBER.fullmatch(text) and kind is not BOOLEAN:
            return _parse_number(text)
        if kind is MONTH:
            return month_number(text)
        if text in ("true", "false") and kind is not NUMBER:
            return text == "true"
        if kind in (NUMBER, BOOLEAN):
            raise ValueError(f"expected {kind.expected}")
        with suppress(ValueError):
            return _parse_time(text)
        return text

    def take(self, values: list[Any]) -> tuple[Any, ...]:
        """Convert Python values to the values that are compared with this field."""
        try:
            taken = round_trip({str(self): values})[str(self)]
            if self.own or self.kind is MONTH:
                # As in a condition, a string may denote a month, a size or a time.
                taken = [self.read(value) if isinstance(value, str) else value for value in taken]
        except ValueError as error:
            raise QueryError(f"{self} cannot be compared: {error}") from error
        kind = self.kind if self.own else COMPARABLE
        for value in taken:
            if not kind.accepts(value):
                raise QueryError(f"{self} cannot be compared with {value!r}: expected {kind.expected}")
        return tuple(taken)


#: When a model was stored.
STORED_AT = Field(("stored_at",), own=True)


class Condition(NamedTuple):
    """A condition on one field.

    >>> Condition.parse("train_end >= 2019-12")
    Condition(field=Field(path=('train_end',), own=False), operator='>=', values=(480,))
    """

    field: Field
    #: One of `OPERATORS`, or ``has`` or ``lacks``.
    operator: str
    #: The values to compare the field with; one match is enough.
    values: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parse a condition; the message of a `QueryError` points to the offending character."""
        return _Parser(text, "condition").condition()

    @classmethod
    def equal(cls, name: str, value: Any) -> "Condition":
        """Return the condition that a field equals a value, or one of a list; for None, that it is missing or null."""
        field = _Parser(name, "field").lone_field()
        if value is None:
            return cls(field, "lacks")
        return cls(field, "=", field.take(value if isinstance(value, list) else [value]))

    def sql(self, bind: Bind) -> str:
        """Return SQL for the condition on a row of ``models``; it may call `compare_time` and `compare_large`."""
        field = self.field
        if self.operator == "has":
            return f"{field.sql('type', bind)} <> 'null'"
        if self.operator == "lacks":
            return f"ifnull({field.sql('type', bind)}, 'null') = 'null'"
        if self.operator == "!=":
            # A value of another type is not equal; a missing field matches neither = nor !=.
            return f"{field.sql('type', bind)} <> 'null' AND NOT ifnull({self._replace(operator='=').sql(bind)}, 0)"
        operator = {"=": "IN", "~": "GLOB"}.get(self.operator, self.operator)
        pieces = []
        alike: dict[str, list[Any]] = {}
        for one in self.values:
            if isinstance(one, date):
                pieces.append(self._compare_time(one, bind))
            elif isinstance(one, (int, float)) and abs(one) >= 2**63:
                pieces.append(self._compare_large(one, bind))
            else:
                alike.setdefault(_find_json_types(one), []).append(one)
        for types, values in alike.items():
            # The type comes second: both expressions parse the JSON, and the value alone rules out most models.
            value, wanted = field.sql("atom", bind), ", ".join(map(bind, values))
            pieces.append(f"{value} {operator} ({wanted}) AND {field.sql('type', bind)} IN ({types})")
        return _join(pieces, "OR") or "FALSE"

    def _compare_time(self, wanted: date, bind: Bind) -> str:
        value = self.field.sql("atom", bind)
        if not self.field.own:
            return f"compare_time({value}, '{self.operator}', {bind(wanted.isoformat())})"
        # `stored_at` contains strings in UTC, all in the same format; a time without an offset is local.
        first, last = (_convert_to_utc(moment) for moment in _find_span(wanted.isoformat()))
        if self.operator == "=":
            return f"{value} BETWEEN {bind(first)} AND {bind(last)}"
        return f"{value} {self.operator} {bind(last if self.operator in ('<=', '>') else first)}"

    def _compare_large(self, wanted: int | float, bind: Bind) -> str:
        field = self.field
        if field.own:
            # The numbers that the store records are smaller.
            return f"{field.sql('atom', bind)} {self.operator} {bind(inf if wanted > 0 else -inf)}"
        types = f"{field.sql('type', bind)} IN ({_find_json_types(wanted)})"
        path, number = bind(json.dumps(field.path)), bind(json.dumps(wanted))
        return f"{types} AND compare_large(models.metadata, {path}, '{self.operator}', {number})"


def find_start(bound: datetime | date | str) -> str:
    """Return the first moment of a date or time, as the store records times."""
    (moment,) = STORED_AT.take([bound])
    return _convert_to_utc(_find_span(moment.isoformat())[0])


def refuse_beyond_limits(error: StorageError) -> None:
    """Raise a `QueryError` if the cause of an error is that a statement exceeded a limit of SQLite."""
    if _LIMIT.search(str(error.__cause__)):
        trouble = f"the conditions exceed a limit of SQLite ({error.__cause__})"
        raise QueryError(trouble, advice="Search in several steps") from error


def parse_value(name: str, text: str) -> Any:
    """Parse the value of a metadata field given as text, for example on the command line.

    For a known text field, the text is the value. In other fields, quote the text to make it a string.

    >>> parse_value("run_id", "007"), parse_value("seed", "007"), parse_value("note", "'7'")
    ('007', 7, '7')
    """
    field = Field((name,))
    # A text that begins but does not end with a quote, such as 'tis, is a string too.
    if field.kind is TEXT or not text.strip() or (text[0] in "\"'" and text[-1] != text[0]):
        return text
    return _Parser(text, f"value of {name}").value(field)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse ``KEY=VALUE``; the key is used verbatim, and the value is JSON if it begins with a bracket or brace.

    >>> parse_assignment('tuned={"depth": 3}'), parse_assignment("run_id=7")
    (('tuned', {'depth': 3}), ('run_id', '7'))
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise QueryError(f"invalid assignment {text!r}: expected KEY=VALUE", text)
    if value[:1] not in ("[", "{"):
        return key, parse_value(key, value)
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        trouble = f"the value of {key} is not valid JSON: {reason}"
        raise QueryError(trouble, text, advice="Quote it if it is a string") from error


def compare_time(stored: Any, operator: str, wanted: str) -> bool:
    """Compare a stored ISO 8601 text with a wanted date or time; return False if it is not a time.

    A wanted date covers its whole day. Times that both have offsets are compared as instants; otherwise the offsets are
    ignored.
    """
    try:
        moment = datetime.fromisoformat(stored if _DATE.match(stored) else "")
    except (TypeError, ValueError):
        return False
    first, last = _find_span(wanted)
    if (moment.tzinfo is None) != (first.tzinfo is None):
        moment, first, last = (one.replace(tzinfo=None) for one in (moment, first, last))
    return {
        "=": first <= moment <= last,
        "<": moment < first,
        "<=": moment <= last,
        ">": moment > last,
        ">=": moment >= first,
    }[operator]


def compare_large(metadata: str, path: str, operator: str, wanted: str) -> bool:
    """Compare a number in the metadata with one of 2**63 or more, exactly: SQLite reads such integers as floats.

    All arguments but the operator are JSON. To refuse such numbers would be shorter, but half of all 64-bit hashes are.
    """
    try:
        stored = reduce(getitem, json.loads(path), json.loads(metadata))
        return bool(_COMPARISONS[operator](stored, json.loads(wanted)))
    except (LookupError, TypeError, ValueError, RecursionError):
        return False


@lru_cache(maxsize=1024)
def _find_span(wanted: str) -> tuple[datetime, datetime]:
    """Return the first and last moments of a date, or a datetime twice."""
    first = datetime.fromisoformat(wanted)
    return first, datetime.combine(first, time.max) if _DATE.fullmatch(wanted) else first


def _convert_to_utc(moment: datetime) -> str:
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
    return "'text'" if isinstance(value, str) else "'integer', 'real'"


def _join(pieces: list[str], word: str) -> str:
    return f" {word} ".join(f"({piece})" for piece in pieces)


def _build_order(sort: str | None, bind: Bind) -> str:
    """Return SQL for sorting by a field (``-field`` for descending): missing values last, ties most recent first."""
    if sort is None:
        return "models.id DESC"
    descends = isinstance(sort, str) and sort.startswith("-")
    field = _Parser(sort, "field", int(descends)).lone_field()
    return f"{field.sql('atom', bind)} {'DESC' if descends else 'ASC'} NULLS LAST, models.id DESC"


def _parse_number(text: str) -> int | float:
    """Return an integer as it is, however large, and any other number as a float, possibly infinite."""
    try:
        return int(text)
    except ValueError:
        # Python also refuses to read an integer of more than 4300 digits.
        return float(text)


def _parse_size(text: str) -> int | float:
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in UNITS:
        raise ValueError(f"expected {SIZE.expected}")
    return _parse_number(match[1]) * UNITS[match[2].lower()]


def _parse_time(text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"invalid date or time: {error}") from error
    raise ValueError("expected a date or a time, as in 2026-11-23 or 2026-11-23T08:00+01:00")


class _Parser:
    """Parses a condition, a field or a value from `place` on; `what` is the noun for it in messages."""

    def __init__(self, text: str, what: str, place: int = 0) -> None:
        if not isinstance(text, str):
            raise QueryError(f"a {what} must be a string, not {text!r}")
        self.text = text
        self.what = what
        self.place = place

    def condition(self) -> Condition:
        self.skip()
        lacks = self.take("!")
        field = self.field()
        self.skip()
        if self.place == len(self.text):
            if field.kind is BOOLEAN:
                # Every model has `current`, so without an operator the condition tests its value.
                return Condition(field, "=", (not lacks,))
            return Condition(field, "lacks" if lacks else "has")
        if lacks:
            self.fail("!FIELD takes no operator and no value")
        operator = next(filter(self.take, OPERATORS), None)
        if operator is None:
            self.fail(f"expected one of {' '.join(OPERATORS)}")
        if self.text.startswith(("=", "<", ">", "~"), self.place):
            self.fail("unknown operator; quote a value that begins like this")
        return Condition(field, operator, (self.value(field, operator),))

    def lone_field(self) -> Field:
        self.skip()
        field = self.field()
        self.end("the field ends here; quote it if this is part of its name")
        return field

    def field(self) -> Field:
        is_quoted = self.is_at_quote()
        path = [self.key()]
        while self.take("."):
            path.append(self.key())
        if len(path) > 1 and path[0] == "metadata" and not is_quoted:
            # `size` is the record's field, so the user's is `metadata.size`.
            return Field(tuple(path[1:]))
        return Field(tuple(path), own=len(path) == 1 and path[0] in OWN_FIELDS and not is_quoted)

    def value(self, field: Field, operator: str = "=") -> Any:
        """Parse the remaining text as a value to compare with a field."""
        self.skip()
        start = self.place
        if start == len(self.text):
            self.fail('expected a value ("" for an empty string)')
        if is_quoted := self.is_at_quote():
            text = self.key()
            self.end("the value ends here")
        else:
            text = self.text[start:].rstrip()
        if operator == "~" and field.own and field.kind is not TEXT:
            self.fail(f"~ matches strings only, and {field} is not a string", start)
        if not field.own and (is_quoted or operator == "~"):
            return text
        try:
            value = field.read(text)
        except ValueError as error:
            self.fail(str(error), start)
        if isinstance(value, bool) and operator not in ("=", "!="):
            self.fail("true and false have no order", start)
        return value

    def key(self) -> str:
        """Parse a key or a quoted string."""
        match = _KEY.match(self.text, self.place)
        if match is None:
            self.fail("this quote is not closed" if self.is_at_quote() else "expected the name of a field")
        self.place = match.end()
        return match["bare"] or re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL)

    def is_at_quote(self) -> bool:
        return self.text.startswith(('"', "'"), self.place)

    def take(self, word: str) -> bool:
        is_here = self.text.startswith(word, self.place)
        self.place += len(word) if is_here else 0
        return is_here

    def skip(self) -> None:
        self.place = len(self.text) - len(self.text[self.place :].lstrip())

    def end(self, trouble: str) -> None:
        self.skip()
        if self.place < len(self.text):
            self.fail(trouble)

    def fail(self, trouble: str, place: int | None = None) -> NoReturn:
        place = self.place if place is None else place
        # If the text is long, show only the part around the place.
        start = max(0, place - 60)
        shown = "".join(one if one.isprintable() else "?" for one in self.text[start : place + 40])
        pointer = f"{' ' * (place - start)}^ {trouble}"
        raise QueryError(f"invalid {self.what}:\n  {shown}\n  {pointer}", self.text, place)
