"""What a user can do with a store on a share, to be tried on one where nothing must be written.

It also runs on the computers of a rig, which have no pytest.
"""

import hashlib
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from views_runs import Storage, UnsafeShareError

#: The name and the metadata of the model that is in the store.
NAME, METADATA = "there", {"author": "ines", "train_end": 480}

#: The trials are given a store, and a folder elsewhere for files.
Trial = Callable[[Storage, Path], Any]

READING: dict[str, Trial] = {
    "list": lambda store, folder: store.list() == [NAME],
    "inspect": lambda store, folder: store.inspect(NAME).metadata == METADATA,
    "fetch": lambda store, folder: store.fetch(NAME, sha256=store.inspect(NAME).sha256) == list(range(1000)),
    "download": lambda store, folder: store.download(NAME, folder / "there.pickle", overwrite=True).stat().st_size,
    "verify": lambda store, folder: store.verify().versions == 1 and not store.verify().damaged,
    "check": lambda store, folder: store.check(NAME)[0][1].verdict == "loads",
    "required": lambda store, folder: store.required() == [],
    "fetch_or_train": lambda store, folder: not store.obtain(NAME, lambda: 1, METADATA).trained,
}


#: To be put before what the probe of locks runs: a server that grants a shared lock, and an exclusive one, but not the
#: second to who has the first.
SMB_LOCKS = """
import fcntl
held = []
def lockf(file, kind, *place):
    if kind & fcntl.LOCK_EX and place in held:
        raise PermissionError(13, "Permission denied")
    held.append(place)
fcntl.lockf = lockf
"""


def upload(store: Storage, folder: Path) -> Any:
    """Store a pickle file."""
    (folder / "other.pickle").write_bytes(pickle.dumps("other"))
    return store.upload(folder / "other.pickle", "uploaded")


def never() -> Any:
    """Raise an error where a refusal has to come before hours of work."""
    raise AssertionError("this was trained for nothing")


class Slow:
    """An object that must not be pickled."""

    def __reduce__(self) -> Any:
        return never()


#: What must be refused, before anything is pickled or trained.
WRITING: dict[str, Trial] = {
    "store": lambda store, folder: store.store("new", Slow()),
    "store a version": lambda store, folder: store.store(NAME, Slow(), overwrite=True),
    "store in a new file": lambda store, folder: Storage(store.path.with_name("new.db")).store("new", Slow()),
    "upload": upload,
    "fetch_or_train": lambda store, folder: store.fetch_or_train("new", never, METADATA),
    "retrain": lambda store, folder: store.fetch_or_train(NAME, never, METADATA, retrain=True),
    "train in a new file": lambda store, folder: Storage(store.path.with_name("new.db")).obtain("new", never, METADATA),
    "annotate": lambda store, folder: store.annotate(NAME, note="x"),
    "store_metadata": lambda store, folder: store.store_metadata(NAME, METADATA, overwrite=True),
    "require": lambda store, folder: store.require("author"),
    "require in a new file": lambda store, folder: Storage(store.path.with_name("new.db")).require("author"),
    "alias": lambda store, folder: store.alias(NAME, "production"),
    "restore": lambda store, folder: store.restore(f"{NAME}:1"),
    "rename": lambda store, folder: store.rename(NAME, "new"),
    "delete": lambda store, folder: store.delete(NAME),
    "backup": lambda store, folder: store.backup(store.path.with_name("copy.db")),
}


def fill(path: str | Path) -> None:
    """Make the store that the trials expect, where that is possible."""
    Storage(path).store(NAME, list(range(1000)), METADATA)


def find_files(folder: Path) -> dict[str, str]:
    """Return a digest of each file in a folder."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def refused(store: Storage, trial: Trial, folder: Path) -> tuple[str, float]:
    """Return the message of the refusal, and the seconds that it took; nothing may be left."""
    before, began = find_files(store.path.parent), time.monotonic()
    try:
        trial(store, folder)
    except UnsafeShareError as error:
        took, message = time.monotonic() - began, str(error)
    else:
        raise AssertionError("this was not refused")
    assert find_files(store.path.parent) == before, "the folder was changed"
    return message, took
