"""Storing, fetching, listing, versions, metadata and deleting, by name."""

import concurrent.futures
import enum
import hashlib
import os
import pickle
import sqlite3
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import views_runs
from tests.support.budgets import budget
from tests.support.stores import NOTHING, leftovers, store_some
from views_runs import (
    InvalidMetadataError,
    InvalidNameError,
    MetadataExistsError,
    MetadataNotFoundError,
    ModelExistsError,
    ModelMetadata,
    ModelNotFoundError,
    Storage,
    StorageError,
    StoreNotFoundError,
)
from views_runs import storage as storage_module
from views_runs.database import models

METADATA = {"author": "testuser", "training_date": datetime(2026, 11, 23, 8, 0, 0, 123)}


def test_the_script_of_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is stored in the default store is listed and comes back, with its metadata."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = storage_module.Storage()
    store.store("my-model", {"weights": [1.0, 2.0]}, METADATA)
    assert store.fetch("my-model") == {"weights": [1.0, 2.0]}
    assert store.list() == ["my-model"]
    assert store.fetch_metadata("my-model") == METADATA


def test_a_record_tells_all(store: Storage) -> None:
    """The record that `store` returns is the one that `inspect` and `find` return later."""
    before = datetime.now(UTC)
    record = store.store("my-model", [1, 2], METADATA)
    data = pickle.dumps([1, 2], 5)
    assert (record.name, record.version, record.current) == ("my-model", 1, True)
    assert before <= record.stored_at <= datetime.now(UTC)
    assert record.stored_at.utcoffset() == timedelta(0)
    assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (record.type, record.metadata, record.protocol) == ("builtins.list", METADATA, 5)
    assert record.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert record.stored_by.count("@") == 1
    assert store.inspect("my-model") == record
    assert store.find() == [record]
    assert record.as_json()["metadata"] == {"author": "testuser", "training_date": "2026-11-23T08:00:00.000123"}


def test_newest_first(store: Storage) -> None:
    """What was stored last is listed first, also when it is a new version of an old name."""
    for name in ("a", "b", "c"):
        store.store(name, name)
    store.store("a", "again", overwrite=True)
    assert store.list() == ["a", "c", "b"]
    assert store.list(all_versions=True) == ["a:2", "c:1", "b:1", "a:1"]
    assert store.list(name="[bc]") == ["c", "b"]
    assert [record.current for record in store.find(all_versions=True)] == [True, True, True, False]


def test_a_name_is_taken(store: Storage) -> None:
    """A second store of a name is refused, before anything is pickled; the first stays."""

    class Untouched:
        def __reduce__(self) -> Any:
            pytest.fail("this was pickled")

    store.store("my-model", 1)
    with pytest.raises(ModelExistsError, match="overwrite=True") as caught:
        store.store("my-model", Untouched())
    assert isinstance(caught.value, FileExistsError)
    assert str(store.path) in str(caught.value) and "'my-model'" in str(caught.value)
    assert store.fetch("my-model") == 1


def test_overwriting_adds_a_version(store: Storage) -> None:
    """The version before stays, until it is deleted; each has its metadata."""
    store.store("m", "one", {"train_end": 480})
    second = store.store("m", "two", {"train_end": 492}, overwrite=True)
    assert (second.version, second.current) == (2, True)
    assert (store.fetch("m"), store.fetch("m:1"), store.fetch("m", 1), store.fetch("m:2", 2)) == (
        "two",
        "one",
        "one",
        "two",
    )
    assert store.fetch_metadata("m:1") == {"train_end": 480}
    assert [record.version for record in store.versions("m")] == [2, 1]
    assert not store.inspect("m:1").current
    with pytest.raises(ModelNotFoundError, match="no version 3; its versions are 2, 1"):
        store.fetch("m:3")
    with pytest.raises(InvalidNameError, match="give different versions"):
        store.fetch("m:1", version=2)


def test_a_version_number_is_never_given_again(store: Storage) -> None:
    """Whoever wrote down m:2 does not get another model for it."""
    for overwrite in (False, True):
        store.store("m", "x", overwrite=overwrite)
    current = store.delete("m:2")
    assert current == store.inspect("m") and current.version == 1
    assert store.store("m", "y", overwrite=True).version == 3
    assert store.delete("m") is None
    assert store.store("m", "z").version == 4
    with pytest.raises(ModelNotFoundError, match="its only version is 4"):
        store.fetch("m:3")


def test_a_missing_name_is_a_key_error_without_quotes(store: Storage) -> None:
    """The message names the file and the nearest names there are."""
    store.store("fatalities_sb_forest", 1)
    store.store("other", 1)
    with pytest.raises(ModelNotFoundError) as caught:
        store.fetch("Fatalities_sb_forst")
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == (
        f"cannot fetch 'Fatalities_sb_forst': {store.path}: there is no model 'Fatalities_sb_forst'. "
        "Did you mean 'fatalities_sb_forest'?"
    )
    for missing in (store.inspect, store.delete, store.versions, store.fetch_metadata, store.download):
        with pytest.raises(ModelNotFoundError, match="views-runs model list"):
            missing("quite different")


def test_versions_beyond_any(store: Storage) -> None:
    """A version that no file can hold is one that is not there."""
    store.store("m", 1)
    for name in ("m:0", "m:99999999999999999999999", "m:18446744073709551617"):
        with pytest.raises(ModelNotFoundError, match="its only version is 1"):
            store.fetch(name)
    with pytest.raises(ModelNotFoundError):
        store.fetch("m", version=1 << 70)
    with pytest.raises(InvalidNameError, match="must be an integer"):
        store.fetch("m", version="one")  # type: ignore[arg-type]


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="@")
NAMES = st.text(CHARACTERS, min_size=1, max_size=255).filter(
    lambda name: not (name.rpartition(":")[1] and name.rpartition(":")[2].isdecimal())
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=budget(50), deadline=None)
@given(NAMES)
def test_names_come_back(store: Storage, name: str) -> None:
    """A model is found under its name and no other."""
    version = store.store(name, name, overwrite=True).version
    assert store.list()[0] == name
    assert store.fetch(name) == store.fetch(f"{name}:{version}") == name


@pytest.mark.parametrize(
    "name, said",
    [
        ("", "it is empty"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("a\u2028b", "control character"),
        ("a\ud800", "not valid Unicode"),
        ("x" * 256, "it has 256 characters"),
        ("m:1", "refers to a version"),
        ("m:007", "refers to a version"),
        (":1", "refers to a version"),
        (7, "must be a string"),
        (None, "must be a string"),
    ],
)
def test_impossible_names(store: Storage, name: Any, said: str) -> None:
    """The message says what is wrong with the name, and no file is made for it."""
    with pytest.raises(InvalidNameError, match=said) as caught:
        store.store(name, 1)
    assert isinstance(caught.value, ValueError)
    assert not store.path.exists()


def test_impossible_metadata(store: Storage) -> None:
    """The message names the model and the key, and neither model nor metadata is there."""
    said = "cannot store 'm': .*: metadata field seeds is of type tuple"
    with pytest.raises(InvalidMetadataError, match=said) as caught:
        store.store("m", 1, {"seeds": (1, 2)})
    assert caught.value.key == "seeds"
    assert not store.path.exists()


def test_exists(store: Storage) -> None:
    """A model or a version of it is there, or not."""
    store.store("m", 1, {"author": "testuser"})
    assert store.exists("m") and store.exists("m:1")
    assert not store.exists("m:2") and not store.exists("n")
    assert store.has_metadata("m") and not store.has_metadata("n")


def test_exists_with_metadata(store: Storage) -> None:
    """The current version decides; a missing model, and one without metadata, are not there."""
    store.store("m", 1, {"author": "testuser", "train_end": 480})
    store.store("bare", 1)
    assert store.exists_with_metadata("m", ModelMetadata(train_end=480, training_date=datetime.now()))
    assert not store.exists_with_metadata("m", {"train_end": 492})
    assert not store.exists_with_metadata("missing", {})
    assert not store.exists_with_metadata("bare", {})
    store.store("m", 1, {"train_end": 492}, overwrite=True)
    assert not store.exists_with_metadata("m", {"train_end": 480})


def test_metadata_afterwards(store: Storage) -> None:
    """Metadata is given to a model that has none, and replaced only on demand."""
    store.store("m", [1])
    with pytest.raises(MetadataNotFoundError, match="without metadata") as missing:
        store.fetch_metadata("m")
    assert isinstance(missing.value, KeyError)
    before = store.inspect("m")
    after = store.store_metadata("m", METADATA)
    assert after.metadata == store.fetch_metadata("m") == METADATA
    assert (after.stored_at, after.sha256, after.version) == (before.stored_at, before.sha256, 1)
    with pytest.raises(MetadataExistsError, match="overwrite=True") as taken:
        store.store_metadata("m", {"author": "another"})
    assert isinstance(taken.value, FileExistsError)
    assert store.store_metadata("m", {"author": "another"}, overwrite=True).metadata == {"author": "another"}
    assert store.fetch("m") == [1]


def test_metadata_of_an_older_version(store: Storage) -> None:
    """NAME:VERSION is taken here too."""
    store.store("m", 1, {"train_end": 480})
    store.store("m", 2, {"train_end": 492}, overwrite=True)
    store.store_metadata("m:1", {"train_end": 1}, overwrite=True)
    assert [record.metadata for record in store.versions("m")] == [{"train_end": 492}, {"train_end": 1}]


def test_older_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Scripts for 1.x run, and are told what to call now."""
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "models.db"))
    from views_runs.storage import fetch_metadata, list, retrieve, store  # noqa: A004

    with pytest.warns(DeprecationWarning, match=r"use views_runs.Storage\(\).store\(\)") as caught:
        store("m", 1, METADATA)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning):
        store("m", 2, METADATA, overwrite=True)
    with pytest.warns(DeprecationWarning, match=r"use views_runs.Storage\(\).fetch\(\)"):
        assert retrieve("m") == Storage().retrieve("m") == 2
    with pytest.warns(DeprecationWarning):
        assert list() == ["m"]
    with pytest.warns(DeprecationWarning):
        assert fetch_metadata("m").training_date == METADATA["training_date"]
    with pytest.warns(DeprecationWarning, match=r"use exists_with_metadata\(name, metadata\)") as caught:
        answers = [Storage().exists("m", METADATA), Storage().exists("m", {**METADATA, "train_end": 1})]
    assert answers == [True, False] and caught[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        storage_module.nothing
    assert (views_runs.storage, views_runs.Storage, views_runs.ModelMetadata) == (
        storage_module,
        Storage,
        ModelMetadata,
    )


def test_no_warning_on_the_present_way(store: Storage) -> None:
    """Nothing that is deprecated in any Python is used, and no file is left open."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.store("m", os.urandom(3_000_000), METADATA)
        store.fetch("m")
        store.delete("m")


def test_default_store_that_is_not_there(own_home: Path) -> None:
    """It reads as an empty store, reading makes nothing, and the first store makes it."""
    store = Storage()
    assert store.path.is_relative_to(own_home)
    assert (store.list(), store.find(), store.exists("m"), store.has_metadata("m")) == ([], [], False, False)
    assert not store.exists_with_metadata("m", {})
    with pytest.raises(ModelNotFoundError, match="the store does not exist yet"):
        store.fetch("m")
    assert list(own_home.iterdir()) == []
    store.store("m", 1)
    assert Storage().list() == ["m"]


def test_given_store_that_does_not_exist_yet(
    store: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only the file is missing, questions are answered as for an empty store; a warning says so."""
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(store.path))
    for given in (store, Storage()):
        answers = [given.list(), given.find(), given.exists("m"), given.exists_with_metadata("m", {})]
        assert [*answers, given.has_metadata("m"), given.exists_file()] == [[], [], False, False, False, False]
        assert [record.message for record in caplog.records] == 5 * [
            f"{store.path} does not exist yet; storing a model creates it"
        ]
        caplog.clear()
        for read in (given.fetch, given.inspect, given.delete, given.fetch_metadata, given.versions, given.diff):
            with pytest.raises(ModelNotFoundError, match="models.db: the store does not exist yet. Check the path"):
                read("m")
    assert not store.path.exists() and caplog.messages == []


def test_a_share_that_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder is an error everywhere: it must not look like an empty store, by a link to it either."""
    (tmp_path / "link.db").symlink_to(tmp_path / "share" / "models.db")
    for given in (Storage(tmp_path / "share" / "models.db"), Storage(tmp_path / "link.db")):
        for read in (given.list, lambda: given.exists("m"), lambda: given.fetch("m"), lambda: given.store("m", 1)):
            with pytest.raises(StoreNotFoundError, match="share: the folder does not exist. .* share is mounted"):
                read()


def test_a_store_is_made_aloud(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """The file that `store` makes is named in the log, once."""
    with caplog.at_level("INFO", "views_runs"):
        store.store("m", 1)
        store.store("n", 1)
    assert [record.message for record in caplog.records] == [f"created a new store, {store.path}"]


def test_read_without_this_package(store: Storage, sql: sqlite3.Connection) -> None:
    """A small model is one row that sqlite3 and pickle read alone."""
    store.store("m", [1, 2], METADATA)
    row = sql.execute("SELECT pickle, metadata ->> 'training_date', stored_at FROM models WHERE name = 'm'").fetchone()
    assert (pickle.loads(row[0]), row[1]) == ([1, 2], "2026-11-23T08:00:00.000123")
    assert datetime.fromisoformat(row[2]) == store.inspect("m").stored_at


def test_listing_reads_no_pickle(store: Storage, sql: sqlite3.Connection) -> None:
    """The records are read from an index that holds everything but the pickles."""
    store.store("m", b"x" * 5000)
    plan = sql.execute(f"EXPLAIN QUERY PLAN {models.SELECT} ORDER BY id DESC").fetchall()
    assert "SCAN models USING COVERING INDEX models_record" in [step[3] for step in plan]
    assert not any(step[3] == "SCAN models" for step in plan)


def test_two_stores_of_one_name_at_once(store: Storage) -> None:
    """One wins, the other is told, and leaves nothing behind."""
    store.store("first", 1)
    barrier = threading.Barrier(2)

    class Slow:
        """Pickled only when both stores have passed the first look."""

        def __init__(self, number: int) -> None:
            self.number = number

        def __reduce__(self) -> Any:
            barrier.wait(10)
            return bytes, (bytes([self.number]) * 3_000_000,)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(store.store, "m", Slow(number)) for number in (1, 2)]
        errors = [future.exception() for future in futures]
    assert sorted(type(error) for error in errors if error) == [ModelExistsError]
    winner = 1 if errors[0] is None else 2
    assert store.fetch("m") == bytes([winner]) * 3_000_000
    assert leftovers(store) == NOTHING


@pytest.mark.parametrize("workers", ["threads", "spawn", "fork"])
def test_many_at_once(store: Storage, workers: str) -> None:
    """A store may be given to threads and processes; what was acknowledged is there afterwards."""
    store.store("first", 0)
    if workers == "threads":
        pool: concurrent.futures.Executor = concurrent.futures.ThreadPoolExecutor(4)
    else:
        pool = concurrent.futures.ProcessPoolExecutor(4, mp_context=get_context(workers))
    with pool:
        done = [name for names in pool.map(store_some, [store] * 4, range(4)) for name in names]
    assert sorted(store.list()) == sorted([*done, "first"])
    for name in done:
        model = store.fetch(name)
        assert model == model[:1] * len(model) and model[0] == int(name[0])
    assert leftovers(store) == NOTHING


def test_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A Storage that was pickled has its path and timeout wherever it comes to, and is the default one if it was."""
    given = Storage("models.db", timeout=7)
    default = Storage()
    data = pickle.dumps([given, default])
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "other.db"))
    monkeypatch.chdir(tmp_path)
    copies = pickle.loads(data)
    assert [copy.path for copy in copies] == [given.path, default.path]
    assert [copy.timeout for copy in copies] == [7, 120]
    # A default store that does not exist yet needs no warning, and is created with its folder.
    assert copies[1].list() == [] and not caplog.records
    assert copies[0].list() == [] and caplog.records
    assert not default.path.parent.exists()
    copies[1].store("m", 1)
    copies[0].store("n", 2)
    assert (default.fetch("m"), given.fetch("n")) == (1, 2)


def test_every_error_survives_a_process_border() -> None:
    """Errors of workers arrive whole."""
    kinds = [kind for kind in vars(views_runs).values() if isinstance(kind, type) and issubclass(kind, StorageError)]
    assert len(kinds) > 25
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("cannot do it")))
        assert (type(error), str(error)) == (kind, "cannot do it")
    error = pickle.loads(pickle.dumps(InvalidMetadataError("no", key="a.b")))
    assert error.key == "a.b"


class Kind(str, enum.Enum):
    FOREST = "forest"


class Deceptive(str):
    def __str__(self) -> str:
        return "line\nbreak"


def test_a_name_is_the_text_that_it_is(store: Storage) -> None:
    """Not what a subclass of str calls itself."""
    assert store.store(Kind.FOREST, 1).name == "forest"
    assert store.fetch(Kind.FOREST) == store.fetch("forest") == 1
    assert store.store(Deceptive("plain"), 1).name == "plain"


def test_a_user_whose_name_is_not_unicode(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was trained for hours is not lost for that."""
    monkeypatch.setattr("getpass.getuser", lambda: "j\udcf6rg")
    assert store.store("m", 1).stored_by.startswith("j\\udcf6rg@")


def test_a_glob_with_half_a_character(store: Storage) -> None:
    """It is an error of the store, and no traceback."""
    store.store("m", 1)
    with pytest.raises(StorageError, match="not valid Unicode"):
        store.list(name="\ud800")
