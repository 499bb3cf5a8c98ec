"""Every verb of a store, tried on a file that somebody damaged: the right answer, or a `StorageError`.

What is in a file may be wrong where nothing protects it, as a name or metadata; what is never wrong is the object of a
version, whichever way it is asked for.
"""

import hashlib
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.support.history import make
from tests.support.trials import Trial, Wrong
from views_runs import ModelRecord, Storage, StorageError
from views_runs.cli import main
from views_runs.files import companion

#: Seconds to wait for a lock: nobody else has one.
TIMEOUT = 1.0

#: Where and when a row is: its name and its version.
Place = tuple[str, int]


class Truth:
    """What was stored in a file: of each name and version, the object, and the digest of its pickle."""

    def __init__(self) -> None:
        self.tokens: dict[Place, tuple[str, int]] = {}
        self.digests: dict[Place, str] = {}
        #: What is there now, but for what was touched since.
        self.there: set[Place] = set()
        #: What somebody changed: it may be anything that was ever stored.
        self.touched: set[Place] = set()
        #: The names whose current version may be another, or none.
        self.unsure: set[str] = set()

    def store(self, store: Storage, name: str, size: int, metadata: Any = None) -> None:
        """Store an object under a name, as the next version."""
        token = f"{name} {len(self.tokens)}"
        record = store.store(name, make(token, size), metadata, overwrite=True)
        self.note(record, token, size)

    def note(self, record: ModelRecord, token: str, size: int) -> None:
        """Note what was stored."""
        place = (record.name, record.version)
        self.tokens[place] = (token, size)
        self.digests[place] = record.sha256
        self.there.add(place)

    def delete(self, store: Storage, name: str, version: int | None = None) -> None:
        """Delete a model, or a version of it."""
        store.delete(name, version)
        self.there = {place for place in self.there if place[0] != name or version not in (None, place[1])}

    def loosen(self, name: str, token: str = "") -> None:
        """Note that the versions of a name may be others, and one of them what belongs to this token."""
        self.touched |= {place for place in self.tokens if place[0] == name and place not in self.there}
        self.unsure.add(name)
        if token:
            self.tokens[name, -len(self.tokens)] = (token, 10)

    def copy(self) -> "Truth":
        """Return one that changes by itself."""
        copy = Truth()
        copy.tokens, copy.digests, copy.there = dict(self.tokens), dict(self.digests), set(self.there)
        copy.touched, copy.unsure = set(self.touched), set(self.unsure)
        return copy

    def names(self) -> list[str]:
        """Return the names of what is there."""
        return sorted({name for name, _ in self.there})

    def allows(self, place: Place, object: Any) -> bool:
        """Return whether this can be the object of a version."""
        token = object.get("token") if isinstance(object, dict) else None
        known = {*self.tokens.values()} if place in self.touched else {self.tokens.get(place, ("", 0))}
        return any(token == one and object == make(one, size) for one, size in known)

    def allows_current(self, name: str, object: Any) -> bool:
        """Return whether this can be the object of a name, in one of its versions."""
        places = [place for place in self.tokens if place[0] == name]
        return name in self.unsure or any(self.allows(place, object) for place in places)


class Verbs:
    """Tries verbs on a file.

    Args:
        trial: the trial that this is part of.
        path: the file.
        truth: what was stored in it.
    """

    #: The verbs that read, and those that write.
    READING = (
        "fetch fetch_current fetch_trusted inspect find find_current sort where listed versions exists metadata "
        "has_metadata equivalent incomplete required diff diff_two check check_one write_pickle download verify "
        "verify_one backup doctor cli_list cli_versions cli_quiet cli_json cli_where cli_inspect cli_inspect_json "
        "cli_diff cli_check cli_check_json cli_download cli_verify cli_verify_json cli_backup cli_doctor"
    ).split()
    WRITING = (
        "store overwrite store_parts annotate unset store_metadata delete delete_version require upload train "
        "cli_annotate cli_delete cli_upload cli_require"
    ).split()

    def __init__(self, trial: Trial, path: Path, truth: Truth) -> None:
        self.trial, self.path, self.truth = trial, path, truth
        self.choose, self.folder = trial.choose, trial.folder
        self.storage = Storage(path, timeout=TIMEOUT)
        self._files = 0
        #: What was found by the first verb that looked, to hold others against.
        self.is_verified = False

    def tries(self, verbs: list[str]) -> None:
        """Try some verbs; each has to give the right answer or to raise a `StorageError`."""
        for verb in verbs:
            self.trial.step(verb)
            try:
                getattr(self, f"_{verb}")()
                self.trial.counts["right answers"] += 1
            except StorageError as error:
                self._refuse_exhausted(str(error))
                self.trial.counts[f"{type(error).__name__}"] += 1
            except Exception as error:
                self.trial.fail(error)

    def _refuse_exhausted(self, text: str) -> None:
        """A damaged file must not take all memory there is: the limit is far above what is in it."""
        if "too little memory" in text or "out of memory" in text or "MemoryError" in text:
            self.trial.fail(Wrong(f"it took more memory than there is in the limit: {text}"))

    def _place(self) -> Place:
        """Return a version to ask for: most often one that is there, and where something was touched that."""
        places = self.choose.choices([self.truth.touched, self.truth.there, set(self.truth.tokens)], [6, 3, 1])[0]
        return self.choose.choice(sorted(place for place in places or self.truth.tokens if place[1] > 0))

    def _name(self) -> str:
        return self._place()[0]

    def _file(self, suffix: str = "") -> Path:
        self._files += 1
        return self.folder / f"file{self._files}{suffix}"

    def _is_object(self, place: Place, found: Any) -> None:
        if not self.truth.allows(place, found):
            raise Wrong(f"{place} is {str(found)[:100]}")

    def _is_record(self, record: ModelRecord) -> None:
        kinds = [(record.name, str), (record.version, int), (record.stored_by, str), (record.size, int)]
        if not all(isinstance(value, kind) for value, kind in kinds) or record.stored_at.tzinfo is None:
            raise Wrong(f"{record!r:.300} is no record")
        strict_json(json.dumps(record.as_json()))

    # What reads.

    def _fetch(self) -> None:
        place = self._place()
        self._is_object(place, self.storage.fetch(*place))

    def _fetch_current(self) -> None:
        name = self._name()
        if not self.truth.allows_current(name, found := self.storage.fetch(name)):
            raise Wrong(f"{name} is {str(found)[:100]}")

    def _fetch_trusted(self) -> None:
        place = self._place()
        self._is_object(place, self.storage.fetch(*place, trusted=[], sha256=self.truth.digests[place]))

    def _inspect(self) -> None:
        place = self._place()
        record = self.storage.inspect(*place)
        self._is_record(record)
        if (record.name, record.version) != place:
            raise Wrong(f"{place} is {record.name!r}, {record.version!r}")

    def _find(self) -> None:
        for record in self.storage.find(all_versions=True):
            self._is_record(record)

    def _find_current(self) -> None:
        for record in self.storage.find():
            self._is_record(record)

    def _sort(self) -> None:
        field = self.choose.choice(["name", "-size", "stored_at", "-version", "number", "-note", "type", "stored_by"])
        for record in self.storage.find(sort=field, all_versions=self.choose.random() < 0.5):
            self._is_record(record)

    def _where(self) -> None:
        condition = self.choose.choice(
            ["number > 1", "note ~ *o*", "!note", "note", "size > 10", "stored_at > 2020-01-01", "type ~ *dict*"]
            + ["when < 2030-01-01", "current = false", "version >= 2", "name ~ *a*", "metadata.size > 1", "a.b = 1"]
        )
        for record in self.storage.find(condition, all_versions=self.choose.random() < 0.5):
            self._is_record(record)

    def _listed(self) -> None:
        for name in self.storage.list(name=self.choose.choice(["*", "a*", None])):
            if not isinstance(name, str):
                raise Wrong(f"{name!r} is listed")

    def _versions(self) -> None:
        for record in self.storage.versions(self._name()):
            self._is_record(record)

    def _exists(self) -> None:
        self.storage.exists("{}:{}".format(*self._place()))

    def _metadata(self) -> None:
        self.storage.fetch_metadata(*self._place())

    def _has_metadata(self) -> None:
        self.storage.has_metadata(self._name())

    def _equivalent(self) -> None:
        self.storage.exists_with_metadata(self._name(), {"number": 1})

    def _incomplete(self) -> None:
        for record in self.storage.incomplete():
            self._is_record(record)

    def _required(self) -> None:
        found = self.storage.required()
        if not all(isinstance(field, str) for field in found):
            raise Wrong(f"{found!r} are required")

    def _diff(self) -> None:
        self.storage.diff(self._name())

    def _diff_two(self) -> None:
        self.storage.diff("{}:{}".format(*self._place()), self._name())

    def _check(self) -> None:
        for record, verdict in self.storage.check():
            self._is_record(record)
            assert verdict.verdict

    def _check_one(self) -> None:
        self.storage.check("{}:{}".format(*self._place()))

    def _is_pickle(self, place: Place, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        known = self.truth.digests
        if digest != known.get(place) and not (place in self.truth.touched and digest in known.values()):
            raise Wrong(f"{place} was downloaded as {data[:100]!r}")

    def _write_pickle(self) -> None:
        place, stream = self._place(), io.BytesIO()
        self.storage.write_pickle(place[0], stream, place[1])
        self._is_pickle(place, stream.getvalue())

    def _download(self) -> None:
        place, file = self._place(), self._file(".pickle")
        try:
            self.storage.download(place[0], file, version=place[1])
            self._is_pickle(place, file.read_bytes())
        except StorageError:
            if file.exists():
                raise Wrong("a file is there after a download that failed") from None
            raise

    def _verify(self) -> None:
        """What is verified can be fetched, and what can be verified can be shown."""
        if not self.storage.verify().damaged:
            for place in self._some():
                self._can_be_fetched(self.storage, place)

    def _some(self, most: int = 5) -> list[Place]:
        """Return some of what is there and was not touched."""
        rest = sorted(self.truth.there - self.truth.touched)
        return self.choose.sample(rest, min(most, len(rest)))

    def _can_be_fetched(self, storage: Storage, place: Place) -> None:
        if storage.exists("{}:{}".format(*place)):
            try:
                self._is_object(place, storage.fetch(*place))
            except StorageError as error:
                raise Wrong(f"{place} cannot be fetched, and nothing was found damaged: {error}") from error

    def _verify_one(self) -> None:
        self.storage.verify("{}:{}".format(*self._place()))

    def _backup(self) -> None:
        """A backup is whole, and says of what it lacks that it was damaged."""
        file = self._file(".db")
        made = self.storage.backup(file)
        copy = Storage(file)
        try:
            if copy.verify().damaged or len(copy.find(all_versions=True)) != made.versions:
                raise Wrong("the backup is damaged")
        except StorageError as error:
            raise Wrong(f"the backup cannot be read: {error}") from error
        for place in self._some():
            self._can_be_fetched(copy, place)

    def _doctor(self) -> None:
        """The doctor raises nothing at all."""
        try:
            if not all(finding.text for finding in self.storage.doctor()):
                raise Wrong("there is a finding without a text")
        except StorageError as error:
            raise Wrong(f"doctor raised {type(error).__name__}: {error}") from error

    # What the command line does.

    def _run(self, *arguments: str, is_json: bool = False) -> None:
        line = ["model", "--store", str(self.path), *arguments]
        result = CliRunner(mix_stderr=False).invoke(main, line) if _MIXES else CliRunner().invoke(main, line)
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        if result.exit_code not in (0, 1):
            raise Wrong(f"{arguments} ended with {result.exit_code}: {result.output[-300:]}")
        self._refuse_exhausted(result.output + result.stderr)
        if is_json and result.stdout:
            strict_json(result.stdout)

    def _cli_list(self) -> None:
        self._run("list")

    def _cli_versions(self) -> None:
        self._run("list", "--all-versions", "--sort", self.choose.choice(["name", "-size", "note"]))

    def _cli_quiet(self) -> None:
        self._run("list", "--all-versions", "-q")

    def _cli_json(self) -> None:
        self._run("list", "--all-versions", "--json", is_json=True)

    def _cli_where(self) -> None:
        self._run("list", "-w", "number > 1", "--since", "2020-01-01")

    def _cli_inspect(self) -> None:
        self._run("inspect", "{}:{}".format(*self._place()))

    def _cli_inspect_json(self) -> None:
        self._run("inspect", "{}:{}".format(*self._place()), "--json", is_json=True)

    def _cli_diff(self) -> None:
        self._run("diff", self._name(), self._name(), "--all")

    def _cli_check(self) -> None:
        self._run("check", "--all")

    def _cli_check_json(self) -> None:
        self._run("check", self._name(), "--json", is_json=True)

    def _cli_download(self) -> None:
        self._run("download", "{}:{}".format(*self._place()), str(self._file()))

    def _cli_verify(self) -> None:
        self._run("verify")

    def _cli_verify_json(self) -> None:
        self._run("verify", "--json", is_json=True)

    def _cli_backup(self) -> None:
        self._run("backup", str(self._file()))

    def _cli_doctor(self) -> None:
        self._run("doctor")

    # What writes.

    def _put(self, name: str, size: int, overwrite: bool) -> None:
        token = f"new {self.choose.random()}"
        record = self.storage.store(name, make(token, size), {"note": "new", "number": 2}, overwrite=overwrite)
        self.truth.note(record, token, size)
        self._is_object((name, record.version), self.storage.fetch(name, record.version))

    def _store(self) -> None:
        self._put(f"new {self.choose.random()}", 100, False)

    def _overwrite(self) -> None:
        self._put(self._name(), 1000, True)

    def _store_parts(self) -> None:
        self._put(f"new {self.choose.random()}", 2_200_000, False)

    def _annotate(self) -> None:
        assert (self.storage.annotate(self._name(), count=1, note="new").metadata or {})["note"] == "new"

    def _unset(self) -> None:
        self.storage.annotate(self._name(), unset=["note"])

    def _store_metadata(self) -> None:
        place = self._place()
        self.storage.store_metadata(*place[:1], {"number": 7}, overwrite=True, version=place[1])
        if self.storage.fetch_metadata(*place) != {"number": 7}:
            raise Wrong("other metadata than was stored")

    def _delete(self) -> None:
        name = self._name()
        # Whatever comes of it, some may be gone.
        self.truth.there = {place for place in self.truth.there if place[0] != name}
        self.storage.delete(name)

    def _delete_version(self) -> None:
        place = self._place()
        self.truth.there.discard(place)
        self.storage.delete(*place)

    def _require(self) -> None:
        self.storage.require("note")
        if self.storage.required() != ["note"]:
            raise Wrong("other fields are required than were set")
        self.storage.require()

    def _upload(self) -> None:
        file = self._file(".pickle")
        file.write_bytes(b"\x80\x04N.")
        record = self.storage.upload(file, f"up {self.choose.random()}", {"note": "new"})
        if self.storage.fetch(record.name) is not None:
            raise Wrong("something else than was uploaded")

    def _train(self) -> None:
        name, token = self._name(), f"new {self.choose.random()}"
        # Its version is not known.
        self.truth.loosen(name, token)
        trained = self.storage.fetch_or_train(name, lambda: make(token, 10), {"note": token})
        if trained != make(token, 10):
            raise Wrong("something else than was trained")

    def _cli_annotate(self) -> None:
        self._run("annotate", self._name(), "--set", "note=x", "--set", "number=9")

    def _cli_delete(self) -> None:
        name = self._name()
        self.truth.there = {place for place in self.truth.there if place[0] != name}
        self._run("delete", name, "--yes")

    def _cli_upload(self) -> None:
        file = self._file(".pickle")
        file.write_bytes(b"\x80\x04N.")
        self._run("upload", str(file), f"up {self.choose.random()}")

    def _cli_require(self) -> None:
        self._run("require")

    def shows_the_rest(self) -> None:
        """Whatever else is in the file, what was not touched is listed, found, and fetched."""
        self.trial.step("shows_the_rest")
        rest = self.truth.there - self.truth.touched
        try:
            found = {(record.name, record.version) for record in self.storage.find(all_versions=True)}
            listed = {*self.storage.list(all_versions=True)}
            if lost := rest - found:
                raise Wrong(f"{sorted(lost)[:3]} are not found")
            if lost := {place for place in rest if "{}:{}".format(*place) not in listed}:
                raise Wrong(f"{sorted(lost)[:3]} are not listed")
            for place in self._some(10):
                self._is_object(place, self.storage.fetch(*place))
        except Exception as error:
            self.trial.fail(error)


def strict_json(text: str) -> Any:
    """Parse JSON, which has no infinity."""

    def refuse(constant: str) -> Any:
        raise Wrong(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def change(path: Path, function: Callable[[sqlite3.Connection], object]) -> bool:
    """Change a file as another program does; return whether SQLite let it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        try:
            function(sql)
        except (sqlite3.Error, OverflowError, UnicodeError, MemoryError):
            if sql.in_transaction:
                sql.rollback()
            return False
    return True


try:
    CliRunner(mix_stderr=False)
    _MIXES = True
except TypeError:
    # Since click 8.2 they are always apart.
    _MIXES = False


def build(folder: Path) -> dict[str, tuple[Path, Path, Truth]]:
    """Make stores of several page layouts.

    Returns:
        Of each layout the file as it was once, the file as it is now, and what was stored in it.
    """
    makers = {"small": _small, "parts": _parts, "many": _many, "wide": _wide, "left": _left}
    makers |= {"narrow": _many, "hot": _many}
    made = {}
    for layout, maker in makers.items():
        store, truth = Storage(folder / f"{layout}.db"), Truth()
        older = folder / f"{layout}-older.db"
        maker(store, truth, lambda: older.write_bytes(store.path.read_bytes()))
        if layout in ("narrow", "hot"):
            for path in (older, store.path):
                change(path, lambda sql: sql.executescript("PRAGMA page_size = 1024; VACUUM"))
        if layout == "hot":
            _kill_writer(store.path)
        made[layout] = (older, store.path, truth)
    return made


def _kill_writer(path: Path) -> None:
    """Leave the file as a writer leaves it that is killed in a large transaction: its journal has to be played back."""
    files = [path, companion(path, "-journal")]
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA cache_size = 5")
        sql.execute("BEGIN")
        sql.execute("UPDATE models SET stored_by = stored_by || 'x', metadata = NULL")
        sql.execute("DELETE FROM models WHERE id % 3 = 0")
        contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents):
        file.write_bytes(content)


def _small(store: Storage, truth: Truth, save: Callable[[], object]) -> None:
    store.require("number")
    for number in range(4):
        truth.store(store, "alpha", 10 + 3000 * number, {"number": number, "when": datetime(2026, 1, 1 + number)})
        truth.store(store, f"beta {number}", 100, {"number": number, "note": "o" * 40 * number, "a": {"b": 1}})
    save()
    truth.store(store, "gamma", 40_000, {"number": 1e300})
    store.require()
    truth.store(store, "delta", 10)
    truth.delete(store, "beta 1")
    truth.delete(store, "alpha", 2)


def _parts(store: Storage, truth: Truth, save: Callable[[], object]) -> None:
    for name, size in ("alpha", 2_500_000), ("beta", 1_200_000), ("alpha", 2_200_000), ("small", 10):
        truth.store(store, name, size, {"number": size, "note": name})
    save()
    truth.delete(store, "beta")
    truth.store(store, "small", 1_100_000, {"number": 1})


def _many(store: Storage, truth: Truth, save: Callable[[], object]) -> None:
    for number in range(150):
        truth.store(store, f"name {number % 100:03}", 10, {"number": number, "note": "note" * (number % 60)})
    save()
    for number in range(0, 90, 7):
        truth.delete(store, f"name {number:03}")
    for number in range(10):
        truth.store(store, f"name {number:03}", 20_000, {"number": number})


def _wide(store: Storage, truth: Truth, save: Callable[[], object]) -> None:
    """Rows that go on in other pages, so much metadata do they have."""
    for number in range(20):
        note = {"note": "note" * 1000 * (number % 7), "number": number}
        truth.store(store, f"name {number}", 100 + 1000 * number, note)
    save()
    for number in range(3, 15):
        truth.delete(store, f"name {number}")
    for number in range(12):
        truth.store(store, f"name {number}", 100 + 500 * number, {"note": "other" * 900 * (number % 7)})


def _left(store: Storage, truth: Truth, save: Callable[[], object]) -> None:
    """A store with uploads under way, interrupted and condemned, watches, and free pages."""
    _small(store, truth, save)
    owner = json.dumps({"user": "me@host", "pid": 1, "kernel": "other", "start": 1, "token": "t"})
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        for id, condemned in (101, 0), (102, 1):
            row = (id, owner, "2026-01-01T00:00:00.000000+00:00", 1, condemned)
            sql.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", row)
            sql.execute("INSERT INTO model_parts VALUES (?, 1, x'00', zeroblob(100000))", (id,))
        sql.execute("INSERT INTO watches VALUES (101, 'other host', 1, 1.5e9)")
        sql.execute("CREATE TABLE team (data)")
        sql.execute("INSERT INTO team VALUES (zeroblob(200000))")
        sql.execute("DELETE FROM team")
