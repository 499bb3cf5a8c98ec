"""What a fetch is held to: who may write the folders above, and what the unpickler may ask for."""

import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.planted import plant
from views_runs import OpenPermissionsError, Storage, StorageError, UntrustedModelError
from views_runs.pickles import opcodes, permissions, trust


@pytest.mark.parametrize("through", ["link to the file", "link to the folder", "link to a folder above"])
def test_an_open_folder_above_the_real_store(tmp_path: Path, through: str) -> None:
    """A store that is reached by a link is refused when everyone may write a folder above the real one."""
    need(os.name == "posix", "there are no mode bits")
    real, links = tmp_path / "above" / "middle" / "own" / "models.db", tmp_path / "links"
    real.parent.mkdir(parents=True)
    links.mkdir()
    Storage(real).store("m", 1)
    path, target = {
        "link to the file": (links / "models.db", real),
        "link to the folder": (links / "own" / "models.db", real.parent),
        "link to a folder above": (links / "middle" / "own" / "models.db", real.parents[1]),
    }[through]
    (links / path.relative_to(links).parts[0]).symlink_to(target)
    store = Storage(path)
    assert store.fetch("m") == 1
    for folder in (tmp_path / "above", tmp_path / "above" / "middle"):
        folder.chmod(0o777)
        with pytest.raises(OpenPermissionsError):
            store.fetch("m")
        # In a sticky folder nobody can put another folder in the place of somebody else's.
        folder.chmod(0o1777)
        assert store.fetch("m") == 1
        folder.chmod(0o755)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("through", ["a folder's link", "a file's link", "a link with .."])
def test_an_open_folder_between_two_links(tmp_path: Path, through: str, relative: bool) -> None:
    """Whoever can write a folder that only links lead through can lead the last one elsewhere."""
    need(os.name == "posix", "there are no mode bits")
    mine, between, safe = (tmp_path / name for name in ("mine", "between", "safe"))
    for folder in (mine, between, safe / "below"):
        folder.mkdir(parents=True)
    Storage(safe / "models.db").store("m", 1)

    def link(path: Path, target: Path) -> None:
        path.symlink_to(os.path.relpath(target, path.parent) if relative else target)

    if through == "a file's link":
        link(between / "mid.db", safe / "models.db")
        link(mine / "models.db", between / "mid.db")
        path = mine / "models.db"
    else:
        link(between / "data", safe / "below" if through == "a link with .." else safe)
        link(mine / "data", between / "data")
        path = mine / "data" / ".." / "models.db" if through == "a link with .." else mine / "data" / "models.db"
    store = Storage(safe / "models.db")
    # As it is given: Storage removes `..` itself, and this is what the lists of trust and other callers may give.
    assert [*permissions.open_to_everyone(path)] == [] and store.fetch("m") == 1
    between.chmod(0o777)
    assert [place for place, _ in permissions.open_to_everyone(path)] == [between]
    if through != "a link with ..":
        with pytest.raises(OpenPermissionsError, match=f"can write to {between}, "):
            Storage(path).fetch("m")
        findings = [finding.text for finding in Storage(path).doctor() if finding.state == "failure"]
        assert [text for text in findings if str(between) in text]
    between.chmod(0o1777)
    assert [*permissions.open_to_everyone(path)] == []


def test_links_in_a_circle(tmp_path: Path) -> None:
    """They lead nowhere, and are followed no further than the system follows them."""
    need(os.name == "posix", "there are no mode bits")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len([*permissions.list_folders(tmp_path / "a" / "models.db")]) < 1000


def test_the_list_behind_an_open_folder(store: Storage, tmp_path: Path) -> None:
    """The user's own list is held to the same."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", Fraction(1, 2))
    trust.add_all(store.inspect("m"))
    own, between = trust.path(), tmp_path / "between"
    between.mkdir()
    own.rename(tmp_path / "list.txt")
    (between / "list.txt").symlink_to(tmp_path / "list.txt")
    own.symlink_to(between / "list.txt")
    assert store.fetch("m", trusted=True) == Fraction(1, 2)
    between.chmod(0o777)
    with pytest.raises(StorageError, match=f"can write to {between}, and so change this list"):
        store.fetch("m", trusted=True)


def test_an_open_folder_with_the_list(store: Storage) -> None:
    """The user's own list is refused when everyone may write the folder that it is in, and so put another there."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", Fraction(1, 2))
    trust.add_all(store.inspect("m"))
    folder = trust.path().parent
    for mode in (0o777, 0o757):
        folder.chmod(mode)
        with pytest.raises(StorageError) as caught:
            store.fetch("m", trusted=True)
        assert str(folder) in str(caught.value)
    folder.chmod(0o775)
    assert store.fetch("m", trusted=True) == Fraction(1, 2)


def misread(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Let the first pass over a pickle see something else than its bytes say."""
    result = opcodes.Reader.result
    monkeypatch.setattr(opcodes.Reader, "result", lambda self: replace(result(self), **fields))


@pytest.mark.parametrize("name", ["system", "getpid.__self__", "getpid.__class__"])
def test_the_unpickler_is_held_to_the_name(store: Storage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Would the first pass misread a name, the unpickler would still give nothing else of a module that is trusted."""
    plant(store, "m", pickle.dumps(os.getpid, 4).replace(b"\x8c\x06getpid", bytes([0x8C, len(name)]) + name.encode()))
    module = os.getpid.__module__
    only = frozenset({opcodes.Import(module, "getpid")})
    misread(monkeypatch, imports=only, asked=only)
    with pytest.raises(UntrustedModelError):
        store.fetch("m", trusted=[f"{module}.getpid"])


def test_the_unpickler_is_held_to_the_module(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor would it give the same name of another module."""
    plant(store, "m", b"cnumbers\nRational\n.")
    only = frozenset({opcodes.Import("fractions", "Rational")})
    misread(monkeypatch, imports=only, asked=only)
    with pytest.raises(UntrustedModelError):
        store.fetch("m", trusted=["fractions.Rational"])


OLD: list[Any] = [{1, 2}, OrderedDict(a=1), Fraction(1, 2), complex(1, 2), range(3), os.getpid, map, ValueError("x")]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("model", OLD, ids=lambda model: type(model).__name__)
def test_a_model_of_any_protocol(store: Storage, model: Any, protocol: int) -> None:
    """A model is fetched with the list of what inspect says, though old pickles ask for it by its name of Python 2."""
    plant(store, "m", pickle.dumps(model, protocol))
    imports = store.inspect("m").imports
    assert repr(store.fetch("m", trusted=imports)) == repr(model)
    trust.add_all(store.inspect("m"))
    assert repr(store.fetch("m", trusted=True)) == repr(model)


def test_a_name_of_python_2(store: Storage) -> None:
    """A list is written in the names of Python 3: who trusts `builtins.set` has not trusted a module `__builtin__`."""
    plant(store, "m", pickle.dumps({1}, 2))
    assert store.fetch("m", trusted=["builtins.set"]) == {1}
    with pytest.raises(UntrustedModelError):
        store.fetch("m", trusted=["__builtin__.set"])
    # From protocol 3 on the unpickler takes a name as it is.
    plant(store, "n", b"\x80\x03c__builtin__\nset\n.")
    with pytest.raises(UntrustedModelError):
        store.fetch("n", trusted=["builtins.set"])
