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
from views_runs.pickles import opcodes, trust


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
