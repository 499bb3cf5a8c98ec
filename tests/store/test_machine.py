"""The whole library against a dictionary: any operations in any order do what they say, and leave nothing behind."""

import hashlib
import io
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support import history
from tests.support.budgets import budget
from tests.support.stores import NOTHING, leftovers
from views_runs import (
    DownloadError,
    InvalidMetadataError,
    InvalidNameError,
    MetadataExistsError,
    MetadataNotFoundError,
    ModelExistsError,
    ModelMetadata,
    ModelNotFoundError,
    ModelPickleError,
    ModelRecord,
    Storage,
)


@dataclass
class Tuned:
    """Metadata as a dataclass: every field is kept, None too."""

    author: str
    tuned: dict[str, int] = field(default_factory=dict)
    note: str | None = None


class Run(pydantic.BaseModel):
    """Metadata as a pydantic model."""

    author: str
    training_date: datetime
    steps: list[int] = []


@dataclass
class Row:
    """What the dictionary knows of one version."""

    name: str
    version: int
    token: str
    length: int
    metadata: dict[str, Any] | None
    record: ModelRecord

    @property
    def model(self) -> dict[str, Any]:
        return history.make(self.token, self.length)

    def get(self, key: str) -> Any:
        """Return a metadata field; None when it is lacking."""
        return (self.metadata or {}).get(key)


NAMES = st.sampled_from(["forest", "Wald ü", "x*["])
VERSIONS = st.none() | st.integers(1, 3)
LENGTHS = st.sampled_from([0, 10, 70_000, 10, 1000, 1_048_000, 2_600_000])

MONTHS = st.integers(478, 482)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "author": st.sampled_from(["ines", "jon", "'; DROP TABLE models"]),
    "train_start": MONTHS,
    "train_end": MONTHS,
    "training_date": st.sampled_from([date(2026, 11, 23), datetime(2026, 11, 23, 8, 0, 0, 123), "2026-11-23"]),
    "steps": st.lists(st.integers(1, 36), max_size=3),
    "note": st.none() | st.sampled_from(["", "draft", True, 1, 0.5, "1", datetime(2026, 1, 1, tzinfo=UTC)]),
    "a.b": st.lists(st.dictionaries(st.text("ab", max_size=2), st.booleans() | TEXTS, max_size=2)),
}


def fields(min_size: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields with values that metadata may have."""
    chosen = st.lists(st.sampled_from(sorted(FIELDS)), unique=True, min_size=min_size, max_size=4)
    return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: FIELDS[key] for key in keys}))


#: Metadata as it is given, and as a dict.
GIVEN: st.SearchStrategy[tuple[Any, dict[str, Any] | None]] = st.one_of(
    fields().map(lambda one: (one, one)),
    st.just((None, None)),
    st.builds(ModelMetadata, author=FIELDS["author"], train_end=MONTHS).map(
        lambda one: (one, {"author": one.author, "train_end": one.train_end})
    ),
    st.builds(Tuned, author=FIELDS["author"], tuned=st.just({"depth": 3})).map(
        lambda one: (one, {"author": one.author, "tuned": {"depth": 3}, "note": None})
    ),
    st.builds(Run, author=FIELDS["author"], training_date=st.just(datetime(2026, 11, 23, 8))).map(
        lambda one: (one, one.model_dump())
    ),
)

REFUSED_METADATA: list[Any] = [
    {"note": float("nan")},
    {"note": {1, 2}},
    {1: "x"},
    {"train_end": "480"},
    {"author": 7},
    ["author"],
]
REFUSED_NAMES: list[Any] = ["", "a:1", "x" * 256, "a\nb", 7]

#: Conditions in words, and what they mean.
CONDITIONS: list[tuple[str, Callable[[Row], bool]]] = [
    ("author = ines", lambda row: row.get("author") == "ines"),
    ("author != ines", lambda row: row.get("author") not in (None, "ines")),
    ("train_end >= 2019-12", lambda row: (row.get("train_end") or 0) >= 480),
    ("train_start < 480", lambda row: (row.get("train_start") or 999) < 480),
    ("note", lambda row: row.get("note") is not None),
    ("!note", lambda row: row.get("note") is None),
    ("tuned.depth > 2", lambda row: (row.get("tuned") or {}).get("depth", 0) > 2),
    ('"a.b"', lambda row: row.get("a.b") is not None),
    ("author ~ *o*", lambda row: "o" in (row.get("author") or "")),
    ("size > 1MB", lambda row: row.record.size > 1_000_000),
    ("version > 1", lambda row: row.version > 1),
    ("name = forest", lambda row: row.name == "forest"),
    ("type ~ *dict", lambda row: True),
    ("training_date >= 2026-11-23", lambda row: row.get("training_date") is not None),
]

GLOBS: list[tuple[str, Callable[[str], bool]]] = [
    ("forest*", lambda name: name.startswith("forest")),
    ("F*", lambda name: False),
    ("Wald ?", lambda name: name == "Wald ü"),
    ("x[*][[]", lambda name: name == "x*["),
]

SORTS: list[tuple[str, Callable[[Row], Any], bool]] = [
    ("size", lambda row: row.record.size, False),
    ("-train_end", lambda row: row.get("train_end"), True),
    ("author", lambda row: row.get("author"), False),
]


class Machine(RuleBasedStateMachine):
    """A store, and the dictionary that it should be."""

    def __init__(self) -> None:
        super().__init__()
        # Where pytest's own temporary folders are.
        self.folder = tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
        self.store = Storage(Path(self.folder.name, "models.db"))
        self.is_made = False
        #: All versions, the last stored first.
        self.rows: list[Row] = []
        self.ever: dict[str, int] = {}
        self.required: list[str] = []
        self.tokens = 0

    def teardown(self) -> None:
        with self.folder:
            for row in self.rows:
                assert self.store.fetch(row.name, row.version) == row.model

    # What is expected

    def versions(self, name: str) -> list[Row]:
        return sorted((row for row in self.rows if row.name == name), key=lambda row: -row.version)

    def row(self, name: str, version: int | None) -> Row | None:
        return next((row for row in self.versions(name) if version in (None, row.version)), None)

    def is_current(self, row: Row) -> bool:
        return self.row(row.name, None) is row

    def refuses(self, metadata: dict[str, Any] | None) -> bool:
        """Whether the dates are the wrong way round, or a required field is lacking."""
        start, end = ((metadata or {}).get(key) for key in ("train_start", "train_end"))
        is_wrong = start is not None and end is not None and start > end
        return is_wrong or any((metadata or {}).get(key) is None for key in self.required)

    def equivalent(self, row: Row | None, wanted: dict[str, Any]) -> bool:
        if row is None or row.metadata is None:
            return False
        compared = {key: value for key, value in wanted.items() if key != "training_date"}
        return all(exactly(row.get(key)) == exactly(value) for key, value in compared.items())

    def attempt(self, errors: list[tuple[object, type[Exception]]], action: Callable[[], Any]) -> Any:
        """Return what the action does, or None when it has to fail: with the error of the first that is true."""
        expected = next((kind for applies, kind in errors if applies), None)
        if expected is None:
            return action()
        with pytest.raises(expected) as caught:
            action()
        assert caught.type is expected, caught.value
        return None

    def look(self, row: Row | None, action: Callable[[], Any]) -> Any:
        """Do what needs a model to be there."""
        return self.attempt([(row is None, ModelNotFoundError)], action)

    def check(self, record: ModelRecord, row: Row) -> None:
        assert (record.name, record.version, record.current) == (row.name, row.version, self.is_current(row))
        assert exactly(record.metadata) == exactly(row.metadata)
        assert (record.size, record.sha256) == (row.record.size, row.record.sha256)
        assert record.type == "builtins.dict"

    def stored(self, name: str, token: str, length: int, metadata: dict[str, Any] | None, record: ModelRecord) -> None:
        self.ever[name] = self.ever.get(name, 0) + 1
        row = Row(name, self.ever[name], token, length, metadata, record)
        self.rows.insert(0, row)
        self.check(record, row)

    def token(self) -> str:
        self.tokens += 1
        return str(self.tokens)

    # Storing

    @initialize(make=st.booleans(), several=st.lists(st.tuples(NAMES, LENGTHS, GIVEN), max_size=8))
    def begin(self, make: bool, several: list[tuple[str, int, Any]]) -> None:
        if make:
            self.store.require()
            self.is_made = True
        for name, length, given in several:
            self.put_one(name, length, given, True)

    @rule(name=NAMES, length=LENGTHS, given=GIVEN, overwrite=st.booleans())
    def put(self, name: str, length: int, given: tuple[Any, dict[str, Any] | None], overwrite: bool) -> None:
        self.put_one(name, length, given, overwrite)

    @rule(name=NAMES, length=LENGTHS, given=GIVEN)
    def overwrite(self, name: str, length: int, given: tuple[Any, dict[str, Any] | None]) -> None:
        self.put_one(name, length, given, True)

    def put_one(self, name: str, length: int, given: tuple[Any, dict[str, Any] | None], overwrite: bool) -> None:
        metadata, expected = given
        token = self.token()
        model = history.make(token, length)
        is_there = self.row(name, None) is not None and not overwrite
        record = self.attempt(
            [(self.refuses(expected), InvalidMetadataError), (is_there, ModelExistsError)],
            lambda: self.store.store(name, model, metadata, overwrite),
        )
        if record:
            self.is_made = True
            self.stored(name, token, length, expected, record)

    @rule(name=NAMES, wrong=st.sampled_from(REFUSED_NAMES), metadata=st.sampled_from(REFUSED_METADATA), length=LENGTHS)
    def put_what_is_refused(self, name: str, wrong: Any, metadata: Any, length: int) -> None:
        self.attempt([(True, InvalidMetadataError)], lambda: self.store.store(name, 1, metadata, overwrite=True))
        self.attempt([(True, InvalidNameError)], lambda: self.store.store(wrong, 1))
        model = [history.make("", length), lambda: None]
        needed: Any = {key: 500 if key == "train_end" else "x" for key in self.required}
        self.attempt([(True, ModelPickleError)], lambda: self.store.store(name, model, needed, overwrite=True))

    @rule(name=NAMES, length=LENGTHS, metadata=st.none() | fields(), retrain=st.booleans())
    def fetch_or_train(self, name: str, length: int, metadata: dict[str, Any] | None, retrain: bool) -> None:
        row, token, trained = self.row(name, None), self.token(), []

        def train() -> Any:
            trained.append(token)
            return history.make(token, length)

        wanted = metadata or {}
        start, end = wanted.get("train_start", 0), wanted.get("train_end", 999)
        is_enough = self.equivalent(row, wanted) and not retrain
        model = self.attempt(
            [(start > end or not is_enough and self.refuses(wanted), InvalidMetadataError)],
            lambda: self.store.fetch_or_train(name, train, metadata, retrain),
        )
        if start <= end:
            self.is_made = True
        if model is None:
            assert not trained
        elif is_enough:
            assert row and model == row.model and not trained
        else:
            assert trained and model == history.make(token, length)
            self.stored(name, token, length, wanted, self.store.inspect(name))

    # Looking at one

    @rule(name=NAMES, version=VERSIONS, as_text=st.booleans())
    def fetch(self, name: str, version: int | None, as_text: bool) -> None:
        row = self.row(name, version)
        model = self.look(row, lambda: self.store.fetch(*spelled(name, version, as_text)))
        assert row is None or model == row.model

    @rule(name=NAMES, version=VERSIONS, as_text=st.booleans())
    def inspect(self, name: str, version: int | None, as_text: bool) -> None:
        row = self.row(name, version)
        record = self.look(row, lambda: self.store.inspect(*spelled(name, version, as_text)))
        if row:
            self.check(record, row)
            assert (record.stored_at, record.stored_by) == (row.record.stored_at, row.record.stored_by)

    @rule(name=NAMES, version=VERSIONS)
    def look_at_versions(self, name: str, version: int | None) -> None:
        rows = [row for row in self.versions(name) if version in (None, row.version)]
        reference = name if version is None else f"{name}:{version}"
        records = self.look(rows[0] if rows else None, lambda: self.store.versions(reference))
        for record, row in zip(records or [], rows, strict=True):
            self.check(record, row)

    @rule(name=NAMES, version=VERSIONS)
    def exists(self, name: str, version: int | None) -> None:
        row = self.row(name, version)
        reference = name if version is None else f"{name}:{version}"
        assert self.store.exists(reference) == (row is not None)
        assert self.store.has_metadata(reference) == (row is not None and row.metadata is not None)

    @rule(name=NAMES, wanted=fields())
    def exists_with_metadata(self, name: str, wanted: dict[str, Any]) -> None:
        if wanted.get("train_start", 0) > wanted.get("train_end", 999):
            return
        row = self.row(name, None)
        assert self.store.exists_with_metadata(name, wanted) == self.equivalent(row, wanted)
        if row and row.metadata is not None:
            assert self.store.exists_with_metadata(name, {**row.metadata, "training_date": None})

    @rule(name=NAMES, version=VERSIONS, as_text=st.booleans())
    def fetch_metadata(self, name: str, version: int | None, as_text: bool) -> None:
        row = self.row(name, version)
        metadata = self.attempt(
            [
                (row is None, ModelNotFoundError),
                (row and row.metadata is None, MetadataNotFoundError),
            ],
            lambda: self.store.fetch_metadata(*spelled(name, version, as_text)),
        )
        if row and row.metadata is not None:
            assert exactly(metadata) == exactly(row.metadata)
            assert metadata.author == row.metadata.get("author")

    @rule(name=NAMES, version=VERSIONS, to_file=st.booleans(), overwrite=st.booleans())
    def download(self, name: str, version: int | None, to_file: bool, overwrite: bool) -> None:
        row = self.row(name, version)
        file = Path(self.folder.name, "downloaded")
        if to_file:
            self.attempt(
                [
                    (file.exists() and not overwrite, DownloadError),
                    (row is None, ModelNotFoundError),
                ],
                lambda: self.store.download(name, file, overwrite, version),
            )
            if row is None or not file.exists() or not overwrite:
                return
            data = file.read_bytes()
        else:
            stream = io.BytesIO()
            record = self.look(row, lambda: self.store.write_pickle(name, stream, version))
            if row is None:
                return
            self.check(record, row)
            data = stream.getvalue()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row.record.size, row.record.sha256)
        assert pickle.loads(data) == row.model

    @rule(name=NAMES, version=VERSIONS, other=st.none() | NAMES)
    def diff(self, name: str, version: int | None, other: str | None) -> None:
        row = self.row(name, version)
        before = [one for one in self.versions(name) if row and one.version < row.version]
        second = self.row(other, None) if other else next(iter(before), None)
        reference = name if version is None else f"{name}:{version}"
        records = self.look(row and second, lambda: self.store.diff(reference, other))
        if records and row and second:
            for record, expected in zip(records, (row, second) if other else (second, row)):
                self.check(record, expected)

    # Finding

    @precondition(lambda self: self.is_made)
    @rule(
        conditions=st.lists(st.sampled_from(CONDITIONS), max_size=3),
        glob=st.none() | st.sampled_from(GLOBS),
        authors=st.none() | st.lists(FIELDS["author"], min_size=1, max_size=2),
        all_versions=st.booleans(),
        sort=st.none() | st.sampled_from(SORTS),
        limit=st.none() | st.integers(0, 4),
    )
    def find(self, conditions: Any, glob: Any, authors: Any, all_versions: bool, sort: Any, limit: Any) -> None:
        rows = [row for row in self.rows if all(holds(row) for _, holds in conditions)]
        rows = [row for row in rows if all_versions or self.is_current(row)]
        rows = [
            row for row in rows if (not glob or glob[1](row.name)) and (not authors or row.get("author") in authors)
        ]
        if sort:
            _, key, descends = sort
            there = [row for row in rows if key(row) is not None]
            lacking = [row for row in rows if key(row) is None]
            rows = sorted(there, key=lambda row: -key(row) if descends else key(row)) + lacking
        options: dict[str, Any] = {"author": authors} if authors else {}
        options |= {"name": glob and glob[0], "all_versions": all_versions, "sort": sort and sort[0], "limit": limit}
        found = self.store.find(*(text for text, _ in conditions), **options)
        for record, row in zip(found, rows[:limit], strict=True):
            self.check(record, row)

    # Changing

    @rule(name=NAMES, version=VERSIONS, given=GIVEN, overwrite=st.booleans(), as_text=st.booleans())
    def store_metadata(
        self, name: str, version: int | None, given: tuple[Any, Any], overwrite: bool, as_text: bool
    ) -> None:
        metadata, expected = given
        row = self.row(name, version)
        start, end = ((expected or {}).get(key) for key in ("train_start", "train_end"))
        record = self.attempt(
            [
                (start is not None and end is not None and start > end, InvalidMetadataError),
                (row is None, ModelNotFoundError),
                (row and row.metadata is not None and not overwrite, MetadataExistsError),
                (self.refuses(expected), InvalidMetadataError),
            ],
            lambda: self.store.store_metadata(
                f"{name}:{version}" if as_text and version is not None else name,
                metadata,
                overwrite,
                None if as_text else version,
            ),
        )
        if record and row:
            row.metadata = expected
            self.check(record, row)

    @rule(name=NAMES, version=VERSIONS, given=fields(), unset=st.sets(st.sampled_from(sorted(FIELDS)), max_size=1))
    def annotate(self, name: str, version: int | None, given: dict[str, Any], unset: set[str]) -> None:
        row = self.row(name, version)
        before = (row and row.metadata) or {}
        after = {key: value for key, value in before.items() if key not in unset} | given
        is_wrong = given.get("train_start", 0) > given.get("train_end", 999)
        record = self.attempt(
            [
                (is_wrong, InvalidMetadataError),
                (row is None, ModelNotFoundError),
                (not unset <= before.keys() or self.refuses(after), InvalidMetadataError),
            ],
            lambda: self.store.annotate(name, version, unset, **given),
        )
        if record and row:
            row.metadata = after
            self.check(record, row)

    @rule(required=st.sets(st.sampled_from(["author", "train_end", "note"]), max_size=2))
    def require(self, required: set[str]) -> None:
        self.store.require(*required)
        self.is_made = True
        self.required = sorted(required)
        assert self.store.required() == self.required
        lacking = [row for row in self.rows if any(row.get(key) is None for key in self.required)]
        for record, row in zip(self.store.incomplete(), lacking, strict=True):
            self.check(record, row)

    @rule(name=NAMES, version=VERSIONS, as_text=st.booleans())
    def delete(self, name: str, version: int | None, as_text: bool) -> None:
        row = self.row(name, version)
        left = self.look(row, lambda: self.store.delete(*spelled(name, version, as_text)))
        if row is None:
            return
        self.rows = [one for one in self.rows if one.name != name or version not in (None, one.version)]
        current = self.row(name, None)
        assert (left is None) == (current is None)
        if current:
            self.check(left, current)

    # What always holds

    @invariant()
    def the_store_is_the_dictionary(self) -> None:
        assert self.store.path.exists() == self.store.exists_file() == self.is_made
        for record, row in zip(self.store.find(all_versions=True), self.rows, strict=True):
            self.check(record, row)
        assert self.store.list() == [row.name for row in self.rows if self.is_current(row)]
        assert not self.is_made or leftovers(self.store) == NOTHING


def spelled(name: str, version: int | None, as_text: bool) -> tuple[Any, ...]:
    """Name a version in one of the two ways."""
    return (f"{name}:{version}",) if as_text and version is not None else (name, version)


def exactly(value: Any) -> str:
    """Return what tells values apart that Python takes for equal, as True and 1."""
    return repr(dict(value) if isinstance(value, dict) else value)


TestMachine = pytest.mark.abridged(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=budget(40), stateful_step_count=budget(40, 20), deadline=None, print_blob=True
)
