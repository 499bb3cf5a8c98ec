"""A backup is of one moment, and the copy is verified down to its indexes."""

import sqlite3
from pathlib import Path

import pytest

from tests.support.pieces import MIB
from tests.support.watched import between, watched
from views_runs import BackupError, Storage


def newest(path: Path) -> dict[str, object]:
    """Return what the small tables say of the models in a store, and what the models say."""
    sql = sqlite3.connect(path)
    try:
        one = "SELECT (SELECT versions FROM names), (SELECT max(version) FROM models), (SELECT count(*) FROM models)"
        names, versions, count = sql.execute(one).fetchone()
        ids = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'models'), (SELECT max(id) FROM models)"
        sequence, highest = sql.execute(ids).fetchone()
        return {"names": names, "versions": versions, "count": count, "sequence": sequence, "highest": highest}
    finally:
        sql.close()


def test_stored_between_two_reads(store: Storage, tmp_path: Path) -> None:
    """Others that store between any two reads of a backup do not tear the copy: all its tables are of one moment."""
    store.store("m", 0)
    stored = 1

    def store_one() -> None:
        nonlocal stored
        store.store("m", stored, overwrite=True)
        stored += 1

    with watched(store.path, between(store_one)):
        made = store.backup(tmp_path / "copy.db")
    found = newest(tmp_path / "copy.db")
    assert 2 < made.versions < stored
    assert found == dict.fromkeys(found, made.versions)


def test_the_indexes_of_the_copy_are_verified(store: Storage, tmp_path: Path) -> None:
    """A disk that damages an index of the copy, and no model, is noticed, and no copy is left."""
    folder = tmp_path / "backups"
    folder.mkdir()
    store.store("m", bytes(2 * MIB), {"note": "from the paper"})
    damaged: list[Path] = []

    def damage(done: int, total: int) -> None:
        if done > total / 2 and not damaged:
            # What lies beside the copy has a longer name.
            damaged.append(min(folder.iterdir(), key=lambda file: len(file.name)))
            damage_index(damaged[0], b"from the paper")

    with pytest.raises(BackupError):
        store.backup(folder / "copy.db", progress=damage)
    assert len(damaged) == 1 and [*folder.iterdir()] == []


def damage_index(path: Path, text: bytes) -> None:
    """Change a text in the index that models are listed from, and not in the table."""
    sql = sqlite3.connect(path)
    [(page, size)] = sql.execute(
        "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'models_record'"
    ).fetchall()
    sql.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        data = file.read(size)
        assert data.count(text) == 1
        file.seek((page - 1) * size + data.index(text))
        file.write(text[::-1])
