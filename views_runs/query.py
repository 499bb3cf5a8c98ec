"""Parse conditions and their values, which are text or Python objects. `conditions` has their SQL.

The grammar, which ``guide/conditions.rst`` explains::

    condition  = all {"or" all}
    all        = single {"and" single}
    single     = "not" single | "(" condition ")" | comparison
    comparison = FIELD | "!" FIELD | FIELD OPERATOR VALUE | FIELD "has" VALUE | FIELD "in" "(" VALUE {"," VALUE} ")"
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, NoReturn
from unicodedata import combining, east_asian_width

from views_runs.conditions import (
    BOOLEAN,
    COMPARABLE,
    CURRENT,
    HAS_ALIAS,
    NUMBER,
    OWN_FIELDS,
    SIZE,
    Compound,
    Condition,
    Field,
    Parameters,
    build_order,
    convert_to_utc,
    find_span,
    join,
)
from views_runs.exceptions import QueryError, StorageError
from views_runs.metadata import KNOWN_FIELDS, MONTH, TEXT, TIME, Kind, explain_month, month, round_trip
from views_runs.names import MAX_INTEGER

#: The operators that are symbols; ``in`` and ``has`` are words.
OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")

#: How deep parentheses and ``not`` can be nested: the parser is recursive, and so is that of SQLite.
MAX_NESTED = 20

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}

_KEY_PATTERN = r"""(?P<bare>[^\s."'=<>~!%s]+)|(?P<quote>["'])(?P<quoted>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)"""
#: A key, or a quoted string in which a backslash escapes the next character; and one that stands alone.
_KEY, _LONE_KEY = (re.compile(_KEY_PATTERN % more, re.DOTALL) for more in ("(),", ""))
_SPACE = re.compile(r"\s*")
#: A word of the grammar; ``not = 1`` is about a field of this name.
_WORDS = {word: re.compile(rf"{word}(?=[\s(\"'!]|$)") for word in ("and", "or", "in", "has")}
_WORDS["not"] = re.compile(r"""not(?=\s*[("']|\s*!(?!=)|\s+[^\s=<>~!])""")
#: Where a value without quotes ends, if not at the end of the text; in the parentheses of ``in``, and elsewhere.
_LISTED_END, _END = (re.compile(rf"[{signs}]|(?<=\s)(?:and|or)(?=\s)") for signs in (",)", ")"))
_TEXT_END = re.compile(r"\Z")
#: The words of SQL, which do not end a value.
_CAPITALS = re.compile(r"(?<=\s)(?:AND|OR)(?=\s)")
_LITERALS = {form: word == "true" for word in ("true", "false") for form in (word, word.title(), word.upper())}
_NULLS = ("null", "None", "NULL")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")
_AGO = re.compile(r"(\d{1,9})([hdw])")

#: Hours in a unit of time.
HOURS = {"h": 1, "d": 24, "w": 7 * 24}

#: SQLite's messages for a statement that exceeds a limit; the error code is the generic one for errors in SQL.
_LIMIT = re.compile(r"too (large|many|complex)|at most \d+ tables|stack overflow")

#: When a model was stored.
STORED_AT = Field(("stored_at",), own=True)


class Question(NamedTuple):
    """A search: what follows ``FROM models`` in a statement, and its parameters."""

    sql: str
    parameters: tuple[Any, ...]
    #: The conditions on single fields, and the field to sort by: these are checked for mistakes.
    conditions: Sequence[Condition] = ()
    sort: Field | None = None

    @classmethod
    def of(
        cls,
        where: Iterable[str],
        fields: Mapping[str, Any],
        *,
        name: str | None = None,
        alias: str | None = None,
        run: str | list[str] | None = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        sort: str | None = None,
        limit: int | None = None,
    ) -> "Question":
        """Create a question from the arguments of `Storage.find`."""
        conditions = [parse(text) for text in where]
        conditions += [equal(name, value) for name, value in fields.items()]
        for operator, bound in ((">=", since), ("<=", until)):
            if bound is not None:
                conditions.append(Condition(STORED_AT, operator, take(STORED_AT, [bound])))
        if run is not None:
            conditions.append(equal("run", run))
        every, bind = Compound("and", tuple(conditions)), Parameters()
        pieces = [every.sql(bind) or "TRUE"]
        current = "TRUE" if all_versions or run is not None else CURRENT
        if alias is not None:
            pieces.append(HAS_ALIAS.format(bind(str(alias))))
            current = "TRUE"
        pieces.append(current if name is None else _match_name(str(name), current, bind))
        check_limit(limit)
        key = None if sort is None else parse_field(sort, int(str(sort).startswith("-")))
        order = "" if key is None else build_order(key, str(sort).startswith("-"), bind)
        end = f"ORDER BY {order}models.id DESC LIMIT {bind(-1 if limit is None else min(limit, MAX_INTEGER))}"
        return cls(f"WHERE {join(pieces, 'AND')} {end}", tuple(bind), every.singles(), key)


def check_limit(limit: object) -> None:
    """Refuse what cannot be the maximum number of results."""
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise QueryError(f"limit must be 0, a positive integer or None, not {limit!r}")


def _match_name(name: str, current: str, bind: Parameters) -> str:
    """Return SQL for whether a row's name matches a glob, or its name and an alias match ``GLOB@ALIAS``."""
    matches = f"models.name GLOB {bind(name)} AND {current}"
    glob, at, alias = name.rpartition("@")
    if not at:
        return matches
    return f"({matches}) OR (models.name GLOB {bind(glob)} AND {HAS_ALIAS.format(bind(alias))})"


def parse(text: str) -> Condition | Compound:
    """Parse a condition; the message of a `QueryError` points to the offending character.

    >>> parse("train_end >= 2019-12")
    Condition(field=Field(path=('train_end',), own=False, dotted=False), operator='>=', values=(480,), cut='')
    """
    return _Parser(text, "condition").condition()


def parse_age(age: str | timedelta) -> timedelta:
    """Return how long ago ``90d``, ``12w`` or ``36h`` is.

    >>> parse_age("12w").days
    84
    """
    match = _AGO.fullmatch(age) if isinstance(age, str) else None
    with suppress(OverflowError):
        found = timedelta(hours=int(match[1]) * HOURS[match[2]]) if match else age
        if isinstance(found, timedelta) and found > timedelta() and datetime.now() - found:
            return found
    advice = "Give a number of hours, days or weeks, as in 36h, 90d or 12w"
    raise QueryError(f"{age!r:.40} is not an age", advice=advice)


def parse_field(text: str, place: int = 0) -> Field:
    """Parse a text, from a place on, that is a field."""
    return _Parser(text, "field", place).lone_field()


def equal(name: str, value: Any) -> Condition:
    """Return the condition that a field equals a value, or one of a list; for None, that it is missing or null."""
    field = parse_field(name)
    if value is None:
        return Condition(field, "lacks")
    return Condition(field, "=", take(field, value if isinstance(value, list) else [value]))


def as_conditions(where: str | Iterable[str]) -> tuple[str, ...]:
    """Return one or several conditions as a tuple; anything but text is refused when it is parsed."""
    return tuple(where) if isinstance(where, Iterable) and not isinstance(where, str) else (where,)


def find_start(bound: datetime | date | str) -> str:
    """Return the first moment of a date or time, as the store records times."""
    (moment,) = take(STORED_AT, [bound])
    return convert_to_utc(find_span(moment.isoformat())[0])


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
    if kind_of(field) is TEXT or not text.strip() or (text[0] in "\"'" and text[-1] != text[0]):
        return text
    return _Parser(text, f"value of {name}").lone_value(field)


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


def compare(field: Field, operator: str, values: list[Any], cut: str = "") -> Condition | Compound:
    """Return the condition that a field compares with one of some values, where None means that it is missing."""
    known = tuple(value for value in values if value is not None)
    if len(known) == len(values):
        return Condition(field, operator, known, cut)
    lacks = Condition(field, "exists" if operator == "!=" else "lacks")
    return Compound("or", (Condition(field, operator, known), lacks)) if known else lacks


def kind_of(field: Field) -> Kind:
    """Return the kind of a field's values."""
    if field.own:
        return OWN_FIELDS[field.path[0]].kind
    return KNOWN_FIELDS[field.path[0]].kind if len(field.path) == 1 and field.path[0] in KNOWN_FIELDS else COMPARABLE


def read_value(field: Field, text: str) -> Any:
    """Convert an unquoted text to a value of a field; raise a ValueError if it is not valid."""
    kind = kind_of(field)
    if kind is TEXT:
        return text
    if kind is TIME:
        return _parse_ago(text) or _parse_time(text)
    if kind is SIZE:
        return _parse_size(text)
    if _NUMBER.fullmatch(text) and kind is not BOOLEAN:
        number = _parse_number(text)
        if kind is MONTH and (trouble := explain_month(number, str(field))):
            raise ValueError(trouble)
        return number
    if kind is MONTH:
        return month(text)
    if text in _LITERALS and kind is not NUMBER:
        return _LITERALS[text]
    if kind in (NUMBER, BOOLEAN):
        raise ValueError(f"expected {kind.expected}")
    with suppress(ValueError):
        return _parse_time(text)
    return text


def take(field: Field, values: list[Any]) -> tuple[Any, ...]:
    """Convert Python values to the values that are compared with a field."""
    kind = kind_of(field)
    try:
        taken = round_trip({str(field): values})[str(field)]
        if field.own or kind in (MONTH, TIME):
            # As in a condition, a string may denote a month, a size or a time.
            taken = [read_value(field, value) if isinstance(value, str) else value for value in taken]
        for number in taken if kind is MONTH else ():
            if type(number) in (int, float) and (trouble := explain_month(number, str(field))):
                raise ValueError(trouble)
    except ValueError as error:
        raise QueryError(f"{field} cannot be compared: {error}") from error
    kind = kind if field.own else COMPARABLE
    for value in taken:
        if not kind.accepts(value):
            raise QueryError(f"{field} cannot be compared with {value!r}: expected {kind.expected}")
    return tuple(taken)


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


def _parse_ago(text: str) -> date | None:
    """Return the time that is as long ago as ``7d`` says, or the day of a word; None if it is something else."""
    if text in ("today", "yesterday"):
        return date.today() - timedelta(days=text == "yesterday")
    match = _AGO.fullmatch(text)
    try:
        # With its offset, for times that have one; others are compared with the local clock.
        return match and datetime.now().astimezone() - timedelta(hours=int(match[1]) * HOURS[match[2]])
    except OverflowError as error:
        raise ValueError("the calendar does not go back so far") from error


def _parse_time(text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"invalid date or time: {error}") from error
    expected = "expected a date or a time, as in 2026-11-23, 2026-11-23T08:00+01:00, 7d, 2w or yesterday"
    raise ValueError(f"{expected}, not {text!r:.60}")


class _Parser:
    """Parses a condition, a field or a value from `place` on; `what` is the noun for it in messages."""

    def __init__(self, text: str, what: str, place: int = 0) -> None:
        if not isinstance(text, str):
            raise QueryError(f"a {what} must be a string, not {text!r}")
        self.text = text
        self.what = what
        self.place = place
        self.depth = 0
        #: The word or sign at which the last value ended, if it has no quotes.
        self.cut = ""
        #: Whether it has quotes.
        self.is_quoted = False

    def condition(self) -> Condition | Compound:
        found = self.joined("or")
        if self.place < len(self.text):
            self.fail("there is no ( for this )" if self.is_at(")") else "expected and, or, or the end")
        return found

    def joined(self, word: str) -> Condition | Compound:
        parse = partial(self.joined, "and") if word == "or" else self.single
        parts = [parse()]
        while self.take_word(word):
            parts.append(parse())
        return parts[0] if len(parts) == 1 else Compound(word, tuple(parts))

    def single(self) -> Condition | Compound:
        self.skip()
        start = self.place
        if not (negated := self.take_word("not")) and not self.take("("):
            return self.comparison()
        self.depth, self.cut = self.depth + 1, ""
        if self.depth > MAX_NESTED:
            self.fail(f"more than {MAX_NESTED} ( or not inside one another", start)
        found = Compound("not", (self.single(),)) if negated else self.joined("or")
        self.depth -= 1
        if not negated and not self.take(")"):
            self.fail("expected and, or, or )")
        return found

    def comparison(self) -> Condition | Compound:
        # A space after it keeps bash from reading it as an event of its history, which it does in double quotes too.
        if lacks := self.take("!"):
            self.skip()
        field = self.field()
        self.skip()
        if self.ends():
            if kind_of(field) is BOOLEAN:
                # Every model has `current`, so without an operator the condition tests its value.
                return Condition(field, "=", (not lacks,))
            cut, self.cut = self.cut, ""
            return Condition(field, "lacks" if lacks else "exists", cut=cut.removeprefix(")"))
        if lacks:
            self.fail("!FIELD takes no operator and no value")
        place = self.place
        operator = next(filter(self.take_word, ("in", "has")), None) or next(filter(self.take, OPERATORS), None)
        if operator is None:
            if self.take_word("not"):
                self.fail(f"put not before the field: not {field} ...", place)
            self.fail(f"expected one of {' '.join(OPERATORS)} in has")
        self.cut = ""
        if operator == "in":
            return compare(field, "=", self.listed(field))
        if operator == "has" and field.own:
            self.fail(f"has is for lists, and {field} is not a list", place)
        if self.text.startswith(("=", "<", ">", "~"), self.place):
            self.fail("unknown operator; quote a value that begins like this")
        start = self.place
        value = self.value(field, operator)
        found = None if value is None else _CAPITALS.search(self.text, start, self.place)
        return compare(field, operator, [value], found[0] if found and not self.is_quoted else "")

    def listed(self, field: Field) -> list[Any]:
        """Parse the values of ``in``."""
        if not self.take("("):
            self.fail("expected ( and values, as in: FIELD in (a, b)")
        values = [self.value(field, "=", _LISTED_END)]
        while self.take(","):
            values.append(self.value(field, "=", _LISTED_END))
        if not self.take(")"):
            self.fail("expected , or )")
        self.cut = ""
        return values

    def lone_field(self) -> Field:
        self.skip()
        field = self.field(_LONE_KEY)
        self.skip()
        if self.place < len(self.text):
            self.fail("the field ends here; quote it if this is part of its name")
        return field

    def field(self, pattern: re.Pattern[str] = _KEY) -> Field:
        self.skip()
        places = [self.place]
        path = [self.key(pattern)]
        while self.text.startswith(".", self.place):
            places.append(self.place + 1)
            self.place += 1
            path.append(self.key(pattern))
        is_quoted = any(self.text[place] in "\"'" for place in places)
        if len(path) > 1 and path[0] == "metadata" and self.text[places[0]] not in "\"'":
            # `size` is the record's field, so the user's is `metadata.size`.
            return Field(tuple(path[1:]), dotted=len(path) > 2 and not is_quoted)
        own = len(path) == 1 and path[0] in OWN_FIELDS and not is_quoted
        return Field(tuple(path), own, dotted=len(path) > 1 and not is_quoted)

    def lone_value(self, field: Field) -> Any:
        """Parse the whole text as a value of a field."""
        value = self.value(field, "=", _TEXT_END)
        if self.place < len(self.text):
            self.fail("the value ends here")
        return value

    def value(self, field: Field, operator: str, end: re.Pattern[str] = _END) -> Any:
        """Parse a value to compare with a field."""
        self.skip()
        start = self.place
        self.cut = ""
        is_quoted = self.is_quoted = self.is_at("'") or self.is_at('"')
        if is_quoted:
            text = self.key()
            self.skip()
            if not self.ends() and not (end is _LISTED_END and self.is_at(",")):
                self.fail("the value ends here")
        else:
            found = end.search(self.text, start)
            self.place = found.start() if found else len(self.text)
            self.cut = found[0] if found else ""
            text = self.text[start : self.place].rstrip()
            if not text:
                self.fail('expected a value ("" for an empty string)', start)
        if operator == "~" and field.own and kind_of(field) is not TEXT:
            self.fail(f"~ matches strings only, and {field} is not a string", start)
        if not field.own and (is_quoted or operator == "~"):
            return text
        value = self.read(field, text, is_quoted, start)
        if isinstance(value, bool) and operator not in ("=", "!=", "has"):
            self.fail("true and false have no order", start)
        if value is None and operator not in ("=", "!="):
            self.fail("None can only be compared with = or !=", start)
        return value

    def read(self, field: Field, text: str, is_quoted: bool, start: int) -> Any:
        if text in _NULLS and not is_quoted:
            return None
        try:
            return read_value(field, text)
        except ValueError as error:
            self.place, self.cut = start, ""
            self.fail(str(error))

    def key(self, pattern: re.Pattern[str] = _KEY) -> str:
        """Parse a key or a quoted string."""
        match = pattern.match(self.text, self.place)
        if match is None:
            is_open = self.text.startswith(('"', "'"), self.place)
            self.fail("this quote is not closed" if is_open else "expected the name of a field")
        self.place = match.end()
        return match["bare"] or re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL)

    def ends(self) -> bool:
        """Return whether a comparison ends here."""
        is_word = any(_WORDS[word].match(self.text, self.place) for word in ("and", "or"))
        return self.place == len(self.text) or self.is_at(")") or is_word

    def is_at(self, sign: str) -> bool:
        return self.text.startswith(sign, self.place)

    def take(self, sign: str) -> bool:
        self.skip()
        is_here = self.is_at(sign)
        self.place += len(sign) if is_here else 0
        return is_here

    def take_word(self, word: str) -> bool:
        self.skip()
        match = _WORDS[word].match(self.text, self.place)
        self.place = match.end() if match else self.place
        return match is not None

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.place)
        self.place = match.end() if match else self.place

    def fail(self, trouble: str, place: int | None = None) -> NoReturn:
        place = self.place if place is None else place
        if self.cut:
            trouble += f"; a value without quotes ends at {self.cut!r}: quote the value if this is part of it"
        # A line that a terminal folds would move the pointer: if the text is long, show the part around the place.
        start = max(0, place - 40)
        shown = "".join(one if one.isprintable() else "?" for one in self.text[start : place + 36])
        pointer = f"{' ' * _measure(shown[: place - start])}^ {trouble}"
        raise QueryError(f"invalid {self.what}:\n  {shown}\n  {pointer}", self.text, place)


def _measure(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if east_asian_width(one) in "WF" else not combining(one) for one in text)
