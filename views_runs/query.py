"""Conditions on models, from words to SQL; nothing here opens a file.

A condition is ``FIELD OP VALUE``, ``FIELD`` (the model has it) or ``!FIELD`` (it lacks it, or it is null). Whatever a
user writes ends up in a parameter, never in the SQL.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NoReturn

from views_runs.exceptions import InvalidMetadataError, QueryError
from views_runs.metadata import (
    KNOWN_FIELDS,
    MONTH_FIELDS,
    TEXT_FIELDS,
    month_number,
    round_trip,
)

#: The record's own fields, and what holds them in SQL.
OWN_FIELDS = {
    "name": "models.name",
    "size": "models.size",
    "stored_at": "models.stored_at",
    "stored_by": "models.stored_by",
    "version": "models.version",
    "type": "(models.environment ->> '$.type')",
}

#: The most conditions in one question, and the most values that are compared in all of them.
MOST_CONDITIONS = 1000
MOST_VALUES = 10_000

#: The longest glob, in bytes, and the most keys in a field: SQLite takes more of neither.
LONGEST_GLOB = 50_000
MOST_KEYS = 5

OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}

_BARE_KEY = re.compile(r"""[^\s."'=<>~!]+""")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")


@dataclass(frozen=True)
class SQL:
    """A piece of SQL with its parameters."""

    text: str
    parameters: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class Condition:
    """What is asked of one field.

    >>> Condition.parse("train_end >= 2019-12")
    Condition(path=('train_end',), own=False, operator='>=', values=(480,))
    """

    #: The keys that lead to the field; of the record's own fields, the name.
    path: tuple[str, ...]
    #: Whether it is the record's own field, and not one of its metadata.
    own: bool
    #: One of `OPERATORS`, or ``has`` or ``lacks``.
    operator: str
    #: What the field is compared with: any one of them will do.
    values: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition.

        Raises:
            QueryError: it cannot be read; the message points at the place.
        """
        return _Parser(text).condition()

    @classmethod
    def equal(cls, name: str, value: Any) -> "Condition":
        """Make the condition that a field has a value, or any of a list; None asks that it is lacking.

        Raises:
            QueryError: the field or the value cannot be compared.
        """
        path, own = _Parser(name).whole_field()
        if value is None:
            return cls(path, own, "lacks")
        values = value if isinstance(value, list) else [value]
        return cls(path, own, "=", tuple(_given_value(path, own, one) for one in values))

    @property
    def known(self) -> str | None:
        """The name of the known field that this is about, if it is one with an index."""
        name = self.path[0]
        return name if len(self.path) == 1 and not self.own and name in KNOWN_FIELDS else None

    def sql(self) -> SQL:
        """Return the condition on the table ``models``; it calls `compare_time` for times."""
        kind, value = _own_field(self.path[0]) if self.own else _metadata_field(self.path)
        if self.operator == "has":
            return SQL(f"{kind.text} <> 'null'", kind.parameters)
        if self.operator == "lacks":
            return SQL(f"ifnull({kind.text}, 'null') = 'null'", kind.parameters)
        if self.operator == "!=":
            # A value of another type is not equal either; a field that is lacking is not compared at all.
            equal = any_of(self._compared(kind, value, "=", one) for one in self.values)
            return SQL(f"({kind.text} <> 'null' AND NOT ifnull({equal.text}, 0))", kind.parameters + equal.parameters)
        if self.operator == "=" and len(self.values) > 1 and not self.own and _alike(self.values):
            kinds = "= 'text'" if isinstance(self.values[0], str) else "IN ('integer', 'real')"
            both = (*kind.parameters, *value.parameters, json.dumps(self.values))
            return SQL(f"({kind.text} {kinds} AND {value.text} IN (SELECT value FROM json_each(?)))", both)
        return any_of(self._compared(kind, value, self.operator, one) for one in self.values)

    def _compared(self, kind: SQL, value: SQL, operator: str, wanted: Any) -> SQL:
        if self.own and isinstance(wanted, date):
            return _stored_at(operator, wanted)
        return _compared(kind, value, operator, wanted)

    def index_sql(self, table: str) -> SQL:
        """Return a condition that an index answers, and that holds wherever this one does; empty if there is none."""
        if self.known is None:
            return SQL("")
        expression = field_expression(self.known, table)
        if self.operator == "~":
            return _beginning(expression, self.values[0])
        if self.operator == "=" and _alike(self.values):
            return SQL(f"{expression} IN (SELECT value FROM json_each(?))", (json.dumps(self.values),))
        if self.operator == "lacks":
            return SQL(f"{expression} IS NULL")
        if self.operator == "!=" and _is_unmistakable(self.values[0]):
            return SQL(f"({expression} < ? OR {expression} > ?)", self.values * 2)
        if self.operator in ("has", "!="):
            # Numbers and texts are more than minus infinity, and NULL is not.
            return SQL(f"{expression} > -9e999")
        return any_of(SQL(*_coarse(expression, self.operator, value)) for value in self.values)


def field_expression(name: str, table: str = "models") -> str:
    """Return the expression that the index of a known field is on; a query must spell it in the same way."""
    return f"{table}.metadata ->> '$.{name}'"


def conditions(where: Iterable[str], fields: dict[str, Any]) -> list[Condition]:
    """Read all conditions of a question.

    Raises:
        QueryError: one cannot be read, or there are too many.
    """
    texts = list(where)
    if len(texts) + len(fields) > MOST_CONDITIONS:
        raise QueryError(f"{len(texts) + len(fields)} conditions are too many; {MOST_CONDITIONS} are the most")
    equal = [Condition.equal(name, value) for name, value in fields.items()]
    found = [Condition.parse(text) for text in texts] + equal
    if sum(len(condition.values) for condition in found) > MOST_VALUES:
        raise QueryError(f"fields are compared with more than {MOST_VALUES} values; ask in several steps")
    return found


def all_of(pieces: Iterable[SQL]) -> SQL:
    """Join conditions that must all hold; empty when there are none."""
    return _joined([piece for piece in pieces if piece], "AND")


def any_of(pieces: Iterable[SQL]) -> SQL:
    """Join conditions of which one must hold; without any, none does."""
    return _joined(list(pieces), "OR") or SQL("0")


def _joined(pieces: list[SQL], word: str) -> SQL:
    """Join as a balanced tree: SQLite takes a thousand levels, and a chain has one for each piece."""
    if len(pieces) <= 1:
        return pieces[0] if pieces else SQL("")
    middle = len(pieces) // 2
    left, right = _joined(pieces[:middle], word), _joined(pieces[middle:], word)
    return SQL(f"({left.text} {word} {right.text})", left.parameters + right.parameters)


def order(sort: str | None) -> SQL:
    """Return the ORDER BY for a field, or ``-field`` for descending; models that lack it last, then the last stored.

    Raises:
        QueryError: the field cannot be read.
    """
    if sort is None:
        return SQL("models.id DESC")
    descends = isinstance(sort, str) and sort.startswith("-")
    path, own = _Parser(sort, int(descends)).whole_field()
    _, value = _own_field(path[0]) if own else _metadata_field(path)
    direction = "DESC" if descends else "ASC"
    return SQL(f"({value.text}) IS NULL, {value.text} {direction}, models.id DESC", value.parameters + value.parameters)


def stored_between(since: Any, until: Any) -> list[Condition]:
    """Return the conditions that a model was stored in a period; a date covers its whole day, in local time.

    Raises:
        QueryError: it is neither a date, a datetime, nor a text of one.
    """
    bounds = ((">=", since), ("<=", until))
    return [
        Condition(("stored_at",), True, operator, (_given_value(("stored_at",), True, value),))
        for operator, value in bounds
        if value is not None
    ]


def typed(name: str, text: str) -> Any:
    """Return the value that a text stands for when it is given to a metadata field, as on a command line.

    A known text field takes the text as it is; elsewhere it may stand for a number, true, false, a date or a datetime, and
    a quoted text stays a text. For the first and last month of the training data a calendar month will do.

    Raises:
        QueryError: the text cannot be the field's value.

    >>> typed("run_id", "007"), typed("seed", "007"), typed("train_end", "2019-12"), typed("note", "'7'")
    ('007', 7, 480, '7')
    """
    is_text = name in TEXT_FIELDS or not text.strip() or (text[0] in "\"'" and text[-1] != text[0])
    return text if is_text else _Parser(text).value((name,), own=False)


def assignment(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE``; the key is taken as it is, and the value as `typed` or as JSON.

    Raises:
        QueryError: it cannot be read.

    >>> assignment("seed=7"), assignment('tuned={"depth": 3}'), assignment("run_id=7")
    (('seed', 7), ('tuned', {'depth': 3}), ('run_id', '7'))
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise QueryError(f"{text!r} cannot be read: give KEY=VALUE", text)
    if value[:1] in ("[", "{"):
        try:
            return key, json.loads(value)
        except ValueError as error:
            raise QueryError(
                f"the value of {key} cannot be read as JSON: {error}; quote it if it is a text", text
            ) from error
    return key, typed(key, value)


def compare_time(stored: Any, operator: str, wanted: str) -> bool:
    """Whether a stored ISO 8601 text is the wanted time, or before or after it; false when it is no time at all.

    A date that is wanted covers its whole day. Instants are compared when both have an offset, and what the clocks
    showed when one of them has none.

    >>> compare_time("2026-11-23T08:00:00", "<=", "2026-11-23")
    True
    """
    moment = _moment(stored) if isinstance(stored, str) else None
    if moment is None:
        return False
    first, last = _span(wanted)
    if moment.tzinfo is None or first.tzinfo is None:
        moment, first, last = (one.replace(tzinfo=None) for one in (moment, first, last))
    before, after = moment < first, moment > last
    return {
        "=": not before and not after,
        "<": before,
        "<=": not after,
        ">": after,
        ">=": not before,
    }[operator]


@lru_cache(maxsize=1024)
def _span(wanted: str) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a time: of the day for a date, the same for a datetime."""
    if _DATE.fullmatch(wanted):
        day = date.fromisoformat(wanted)
        return datetime.combine(day, time.min), datetime.combine(day, time.max)
    moment = datetime.fromisoformat(wanted)
    return moment, moment


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if _DATE.match(text) else None
    except ValueError:
        return None


def _own_field(name: str) -> tuple[SQL, SQL]:
    """Return the JSON type and the value of one of the record's own fields."""
    kind = "'integer'" if name in ("size", "version") else "'text'"
    return SQL(kind), SQL(OWN_FIELDS[name])


def _metadata_field(path: tuple[str, ...]) -> tuple[SQL, SQL]:
    """Return the JSON type and the value of a metadata field."""
    if len(path) == 1 and path[0] in KNOWN_FIELDS:
        return SQL(f"json_type(models.metadata, '$.{path[0]}')"), SQL(f"({field_expression(path[0])})")
    container, simple = SQL("models.metadata"), "$"
    for number, key in enumerate(path):
        if key.isascii() and key.isprintable() and not set(key) & set('"\\'):
            simple += f'."{key}"'
            continue
        # SQLite compares a key in a path with the JSON as it is written, escapes and all; here it is unescaped first.
        each = SQL(f"json_each({container.text}, ?) WHERE key = ?", (*container.parameters, simple, key))
        if number == len(path) - 1:
            return tuple(SQL(f"(SELECT {what} FROM {each.text})", each.parameters) for what in ("type", "atom"))  # type: ignore[return-value]
        container, simple = SQL(f"(SELECT value FROM {each.text} AND type = 'object')", each.parameters), "$"
    return (
        SQL(f"json_type({container.text}, ?)", (*container.parameters, simple)),
        SQL(f"json_extract({container.text}, ?)", (*container.parameters, simple)),
    )


def _compared(kind: SQL, value: SQL, operator: str, wanted: Any) -> SQL:
    """Return the comparison of a field with a value; a field of another type does not compare."""
    both = (*kind.parameters, *value.parameters)
    if isinstance(wanted, bool):
        return SQL(f"{kind.text} = '{'true' if wanted else 'false'}'", kind.parameters)
    if isinstance(wanted, date):
        compared = f"compare_time({value.text}, '{operator}', ?)"
        return SQL(f"({kind.text} = 'text' AND {compared})", (*both, wanted.isoformat()))
    kinds = "= 'text'" if isinstance(wanted, str) else "IN ('integer', 'real')"
    spelled = "GLOB" if operator == "~" else operator
    return SQL(f"({kind.text} {kinds} AND {value.text} {spelled} ?)", (*both, wanted))


def _stored_at(operator: str, wanted: date) -> SQL:
    """Return the comparison of the time of storing, which is a text in UTC, with a time that is local without an offset."""
    first, last = (_in_utc(moment) for moment in _span(wanted.isoformat()))
    text = {
        "=": "models.stored_at BETWEEN ? AND ?",
        "<": "models.stored_at < ?",
        "<=": "models.stored_at <= ?",
        ">": "models.stored_at > ?",
        ">=": "models.stored_at >= ?",
    }[operator]
    bounds = {"=": (first, last), "<": (first,), "<=": (last,), ">": (last,), ">=": (first,)}[operator]
    return SQL(f"({text})", bounds)


def _in_utc(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except (OverflowError, ValueError, OSError):
        return moment.replace(tzinfo=UTC).isoformat(timespec="microseconds")


def _alike(values: tuple[Any, ...]) -> bool:
    """Whether all values are texts, or all are numbers."""
    return all(isinstance(value, str) for value in values) or all(type(value) in (int, float) for value in values)


def _is_unmistakable(value: Any) -> bool:
    """Whether nothing of another type looks the same to an index: true looks like 1, and a list like its text."""
    if isinstance(value, str):
        return value[:1] not in ("[", "{")
    return type(value) in (int, float) and value not in (0, 1)


def _beginning(expression: str, glob: str) -> SQL:
    """Return the condition that a text begins as a glob does, up to the first character that stands for others."""
    literal = re.split(r"[*?[]", glob, maxsplit=1)[0]
    return SQL(f"({expression} >= ? AND {expression} < ?)", (literal, literal + "\U0010ffff"))


def glob_on_names(glob: str) -> SQL:
    """Return the condition that the name of a model is like a glob.

    Raises:
        QueryError: it is too long.
    """
    return SQL("models.name GLOB ?", (_short(str(glob)),))


def _short(glob: str) -> str:
    if len(glob.encode("utf-8", "replace")) > LONGEST_GLOB:
        raise QueryError(f"a glob has {LONGEST_GLOB:,} bytes at most, and this one is longer: {glob[:40]}...")
    return glob


def _coarse(expression: str, operator: str, wanted: Any) -> tuple[str, tuple[Any, ...]]:
    """Return a comparison with an index that holds at least wherever the exact one does."""
    if isinstance(wanted, bool):
        return f"{expression} = ?", (int(wanted),)
    if not isinstance(wanted, date):
        return f"{expression} {operator} ?", (wanted,)
    # An offset moves a clock by less than a day, and a text that is no time does no harm.
    first, last = (moment.replace(tzinfo=None) for moment in _span(wanted.isoformat()))
    low = _day(first, -2) if operator in ("=", ">", ">=") else ""
    high = _day(last, 2) if operator in ("=", "<", "<=") else "9999-99"
    return f"{expression} BETWEEN ? AND ?", (low, high)


def _day(moment: datetime, days: int) -> str:
    try:
        return (moment + timedelta(days=days)).date().isoformat()
    except OverflowError:
        return "" if days < 0 else "9999-99"


def _given_value(path: tuple[str, ...], own: bool, value: Any) -> Any:
    """Return a value that came from Python as a condition compares it."""
    name = path[0] if len(path) == 1 else ""
    if own and not isinstance(value, str):
        _hold_to_own_type(name, value)
    if isinstance(value, str) and (name in MONTH_FIELDS or own):
        # Months and sizes may be given as they are written in a condition.
        return value if own and name not in ("size", "version", "stored_at") else _Parser(value).value(path, own)
    try:
        plain = round_trip({"value": value})["value"]
    except InvalidMetadataError as error:
        raise QueryError(f"{'.'.join(path)} cannot be compared: {error}") from error
    if isinstance(plain, (dict, list)) or plain is None:
        raise QueryError(
            f"{'.'.join(path)} cannot be compared with {value!r}: give a text, a number, a time, or a list of these"
        )
    if isinstance(plain, int) and abs(plain) >= 2**63:
        # Beyond what SQLite holds as an integer; beyond a float it is more than any.
        return float(plain) if abs(plain) < 10**308 else float("inf") if plain > 0 else float("-inf")
    return plain


def _hold_to_own_type(name: str, value: Any) -> None:
    expected, fits = {
        "stored_at": ("a date, a datetime, or a text of one", isinstance(value, date)),
        "size": ("a number of bytes, or a text as in '100MB'", type(value) in (int, float)),
        "version": ("a number", type(value) in (int, float)),
    }.get(name, ("a text", False))
    if not fits:
        raise QueryError(f"{name} cannot be compared with {value!r}: give {expected}")


class _Parser:
    """Reads one condition, a field, or a value.

    Args:
        text: what was written.
        start: where to begin.
    """

    def __init__(self, text: str, start: int = 0) -> None:
        if not isinstance(text, str):
            raise QueryError(f"a condition, a field or a value is written as a text, not as {text!r}")
        self._text = text
        self._place = start

    def condition(self) -> Condition:
        """Read a whole condition."""
        self._skip()
        lacks = self._take("!")
        path, own = self._field()
        self._skip()
        if self._place == len(self._text):
            return Condition(path, own, "lacks" if lacks else "has")
        if lacks:
            self._fail("!FIELD ends here")
        operator = next((one for one in OPERATORS if self._take(one)), None)
        if operator is None:
            self._fail(f"here should be one of {' '.join(OPERATORS)}")
        if self._text[self._place : self._place + 1] in ("=", "<", ">", "~"):
            self._fail("there is no such operator; quote the value if it begins like this")
        return Condition(path, own, operator, (self.value(path, own, operator),))

    def whole_field(self) -> tuple[tuple[str, ...], bool]:
        """Read a field, and nothing after it."""
        self._skip()
        found = self._field()
        self._skip()
        if self._place < len(self._text):
            self._fail("the field ends here; quote its name if this belongs to it")
        return found

    def value(self, path: tuple[str, ...], own: bool, operator: str = "=") -> Any:
        """Read the rest, as a value that is compared with a field."""
        self._skip()
        start = self._place
        if start == len(self._text):
            self._fail('here should be a value; an empty text is ""')
        quoted = self._text[start : start + 1] in ('"', "'")
        text = self._quoted() if quoted else self._text[start:].rstrip()
        self._place = self._place if quoted else len(self._text)
        self._skip()
        if self._place < len(self._text):
            self._fail("the value ends here")
        try:
            value = _own_value(path[0], text) if own else _metadata_value(path, text, quoted or operator == "~")
        except ValueError as error:
            self._fail(str(error), start)
        if operator == "~" and isinstance(value, str):
            _short(value)
        if operator == "~" and not isinstance(value, str):
            self._fail(f"~ compares texts, and {path[0]} is none", start)
        if isinstance(value, bool) and operator not in ("=", "!="):
            self._fail("true and false are not more or less than anything", start)
        return value

    def _field(self) -> tuple[tuple[str, ...], bool]:
        """Read a field; return its path, and whether it is the record's own."""
        keys, quoted = [], []
        while True:
            quoted.append(self._text[self._place : self._place + 1] in ('"', "'"))
            keys.append(self._quoted() if quoted[-1] else self._bare())
            if not self._take("."):
                break
            if len(keys) == MOST_KEYS:
                self._fail(f"a field has {MOST_KEYS} keys at most")
        if len(keys) == 1 and not quoted[0] and keys[0] in OWN_FIELDS:
            return tuple(keys), True
        # `size` is the record's own, so the user's is `metadata.size`.
        return tuple(keys[1:] if len(keys) > 1 and keys[0] == "metadata" and not quoted[0] else keys), False

    def _bare(self) -> str:
        match = _BARE_KEY.match(self._text, self._place)
        if match is None:
            self._fail("here should be the name of a field")
        self._place = match.end()
        return match[0]

    def _quoted(self) -> str:
        """Read a quoted text; in it, a backslash makes the next character an ordinary one."""
        start, quote = self._place, self._text[self._place]
        match = re.compile(rf"{quote}((?:[^\\{quote}]|\\.)*){quote}", re.DOTALL).match(self._text, start)
        if match is None:
            self._fail("this quote is not closed")
        self._place = match.end()
        return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)

    def _take(self, word: str) -> bool:
        found = self._text.startswith(word, self._place)
        self._place += len(word) if found else 0
        return found

    def _skip(self) -> None:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1

    def _fail(self, trouble: str, place: int | None = None) -> NoReturn:
        place = self._place if place is None else place
        # A long condition is shown around the place.
        start = max(0, place - 60)
        shown = "".join(one if one.isprintable() else "?" for one in self._text[start : place + 40])
        raise QueryError(f"this cannot be read:\n  {shown}\n  {' ' * (place - start)}^ {trouble}", self._text, place)


def _own_value(name: str, text: str) -> Any:
    """Return what a text stands for in one of the record's own fields; a ValueError says what it should be."""
    if name == "size":
        match = _SIZE.fullmatch(text)
        if match is None or match[2].lower() not in UNITS:
            raise ValueError("a size is a number of bytes, as in 100MB")
        return _number(str(float(match[1]) * UNITS[match[2].lower()])) if match[2] else _number(match[1])
    if name == "version":
        if not _NUMBER.fullmatch(text):
            raise ValueError("a version is a number")
        return _number(text)
    if name == "stored_at":
        return _time(text)
    return text


def _metadata_value(path: tuple[str, ...], text: str, is_text: bool) -> Any:
    """Return what a text stands for in a metadata field; a ValueError says what it should be."""
    name = path[0] if len(path) == 1 else ""
    if is_text or name in TEXT_FIELDS:
        return text
    if name in MONTH_FIELDS:
        return _number(text) if _NUMBER.fullmatch(text) else month_number(text)
    if name == "training_date" and text[:1].isdigit():
        return _time(text)
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return _number(text)
    try:
        return _time(text)
    except ValueError:
        return text


def _number(text: str) -> int | float:
    """Return a number that SQLite can hold."""
    number = float(text)
    is_whole = text.lstrip("+-").isdecimal() or (number.is_integer() and abs(number) < 2**53)
    return int(text.partition(".")[0]) if is_whole and abs(number) < 2**63 and "e" not in text.lower() else number


def _time(text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such time: {error}") from error
    raise ValueError("a time is written as 2026-11-23, or 2026-11-23T08:00 with an offset if need be")
