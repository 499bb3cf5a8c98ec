"""What comes back equals what was stored, or it is refused and the key is named."""

import dataclasses
import enum
import json
import math
import pydoc
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from views_runs import InvalidMetadataError, Metadata, ModelMetadata
from views_runs.metadata import (
    KNOWN_FIELDS,
    MONTH,
    MONTHS,
    TEXT,
    TIME,
    check,
    decode,
    differences,
    encode,
    is_equivalent,
    month_name,
)

STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    STRINGS,
    st.dates(),
    st.datetimes(timezones=st.none() | OFFSETS),
    st.dates().map(date.isoformat),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4), max_leaves=12
)
METADATA = st.dictionaries(STRINGS, VALUES, max_size=6)


def types(value: Any) -> Any:
    """Return the value's types, all the way down: 1 == 1.0 == True, and they are not the same."""
    if isinstance(value, dict):
        return {key: types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [types(item) for item in value]
    return type(value)


def round_trip(metadata: Any) -> Metadata:
    """Return what comes back, through text that is strict JSON."""
    text, datetimes = encode(metadata)
    json.loads(text, parse_constant=pytest.fail)
    return decode(text, datetimes)


@given(METADATA)
def test_metadata_comes_back(metadata: dict[str, Any]) -> None:
    """Whatever is stored comes back equal, of the same types, keys in their order."""
    back = round_trip(metadata)
    assert back == metadata
    assert types(dict(back)) == types(metadata)
    assert list(back) == list(metadata)


def test_plain_json_in_the_column() -> None:
    """In the column a datetime is an ISO string, for anyone with sqlite3."""
    trained = datetime(2026, 11, 23, 8, 0, 0, 123)
    text, datetimes = encode({"training_date": trained, 'a."b': [{"when": date(2026, 1, 2)}], "é": "ž"})
    assert text == '{"training_date": "2026-11-23T08:00:00.000123", "a.\\"b": [{"when": "2026-01-02"}], "é": "ž"}'
    assert json.loads(datetimes or "") == [["training_date"], ['a."b', 0, "when"]]


@pytest.mark.parametrize(
    "value, back",
    [
        (np.int64(480), 480),
        (np.uint8(7), 7),
        (np.float64(0.25), 0.25),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (pd.Timestamp("2026-11-23 08:00:00.000123"), datetime(2026, 11, 23, 8, 0, 0, 123)),
        (enum.IntEnum("Number", ["ONE"]).ONE, 1),
        (datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Stockholm")), datetime(2026, 7, 1, 10, tzinfo=UTC)),
    ],
)
def test_other_types_come_back_equal(value: Any, back: Any) -> None:
    """Numbers of numpy and times of pandas come back equal, as Python's own."""
    result = round_trip({"value": value})["value"]
    assert result == value == back
    assert type(result) is type(back)


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value, said",
    [
        (math.nan, "nan"),
        (np.float64("nan"), "nan"),
        (np.float32("inf"), "inf"),
        (-math.inf, "-inf"),
        ((1, 2), "tuple"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (object(), "object"),
        (Colour.RED, "Colour"),
        (Decimal("0.1"), "Decimal"),
        (time(1, 2), "time"),
        (np.arange(3), "ndarray"),
        (np.datetime64("NaT", "s"), "datetime64"),
        (np.datetime64("2026-11-23T08:00:00.123456789"), "datetime64"),
        (np.timedelta64(3, "D"), "timedelta64"),
        (np.timedelta64(3, "ns"), "timedelta64"),
        (np.longdouble("0.1"), "longdouble"),
        (np.complex128(1j), "complex128"),
        (pd.Timestamp("2026-11-23 08:00:00.000000001"), "nanoseconds"),
        (pd.NaT, "NaT"),
        (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Stockholm")), "would not compare equal"),
        ("\ud800", "contains an unpaired surrogate"),
        pytest.param(10**5000, "integer", id="long integer"),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, said: str) -> None:
    """The message says what it is, and where."""
    with pytest.raises(InvalidMetadataError) as caught:
        encode({"history": [{"a.b": value}]})
    assert caught.value.key == "history[0]['a.b']"
    assert "history[0]['a.b']" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", [1, None, ("a",), b"x", 1.5])
def test_keys_are_strings(key: Any) -> None:
    """A key that JSON would turn into a string is refused, and named with its place."""
    with pytest.raises(InvalidMetadataError, match="outer") as caught:
        encode({"outer": {key: 1}})
    assert repr(key) in str(caught.value)


def test_endless_metadata_is_refused() -> None:
    """Metadata that holds itself ends in a message, not in a crash."""
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    with pytest.raises(InvalidMetadataError, match="self.self.self is nested more than 100 levels deep") as caught:
        encode(metadata)
    assert caught.value.key == "self.self.self"


@pytest.mark.parametrize("value", ["text", 3, [1], object(), ModelMetadata])
def test_only_mappings_of_fields(value: Any) -> None:
    """What is not a dict or a model of fields is refused."""
    with pytest.raises(InvalidMetadataError, match="a dict, a ModelMetadata, a dataclass or a pydantic model"):
        encode(value)


class PydanticMetadata(pydantic.BaseModel):
    author: str
    train_end: int
    training_date: datetime
    outcome: str | None = None


@dataclasses.dataclass
class OwnMetadata:
    author: str
    notes: dict[str, int]


@dataclasses.dataclass
class OtherMetadata:
    note: str | None


@pytest.mark.parametrize(
    "metadata",
    [
        PydanticMetadata(author="testuser", train_end=480, training_date=datetime(2026, 11, 23, 8)),
        OwnMetadata(author="testuser", notes={"seed": 1}),
        ModelMetadata(author="testuser", steps=[1, 2, 3]),
        {"author": "testuser", "training_date": datetime(2026, 11, 23, 8)},
    ],
)
def test_equal_to_what_it_came_from(metadata: Any) -> None:
    """A script may compare what it stored with what it fetches, in either order."""
    back = round_trip(metadata)
    assert metadata == back
    assert back == metadata
    assert not back != metadata
    back["author"] = "another"
    assert metadata != back


def test_fields_as_attributes() -> None:
    """A known field that was not given is None, an unknown one an AttributeError that says what there is."""
    back = round_trip({"author": "testuser", "seed": 1})
    assert (back.author, back.seed, back.training_date) == ("testuser", 1, None)
    with pytest.raises(AttributeError, match="no 'sede'; it has author, seed"):
        back.sede


def test_none_in_a_model_of_fields_is_not_given() -> None:
    """Of ModelMetadata only the fields that were given are stored; of other models, all."""
    assert encode(ModelMetadata(author="testuser")) == ('{"author": "testuser"}', None)
    assert round_trip(OtherMetadata(note=None)) == {"note": None}


def test_no_metadata_is_no_text() -> None:
    """None is encoded as NULL in both columns, and NULL is decoded as metadata without fields."""
    assert encode(None) == (None, None)
    assert decode(None, None) == {}


@pytest.mark.parametrize(
    "paths",
    [
        '[["gone"]]',
        '[["list", 7]]',
        '[["list", "key"]]',
        '[["author"]]',
        '[["deep", "er"]]',
        "[[]]",
        "[3]",
        "3",
        "[null]",
    ],
)
def test_an_entry_that_no_longer_fits_is_ignored(paths: str) -> None:
    """Another program may have changed the metadata and left the list of datetimes."""
    text = '{"author": "testuser", "list": [1], "deep": 1}'
    assert decode(text, paths) == {"author": "testuser", "list": [1], "deep": 1}


@pytest.mark.parametrize("text", ["[1]", '"x"', "3", "null", "not json"])
def test_metadata_of_another_program(text: str) -> None:
    """What is not a JSON object is said to be so."""
    with pytest.raises(InvalidMetadataError, match="the metadata is"):
        decode(text, None)


@pytest.mark.parametrize(
    "wanted, answer",
    [
        ({"author": "testuser"}, True),
        ({"author": "testuser", "training_date": datetime(1999, 1, 1)}, True),
        ({"train_end": True}, False),
        ({"train_end": 492}, False),
        ({"run_id": "2026-11"}, False),
        ({}, True),
    ],
)
def test_equivalent(wanted: Any, answer: bool) -> None:
    """Every field that is wanted counts, but not the training date, nor what was annotated later."""
    stored = Metadata(author="testuser", train_end=480, training_date=datetime(2026, 11, 23), note="later")
    assert is_equivalent(stored, wanted) is answer
    assert not is_equivalent(None, wanted)


@given(st.integers(1, 5000))
def test_months_have_names(month: int) -> None:
    """A views month is the number of months since December 1979."""
    parsed = datetime.strptime(month_name(month), "%b %Y")
    assert (parsed.year - 1980) * 12 + parsed.month == month


@dataclasses.dataclass(kw_only=True, slots=True)
class SlottedMetadata(ModelMetadata):
    extra: int = 7


class Key(str, enum.Enum):
    WHEN = "when"


class SameText(str):
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclasses.dataclass
class Nested:
    inner: OwnMetadata


def test_a_subclass_with_slots_keeps_its_fields() -> None:
    """Where the fields are kept does not matter."""
    assert round_trip(SlottedMetadata(author="testuser")) == {"author": "testuser", "extra": 7}


def test_dataclasses_in_dataclasses() -> None:
    """They come back as dicts, and compare equal."""
    metadata = Nested(OwnMetadata("testuser", {"seed": 1}))
    assert round_trip(metadata) == {"inner": {"author": "testuser", "notes": {"seed": 1}}}
    assert metadata == round_trip(metadata)


@pytest.mark.parametrize(
    "value, advice",
    [
        (OwnMetadata("testuser", {}), "dataclasses.asdict"),
        (ModelMetadata(author="testuser"), "dataclasses.asdict"),
        (PydanticMetadata(author="x", train_end=480, training_date=datetime(2026, 11, 23)), "model_dump"),
    ],
)
def test_models_in_dicts(value: Any, advice: str) -> None:
    """A dict with a model inside would come back as another: it is refused, with its key and the way out."""
    for metadata, key in (({"run": value}, "run"), ({"runs": [{"of": [value]}]}, "runs[0].of[0]")):
        with pytest.raises(InvalidMetadataError, match="would come back as a dict") as caught:
            encode(metadata)
        assert caught.value.key == key and advice in caught.value.advice
    assert round_trip({"run": dict(round_trip(value))}) == {"run": round_trip(value)}
    assert round_trip(Nested(value)) == Nested(value)


@pytest.mark.parametrize(
    "metadata, key", [({"a\0b": 1}, ""), ({"a": {"b": "x\0"}}, "a.b"), ({"a": [{"\0": 1}]}, "a[0]")]
)
def test_nul(metadata: dict[str, Any], key: str) -> None:
    """Some versions of SQLite would find only what comes before it, and some nothing."""
    with pytest.raises(InvalidMetadataError, match="contains a NUL character") as caught:
        encode(metadata)
    assert caught.value.key == key


def test_keys_that_are_more_than_texts() -> None:
    """An enum's member is the text that it is; two keys of the same text are refused."""
    assert round_trip({Key.WHEN: datetime(2026, 1, 2)}) == {"when": datetime(2026, 1, 2)}
    with pytest.raises(InvalidMetadataError, match="metadata field outer has duplicate keys"):
        encode({"outer": {SameText("a"): 1, "a": 2}})


def test_metadata_that_breaks_on_the_way() -> None:
    """What code of the metadata's own raises is said, with its type."""

    class Broken(pydantic.BaseModel):
        author: str = "testuser"

        @pydantic.model_serializer
        def serialise(self) -> dict[str, str]:
            raise RuntimeError("not today")

    endless = Nested(OwnMetadata("testuser", {}))
    endless.inner = endless  # type: ignore[assignment]
    said = "the metadata is a .*Broken and cannot be converted to a dict: .*not today"
    with pytest.raises(InvalidMetadataError, match=said):
        encode(Broken())
    with pytest.raises(InvalidMetadataError, match="metadata field inner is a .*Broken"):
        encode({"inner": Broken()})
    with pytest.raises(InvalidMetadataError, match="more than 100 levels deep"):
        encode(endless)
    assert Metadata(author="testuser") != Broken()


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("author", 7, "author must be a string, not 7"),
        ("run_id", ["2026-11"], "run_id must be a string"),
        ("train_end", "480", "train_end must be a views month .*, not '480'"),
        ("train_start", 1.5, "train_start must be a views month"),
        ("train_end", True, "train_end must be a views month .*, not True"),
        ("training_date", "yesterday", "training_date must be a datetime, a date, or an ISO 8601 string"),
        ("training_date", 20261123, "training_date must be"),
        ("training_date", "20261123", "training_date must be"),
        ("training_date", "2026-W48-1", "training_date must be"),
        ("steps", 3, "steps must be a list of integers"),
        ("steps", [1, "2"], "steps must be a list of integers"),
        ("steps", [True], "steps must be a list of integers"),
    ],
)
def test_known_fields_have_types(field: str, value: Any, said: str) -> None:
    """The message names the field, what was expected and what was given."""
    with pytest.raises(InvalidMetadataError, match=said) as caught:
        check(Metadata({field: value}))
    assert caught.value.key == field


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {field: None for field in KNOWN_FIELDS},
        {"author": "", "train_start": 121, "train_end": 121, "steps": []},
        {"training_date": "2026-11-23"},
        {"training_date": "2026-11-23T08:00:00+01:00"},
        {"training_date": date(2026, 11, 23)},
        {"size": "anything", "nested": {"train_end": "x"}},
    ],
)
def test_what_known_fields_may_be(metadata: dict[str, Any]) -> None:
    """None counts as not given; other fields are anything."""
    check(Metadata(metadata))


def test_training_data_does_not_end_before_it_starts() -> None:
    """The message names both months."""
    with pytest.raises(
        InvalidMetadataError, match=r"train_start, 481 \(Jan 2020\), is after train_end, 480 \(Dec 2019\)"
    ):
        check(Metadata(train_start=481, train_end=480))


def test_differences() -> None:
    """Known fields first; a field that is lacking is None; true is not 1."""
    old = {"seed": 1, "train_end": 480, "author": "me", "flag": True}
    new = {"note": "x", "train_end": 492, "author": "me", "flag": 1, "seed": 1}
    assert differences(old, new) == [("train_end", 480, 492), ("flag", True, 1), ("note", None, "x")]
    assert differences(None, {"a": 1}) == [("a", None, 1)]
    assert differences({"a": 1}, {"a": 1}, everything=True) == [("a", 1, 1)]


def test_known_fields() -> None:
    """One table says what each field holds, what it means, and how the command line and a list show it."""
    assert {field.name: (field.kind, field.option, field.column) for field in KNOWN_FIELDS.values()} == {
        "author": (TEXT, "--author", "author"),
        "run_id": (TEXT, "--run-id", "run"),
        "queryset_name": (TEXT, "--queryset", None),
        "level_of_analysis": (TEXT, "--loa", "level of analysis"),
        "outcome": (TEXT, "--outcome", "outcome"),
        "train_start": (MONTH, "--train-start", "training period"),
        "train_end": (MONTH, "--train-end", "training period"),
        "training_date": (TIME, "--training-date", "trained"),
        "steps": (MONTHS, "--step", None),
    }
    assert list(KNOWN_FIELDS) == [field.name for field in dataclasses.fields(ModelMetadata)]


def test_help_explains_known_fields() -> None:
    """`help(ModelMetadata)` says what each field means and holds."""
    shown = pydoc.plain(pydoc.render_doc(ModelMetadata))
    for field in KNOWN_FIELDS.values():
        assert f"{field.name}: {field.help}; {field.kind.expected}." in shown
