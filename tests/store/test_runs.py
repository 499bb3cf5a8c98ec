"""What a run does with a store: annotate, require, fetch or train, and compare."""

import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.stores import NOTHING, leftovers
from views_runs import (
    InvalidMetadataError,
    InvalidNameError,
    ModelExistsError,
    ModelMetadata,
    ModelNotFoundError,
    ModelPickleError,
    Storage,
    StoreNotFoundError,
)
from views_runs.pickles.parts import PART_SIZE

Viewser = Callable[..., Result]


def test_annotate_keeps_the_rest(store: Storage) -> None:
    """Fields are set and removed; the others stay as they were, datetimes too, and so does the model."""
    trained = datetime(2026, 11, 23, 8)
    before = store.store(
        "m", [1], {"author": "me", "training_date": trained, "note": "draft", "when": [date(2026, 1, 2)]}
    )
    after = store.annotate("m", train_end=480, author="you", unset=["note"])
    assert after.metadata == {"author": "you", "training_date": trained, "when": [date(2026, 1, 2)], "train_end": 480}
    assert store.inspect("m") == after
    assert (after.sha256, after.stored_at, after.version) == (before.sha256, before.stored_at, 1)
    assert store.fetch("m") == [1]
    assert store.annotate("m", unset="when", training_date="2026-11-23").metadata == {
        "author": "you",
        "training_date": "2026-11-23",
        "train_end": 480,
    }


def test_annotate_an_older_version_and_a_bare_model(store: Storage) -> None:
    """NAME:VERSION is taken; a model without metadata gets some."""
    store.store("m", 1)
    store.store("m", 2, {"author": "me"}, overwrite=True)
    store.annotate("m:1", author="you")
    assert [record.metadata for record in store.versions("m")] == [{"author": "me"}, {"author": "you"}]
    assert store.annotate("m", version=1, author="them").version == 1


@pytest.mark.parametrize(
    "change, said",
    [
        ({"train_end": "480"}, "train_end must be a views month"),
        ({"train_start": 500}, "train_start, 500 .*, is after train_end, 480"),
        ({"note": (1, 2)}, "note is of type tuple"),
        ({"unset": ["nothing"]}, "has no field 'nothing' to remove; it has train_end"),
    ],
)
def test_annotate_respects_the_schema(store: Storage, change: dict[str, Any], said: str) -> None:
    """What is refused changes nothing, and the message names the model."""
    store.store("m", 1, {"train_end": 480})
    with pytest.raises(InvalidMetadataError, match=f"cannot annotate 'm': .*{said}"):
        store.annotate("m", **change)
    assert store.fetch_metadata("m") == {"train_end": 480}
    with pytest.raises(ModelNotFoundError):
        store.annotate("n", author="me")


def test_two_annotate_at_once(store: Storage) -> None:
    """Reading, merging and writing is one step: nobody's field is lost."""
    store.store("m", os.urandom(2 * PART_SIZE), {"author": "me"})
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: store.annotate("m", **{f"field{number}": number}), range(40)))
    assert store.fetch_metadata("m") == {"author": "me", **{f"field{number}": number for number in range(40)}}


def test_annotating_writes_one_part_at_most(store: Storage, sql: sqlite3.Connection) -> None:
    """The parts of a large model are not touched."""
    store.store("m", os.urandom(8 * PART_SIZE), {"author": "me"})
    parts = "SELECT rowid, digest FROM model_parts ORDER BY rowid"
    before, size = sql.execute(parts).fetchall(), store.path.stat().st_size
    for number in range(5):
        store.annotate("m", note="x" * number * 1000)
    assert sql.execute(parts).fetchall() == before
    assert store.path.stat().st_size <= size + 2 * PART_SIZE


def test_required_fields(store: Storage, sql: sqlite3.Connection) -> None:
    """Everyone who uses the file is held to them; what is there already stays, and is named."""
    store.store("old", 1, {"author": "me"})
    store.store("bare", 1)
    store.require("run_id", "author", "run_id")
    assert Storage(store.path).required() == ["author", "run_id"]
    assert [record.name for record in store.incomplete()] == ["bare", "old"]
    for metadata in (None, {}, {"author": "me"}, {"author": "me", "run_id": None}):
        with pytest.raises(
            InvalidMetadataError, match="requires author and run_id in the metadata; missing: .*run_id"
        ) as caught:
            store.store("m", 1, metadata)
        assert str(store.path) in str(caught.value)
    complete = {"author": "me", "run_id": "2026-11"}
    store.store("m", 1, complete)
    with pytest.raises(InvalidMetadataError):
        store.annotate("m", unset=["author"])
    with pytest.raises(InvalidMetadataError):
        store.store_metadata("m", {"author": "me"}, overwrite=True)
    assert store.fetch_metadata("m") == complete
    store.annotate("old", run_id="2026-10")
    assert [record.name for record in store.incomplete()] == ["bare"]
    store.require()
    assert (store.required(), store.incomplete()) == ([], [])
    for field in ("", 7, "a\nb"):
        with pytest.raises(InvalidMetadataError, match="cannot be the name of a required metadata field"):
            store.require(field)  # type: ignore[arg-type]


def test_required_while_a_model_is_pickled(store: Storage) -> None:
    """What becomes required during a long store counts when the model is published, and nothing is left of it."""
    store.store("first", 1)

    class Requiring:
        def __reduce__(self) -> Any:
            store.require("author")
            return bytes, (os.urandom(3 * PART_SIZE),)

    with pytest.raises(InvalidMetadataError, match="missing: author"):
        store.store("m", Requiring())
    assert store.list() == ["first"] and leftovers(store) == NOTHING


def test_required_fields_of_a_store_that_is_not_there(own_home: Path) -> None:
    """Nothing is required by what does not exist; setting makes it."""
    assert (Storage().required(), Storage().incomplete()) == ([], [])
    Storage().require("author")
    assert Storage().required() == ["author"]


class Trainer:
    """Counts how often it trained."""

    def __init__(self) -> None:
        self.trained = 0

    def __call__(self) -> str:
        self.trained += 1
        return f"model {self.trained}"


WANTED = {"train_end": 480, "training_date": datetime(2026, 11, 23)}


def test_fetch_or_train(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """It trains once, and again when something differs; the log says which, and why."""
    train = Trainer()
    with caplog.at_level(logging.INFO, "views_runs"):
        assert store.fetch_or_train("m", train, WANTED) == "model 1"
        assert store.fetch_or_train("m", train, {**WANTED, "training_date": datetime.now()}) == "model 1"
        store.annotate("m", note="later")
        assert store.fetch_or_train("m", train, ModelMetadata(train_end=480)) == "model 1"
        assert store.fetch_or_train("m", train, {"train_end": 492, "author": "me"}) == "model 2"
        assert store.fetch_or_train("m", train, {"train_end": 492}, retrain=True) == "model 3"
    assert [record.message for record in caplog.records] == [
        f"{store.path} does not exist; creating it",
        f"created a new store, {store.path}",
        f"training m: no such model in {store.path}",
        f"fetching m, version 1, from {store.path}",
        f"fetching m, version 1, from {store.path}",
        "training m: author None -> me, train_end 480 -> 492",
        "training m: retrain=True",
    ]
    assert train.trained == 3
    assert [record.version for record in store.versions("m")] == [3, 2, 1]
    assert store.fetch("m") == "model 3"


def test_obtain(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """What is recorded is stored with a new model, and not compared; the result says which model it is."""
    train = Trainer()
    store.require("author", "train_end")
    first = store.obtain("m", train, WANTED, recorded={"author": "ines", "run_id": "2026-10"})
    assert (first.model, first.trained, first.record) == ("model 1", True, store.inspect("m"))
    assert store.fetch_metadata("m") == {**WANTED, "author": "ines", "run_id": "2026-10"}
    again = store.obtain("m", train, WANTED, recorded=ModelMetadata(author="tom", run_id="2026-11"))
    assert (again.model, again.trained, again.record) == ("model 1", False, first.record)
    assert store.fetch_or_train("m", train, WANTED, recorded={"author": "tom"}) == "model 1"
    forced = store.obtain("m", train, WANTED, {"author": "tom"}, retrain=True)
    assert (forced.model, forced.record.version, forced.trained) == ("model 2", 2, True)
    for recorded in ({"run_id": "2026-11"}, None):
        with pytest.raises(InvalidMetadataError, match="missing: author"):
            store.obtain("other", train, WANTED, recorded)
    with pytest.raises(InvalidMetadataError, match="field train_end is given twice: as needed and as recorded"):
        store.obtain("m", train, WANTED, {"train_end": 480, "author": "tom"})
    assert train.trained == 2
    with caplog.at_level(logging.INFO, "views_runs"):
        store.obtain("m", train, {"train_end": 1, "note": "long " * 100}, {"author": "tom"})
    assert caplog.messages[-1] == f"training m: train_end 480 -> 1, note None -> {'long ' * 12}"


def test_obtain_what_another_process_stores(store: Storage) -> None:
    """The model is the one that was trained here, and the record that of the equivalent one in the store."""

    def beaten() -> str:
        store.store("m", "theirs", {"train_end": 480, "author": "tom"})
        return "ours"

    result = store.obtain("m", beaten, {"train_end": 480}, {"author": "ines"})
    assert (result.model, result.record, result.trained) == ("ours", store.inspect("m"), True)
    with pytest.raises(ModelExistsError) as caught:
        store.store("m", 1)
    assert caught.value.record == pickle.loads(pickle.dumps(caught.value)).record == store.inspect("m")


def test_a_model_without_metadata_is_trained_again(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing says how it was trained."""
    store.store("m", "old")
    with caplog.at_level(logging.INFO, "views_runs"):
        assert store.fetch_or_train("m", lambda: "new", {}) == "new"
    assert caplog.messages == ["training m: it has no metadata"]


def test_a_trained_model_is_never_lost(store: Storage) -> None:
    """When storing it fails, whatever the reason, the error carries it."""
    model = [lambda: None]
    with pytest.raises(ModelPickleError) as caught:
        store.fetch_or_train("m", lambda: model, {})
    assert caught.value.model is model  # type: ignore[attr-defined]
    assert store.list() == []

    def interrupted() -> Any:
        store.require("author")
        return model

    with pytest.raises(InvalidMetadataError) as late:
        store.fetch_or_train("m", interrupted, {})
    assert late.value.model is model  # type: ignore[attr-defined]


def test_what_cannot_be_stored_is_not_trained(store: Storage, tmp_path: Path) -> None:
    """What can be known before hours of training is said before."""
    train = Trainer()
    store.require("author")
    for name, metadata in {"m": {"author": (1,)}, "n": {"train_end": "x", "author": "me"}, "o": {}}.items():
        with pytest.raises(InvalidMetadataError):
            store.fetch_or_train(name, train, metadata)
    with pytest.raises(InvalidNameError):
        store.fetch_or_train("m:1", train, {"author": "me"})
    with pytest.raises(StoreNotFoundError):
        Storage(tmp_path / "share" / "models.db").fetch_or_train("m", train, {})
    assert train.trained == 0


def test_another_stored_an_equivalent_one_meanwhile(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Ours is returned, theirs stays, and that is logged; a different one of theirs becomes an older version."""

    def beaten(metadata: dict[str, Any]) -> str:
        store.store("m", "theirs", metadata, overwrite=True)
        return "ours"

    with caplog.at_level(logging.INFO, "views_runs"):
        assert store.fetch_or_train("m", lambda: beaten(WANTED), WANTED) == "ours"
    assert "another process has meanwhile stored an equivalent m" in caplog.messages[-1]
    assert store.fetch("m") == "theirs"
    assert store.fetch_or_train("m", lambda: beaten({"train_end": 1}), {"train_end": 492}) == "ours"
    assert store.fetch("m") == "ours"


def test_two_train_at_once(store: Storage) -> None:
    """Both get their model, and one is stored."""
    barrier = threading.Barrier(2)

    def train() -> int:
        barrier.wait(10)
        return threading.get_ident()

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda one: store.fetch_or_train("m", train, WANTED), range(2)))
    assert len(set(results)) == 2 and store.fetch("m") in results
    assert len(store.versions("m")) == 1


def test_deleted_between_looking_and_fetching(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is trained."""
    store.store("m", "stored", WANTED)
    fetch = Storage.fetch

    def late(self: Storage, name: str, version: int | None = None) -> Any:
        self.delete("m")
        return fetch(self, name, version)

    monkeypatch.setattr(Storage, "fetch", late)
    assert store.fetch_or_train("m", lambda: "trained", WANTED) == "trained"
    assert store.list() == ["m"]


def test_diff(store: Storage) -> None:
    """Two models, or a version and the one before."""
    for month in (480, 486, 492):
        store.store("m", month, {"train_end": month}, overwrite=True)
    store.store("n", 1)
    assert [record.version for record in store.diff("m")] == [2, 3]
    assert [record.version for record in store.diff("m:2")] == [1, 2]
    assert [record.name for record in store.diff("m:1", "n")] == ["m", "n"]
    for alone in ("n", "m:1"):
        with pytest.raises(ModelNotFoundError, match="there is no version before 1. Give two models to compare"):
            store.diff(alone)


def test_annotate_on_the_command_line(store: Storage, viewser: Viewser) -> None:
    """Values are typed; what changed is shown."""
    store.store("m", 1, {"author": "me", "note": "draft"})
    result = viewser(
        "model", "annotate", "m", "--author", "you", "--run-id", "007", "--loa", "country_month", "--outcome", "ged_sb",
        "--queryset", "broad", "--train-start", "1990-01", "--train-end", "480", "--training-date", "2026-11-23T08:00",
        "--step", "1", "--step", "2", "--set", "seed=7", "--set", "flag=true", "--set", "text='7'", "--set", "a.b=x=y",
        "--set", 'tuned={"depth": [1, 2]}', "--set", "when=2026-11-23", "--unset", "note",
    )  # fmt: skip
    assert store.fetch_metadata("m") == {
        "author": "you",
        "run_id": "007",
        "level_of_analysis": "country_month",
        "outcome": "ged_sb",
        "queryset_name": "broad",
        "train_start": 121,
        "train_end": 480,
        "training_date": datetime(2026, 11, 23, 8),
        "steps": [1, 2],
        "seed": 7,
        "flag": True,
        "text": "7",
        "a.b": "x=y",
        "tuned": {"depth": [1, 2]},
        "when": date(2026, 11, 23),
    }
    assert "author me -> you\n" in result.stderr and "train_end (none) -> 480 (Dec 2019)\n" in result.stderr
    assert "note draft -> (none)\n" in result.stderr
    assert "Nothing changed" in viewser("model", "annotate", "m", "--author", "you").stderr
    shown = json.loads(viewser("model", "annotate", "m:1", "--author", "them", "--json").stdout)
    assert shown == store.inspect("m").as_json()


@pytest.mark.parametrize(
    "arguments, exit_code, said",
    [
        ([], 2, "nothing to change"),
        (["--step", "one"], 2, "not a valid integer"),
        (["--train-end", "2019-13"], 1, "there is no month 13"),
        (["--set", "seed"], 1, "expected KEY=VALUE"),
        (["--set", "=7"], 1, "expected KEY=VALUE"),
        (["--set", "a=[1"], 1, "is not valid JSON"),
        (["--set", "a='x' y'"], 1, "the value ends here"),
        (["--training-date", "soon"], 1, "invalid value of training_date"),
        (["--unset", "nothing"], 1, "has no field 'nothing'"),
    ],
)
def test_mistakes_in_annotating(
    store: Storage, viewser: Viewser, arguments: list[str], exit_code: int, said: str
) -> None:
    """They are told, and change nothing."""
    store.store("m", 1, {"author": "me"})
    assert said in viewser("model", "annotate", "m", *arguments, exit_code=exit_code).stderr
    assert store.fetch_metadata("m") == {"author": "me"}


def test_require_on_the_command_line(store: Storage, viewser: Viewser) -> None:
    """It shows, sets and clears, and says which models lack a field."""
    store.store("m", 1, {"author": "me"})
    assert "requires no metadata" in viewser("model", "require").stderr
    result = viewser("model", "require", "author", "run_id")
    assert result.stdout == "author\nrun_id\n"
    assert "1 version lacks a required field" in result.stderr and "m:1 has no run_id" in result.stderr
    assert viewser("model", "require").stdout == "author\nrun_id\n"
    shown = json.loads(viewser("model", "require", "--json").stdout)
    assert shown == {"required": ["author", "run_id"], "incomplete": [store.inspect("m").as_json()]}
    assert "not both" in viewser("model", "require", "author", "--none", exit_code=2).stderr
    viewser("model", "require", "--none")
    assert store.required() == []


def test_diff_on_the_command_line(store: Storage, viewser: Viewser) -> None:
    """Side by side what differs; --all shows the rest."""
    store.store("m", 1, {"author": "me", "train_end": 480})
    store.store("m", 1, {"author": "me", "train_end": 492}, overwrite=True)
    lines = [line.split("  ") for line in viewser("model", "diff", "m").stdout.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[:2] == [["m:1", "m:2"], ["train_end", "480 (Dec 2019)", "492 (Dec 2020)"]]
    assert not any(row[0] in ("author", "sha256", "type") for row in cells)
    everything = viewser("model", "diff", "m:1", "m:2", "--all").stdout
    assert "author" in everything and "sha256" in everything
    assert "No differences" in viewser("model", "diff", "m", "m:2").stderr
    rows = json.loads(viewser("model", "diff", "m", "--json").stdout)
    assert rows[0] == {"field": "train_end", "values": [480, 492]}
    assert "author" not in [row["field"] for row in rows]
    assert "author" in [row["field"] for row in json.loads(viewser("model", "diff", "m", "--all", "--json").stdout)]


def test_logged_without_being_printed(store: Storage) -> None:
    """A library prints nothing of its own accord, but a warning that the path of a store may be wrong."""
    code = f"from views_runs import Storage; Storage({str(store.path)!r}).fetch_or_train('m', lambda: 1, {{}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    warning = f"{store.path} does not exist; creating it\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, "", warning)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_fields_of_any_name(store: Storage, viewser: Viewser) -> None:
    """Also those that are parameters of annotate, and those that the record has too."""
    store.store("m", 1)
    viewser("model", "annotate", "m", "--set", "name=x", "--set", "version=3", "--set", "unset=y", "--set", "size=7")
    assert store.fetch_metadata("m") == {"name": "x", "version": 3, "unset": "y", "size": 7}
    store.store("n", 1, {"size": 8})
    assert "metadata.size" in viewser("model", "diff", "m", "n").stdout


def test_an_equivalent_model_is_fetched_whatever_is_required(store: Storage) -> None:
    """Required fields count when something is stored, and not when it is there."""
    store.store("m", "stored", {"train_end": 480, "author": "ola"})
    store.require("author")
    assert store.fetch_or_train("m", lambda: "trained", {"train_end": 480}) == "stored"
    with pytest.raises(InvalidMetadataError, match="missing: author"):
        store.fetch_or_train("m", pytest.fail, {"train_end": 492})


def test_no_metadata_at_all_is_wanted(store: Storage) -> None:
    """None asks for nothing, as an empty dict does."""
    assert store.fetch_or_train("m", lambda: "one", None) == "one"
    assert store.fetch_or_train("m", lambda: "two", None) == "one"
    assert store.exists_with_metadata("m", None) and not store.exists_with_metadata("n", None)
    with pytest.raises(InvalidMetadataError, match="cannot look up 'n'"):
        store.exists_with_metadata("n", {"a": (1,)})


def test_true_is_not_one_inside_either(store: Storage) -> None:
    """Lists and dicts are compared all the way down."""
    store.store("m", 1, {"flags": [1, {"on": 1}]})
    assert not store.exists_with_metadata("m", {"flags": [True, {"on": 1}]})
    assert not store.exists_with_metadata("m", {"flags": [1, {"on": True}]})
    assert store.exists_with_metadata("m", {"flags": [1.0, {"on": 1}]})


def test_a_store_that_is_made_is_named(tmp_path: Path, viewser: Viewser) -> None:
    """On the command line too: a mistake in a path does not go unseen."""
    path = str(tmp_path / "typo.db")
    assert f"created a new store, {path}" in viewser("--store", path, "model", "require", "author").stderr
    assert "created a new store" not in viewser("--store", path, "model", "require").stderr
