"""What is known of a model: its fields, and a dict that comes back from JSON as it was given."""

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from views_runs.exceptions import InvalidMetadataError

#: Deep enough for anybody's metadata, and far from where SQLite's JSON functions stop (1000).
MAX_DEPTH = 100

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(kw_only=True)
class ModelMetadata:
    """The fields that every ViEWS model can have. All are optional, and a dict may hold more.

    A store checks their types whenever they are given, in a dict too, and that the training data does not end before
    it starts.

    Attributes:
        author: who trained the model; a text.
        run_id: the run that it was trained for; a text, as in ``2026-11``.
        queryset_name: the queryset that the training data came from; a text.
        level_of_analysis: what a row of the data is; a text, as in ``country_month`` or ``priogrid_month``.
        outcome: what is predicted; a text, as in ``ged_sb``.
        train_start: the first month of the training data; a views month, which is an integer, 1 = January 1980.
        train_end: the last month of the training data; a views month, which is an integer, 1 = January 1980.
        training_date: when the model was trained; a datetime, a date, or an ISO 8601 text of one, which stays a text.
        steps: how many months ahead the model predicts; a list of integers.

    >>> ModelMetadata(author="testuser", train_start=121, train_end=480).train_end
    480
    """

    author: str | None = None
    run_id: str | None = None
    queryset_name: str | None = None
    level_of_analysis: str | None = None
    outcome: str | None = None
    train_start: int | None = None
    train_end: int | None = None
    training_date: datetime | date | str | None = None
    steps: list[int] | None = None


#: The names of the known fields, in the order in which they are shown.
KNOWN_FIELDS = tuple(field.name for field in dataclasses.fields(ModelMetadata))


#: The known fields that hold a text.
TEXT_FIELDS = ("author", "run_id", "queryset_name", "level_of_analysis", "outcome")

#: The known fields that hold a views month.
MONTH_FIELDS = ("train_start", "train_end")


class Metadata(dict[str, Any]):
    """The metadata of a stored model: a dict whose keys are attributes too.

    A known field that was not given answers None as an attribute.

    >>> metadata = Metadata(author="testuser")
    >>> metadata.author, metadata.train_end
    ('testuser', None)
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in KNOWN_FIELDS:
            return None
        raise AttributeError(f"the metadata has no {name!r}; it has {', '.join(self) or 'nothing'}")

    def __eq__(self, other: object) -> bool:
        # Scripts compare what they fetch with the pydantic model or dataclass that they stored.
        if not isinstance(other, dict) and _is_model(other):
            try:
                other = round_trip(other)
            except InvalidMetadataError:
                return False
        return dict.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


def _is_model(value: object) -> bool:
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_dataclass or callable(getattr(type(value), "model_dump", None))


def as_dict(metadata: Any) -> dict[str, Any]:
    """Return a dict, `ModelMetadata`, dataclass or pydantic model as a dict.

    A field of `ModelMetadata` that is None counts as not given.

    Raises:
        InvalidMetadataError: it is something else, or cannot be turned into a dict.

    >>> as_dict(ModelMetadata(author="testuser"))
    {'author': 'testuser'}
    """
    if isinstance(metadata, dict):
        return metadata
    if not _is_model(metadata):
        raise InvalidMetadataError(
            f"metadata is a dict, a ModelMetadata, a dataclass or a pydantic model, not {_kind(metadata)}"
        )
    try:
        if not dataclasses.is_dataclass(metadata):
            return dict(metadata.model_dump())
        fields = {field.name: getattr(metadata, field.name) for field in dataclasses.fields(metadata)}
    except Exception as error:
        # Serializers and properties are code of whoever wrote the model.
        raise InvalidMetadataError(
            f"the metadata, a {_kind(metadata)}, cannot be turned into a dict: {type(error).__name__}: {error}"
        ) from error
    return {key: value for key, value in fields.items() if value is not None or not isinstance(metadata, ModelMetadata)}


def encode(metadata: Any) -> tuple[str, str | None]:
    """Turn metadata into the columns ``metadata`` and ``datetimes``.

    Returns:
        Plain JSON, in which datetimes and dates are ISO 8601 strings; and the JSON list of the paths where
        these strings are (a path is a list of keys and indices), or None when there are none.

    Raises:
        InvalidMetadataError: a value would not come back equal; the message and ``key`` say which.

    >>> encode({"author": "testuser", "trained": [date(2026, 11, 23)]})
    ('{"author": "testuser", "trained": ["2026-11-23"]}', '[["trained", 0]]')
    """
    datetimes: list[list[str | int]] = []
    encoded = _encoded(as_dict(metadata), [], datetimes)
    text = json.dumps(encoded, ensure_ascii=False, allow_nan=False)
    return text, json.dumps(datetimes, ensure_ascii=False) if datetimes else None


def decode(text: str, datetimes: str | None) -> Metadata:
    """Turn the columns ``metadata`` and ``datetimes`` back into metadata.

    An entry of ``datetimes`` that no longer fits, because another program changed the metadata, is ignored.

    Raises:
        InvalidMetadataError: the text is not a JSON object.

    >>> decode('{"trained": ["2026-11-23"]}', '[["trained", 0]]')
    {'trained': [datetime.date(2026, 11, 23)]}
    """
    try:
        value = json.loads(text)
        paths = json.loads(datetimes) if datetimes else []
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMetadataError(f"the metadata is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidMetadataError(f"the metadata is a JSON {type(value).__name__}, not an object")
    for path in paths if isinstance(paths, list) else []:
        _restore(value, path)
    return Metadata(value)


def round_trip(metadata: Any) -> Metadata:
    """Return metadata as it would come back from a store.

    Raises:
        InvalidMetadataError: it would not come back equal.

    >>> round_trip(ModelMetadata(author="testuser"))
    {'author': 'testuser'}
    """
    return decode(*encode(metadata))


def check(metadata: Metadata) -> None:
    """Hold the known fields to their types; None counts as not given.

    Raises:
        InvalidMetadataError: a field has another type, or the training data ends before it starts.

    >>> check(Metadata(train_end="480"))
    Traceback (most recent call last):
    views_runs.exceptions.InvalidMetadataError: the metadata field train_end should be a views month, which is an \
integer (1 = January 1980), and is the text '480'
    """
    for field in KNOWN_FIELDS:
        value = metadata.get(field)
        expected = None if value is None else _mismatch(field, value)
        if expected:
            raise _refusal([field], f"should be {expected}, and is {_described(value)}")
    start, end = (metadata.get(field) for field in MONTH_FIELDS)
    if start is not None and end is not None and start > end:
        raise _refusal(["train_start"], f"is {start} ({month_name(start)}), after train_end, {end} ({month_name(end)})")


def _mismatch(field: str, value: Any) -> str:
    """Return what a known field should be; empty when it is."""
    if field in TEXT_FIELDS:
        return "" if isinstance(value, str) else "a text"
    if field in MONTH_FIELDS:
        return "" if type(value) is int else "a views month, which is an integer (1 = January 1980)"
    if field == "steps":
        is_list = isinstance(value, list) and all(type(step) is int for step in value)
        return "" if is_list else "a list of integers"
    return "" if isinstance(value, date) or _is_iso(value) else "a datetime, a date, or an ISO 8601 text of one"


def _is_iso(value: Any) -> bool:
    try:
        # Not the forms without hyphens or by weeks, which conditions do not compare.
        return bool(datetime.fromisoformat(value)) and bool(re.match(r"\d{4}-\d\d-\d\d", value))
    except (TypeError, ValueError):
        return False


def _described(value: Any) -> str:
    return f"the text {value!r}" if isinstance(value, str) else f"{value!r}, {_article(value)}"


def differences(
    old: dict[str, Any] | None, new: dict[str, Any] | None, everything: bool = False
) -> list[tuple[str, Any, Any]]:
    """Return (field, old value, new value) of all fields that differ, the known ones first; None = lacking.

    Args:
        old, new: the metadata; None = there is none.
        everything: fields that are equal too.

    >>> differences({"author": "me", "train_end": 480}, {"author": "me", "train_end": 492})
    [('train_end', 480, 492)]
    """
    old, new = old or {}, new or {}
    known = [field for field in KNOWN_FIELDS if field in old or field in new]
    fields = [*known, *sorted((set(old) | set(new)) - set(known))]
    pairs = [(field, old.get(field), new.get(field)) for field in fields]
    return [pair for pair in pairs if everything or not _same(*pair[1:])]


def _same(old: Any, new: Any) -> bool:
    # True is not 1, also when Python says that they are equal, and also in lists and dicts.
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def missing(required: list[str], metadata: Metadata | None) -> list[str]:
    """Return the required fields that metadata lacks; None counts as lacking.

    >>> missing(["author", "run_id"], Metadata(author="testuser", run_id=None))
    ['run_id']
    """
    return [field for field in required if metadata is None or metadata.get(field) is None]


def plain(value: Any) -> Any:
    """Return decoded metadata as `json.dumps` takes it: datetimes and dates become ISO 8601 strings.

    >>> plain(Metadata(trained=[date(2026, 11, 23)]))
    {'trained': ['2026-11-23']}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def equivalent(stored: Metadata | None, wanted: Any) -> bool:
    """Whether stored metadata has every field that is wanted, equal, ``training_date`` aside.

    >>> equivalent(Metadata(author="testuser", outcome="ged_sb"), {"author": "testuser"})
    True
    """
    if stored is None:
        return False
    return not lacking(stored, wanted)


def lacking(stored: Metadata | None, wanted: Any) -> list[tuple[str, Any, Any]]:
    """Return (field, stored value, wanted value) of all that keep stored metadata from being `equivalent`.

    >>> lacking(Metadata(author="testuser", train_end=480), {"train_end": 492})
    [('train_end', 480, 492)]
    """
    fields = round_trip(wanted)
    compared = {key: value for key, value in (stored or {}).items() if key in fields}
    return [one for one in differences(compared, fields) if one[0] != "training_date"]


def month_name(month: int) -> str:
    """Return the calendar month of a views month; 1 is January 1980.

    >>> month_name(480)
    'Dec 2019'
    """
    years, months = divmod(month - 1, 12)
    return f"{MONTHS[months]} {1980 + years}"


def month_number(text: str) -> int:
    """Return the views month of a calendar month.

    Raises:
        ValueError: there is no such month.

    >>> month_number("2019-12")
    480
    """
    match = re.fullmatch(r"(\d{4})-(\d{1,2})", text)
    if match is None:
        raise ValueError("a month is a views month, as in 480, or a calendar month, as in 2019-12")
    if not 1 <= int(match[2]) <= 12:
        raise ValueError(f"there is no month {match[2]}")
    return (int(match[1]) - 1980) * 12 + int(match[2])


def _encoded(value: Any, path: list[str | int], datetimes: list[list[str | int]]) -> Any:
    """Return the value as JSON has it, and note the path of each datetime and date."""
    if len(path) > MAX_DEPTH:
        raise _refusal(path[:3], f"goes more than {MAX_DEPTH} levels deep")
    if _is_model(value):
        value = as_dict(value)
    if isinstance(value, dict):
        keys = [_key(key, path) for key in value]
        if len(set(keys)) < len(keys):
            raise _refusal(path, "has two keys that are the same text")
        return {key: _encoded(item, [*path, key], datetimes) for key, item in zip(keys, value.values())}
    if isinstance(value, list):
        return [_encoded(item, [*path, index], datetimes) for index, item in enumerate(value)]
    if isinstance(value, date):
        datetimes.append(path)
        return _encoded_date(value, path)
    return _encoded_scalar(value, path)


def _key(key: Any, path: list[str | int]) -> str:
    if not isinstance(key, str):
        raise _refusal(path, f"has the key {key!r}, {_article(key)}: keys are strings")
    return _text(key, path)


def _encoded_date(value: date, path: list[str | int]) -> str:
    # pandas.Timestamp is a datetime with nanoseconds, pandas.NaT one that equals nothing, and a time that
    # the clocks showed twice equals none in another time zone: whatever would not come back is refused.
    text = value.isoformat()
    nanoseconds: Any = getattr(value, "nanosecond", 0)
    if value == value and nanoseconds:
        raise _refusal(path, "has nanoseconds, which a datetime cannot hold: round it to microseconds")
    try:
        same = _parsed_date(text) == value
    except ValueError:
        same = False
    if not same:
        raise _refusal(
            path, f"is {value!r}, a time that would not come back equal: give it in UTC, with .astimezone(timezone.utc)"
        )
    return text


def _encoded_scalar(value: Any, path: list[str | int]) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = _from_numpy(value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return _integer(value, path)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise _refusal(path, f"is {float(value)!r}, which JSON cannot hold: leave it out, or use None")
        return float(value)
    raise _refusal(path, f"is {_article(value)}, which would not come back from JSON: {_instead(value)}")


def _from_numpy(value: Any, path: list[str | int]) -> Any:
    """Return a numpy integer, float, boolean or string as Python's own."""
    item = value.item()
    if value.dtype.kind in "biufU" and type(item) in (bool, int, float, str) and (item == value or item != item):
        return item
    raise _refusal(path, f"is {_article(value)}, which would not come back from JSON: {_instead(value)}")


def _integer(value: int, path: list[str | int]) -> int:
    try:
        int.__repr__(value)
    except ValueError as error:
        raise _refusal(path, f"is too long an integer: {error}") from error
    return int(value)


def _text(value: str, path: list[str | int]) -> str:
    text = str.__str__(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _refusal(path, f"holds {value!r}, half of a character, which a file cannot hold") from error
    return text


def _restore(metadata: dict[str, Any], path: Any) -> None:
    """Put a datetime or date back in the place of its ISO string, where there still is one."""
    try:
        *parents, last = path
        place: Any = metadata
        for step in parents:
            place = place[step]
        place[last] = _parsed_date(place[last])
    except (LookupError, TypeError, ValueError):
        return


def _parsed_date(text: str) -> date:
    return datetime.fromisoformat(text) if "T" in text else date.fromisoformat(text)


def _refusal(path: list[str | int], trouble: str) -> InvalidMetadataError:
    key = "".join(_written(path))
    what = f"the metadata field {key}" if key else "the metadata"
    return InvalidMetadataError(f"{what} {trouble}", key)


def _written(path: list[str | int]) -> Iterator[str]:
    for depth, step in enumerate(path):
        if isinstance(step, int):
            yield f"[{step}]"
        elif step.isidentifier():
            yield f".{step}" if depth else step
        else:
            yield f"[{step!r}]"


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _article(value: object) -> str:
    kind = _kind(value)
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _instead(value: object) -> str:
    if isinstance(value, (tuple, set, frozenset)) or type(value).__module__ == "numpy":
        return "give a list" if not getattr(value, "shape", None) == () else "give a plain number or string"
    return "give a string, a number, a list, a dict, a date or a datetime"
