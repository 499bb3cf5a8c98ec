"""Metadata: the known fields and their types, and a lossless JSON encoding."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple

from views_runs import signals
from views_runs.exceptions import InvalidMetadataError

#: The maximum nesting depth: enough for any metadata, and well below the limit of SQLite's JSON functions (1000).
MAX_DEPTH = 100

MONTH_NAMES = tuple("January February March April May June July August September October November December".split())

#: The last views month, December 2079. Larger numbers are mistakes, and most of them years.
LAST_MONTH = 1200


class Kind(NamedTuple):
    """The type of the values of a field."""

    #: A description of valid values, for messages.
    expected: str
    #: Returns whether a value is valid.
    accepts: Callable[[Any], bool]


def _is_time(value: Any) -> bool:
    try:
        # The ISO forms without hyphens and those with week numbers are refused: conditions cannot compare them.
        return isinstance(value, date) or bool(re.match(r"\d{4}-\d\d-\d\d", value) and datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


TEXT = Kind("a string", lambda value: isinstance(value, str))
MONTH = Kind("a views month (an integer; 1 is January 1980)", lambda value: type(value) is int)
MONTHS = Kind("a list of integers", lambda value: isinstance(value, list) and all(type(item) is int for item in value))
TIME = Kind("a datetime, a date, or an ISO 8601 string of one", _is_time)


class KnownField(NamedTuple):
    """A metadata field known for every model."""

    name: str
    kind: Kind
    #: Its meaning, in a few words.
    help: str
    #: Its command-line option.
    option: str | None = None
    #: The heading of its column in a list of models; fields with the same heading share a column.
    column: str | None = None


def known(kind: Kind, help: str, option: str | None = None, column: str | None = None) -> Any:
    """Declare a known field of `ModelMetadata`, with the attributes of its `KnownField`."""
    return dataclasses.field(default=None, metadata={"kind": kind, "help": help, "option": option, "column": column})


@dataclasses.dataclass(kw_only=True)
class ModelMetadata:
    """The metadata fields known for every ViEWS model. All are optional; use a dict for additional fields.

    A store checks the types of these fields, even in a dict, and that the training data does not end before it starts.

    >>> ModelMetadata(author="testuser", train_start=121, train_end=480).train_end
    480
    """

    # To add a field, add a line here: the type checks, the command line and the columns of `list` use this table.
    author: str | None = known(TEXT, "who trained the model", "--author", "author")
    run_id: str | None = known(TEXT, "the run that trained it, as in 2026-11", "--run-id", "run")
    queryset_name: str | None = known(TEXT, "the queryset of the training data", "--queryset")
    level_of_analysis: str | None = known(
        TEXT, "what a row of the data is, as in country_month", "--loa", "level of analysis"
    )
    outcome: str | None = known(TEXT, "what the model predicts, as in ged_sb", "--outcome", "outcome")
    train_start: int | None = known(MONTH, "the first month of the training data", "--train-start", "training period")
    train_end: int | None = known(MONTH, "the last month of the training data", "--train-end", "training period")
    training_date: datetime | date | str | None = known(
        TIME, "when the model was trained", "--training-date", "trained"
    )
    steps: list[int] | None = known(MONTHS, "how many months ahead the model predicts", "--step")


#: The known fields by name, in display order.
KNOWN_FIELDS: Mapping[str, KnownField] = {
    field.name: KnownField(field.name, **field.metadata) for field in dataclasses.fields(ModelMetadata)
}

# Shown by `help(ModelMetadata)`.
ModelMetadata.__doc__ = f"{ModelMetadata.__doc__}\n    Attributes:\n" + "".join(
    f"        {field.name}: {field.help}; {field.kind.expected}.\n" for field in KNOWN_FIELDS.values()
)


class Metadata(dict[str, Any]):
    """The metadata of a stored model: a dict whose keys can also be read as attributes.

    The attribute of a known field that was not given is None.

    >>> metadata = Metadata(author="testuser")
    >>> metadata.author, metadata.train_end
    ('testuser', None)
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in KNOWN_FIELDS:
            return None
        raise AttributeError(f"the metadata has no {name!r}; it has {', '.join(self) or 'no fields'}")

    def __eq__(self, other: object) -> bool:
        # Scripts compare fetched metadata with the pydantic model or dataclass that they stored.
        if not isinstance(other, dict) and _is_model(other):
            try:
                other = round_trip(other)
            except InvalidMetadataError:
                return False
        return dict.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other


def encode(metadata: Any) -> tuple[str | None, str | None]:
    """Encode metadata as the columns ``metadata`` and ``datetimes``; None for both if it is None.

    The first is JSON, in which datetimes and dates are ISO 8601 strings. The second is a JSON list of the paths (lists
    of keys and indices) of these strings, or None if there are none.

    Raises:
        InvalidMetadataError: a value would not compare equal when decoded; the message and ``key`` identify it.

    >>> encode({"author": "testuser", "trained": [date(2026, 11, 23)]})
    ('{"author": "testuser", "trained": ["2026-11-23"]}', '[["trained", 0]]')
    """
    if metadata is None:
        return None, None
    if not isinstance(metadata, dict) and not _is_model(metadata):
        raise InvalidMetadataError(
            f"metadata must be a dict, a ModelMetadata, a dataclass or a pydantic model, not {_name_type(metadata)}"
        )
    encoder = _Encoder(takes_models=_is_model(metadata))
    try:
        text = json.dumps(encoder.encode(metadata), ensure_ascii=False, allow_nan=False)
    except InvalidMetadataError as error:
        error.key = encoder.key()
        error.trouble = f"{f'metadata field {error.key}' if error.key else 'the metadata'} {error.trouble}"
        raise
    return text, json.dumps(encoder.times, ensure_ascii=False) if encoder.times else None


def decode(text: str | None, datetimes: str | None) -> Metadata:
    """Decode the columns ``metadata`` and ``datetimes``; an `InvalidMetadataError` says that it is not a JSON object.

    Entries of ``datetimes`` that no longer match, because another program changed the metadata, are ignored.
    """
    try:
        value = {} if text is None else json.loads(text)
        paths = json.loads(datetimes) if datetimes else []
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMetadataError(f"the metadata is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidMetadataError(f"the metadata is a JSON {type(value).__name__}, not an object")
    if text and text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise InvalidMetadataError(f"the metadata is nested more than {MAX_DEPTH} levels deep")
    for path in paths if isinstance(paths, list) else []:
        with suppress(LookupError, TypeError, ValueError):
            *parents, last = path
            place: Any = value
            for step in parents:
                place = place[step]
            place[last] = _parse_time(place[last])
    return Metadata(value)


def _is_too_deep(value: Any) -> bool:
    """Return whether JSON is nested so deeply that functions that call themselves could fail on it."""
    level = [value]
    for _ in range(2 * MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [*chain.from_iterable(inner)]
    return bool(level)


def round_trip(metadata: Any) -> Metadata:
    """Return metadata as a store would return it; empty for None."""
    return decode(*encode(metadata))


def check(metadata: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> None:
    """Check the known fields that are not None, and that the training data does not end before it starts.

    What is already stored may be a month out of range: earlier versions of this package did not refuse them.
    """
    given = {name: value for name, value in metadata.items() if value is not None and name in KNOWN_FIELDS}
    for name, value in given.items():
        expected, accepts = KNOWN_FIELDS[name].kind
        if not accepts(value):
            raise InvalidMetadataError(f"metadata field {name} must be {expected}, not {value!r}", name)
        is_new = not stored or stored.get(name) != value
        if KNOWN_FIELDS[name].kind is MONTH and is_new and (trouble := explain_month(value, name)):
            raise InvalidMetadataError(f"metadata field {name}: {trouble}", name)
    start, end = given.get("train_start"), given.get("train_end")
    if start is not None and end is not None and start > end:
        trouble = f"train_start, {start} ({month_name(start)}), is after train_end, {end} ({month_name(end)})"
        raise InvalidMetadataError(f"the training data ends before it starts: {trouble}", "train_start")


def differences(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, everything: bool = False
) -> list[tuple[str, Any, Any]]:
    """Return (field, old value, new value) for each field that differs, or for all, known fields first."""
    old, new = old or {}, new or {}
    fields = [*KNOWN_FIELDS, *sorted((old.keys() | new.keys()) - KNOWN_FIELDS.keys())]
    pairs = [(field, old.get(field), new.get(field)) for field in fields if field in old or field in new]
    return [pair for pair in pairs if everything or not _are_same(*pair[1:])]


def unmet_fields(stored: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, stored value, wanted value) for each wanted field that differs, except ``training_date``.

    >>> unmet_fields({"author": "testuser", "train_end": 480}, {"train_end": 492})
    [('train_end', 480, 492)]
    """
    compared = {name: value for name, value in (stored or {}).items() if name in wanted}
    return [difference for difference in differences(compared, wanted) if difference[0] != "training_date"]


def is_equivalent(stored: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Return whether a model has metadata that equals the wanted metadata in every field except ``training_date``."""
    return stored is not None and not unmet_fields(stored, wanted)


def missing_fields(required: Iterable[str], metadata: Mapping[str, Any] | None) -> list[str]:
    """Return the required fields that are missing or None."""
    return [name for name in required if metadata is None or metadata.get(name) is None]


def to_jsonable(value: Any) -> Any:
    """Convert decoded metadata for `json.dumps`: datetimes and dates become ISO 8601 strings.

    Another program may have written numbers such as ``1e999``: JSON has no infinity, and it becomes a string.
    """
    if isinstance(value, dict):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return json.dumps(value)
    return value.isoformat() if isinstance(value, date) else value


def month_name(number: int) -> str:
    """Return the calendar month of a views month, as in ``Dec 2019`` for 480."""
    years, months = divmod(number - 1, 12)
    return f"{MONTH_NAMES[months][:3]} {1980 + years}"


def month(when: str | date) -> int:
    """Return the views month of a calendar month such as ``2019-12``, or of a date.

    Views months count from January 1980, which is 1, to December 2079, which is 1200.

    Raises:
        InvalidMetadataError: it is not a calendar month, or not one of these.

    >>> month("2019-12"), month(date(2019, 12, 31))
    (480, 480)
    """
    match = re.fullmatch(r"(\d{4})-(\d{1,2})", f"{when:%Y-%m}" if isinstance(when, date) else str(when))
    if match is None:
        raise InvalidMetadataError(f"expected a month, as in 2019-12, not {when!r}")
    if not 1 <= int(match[2]) <= 12:
        raise InvalidMetadataError(f"there is no month {match[2]}")
    number = (int(match[1]) - 1980) * 12 + int(match[2])
    if not 1 <= number <= LAST_MONTH:
        raise InvalidMetadataError(f"expected a month from 1980-01 to 2079-12, not {match[0]}")
    return number


def explain_month(number: int | float, field: str) -> str:
    """Return why a number given for a field is not a views month, with what was probably meant; empty if it is one.

    >>> explain_month(2019, "train_end"), explain_month(480, "train_end")
    ('month 2019 is March 2148; did you mean 2019-12 (month 480)?', '')
    """
    if 1 <= number <= LAST_MONTH:
        return ""
    meant = ""
    # Not `isfinite`: a very large integer cannot be converted to a float.
    whole = int(number) if -(10**9) < number < 10**9 else 10**9
    if 1980 <= whole < 2080:
        # A year given as the start means its first month; as the end, its last.
        meant = f"{whole}-{'01' if field == 'train_start' else '12'}"
    elif 198001 <= whole < 208000 and 1 <= whole % 100 <= 12:
        meant = f"{whole // 100}-{whole % 100:02}"
    is_in_calendar = -12 * 1979 < whole < 12 * 8020
    trouble = f"month {number} is {_spell_month(whole) if is_in_calendar else 'out of range'}"
    if meant:
        return f"{trouble}; did you mean {meant} (month {month(meant)})?"
    return f"{trouble}; views months go from 1 (January 1980) to {LAST_MONTH} (December 2079)"


def _spell_month(number: int) -> str:
    return f"{MONTH_NAMES[(number - 1) % 12]} {1980 + (number - 1) // 12}"


class _Encoder:
    """Converts metadata to JSON types; its errors describe the value at `path`, as in ``has duplicate keys``."""

    def __init__(self, takes_models: bool) -> None:
        #: Whether values may be dataclasses and pydantic models: what is fetched equals a model, whatever is inside it,
        #: but not a dict with models inside, which come back as dicts.
        self.takes_models = takes_models
        #: The keys and indices of the current value.
        self.path: tuple[str | int, ...] = ()
        #: The paths of the datetimes and dates.
        self.times: list[tuple[str | int, ...]] = []

    def encode(self, value: Any, *path: str | int) -> Any:
        self.path = path
        if len(path) > MAX_DEPTH:
            self.path = path[:3]
            raise InvalidMetadataError(f"is nested more than {MAX_DEPTH} levels deep")
        if _is_model(value):
            if not self.takes_models:
                raise InvalidMetadataError(
                    f"is a {_name_type(value)}, which would come back as a dict", advice=_advise_dict(value)
                )
            value = _as_dict(value)
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise InvalidMetadataError(f"has the key {key!r}, but keys must be strings")
            keys = [_encode_text(key) for key in value]
            if len(set(keys)) < len(keys):
                raise InvalidMetadataError("has duplicate keys")
            return {key: self.encode(item, *path, key) for key, item in zip(keys, value.values())}
        if isinstance(value, list):
            return [self.encode(item, *path, index) for index, item in enumerate(value)]
        if isinstance(value, date):
            self.times.append(path)
            return _encode_time(value)
        return _encode_scalar(value)

    def key(self) -> str:
        """Return the path of the current value in Python notation, as in ``history[0].when``."""
        steps = (f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in self.path)
        return "".join(steps).removeprefix(".")


def _is_model(value: object) -> bool:
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_dataclass or callable(getattr(type(value), "model_dump", None))


def _as_dict(model: Any) -> dict[str, Any]:
    try:
        if not dataclasses.is_dataclass(model):
            return dict(model.model_dump())
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    except Exception as error:
        signals.let_through(error)
        # Serializers and properties are user code, and may raise anything.
        raise InvalidMetadataError(
            f"is a {_name_type(model)} and cannot be converted to a dict: {type(error).__name__}: {error}"
        ) from error
    return {name: value for name, value in fields.items() if value is not None or not isinstance(model, ModelMetadata)}


def _advise_dict(model: object) -> str:
    is_pydantic = callable(getattr(type(model), "model_dump", None))
    return f"Give a dict, with {'its model_dump()' if is_pydantic else 'dataclasses.asdict()'}"


def _encode_text(value: str) -> str:
    text = str.__str__(value)
    if "\0" in text:
        raise InvalidMetadataError(
            "contains a NUL character, which some versions of SQLite treat as the end of the text", advice="Remove it"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        surrogate = text[error.start]
        raise InvalidMetadataError(f"contains an unpaired surrogate ({surrogate!r}), which cannot be stored") from error
    return text


def _encode_time(value: date) -> str:
    # A pandas.Timestamp is a datetime with nanoseconds, pandas.NaT is a datetime that does not equal itself, and a
    # local time that occurs twice in autumn does not equal the same instant in another time zone.
    if value == value and getattr(value, "nanosecond", False):
        raise InvalidMetadataError("has nanoseconds, which would be lost", advice="Round it to microseconds")
    text = value.isoformat()
    with suppress(ValueError):
        if _parse_time(text) == value:
            return text
    raise InvalidMetadataError(
        f"is {value!r}, which would not compare equal when fetched", advice="Convert it with .astimezone(timezone.utc)"
    )


def _encode_scalar(value: Any) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and value.dtype.kind in "biufU":
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError as error:
            raise InvalidMetadataError(f"is an integer that is too large: {error}") from error
        return int(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidMetadataError(
                f"is {float(value)!r}, which JSON cannot represent", advice="Leave it out, or use None"
            )
        return float(value)
    is_sequence = isinstance(value, (tuple, set, frozenset)) or getattr(value, "shape", None) not in (None, ())
    raise InvalidMetadataError(
        f"is of type {_name_type(value)}, which JSON cannot represent",
        advice="Use a list" if is_sequence else "Use a string, a number, a list, a dict, a date or a datetime",
    )


def _parse_time(text: str) -> date:
    return datetime.fromisoformat(text) if "T" in text else date.fromisoformat(text)


def _are_same(old: Any, new: Any) -> bool:
    # Unlike `==`, this distinguishes True from 1, in lists and dicts too.
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_are_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_are_same, old, new))
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _name_type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
