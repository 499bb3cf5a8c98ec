"""Check that a file which is no store is refused by every operation, and is left as it was."""

from collections.abc import Callable

import pytest

from views_runs import Storage
from views_runs.exceptions import StorageError


def every_operation(store: Storage) -> list[Callable[[], object]]:
    """Return a call of each operation that opens the file; the first three also create it."""
    return [
        lambda: store.store("m", 1),
        lambda: store.store("m", 1, overwrite=True),
        lambda: store.require("author"),
        lambda: store.fetch("m"),
        lambda: store.list(),
        lambda: store.inspect("m"),
        lambda: store.exists("m"),
        lambda: store.delete("m"),
        lambda: store.fetch_metadata("m"),
        lambda: store.store_metadata("m", {}),
        lambda: store.download("m"),
        lambda: store.annotate("m", note=1),
        lambda: store.required(),
        lambda: store.verify(),
        lambda: store.backup(store.path.with_name("copy.db")),
        lambda: store.diff("m"),
        lambda: store.check("m"),
    ]


def refused(store: Storage, kind: type[StorageError], said: str) -> None:
    """Check that every operation is refused, that the file stays as it is, and that none is made beside it."""
    before, files = store.path.read_bytes(), set(store.path.parent.iterdir())
    for operation in every_operation(store):
        with pytest.raises(kind, match=said) as caught:
            operation()
        assert str(store.path) in str(caught.value)
    assert store.path.read_bytes() == before
    assert set(store.path.parent.iterdir()) <= files
