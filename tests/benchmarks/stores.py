"""The stores that are compared: an adapter for each, which opens what its users would keep open."""

import json
import os
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import Actions

METADATA = {"author": "author1", "run_id": "2026-11", "outcome": "ged_sb", "train_start": 121, "train_end": 480}


class Store:
    """A folder with models in it.

    What an adapter imports, it imports when it is opened: nothing else is imported in the process that measures it.
    """

    #: What must be installed.
    package = ""
    #: Whether a model is on the disk when `store` returns, by the source of the package.
    fsyncs = False

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    store: Any
    fetch: Any
    delete: Any

    def fill(self, model: Any, count: int) -> None:
        """Store a model under the names model0, model1, ..."""
        for number in range(count):
            self.store(f"model{number}", model)

    def reads(self) -> Actions:
        """Return what a reader does again and again."""
        return {"fetch": lambda: self.fetch("model7"), "fetch 3 MB": lambda: self.fetch("3 MB")}


class PlainFile(Store):
    """A pickle file for each model, which is whole or not there."""

    fsyncs = True

    def store(self, name: str, model: Any) -> None:
        with open(self.folder / "new", "wb") as file:
            pickle.dump(model, file, 5)
            file.flush()
            os.fsync(file.fileno())
        os.rename(self.folder / "new", self.folder / name)

    def fetch(self, name: str) -> Any:
        with open(self.folder / name, "rb") as file:
            return pickle.load(file)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()


class BareSQLite(Store):
    """A table of pickles with the settings of this package, in a file that is opened for each operation, as here."""

    fsyncs = True

    def __init__(self, folder: Path) -> None:
        from views_runs.database.connection import SETTINGS
        from views_runs.database.schema import NEW_FILE

        super().__init__(folder)
        self._settings = SETTINGS
        create = "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, metadata TEXT, pickle BLOB)"
        self.execute(f"{NEW_FILE}; {create}")

    def execute(self, settings: str, sql: str = "", *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(self.folder / "models.db", isolation_level=None)
        connection.executescript(settings)
        rows = connection.execute(sql, parameters).fetchall()
        connection.close()
        return rows

    def store(self, name: str, model: Any) -> None:
        values = name, json.dumps(METADATA), pickle.dumps(model, 5)
        self.execute(self._settings, "INSERT INTO models VALUES (?, ?, ?)", *values)

    def fetch(self, name: str) -> Any:
        return pickle.loads(self.execute("", "SELECT pickle FROM models WHERE name = ?", name)[0][0])

    def delete(self, name: str) -> None:
        self.execute(self._settings, "DELETE FROM models WHERE name = ?", name)


class KeptOpen(BareSQLite):
    """The same, with one connection that is kept open."""

    _connection: sqlite3.Connection | None = None

    def execute(self, settings: str, sql: str = "", *parameters: Any) -> list[Any]:
        if self._connection is None:
            self._connection = sqlite3.connect(self.folder / "models.db", isolation_level=None)
            self._connection.executescript(f"{settings};{self._settings}")
        return self._connection.execute(sql, parameters).fetchall()


class ViewsRuns(Store):
    fsyncs = True

    def __init__(self, folder: Path) -> None:
        from views_runs import Storage

        super().__init__(folder)
        self.storage = Storage(folder / "models.db")

    def store(self, name: str, model: Any) -> None:
        self.storage.store(name, model, METADATA)

    def fetch(self, name: str) -> Any:
        return self.storage.fetch(name)

    def delete(self, name: str) -> None:
        self.storage.delete(name)

    def inspect(self, name: str) -> None:
        self.storage.inspect(name)

    def verify(self, name: str) -> None:
        self.storage.verify(name)

    def annotate(self, name: str) -> None:
        self.storage.annotate(name, note=os.urandom(8).hex())

    def fill(self, model: Any, count: int) -> None:
        """Copy one row many times in one transaction: to store each would take hours.

        The metadata of the copies differs; one model, in the middle, has an author of its own.
        """
        self.store("first", model)
        connection = sqlite3.connect(self.storage.path)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(models)") if row[1] != "id"]
        values = {
            "name": "'model' || number",
            "metadata": "json_set(metadata, '$.author', iif(number = :middle, 'rare', 'author' || (number % 40)), "
            "'$.train_end', 300 + number % 260, '$.steps', json('[1, 2, 3]'), '$.tuning.depth', number % 70, "
            "'$.queryset_name', 'fatalities_' || (number % 30))",
        }
        with connection:
            numbers = "numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers LIMIT :count)"
            copied = ", ".join(values.get(name, name) for name in columns)
            connection.execute(
                f"WITH RECURSIVE {numbers} INSERT INTO models ({', '.join(columns)}) "
                f"SELECT {copied} FROM numbers, (SELECT * FROM models WHERE name = 'first')",
                {"count": count, "middle": count // 2},
            )
            connection.execute("INSERT OR IGNORE INTO names (name, versions) SELECT name, 1 FROM models")
        connection.close()

    def reads(self) -> Actions:
        return {
            "list": self.storage.list,
            "find": lambda: self.storage.find("train_end > 470", author=["author1", "author2"]),
            **super().reads(),
        }

    def writes(self) -> Actions:
        """Return what another writer does again and again."""
        return {
            "store": lambda: self.storage.store("beside", 1, overwrite=True),
            "annotate": lambda: self.storage.annotate("model7", note="x"),
        }


class Joblib(PlainFile):
    package = "joblib"
    fsyncs = False

    def store(self, name: str, model: Any) -> None:
        import joblib

        joblib.dump(model, self.folder / name)

    def fetch(self, name: str) -> Any:
        import joblib

        return joblib.load(self.folder / name)


class Mapping(Store):
    """What is used like a dict."""

    models: Any

    def store(self, name: str, model: Any) -> None:
        self.models[name] = model

    def fetch(self, name: str) -> Any:
        return self.models[name]

    def delete(self, name: str) -> None:
        del self.models[name]


class DiskCache(Mapping):
    """Values from 32 kB on are files, which it does not fsync; the rest is in SQLite, synchronous=NORMAL with a WAL."""

    package = "diskcache"

    def __init__(self, folder: Path) -> None:
        import diskcache

        super().__init__(folder)
        self.models = diskcache.Cache(str(folder), eviction_policy="none")


class SqliteDict(Mapping):
    """SQLite with synchronous=OFF; waits for each commit."""

    package = "sqlitedict"

    def __init__(self, folder: Path) -> None:
        import sqlitedict

        super().__init__(folder)
        self.models = sqlitedict.SqliteDict(str(folder / "models.db"), autocommit=True)


class Pins(Store):
    """A folder for each model, in which joblib writes a file."""

    package = "pins"

    def __init__(self, folder: Path) -> None:
        import pins

        super().__init__(folder)
        self._board = pins.board_folder(str(folder), allow_pickle_read=True)

    def store(self, name: str, model: Any) -> None:
        self._board.pin_write(model, name.replace(" ", "-"), type="joblib", metadata=METADATA)

    def fetch(self, name: str) -> Any:
        return self._board.pin_read(name.replace(" ", "-"))

    def delete(self, name: str) -> None:
        self._board.pin_delete(name.replace(" ", "-"))


class MLflow(Store):
    """A run for each model in mlflow's files, with a pickle as its artifact.

    A file beside them has the run's id: to find a run by its name, mlflow reads them all. Deleting a run only marks it,
    so its folder is removed too.
    """

    package = "mlflow"

    def __init__(self, folder: Path) -> None:
        # It uses these files only if it is told that they are wanted; its database needs more than mlflow-skinny.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        import mlflow

        super().__init__(folder)
        self._client = mlflow.MlflowClient((folder / "runs").as_uri())

    def store(self, name: str, model: Any) -> None:
        run = self._client.create_run("0", run_name=name, tags={key: str(value) for key, value in METADATA.items()})
        path = self.folder / "model.pickle"
        with path.open("wb") as file:
            pickle.dump(model, file, 5)
        self._client.log_artifact(run.info.run_id, str(path))
        self._client.set_terminated(run.info.run_id)
        path.unlink()
        (self.folder / name).write_text(run.info.run_id)

    def fetch(self, name: str) -> Any:
        path = self._client.download_artifacts((self.folder / name).read_text(), "model.pickle")
        with open(path, "rb") as file:
            return pickle.load(file)

    def delete(self, name: str) -> None:
        run = (self.folder / name).read_text()
        self._client.delete_run(run)
        shutil.rmtree(self.folder / "runs" / "0" / run)
        (self.folder / name).unlink()


BASELINES: dict[str, type[Store]] = {"plain file": PlainFile, "bare SQLite": BareSQLite, "kept open": KeptOpen}
COMPARED: dict[str, type[Store]] = {
    "views_runs": ViewsRuns,
    "joblib": Joblib,
    "diskcache": DiskCache,
    "sqlitedict": SqliteDict,
    "pins": Pins,
    "mlflow": MLflow,
}
STORES = BASELINES | COMPARED


def label(store: str) -> str:
    return store if STORES[store].fsyncs else f"{store}*"
