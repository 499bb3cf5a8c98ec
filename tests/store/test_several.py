"""Several models at once: which versions names, globs and conditions choose, and what is then done with them."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stores import leftovers
from views_runs import (
    Deletion,
    DownloadError,
    InvalidMetadataError,
    InvalidNameError,
    ModelInUseError,
    ModelNotFoundError,
    QueryError,
    Storage,
)


@pytest.fixture
def models(store: Storage) -> Storage:
    """A store in which `forest` has three versions, the first of them in production, and one name is a glob."""
    for month in (480, 492, 504):
        store.store("forest", [month], {"train_end": month, "author": "ines"}, overwrite=True)
    store.store("fast", 1, {"train_end": 480, "stage": "prod"})
    store.store("f*t", 2, {"author": "ola"})
    store.store("ridge", 3)
    store.alias("forest", "production", 1)
    return store


def names(records: object) -> str:
    """Return the versions of records in one line."""
    return " ".join(str(record.reference) for record in records)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "given, options, expected",
    [
        (["forest"], {}, "forest:3"),
        (["forest:1", "forest@production", "ridge"], {}, "forest:1 ridge:1"),
        (["f*"], {}, "f*t:1 fast:1 forest:3"),
        (["f*t"], {}, "f*t:1"),
        (["f[a]st", "f*t"], {}, "f*t:1 fast:1"),
        (["ridge", "f*"], {}, "ridge:1 f*t:1 fast:1 forest:3"),
        (["f*@production"], {}, "forest:1"),
        (["forest"], {"all_versions": True}, "forest:3 forest:2 forest:1"),
        (["fo*"], {"all_versions": True}, "forest:3 forest:2 forest:1"),
        (["forest"], {"where": "train_end < 500"}, None),
        (["forest"], {"where": "train_end < 500", "all_versions": True}, "forest:2 forest:1"),
        (["forest:2"], {"where": "train_end < 500"}, "forest:2"),
        (["forest@production"], {"where": "train_end < 500"}, "forest:1"),
        (["f*t"], {"where": "author"}, "f*t:1"),
        ([], {"where": ["train_end", "author = ines"]}, "forest:3"),
        ([], {"author": ["ines", "ola"]}, "f*t:1 forest:3"),
        ([], {"alias": "production"}, "forest:1"),
        ([], {"since": "2020-01-01", "stage": "prod"}, "fast:1"),
        ([], {}, "ridge:1 f*t:1 fast:1 forest:3"),
        (["x*"], {}, None),
        (["f*", "x*"], {}, None),
        (["forest", "rigde"], {}, None),
        (["fo*:2"], {}, None),
        ([], {"where": "train_end > 600"}, None),
    ],
)
def test_what_is_chosen(models: Storage, given: list[str], options: dict[str, object], expected: str | None) -> None:
    """A name that exists is that model; a glob or a condition is what `find` returns; each must choose something."""
    if expected is None:
        with pytest.raises(ModelNotFoundError):
            models.select(*given, **options)  # type: ignore[arg-type]
        return
    assert names(models.select(*given, **options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("glob", ["*", "f*", "[fr]*", "?idge", "*@production", "f?st"])
@pytest.mark.parametrize("where", [(), ("train_end",), ("train_end < 500", "author = ines")])
@pytest.mark.parametrize("every", [False, True])
def test_a_glob_is_what_find_returns(models: Storage, glob: str, where: tuple[str, ...], every: bool) -> None:
    """Exactly those, in the same order."""
    found = models.find(*where, name=glob, all_versions=every)
    if not found:
        with pytest.raises(ModelNotFoundError):
            models.select(glob, where=where, all_versions=every)
        return
    assert models.select(glob, where=where, all_versions=every) == found
    planned = models.delete_many(glob, where=where, all_versions=every, promote_older=True, force=True, dry_run=True)
    assert planned.deleted == found


def test_messages_name_what_was_asked_for(models: Storage) -> None:
    """Also for thousands of names; what is probably mistaken is logged."""
    many = [f"m{number}" for number in range(10_000)]
    with pytest.raises(ModelNotFoundError, match=r"cannot find 'm0', 'm1', 'm2' and 9,997 more: .*no model 'm0'"):
        models.select(*many)
    with pytest.raises(ModelNotFoundError, match="no model's name matches 'x.'"):
        models.select("x?")
    with pytest.raises(ModelNotFoundError, match="no model that matches 'f.' meets the conditions"):
        models.select("f*", where="train_end > 600")
    with pytest.raises(ModelNotFoundError, match="no model 'rigde'. Did you mean 'ridge'"):
        models.select("rigde", where="train_end > 600")
    with pytest.raises(ModelNotFoundError, match="A glob has no version"):
        models.select("fo*:2")
    with pytest.raises(InvalidNameError, match="both an alias and a version"):
        models.select("forest@production:2")


def test_mistakes_are_logged_when_nothing_is_found(models: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """As in `find`."""
    with pytest.raises(ModelNotFoundError):
        models.verify(where="stagee = prod")
    assert "no model has a field 'stagee'; did you mean 'stage'?" in caplog.text


def test_ten_thousand_names(models: Storage) -> None:
    """Each version is chosen once."""
    given = ["forest:1", "ridge", "forest", "f*t", "forest:3"] * 2000
    assert names(models.select(*given)) == "forest:1 ridge:1 forest:3 f*t:1"
    assert models.verify(*given).versions == 5
    assert len(models.check(*given)) == 4
    assert len(models.delete_many(*given, dry_run=True, force=True).versions) == 5


@pytest.mark.parametrize("change", ["delete_many", "annotate_many"])
@pytest.mark.parametrize(
    "condition, said",
    [
        ("stagee = prod", "no model has a field 'stagee'; did you mean 'stage'"),
        ("stage = prod or stagee = prod", "no model has a field 'stagee'"),
        ("train_end > 100 and stage > 3", "stage is text in every model, but 3 is a number"),
    ],
)
def test_mistakes_are_refused_before_a_change(models: Storage, change: str, condition: str, said: str) -> None:
    """A field that no model has, or a type that no value has, would choose other versions than were meant."""
    with pytest.raises(QueryError, match=f"nothing was changed: {said}"):
        getattr(models, change)("*", where=condition)
    assert len(models.find(all_versions=True)) == 6


def test_check_and_verify_several(models: Storage, sql: sqlite3.Connection) -> None:
    """A name means all versions to `verify` and the current one to `check`; a row that cannot be read is damage."""
    assert models.verify("forest", "ridge").versions == 4
    assert models.verify("forest*").versions == 1
    assert models.verify("forest@production").versions == 1
    assert models.verify(where="train_end", all_versions=True).versions == 4
    assert names(record for record, _ in models.check("forest", "f*")) == "forest:3 f*t:1 fast:1"
    sql.execute("UPDATE models SET stored_at = 'x' WHERE name = 'fast'")
    sql.commit()
    found = models.verify("f*")
    assert (found.versions, [damage.name for damage in found.damaged]) == (2, ["fast"])
    assert models.verify("fast").versions == 1
    unreadable: list[object] = []
    assert len(models.check("f*", on_damage=unreadable.append)) == 2 and len(unreadable) == 1


def test_download_several(models: Storage, tmp_path: Path) -> None:
    """The current version is named after the model, another also after its version."""
    folder = tmp_path / "to"
    found = models.download_many(folder, "fo*", "ridge", all_versions=True)
    files = {path.name: path.read_bytes() for _, path in found}
    assert sorted(files) == ["forest.pickle", "forest_1.pickle", "forest_2.pickle", "ridge.pickle"]
    assert {path: len(content) for path, content in files.items()} == {path.name: one.size for one, path in found}
    with pytest.raises(DownloadError, match="already exists"):
        models.download_many(folder, "fast", "ridge")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    models.download_many(folder, "fast", "ridge", overwrite=True)
    with pytest.raises(DownloadError, match="the folder cannot be created"):
        models.download_many(tmp_path / "no" / "folder", "ridge")


def test_two_models_in_one_file(models: Storage, tmp_path: Path) -> None:
    """Nothing is written if a file would be that of two models."""
    models.store("a/b", 1)
    models.store("a_b", 2)
    with pytest.raises(DownloadError, match="'a_b:1' and 'a/b:1' would both be written to a_b.pickle"):
        models.download_many(tmp_path / "to", "a?b", overwrite=True)
    assert [*(tmp_path / "to").iterdir()] == []


def test_annotate_several(models: Storage) -> None:
    """All of them, or none; each is an event."""
    changed = models.annotate_many("forest", "fast", fields={"note": "x"}, unset="train_end", why="wrong month")
    notes = [(before.version, (after.metadata or {})["note"]) for before, after in changed]
    assert notes == [(3, "x"), (1, "x")]
    assert models.log("fast")[0].why == "wrong month"
    before = models.find()
    with pytest.raises(InvalidMetadataError, match=r"annotate '[^,']+:\d': .* no field 'note' to remove"):
        models.annotate_many("*", unset=["note"])
    with pytest.raises(ModelNotFoundError):
        models.annotate_many("forest", "x*", fields={"note": "y"})
    assert models.find() == before
    changed = models.annotate_many(where="note = x", fields={"note": None})
    assert names(after for _, after in changed) == "fast:1 forest:3"
    assert models.restore("forest:2").current
    assert models.annotate_many("forest", fields={"note": "z"})[0][1].version == 2


def test_delete_several(models: Storage) -> None:
    """A name alone is all versions; what is left and current is said."""
    found = models.delete_many("fast", "forest:3", "rid*", why="old")
    assert names(found.deleted) == "fast:1 forest:3 ridge:1"
    assert found.current == {"fast": None, "forest": 2, "ridge": None}
    assert [event.why for event in models.log(limit=3)] == ["old"] * 3
    assert models.list(all_versions=True) == ["f*t:1", "forest:2", "forest:1"]
    assert names(models.delete_many("f*t").deleted) == "f*t:1"


def test_a_glob_does_not_promote(models: Storage) -> None:
    """A line that is repeated does not peel versions off, and no old model goes live, unless that is asked for."""
    for options in ({"where": "train_end > 500"}, {"author": "ines"}):
        with pytest.raises(ModelInUseError, match="another version would become current in place of forest:3"):
            models.delete_many(**options)  # type: ignore[arg-type]
    with pytest.raises(ModelInUseError, match="in place of forest:3"):
        models.delete_many("*")
    assert len(models.find(all_versions=True)) == 6
    planned = models.delete_many("*", promote_older=True, dry_run=True)
    assert (names(planned.deleted), planned.current["forest"]) == ("ridge:1 f*t:1 fast:1 forest:3", 2)
    assert models.delete_many("fo*", promote_older=True).current == {"forest": 2}
    with pytest.raises(ModelInUseError, match="forest:1 has the alias production"):
        models.delete_many("fo*", all_versions=True)
    assert models.delete_many("fo*", all_versions=True, force=True).current == {"forest": None}


def test_an_alias_protects(models: Storage) -> None:
    """The deletion is refused whole."""
    with pytest.raises(ModelInUseError, match="forest:1 has the alias production"):
        models.delete_many("ridge", "forest")
    assert len(models.find(all_versions=True)) == 6
    assert len(models.delete_many("ridge", "forest", force=True).deleted) == 4


def test_nothing_is_not_everything(models: Storage) -> None:
    """Without names and conditions, nothing is deleted."""
    for options in ({}, {"all_versions": True}, {"where": ()}):
        with pytest.raises(QueryError, match="no names and no conditions"):
            models.delete_many(**options)  # type: ignore[arg-type]
    assert len(models.find(all_versions=True)) == 6


def test_a_current_version_goes_last(models: Storage) -> None:
    """When a model is deleted whole, no other version becomes current on the way, wherever the pointer is."""
    models.restore("forest:2")
    found = models.delete_many("fo*", all_versions=True, force=True)
    assert names(found.deleted) == "forest:3 forest:2 forest:1" and found.current == {"forest": None}
    assert [event.version for event in models.log("forest", limit=3)] == [2, 3, 1]


def restore(store: Storage) -> str:
    """Make a version that is to be deleted current."""
    store.restore("forest:2")
    return "it is now the current version"


def alias(store: Storage) -> str:
    """Give it an alias."""
    store.alias("forest", "best", 2)
    return "it now has the alias best"


def rename(store: Storage) -> str:
    """Rename it."""
    store.rename("forest", "woods")
    return "it was renamed to 'woods:2' meanwhile"


def delete(store: Storage) -> str:
    """Delete it."""
    store.delete("forest:2")
    return "it was deleted meanwhile"


def damage(store: Storage) -> str:
    """Make its row unreadable."""
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE models SET stored_at = 'x' WHERE version = 2")
    connection.close()
    return "it cannot be read"


#: The reasons that `prune` gives in other words.
PRUNED = {restore: "it is protected now (current)", alias: "it is protected now (has the alias best)"}


@pytest.mark.parametrize("change", [restore, alias, rename, delete, damage])
@pytest.mark.parametrize("verb", ["delete_many", "prune"])
def test_what_has_changed_since_is_kept(models: Storage, change: Callable[[Storage], str], verb: str) -> None:
    """What was shown and is no longer so is kept and reported; the rest is deleted."""
    models.unalias("forest", "production")
    said: list[str] = []

    def confirm(plan: object) -> None:
        said.append(change(models))

    if verb == "delete_many":
        found = models.delete_many(where="not current", all_versions=True, confirm=confirm).versions
    else:
        found = tuple(one for one in models.prune("forest", keep_last=1, confirm=confirm) if one.record.version < 3)
    kept, gone = found
    assert (kept.record.version, kept.deleted, kept.changed) == (2, False, True)
    reason = said[0] if verb == "delete_many" else PRUNED.get(change, said[0])
    assert kept.reason.startswith(reason)
    assert gone.deleted is (change is not rename)
    assert leftovers(models) == {"parts": 0, "uploads": 0}


def test_a_version_stored_meanwhile(models: Storage) -> None:
    """What was shown is deleted, and nothing else."""
    found = models.delete_many("ridge", confirm=lambda plan: models.store("ridge", 4, overwrite=True))
    assert names(found.deleted) == "ridge:1" and found.current == {"ridge": 2}

    def restore_older(plan: object) -> None:
        models.store("ridge", 5, overwrite=True)
        models.restore("ridge:2")

    found = models.delete_many("rid*", confirm=restore_older)
    assert found.deleted == [] and found.versions[0].reason == "the model now has other versions"


def test_no(models: Storage) -> None:
    """If the answer is no, nothing is deleted, and the file was not open while it was asked."""

    def refuse(plan: Deletion) -> None:
        assert names(plan.deleted) == "ridge:1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.delete_many("ridge", confirm=refuse)
    assert models.exists("ridge")


def test_what_is_left_cannot_be_read(models: Storage, sql: sqlite3.Connection) -> None:
    """The deletion is no failure, and says which version is current now."""
    sql.execute("UPDATE models SET size = 'many' WHERE name = 'forest' AND version = 2")
    found = models.delete_many("forest:3")
    assert names(found.deleted) == "forest:3" and found.current == {"forest": 2}


def test_json_of_a_disposition(models: Storage) -> None:
    """What is returned is a value."""
    (one,) = models.delete_many("ridge", dry_run=True).versions
    assert (one.deleted, one.reason, one.changed) == (True, "", False)
    assert json.dumps(one.record.as_json())
