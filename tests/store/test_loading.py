"""What is recorded of a model's needs, whether it will load here, and what is said when it does not."""

import functools
import importlib
import json
import logging
import pickle
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import lightgbm
import numpy as np
import pytest
import xgboost
from click.testing import Result
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from tests.hostile import catalogue
from tests.support.budgets import IN_FULL
from tests.support.planted import lie, plant
from views_runs import ModelLoadError, ModelPickleError, Storage, StoreDamagedError, records
from views_runs.pickles import culprit, loadability, packages
from views_runs.pickles.loadability import LOADS, MAY_NOT, WILL_NOT

Viewser = Callable[..., Result]

ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Plain:
    """Something to store, with what it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def fitted(model: Any) -> Any:
    """Fit a model to a little data."""
    data = np.random.default_rng(1).random((40, 3))
    return model.fit(data, data[:, 0])


def imports(module: str, name: str = "Model") -> bytes:
    """Return a pickle that imports something, and is that."""
    return f"c{module}\n{name}\n.".encode()


def put(store: Storage, name: str, data: bytes, **recorded: Any) -> None:
    """Plant a pickle, with what was recorded of it."""
    plant(store, name, data)
    lie(store, name, json.dumps({"type": None, "python": "CPython 3.11.7", "platform": "x", "protocol": 5, **recorded}))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for modules, and forget what is imported from it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str([sys.modules[name], getattr(sys.modules[name], "__path__", "")]):
            del sys.modules[name]


# What is recorded.


def test_what_a_store_records(store: Storage) -> None:
    """A record has the imports, the distributions that supply them, and what these require, with their versions."""
    record = store.store("forest", fitted(RandomForestRegressor(2)))
    assert record.imports is not None and "sklearn.ensemble._forest.RandomForestRegressor" in record.imports
    assert "sklearn.tree._tree.Tree" in record.imports and list(record.imports) == sorted(record.imports)
    assert record.suppliers["sklearn"] == "scikit-learn" and record.suppliers["numpy"] == "numpy"
    for name in ("scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl"):
        assert record.packages[name] == metadata.version(name)
    assert (record.troubles, record.has_code, record.protocol) == ((), False, 5)
    assert record.python == f"CPython {'.'.join(map(str, sys.version_info[:3]))}"
    assert store.find() == [record] == [store.inspect("forest")]
    assert record.loadable() == loadability.Verdict(LOADS)


@pytest.mark.parametrize(
    "model, module",
    [
        (xgboost.XGBRegressor(n_estimators=2), "xgboost"),
        (lightgbm.LGBMRegressor(n_estimators=2, verbose=-1), "lightgbm"),
    ],
)
def test_what_a_distribution_requires(store: Storage, model: Any, module: str) -> None:
    """A boosted model names its own library alone, and needs scikit-learn, scipy and numpy too."""
    record = store.store("boosted", fitted(model))
    assert "sklearn" not in record.suppliers
    for name in (record.suppliers[module], "scikit-learn", "numpy", "scipy"):
        assert record.packages[name] == metadata.version(name)


def test_code_by_value(store: Storage) -> None:
    """A function that was pickled by its code says so; it fits one version of Python."""
    factor = 3
    data = cloudpickle.dumps(lambda value: value * factor)
    plant(store, "m", data)
    assert store.inspect("m").has_code
    Path("f.pickle").write_bytes(data)
    assert store.upload("f.pickle", "uploaded").has_code
    assert store.fetch("uploaded")(2) == 6
    assert not store.store("by-name", json.dumps).has_code


def test_distributions_are_asked_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at all that is installed takes long: it is done once a process, and not on the way of a reader."""
    asked = []
    look = metadata.packages_distributions
    monkeypatch.setattr(metadata, "packages_distributions", lambda: asked.append(1) or look())
    packages._distributions.cache_clear()
    for number in range(3):
        store.store(f"m{number}", Ridge())
    assert len(asked) == 1
    packages._distributions.cache_clear()
    store.list(), store.fetch("m0"), store.inspect("m1"), store.check(), store.download("m2")
    assert len(asked) == 1


def test_modules_of_several_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that several distributions supply is that of its own name, or of none in particular."""
    known = {"google": ["google-auth", "protobuf"], "numpy": ["numpy", "numpy-extra"], "sklearn": ["scikit-learn"]}
    monkeypatch.setattr(packages, "_distributions", lambda: known)
    assert packages.suppliers(["google", "numpy", "sklearn", "json", "gone"]) == {
        "numpy": "numpy",
        "sklearn": "scikit-learn",
    }


@pytest.mark.abridged
@pytest.mark.parametrize(
    "error", [ValueError, TypeError, OSError, DeprecationWarning] if IN_FULL else [OSError, DeprecationWarning]
)
@pytest.mark.parametrize("name", ["packages_distributions", "_read_requirements", "version"])
def test_damaged_distributions_lose_no_model(
    store: Storage, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception]
) -> None:
    """Whatever is wrong with what is installed, a model is stored."""

    def fail(*arguments: Any) -> Any:
        raise error("no such file: METADATA")

    monkeypatch.setattr(packages if name[0] == "_" else metadata, name, fail)
    for function in ("_distributions", "requirements", "version"):
        # What was found before stays in mind for other tests: to look at all that is installed takes long.
        monkeypatch.setattr(packages, function, cache(getattr(packages, function).__wrapped__))
    assert store.store("m", Ridge()).version == 1


# Fetching.


def test_a_missing_module(store: Storage, modules: Path) -> None:
    """A missing top-level module is said before anything is unpickled, with the line that installs it."""
    canary = modules / "canary"
    (modules / "first.py").write_text(f"open({str(canary)!r}, 'w').close()\nModel = 1\n")
    data = b"cfirst\nModel\n0" + imports("gone.models")
    put(
        store,
        "m",
        data,
        imports=["first.Model", "gone.models.Model"],
        packages={"gone": "1.2"},
        suppliers={"gone": "gone"},
    )
    with pytest.raises(
        ModelLoadError, match="needs the module gone.*nothing was loaded.*pip install gone==1.2"
    ) as caught:
        store.fetch("m")
    assert "cannot fetch 'm'" in str(caught.value) and caught.value.__cause__ is None
    with pytest.raises(ModelLoadError, match="pip install gone==1.2"):
        store.fetch("m", trusted=["first.Model", "gone.models.Model"])
    assert not canary.exists()
    (modules / "gone").mkdir()
    (modules / "gone" / "models.py").write_text("Model = 'here'\n")
    assert store.fetch("m") == "here" and canary.exists()


@pytest.mark.parametrize("recorded", [{}, {"imports": []}, {"imports": ["lied.Model"]}])
def test_what_was_read_is_missing(store: Storage, modules: Path, recorded: dict[str, Any]) -> None:
    """Where the bytes were read, they say which modules are needed, and not what somebody wrote into the file."""
    (modules / "first.py").write_text("raise SystemExit('it was imported')\n")
    put(store, "m", b"cfirst\nModel\n0" + imports("gone.models"), **recorded)
    for held in ({"trusted": ["first.Model", "gone.models.Model"]}, {"sha256": store.inspect("m").sha256}):
        with pytest.raises(ModelLoadError, match="needs the module gone, .*nothing was loaded"):
            store.fetch("m", **held)
    put(store, "n", pickle.dumps([1]), **recorded)
    assert store.fetch("n", trusted=[]) == [1]


def test_several_missing_modules(store: Storage) -> None:
    """All that are missing are named, each with the name of what supplies it."""
    put(
        store,
        "m",
        imports("a1"),
        imports=["a1.A", "b1.B", "c1.C"],
        packages={"dist-a": "1"},
        suppliers={"a1": "dist-a"},
    )
    with pytest.raises(
        ModelLoadError,
        match="modules a1, b1, c1.*pip install dist-a==1\\. The package that provides b1, c1 was not recorded",
    ):
        store.fetch("m")


def test_a_failure_is_explained(store: Storage) -> None:
    """A failure while unpickling is chained, and says how this machine differs from the one that stored the model."""
    put(
        store,
        "m",
        imports("sklearn.linear_model._ridge", "NoMore"),
        imports=["sklearn.linear_model._ridge.NoMore"],
        packages={"scikit-learn": "0.1", "numpy": metadata.version("numpy"), "gone-lib": "2.0"},
    )
    with pytest.raises(ModelLoadError) as caught:
        store.fetch("m")
    assert isinstance(caught.value.__cause__, AttributeError)
    text = str(caught.value)
    assert f"stored with scikit-learn 0.1, but {metadata.version('scikit-learn')} is installed" in text
    assert "stored with gone-lib 2.0, which is not installed" in text and "numpy" not in text
    assert "pip install scikit-learn==0.1 gone-lib==2.0" in text


def test_a_failure_without_differences(store: Storage) -> None:
    """Where nothing differs, the message says that, and promises nothing."""
    put(store, "m", b"cbuiltins\nlen\n(tR.", imports=["builtins.len"])
    with pytest.raises(ModelLoadError, match="This machine has everything that was recorded") as caught:
        store.fetch("m")
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("recorded", [{}, {"imports": ["builtins.list"], "packages": {"numpy": "0.1"}}])
def test_a_load_that_works_says_nothing(
    store: Storage, recorded: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever the versions, a load that works is silent."""
    put(store, "m", pickle.dumps([1]), **recorded)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert store.fetch("m") == [1]
    assert not caplog.records and not warned
    assert capfd.readouterr() == ("", "")


def test_models_that_were_stored_before(store: Storage, viewser: Viewser) -> None:
    """A model of which no imports were recorded is fetched, listed and checked, by its bytes where that is needed."""
    put(store, "old", pickle.dumps([1]))
    put(store, "gone", imports("gone"))
    assert store.find()[0].imports is None
    assert store.fetch("old") == [1] and store.fetch("old", trusted=[]) == [1]
    assert [str(verdict) for _, verdict in store.check("old")] == [LOADS]
    assert store.find(name="old")[0].loadable().verdict == MAY_NOT
    assert store.inspect("gone").imports == ("gone.Model",)
    with pytest.raises(ModelLoadError, match="No module named 'gone'"):
        store.fetch("gone")
    viewser("model", "check", "old")
    viewser("model", "check", "--all", exit_code=1)


# __main__.

SCRIPT = """
import sys, warnings
from views_runs import Storage

class Model:
    pass

warnings.simplefilter("always")
store = Storage(sys.argv[1])
store.store("m", Model())  # this line
store.fetch_or_train("n", Model, {})  # this line
store.store("plain", [1])
store.fetch("m")
"""


def test_main(store: Storage, tmp_path: Path) -> None:
    """Storing what is defined in the script warns, at the line that stores; elsewhere it is not fetched."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, store.path], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    places = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    lines = [number for number, line in enumerate(SCRIPT.splitlines(), 1) if "# this line" in line]
    assert [place.split(": UserWarning: ")[0] for place in places] == [f"{script}:{line}" for line in lines]
    assert "the model needs Model" in places[0] and "Move the definition to" in places[0]
    assert store.inspect("m").loadable().verdict == MAY_NOT
    assert "__main__" in str(store.inspect("m").loadable())
    with pytest.raises(ModelLoadError, match="__main__"):
        store.fetch("m")


def test_main_in_a_spawned_process(store: Storage, tmp_path: Path) -> None:
    """A process that multiprocessing spawns has the script under another name, and what it stores warns as well."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\nfrom views_runs import Storage\nclass Model: pass\n"
        "def work(path): Storage(path).store('m', Model())\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work, args=(sys.argv[1],))\n"
        "    process.start()\n    process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, script, store.path], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert store.inspect("m").imports == ("__mp_main__.Model",)
    assert "UserWarning: the model needs Model" in done.stderr


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module in a folder that was added to sys.path, as scripts that share code do it."""
    folder = tmp_path / "Tools"
    folder.mkdir()
    (folder / "shared_tools.py").write_text("class Model:\n    pass\n")
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("shared_tools")
    sys.modules.pop("shared_tools", None)


def forget(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this process be as one that has never seen the folder."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place) != folder])
    del sys.modules["shared_tools"]


def test_a_file_that_nobody_installed(
    store: Storage, tmp_path: Path, tools: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing it warns, the record keeps the file's name, and those who lack it are told which file it was."""
    file = str(tmp_path / "Tools" / "shared_tools.py")
    with pytest.warns(UserWarning, match=r"needs shared_tools \(.*shared_tools.py\), which no installed") as warned:
        record = store.store("m", tools.Model())
    assert warned[0].filename == __file__
    assert record.files == store.inspect("m").files == {"shared_tools": file}
    assert record.loadable().verdict == LOADS and isinstance(store.fetch("m"), tools.Model)
    forget(monkeypatch, tmp_path / "Tools")
    [reason] = store.inspect("m").loadable().reasons
    assert reason == f"the module shared_tools is not installed; it was loaded from {file}"
    with pytest.raises(ModelLoadError, match=f"When stored, shared_tools came from {file}. Copy that here and add"):
        store.fetch("m")


def test_a_warning_that_is_an_error(store: Storage, tools: ModuleType) -> None:
    """It comes when the model is stored: what took hours to train is not lost for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="shared_tools"):
            store.store("m", tools.Model())
    assert isinstance(store.fetch("m"), tools.Model)


@pytest.mark.parametrize("file", [None, 5, "no file"])
def test_a_module_that_is_any_object(
    store: Storage, tools: ModuleType, monkeypatch: pytest.MonkeyPatch, file: object
) -> None:
    """What it answers when it is asked for its file cannot stop a store."""

    class Lazy(ModuleType):
        Model = tools.Model

        @property
        def __file__(self) -> Any:
            if file is None:
                raise ImportError("not now")
            return file

    monkeypatch.setitem(sys.modules, "shared_tools", Lazy("shared_tools"))
    assert store.store("m", tools.Model()).files == {}


def test_a_file_of_an_editable_installation(
    store: Storage, tmp_path: Path, tools: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that was installed from where it is edited is an installed one."""
    info = tmp_path / "site" / "shared_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shared-tools\nVersion: 1.0\n")
    origin = {"url": (tmp_path / "Tools").as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path / "site")
    packages._editable_folders.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store.store("m", tools.Model()).files == {}
    finally:
        packages._editable_folders.cache_clear()


def test_main_in_an_upload(store: Storage, caplog: pytest.LogCaptureFixture, viewser: Viewser) -> None:
    """Uploading such a pickle says so too, and that it has a script of its own."""
    Path("m.pickle").write_bytes(imports("__main__", "Model"))
    store.upload("m.pickle", "m")
    assert "needs Model from __main__" in caplog.text
    assert "needs Model from __main__" in viewser("model", "upload", "m.pickle", "again").stderr


# What cannot be pickled.


class Slots:
    """Has no `__dict__`."""

    __slots__ = ("one", "other")

    def __init__(self, one: Any, other: Any) -> None:
        self.one, self.other = one, other


class Raising:
    """Raises whatever is asked of it."""

    @property
    def trap(self) -> Any:
        raise RuntimeError("do not look at me")

    def __init__(self) -> None:
        self.bad = lambda: 1

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __hash__(self) -> int:
        return 1


class Unprintable:
    """Can be pickled, but not printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def inner_class() -> type:
    """Return a class that cannot be found by its name."""

    class Inner:
        """Is in a function."""

    return Inner


class Irreducible:
    """Fails to be pickled by its own doing."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise KeyError("not me")


class Odd:
    """Says that it is made of things that are none."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.parts


def circle() -> list[Any]:
    """Return a list that is in itself, with something that cannot be pickled."""
    loop: list[Any] = [[]]
    loop[0].append(loop)
    loop.append(loop)
    loop.append({"f": lambda: 1})
    return loop


def generator() -> Iterator[int]:
    """Return a generator."""
    yield 1


@pytest.mark.parametrize(
    "model, place",
    [
        (Plain(a=1, steps=[1, {"f": lambda: 1}]), ".steps[1]['f'], a builtins.function"),
        ({"model": Plain(inner=Plain(lock=threading.Lock()))}, "['model'].inner.lock, a _thread.lock"),
        (Plain(rows=generator()), ".rows, a builtins.generator"),
        (Slots(1, lambda: 1), ".other, a builtins.function"),
        (Plain(odd=Raising()), ".odd.bad, a builtins.function"),
        (Raising(), ".bad, a builtins.function"),
        ([1, Irreducible()], "[1], a tests.store.test_loading.Irreducible"),
        (circle(), "[2]['f'], a builtins.function"),
        ({"k" * 100_000: lambda: 1}, "['kkk"),
        ({Unprintable(): lambda: 1}, "[<Unprintable instance at 0x"),
        (functools.partial(max, lambda: 1), "[0], a builtins.function"),
        (Plain(counts=defaultdict(lambda: 0)), ".counts, a builtins.function"),
        (Plain(part=inner_class()()), ".part, a tests.store.test_loading.inner_class.<locals>.Inner"),
        ({1: {2, 3}, (4,): (5, lambda: 1)}, "[(4,)][1], a builtins.function"),
        (fitted(RandomForestRegressor(2)).set_params(criterion=lambda: 1), ".criterion, a builtins.function"),
        (sys.modules["json"], "a builtins.module cannot be pickled"),
    ],
)
def test_what_cannot_be_pickled_is_named(store: Storage, model: Any, place: str) -> None:
    """The error says which attribute cannot be pickled, and what it is; it stays short."""
    with pytest.raises(ModelPickleError, match="nothing was stored") as caught:
        store.store("m", model)
    assert f" {place}" in str(caught.value) and len(str(caught.value)) < 1000
    assert caught.value.__cause__ is not None
    assert not store.path.exists()


@pytest.mark.parametrize(
    "model",
    [Odd(), Odd(1), Odd(list, 5), Odd(list, (), 5, 5, 5), Odd(list, (), None, iter([1, lambda: 1]), iter([1]))]
    + [[Odd(list, (), None, None, iter([(1, 2, 3)]))], Odd(*range(9))],
)
def test_odd_objects(store: Storage, model: Any) -> None:
    """Objects that are pickled in a way that there is not are an error like any other."""
    with pytest.raises(ModelPickleError):
        store.store("m", model)


def test_what_is_nested_too_deep(store: Storage) -> None:
    """Of what is nested too deep no part is to blame."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ModelPickleError, match="a builtins.list cannot be pickled: RecursionError"):
        store.store("m", deep)


def endless() -> Iterator[Any]:
    """Yield things that can be pickled, and what cannot, and so on for ever."""
    yield from [1] * 5000
    yield lambda: 1
    while True:
        yield 1


@pytest.mark.parametrize(
    "model",
    [
        [Fraction(1, 2) for _ in range(1000)] + [lambda: 1],
        [[Fraction(1, 2) for _ in range(1000)], lambda: 1],
        [bytes(20_000) for _ in range(1000)] + [lambda: 1],
    ],
)
def test_the_search_takes_bounded_time(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time for the search is over, no part is blamed."""
    monkeypatch.setattr(culprit, "LOOK", 0)
    place, value = culprit.find_culprit(model)
    assert place == "" and value is model


def test_a_failing_iterator_blames_no_item() -> None:
    """When an iterator over items fails, what was pickled before is not to blame."""

    def fail() -> Iterator[Any]:
        raise KeyError("no more")
        yield

    model = Odd(list, ([Plain()],), None, fail())
    place, value = culprit.find_culprit(model)
    assert place == "" and value is model


def test_what_never_ends(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items without end are looked at for a while only."""
    monkeypatch.setattr(culprit, "LOOK", 0.1)
    iterator = endless()
    with pytest.raises(ModelPickleError):
        store.store("m", Odd(list, (), None, iterator))


# Whether it will load.


def verdict(store: Storage, data: bytes, **recorded: Any) -> loadability.Verdict:
    """Return the verdict on a pickle: that of `check` by what was recorded, which is that of `inspect` by its bytes."""
    put(store, "m", data, **recorded)
    found = store.inspect("m").loadable()
    record = store.inspect("m")
    lie(store, "m", json.dumps({"python": "CPython 3.11.7", **recorded, "protocol": 5, **{
        name: getattr(record, name) for name in ("imports", "troubles", "has_code")
    }}))  # fmt: skip
    ((_, checked),) = store.check("m")
    assert checked == found
    return found


def test_it_loads(store: Storage) -> None:
    """With everything here as it was there, a model loads, and there is nothing to say."""
    packages = {name: metadata.version(name) for name in ("scikit-learn", "numpy")}
    assert verdict(store, pickle.dumps(Ridge(), 5), packages=packages) == loadability.Verdict(LOADS)


def test_a_missing_module_will_not_load(store: Storage) -> None:
    """Without the module a model will not load; the line installs what supplied it."""
    found = verdict(store, imports("gone"), suppliers={"gone": "gone-lib"}, packages={"gone-lib": "1.0"})
    assert (found.verdict, found.fix) == (WILL_NOT, "pip install gone-lib==1.0")
    assert "the module gone is not installed" in found.reasons
    # A pickle may name any module, and who knows what is on PyPI under that name.
    assert verdict(store, imports("gone.models")).fix == ""


def test_a_missing_submodule_may_not_load(store: Storage) -> None:
    """Modules can be made at run time: one that is missing in a package that is there may yet come."""
    found = verdict(store, imports("sklearn.gone"))
    assert (found.verdict, found.reasons, found.fix) == (MAY_NOT, ("the module sklearn.gone cannot be found",), "")
    assert verdict(store, imports("json.decoder.gone")).verdict == MAY_NOT
    assert verdict(store, imports("sklearn.linear_model._ridge")).verdict == LOADS
    assert verdict(store, imports("os.path")).verdict == LOADS


def test_another_version_may_not_load(store: Storage) -> None:
    """Another version is named with both numbers, and the line brings back the one that stored the model."""
    found = verdict(
        store, pickle.dumps(Ridge(), 5), packages={"scikit-learn": "1.0.2", "numpy": metadata.version("numpy")}
    )
    here = metadata.version("scikit-learn")
    assert found.reasons == (f"stored with scikit-learn 1.0.2, but {here} is installed",)
    assert (found.verdict, found.fix) == (MAY_NOT, "pip install scikit-learn==1.0.2")


def upload(store: Storage, name: str, data: bytes) -> records.ModelRecord:
    """Upload a pickle, of which nothing is known but what is in it."""
    path = Path(f"{name}.pickle")
    path.write_bytes(data)
    return store.upload(path, name)


def checked(store: Storage, name: str) -> loadability.Verdict:
    """Return the verdict of `check`, which is that of `inspect`."""
    ((_, found),) = store.check(name)
    assert found == store.inspect(name).loadable()
    return found


def test_the_versions_of_an_uploaded_pickle(store: Storage) -> None:
    """A pickle that says its versions gets the verdict and the advice of a stored model, in a failed fetch too."""
    here = metadata.version("scikit-learn")
    data = pickle.dumps(fitted(RandomForestRegressor(2)), 4)
    assert upload(store, "same", data).packages == {"scikit-learn": here}
    assert checked(store, "same") == loadability.Verdict(LOADS)
    old = data.replace(here.encode(), b"0.2.2").replace(b"\x8c\x05nodes", b"\x8c\x05n0des")
    assert len(here) == 5 and upload(store, "old", old).packages == {"scikit-learn": "0.2.2"}
    found = checked(store, "old")
    assert (found.verdict, found.fix) == (MAY_NOT, "pip install scikit-learn==0.2.2")
    assert found.reasons == (f"created with scikit-learn 0.2.2, but {here} is installed",)
    with pytest.raises(ModelLoadError, match="reasons:\n  created with scikit-learn 0.2.2.*\nTry: pip install"):
        store.fetch("old")


def test_versions_that_are_unknown(store: Storage) -> None:
    """A pickle that does not say its versions may not load, and a failed fetch does not claim that all is here."""
    booster = pickle.dumps(fitted(lightgbm.LGBMRegressor(n_estimators=2, verbose=-1)))
    assert upload(store, "m", booster).packages == {}
    found = checked(store, "m")
    assert found.verdict == MAY_NOT and found.reasons[0].startswith("it was created with unknown versions of ")
    assert "lightgbm" in found.reasons[0]
    upload(store, "both", pickle.dumps([fitted(RandomForestRegressor(2)), fitted(lightgbm.LGBMRegressor(verbose=-1))]))
    assert checked(store, "both").reasons == ("it was created with unknown versions of lightgbm",)
    upload(store, "plain", pickle.dumps([1, Fraction(1, 2)]))
    assert checked(store, "plain") == loadability.Verdict(LOADS)
    upload(store, "failing", b"cnumpy\narray\n(tR.")
    with pytest.raises(ModelLoadError, match="reasons:\n  it was created with unknown versions of numpy"):
        store.fetch("failing")
    upload(store, "nothing", b"cbuiltins\nlen\n(tR.")
    with pytest.raises(ModelLoadError, match="The environment that created it was not recorded"):
        store.fetch("nothing")


def test_another_distribution_of_the_same_module(store: Storage) -> None:
    """The version of xgboost is that of xgboost-cpu, which has the same modules; a pickle does not say which it was."""
    here = metadata.version("xgboost-cpu")
    record = upload(store, "m", pickle.dumps(fitted(xgboost.XGBRegressor(n_estimators=2))))
    assert record.packages == {"xgboost": here}
    assert checked(store, "m") == loadability.Verdict(LOADS)
    found = replace(record, packages={"xgboost": "1.0.2"}).loadable()
    assert found.reasons[-1] == f"created with xgboost 1.0.2, but xgboost-cpu {here} is installed"
    assert found.fix == "pip install xgboost==1.0.2"


def install(folder: Path, name: str, *requires: str) -> None:
    """Install a distribution with a module of its name."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}")
    needed = "".join(f"import {one.split('>')[0]}\n" for one in requires if ";" not in one)
    (folder / f"{name}.py").write_text(f"{needed}Model = 1\n")


def test_a_missing_requirement_of_a_requirement(store: Storage, modules: Path) -> None:
    """What was installed without what it requires may not load, and the module that was missing is named."""
    install(modules, "outer", "middle>=1")
    install(modules, "middle", "inner>=2", "windows-only; sys_platform == 'win32'", "extra-only>1; extra == 'all'")
    known = {"packages": {"outer": "1.0", "middle": "1.0"}, "suppliers": {"outer": "outer"}}
    put(store, "m", imports("outer"), imports=["outer.Model"], **known)
    found = checked(store, "m")
    assert found == loadability.Verdict(
        MAY_NOT, ("middle requires inner, which is not installed",), "pip install inner"
    )
    with pytest.raises(ModelLoadError, match="No module named 'inner'") as caught:
        store.fetch("m")
    assert "\n  the module inner is not installed" in str(caught.value)
    assert "Try: pip install inner" in str(caught.value)
    install(modules, "inner", "outer")
    assert checked(store, "m") == loadability.Verdict(LOADS) and store.fetch("m") == 1


def test_a_module_that_is_missing_at_a_failure(store: Storage, modules: Path) -> None:
    """Where a module imports one that is not there, the error names it, whatever was recorded."""
    (modules / "mine.py").write_text("import sklearn.gone\n")
    put(store, "m", imports("mine"), imports=["mine.Model"])
    with pytest.raises(ModelLoadError, match="Possible reasons:\n  the module sklearn.gone cannot be found"):
        store.fetch("m")
    (modules / "mine.py").write_text("raise ModuleNotFoundError(name='\\x1b[31m:.')\n")
    with pytest.raises(ModelLoadError, match="Possible reasons") as caught:
        store.fetch("m")
    assert "\x1b" not in str(caught.value)


def test_byte_strings_of_python_2(store: Storage) -> None:
    """They will not load, and the way out works; a fetch that fails by them says so, whatever was recorded."""
    data = b"\x80\x02}U\x08" + "Ålesund".encode() + b"K\x01s."
    upload(store, "m", data)
    found = checked(store, "m")
    assert found.verdict == WILL_NOT
    assert found.reasons[0].startswith("it contains Python 2 byte strings (byte 3): download it, load it with")
    put(store, "n", data, imports=[], protocol=2)
    for name in "m", "n":
        with pytest.raises(ModelLoadError, match="UnicodeDecodeError.*\n  it contains Python 2 byte strings") as caught:
            store.fetch(name)
        assert str(caught.value).count("byte strings") == 1
    with store.download("m", "copy.pickle").open("rb") as file:
        store.store("p", pickle.load(file, encoding="latin1"))
    assert [*store.fetch("p")] == ["Ålesund".encode().decode("latin1")]


@pytest.mark.parametrize(
    "python, expected",
    [(f"CPython {PYTHON}.99", LOADS), ("CPython 3.1.4", MAY_NOT), (None, MAY_NOT), ("PyPy", MAY_NOT)],
)
def test_code_of_another_python(store: Storage, python: str | None, expected: str) -> None:
    """Code by value fits the Python that wrote it, whatever its last number; other pickles fit any."""
    found = verdict(store, cloudpickle.dumps(lambda: 1), python=python)
    assert found.verdict == expected and (expected == LOADS or f"and this is Python {PYTHON}" in str(found))
    assert verdict(store, b"N.", python=python).verdict == LOADS


def test_a_protocol_of_the_future(store: Storage) -> None:
    """A pickle of a protocol that this Python does not know will not load."""
    record = store.store("m", [1])
    found = replace(record, protocol=6).loadable()
    assert found.verdict == WILL_NOT and "protocol 6" in str(found)
    assert verdict(store, catalogue()["protocol_6"].data).verdict == WILL_NOT


@pytest.mark.parametrize("name", [name for name, one in catalogue().items() if one.troubles])
def test_troubles_are_told(store: Storage, name: str) -> None:
    """A broken pickle will not load; of what cannot be told it may not."""
    one = catalogue()[name]
    found = verdict(store, one.data)
    is_broken = any(trouble.startswith("broken") for trouble in one.troubles)
    assert found.verdict == (WILL_NOT if is_broken else MAY_NOT)
    assert all(any(trouble in reason for reason in found.reasons) for trouble in one.troubles)


def test_nothing_is_imported(store: Storage, modules: Path) -> None:
    """To look for a module runs neither it nor the packages around it."""
    canary = modules / "canary"
    for name in ("pack", "pack/inner"):
        (modules / name).mkdir()
        (modules / name / "__init__.py").write_text(f"open({str(canary)!r}, 'w')\n")
    (modules / "pack" / "inner" / "deep.py").write_text(f"open({str(canary)!r}, 'w')\nModel = 1\n")
    assert verdict(store, imports("pack.inner.deep")).verdict == LOADS
    assert verdict(store, imports("pack.inner.gone")).verdict == MAY_NOT
    assert verdict(store, imports("pack.gone.deep")).verdict == MAY_NOT
    assert not canary.exists() and "pack" not in sys.modules


def test_packages_without_an_init(store: Storage, modules: Path) -> None:
    """Folders of modules without __init__ are packages too, one in the other, and in two places."""
    other = modules / "other"
    for folder in (modules / "spread" / "parts" / "one", other / "spread" / "parts" / "two"):
        folder.mkdir(parents=True)
        (folder / "model.py").write_text("Model = 1\n")
    sys.path.insert(0, str(other))
    try:
        for name in ("spread.parts.one.model", "spread.parts.two.model"):
            assert verdict(store, imports(name)).verdict == LOADS
        assert verdict(store, imports("spread.parts.three.model")).verdict == MAY_NOT
        assert verdict(store, imports("spread.gone")).verdict == MAY_NOT
    finally:
        sys.path.remove(str(other))


@pytest.mark.parametrize(
    "module",
    ["", ".", "..", "a..b", ".os", "os.", "/tmp/evil", "os\x00", "os;x", "\ud800", "a" * 400, "__main__.x", "üñï"],
)
def test_odd_module_names(store: Storage, module: str) -> None:
    """Whatever a module is called, there is a verdict, and no fetch of it fails in another way than a store does."""
    data = b"\x80\x04" + b"".join(
        b"X" + len(raw).to_bytes(4, "little") + raw for raw in (module.encode("utf-8", "surrogatepass"), b"Model")
    )
    found = verdict(store, data + b"\x93.")
    assert found.verdict in (MAY_NOT, WILL_NOT)
    with pytest.raises(ModelLoadError):
        store.fetch("m")


def test_a_finder_that_imports_is_asked_last(store: Storage) -> None:
    """The finder of setuptools, which imports it to find distutils, is not asked."""
    plant(store, "m", imports("distutils.core"))
    script = f"""
import sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "distutils":
            sys.exit("asked for it")
sys.meta_path.insert(0, Finder)
from views_runs import Storage
print(Storage({str(store.path)!r}).inspect("m").loadable().verdict)
assert not {{"distutils", "setuptools"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_a_finder_that_fails(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong when a module is looked for, it is not there."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            raise OSError("the share is gone")

    plant(store, "m", imports("gone.models"))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert store.inspect("m").loadable().verdict == WILL_NOT


def test_what_is_imported_is_there(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that was made at run time is there while it is imported; one that was forbidden is not."""
    module = ModuleType("made_at_run_time")
    module.Model = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_at_run_time", module)
    assert verdict(store, imports("made_at_run_time")).verdict == LOADS and store.fetch("m") == 5
    monkeypatch.setitem(sys.modules, "made_at_run_time", None)
    assert verdict(store, imports("made_at_run_time")).verdict == WILL_NOT


def test_a_new_installation_is_seen(store: Storage, modules: Path) -> None:
    """What was installed since the last look counts, in a process that goes on."""
    record = store.store("m", [1])
    record = replace(record, packages={"late": "2.0"})
    assert record.loadable().reasons == ("stored with late 2.0, which is not installed",)
    folder = modules / "late-2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 2.0\n")
    assert record.loadable() == loadability.Verdict(LOADS)


def test_versions_are_read_from_the_names_of_folders(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the versions are those of the store, no distribution's own file is read: that takes long."""
    record = store.store("m", Ridge())
    assert "scikit-learn" in record.packages
    monkeypatch.setattr(metadata, "version", None)
    assert record.loadable() == loadability.Verdict(LOADS)


def test_requirements_are_read_as_the_library_reads_them() -> None:
    """The requirements of all that is installed here are those that `importlib.metadata` finds."""
    packages.forget()
    for name in packages._folders():
        assert packages._read_requirements(name) == (metadata.requires(name) or []), name


def test_requirements_of_what_was_replaced(modules: Path) -> None:
    """What another version has replaced since the last look at all folders is asked anew; a line may be folded."""
    packages.forget()
    folders = [modules / f"replaced-{version}.dist-info" for version in ("1.0", "2.0")]
    folders[0].mkdir()
    (folders[0] / "METADATA").write_text("Name: replaced\nRequires-Dist: one\n", "utf-8")
    assert packages.is_installed("replaced", "1.0")
    folders[0].rename(folders[1])
    header = "Name: replaced\nLicense: a\n \n b\nRequires-Dist: two\n  ; extra == 'x'\nrequires-dist: three>1\n"
    (folders[1] / "METADATA").write_text(f"{header}\nRequires-Dist: no\n", "utf-8")
    assert [one.name for one in packages.requirements("replaced")] == ["two", "three"]
    packages.forget()
    assert packages.requirements("replaced")[0] == packages.Requirement("two", "x", "extra == 'x'")
    packages.forget()


def test_the_first_installation_counts(store: Storage, modules: Path, tmp_path: Path) -> None:
    """Of a distribution that is installed twice, the one that is imported counts."""
    for folder, version in ((modules, "2.0"), (tmp_path / "later", "1.0")):
        info = folder / f"Twice_There-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Twice.There\nVersion: {version}\n")
    sys.path.append(str(tmp_path / "later"))
    try:
        record = replace(store.store("m", [1]), packages={"twice-there": "1.0"})
        assert record.loadable().reasons == ("stored with twice-there 1.0, but 2.0 is installed",)
        assert replace(record, packages={"twice-there": "2.0"}).loadable().verdict == LOADS
    finally:
        sys.path.remove(str(tmp_path / "later"))


# What the file says, and what the bytes say.


def test_inspect_goes_by_the_bytes(store: Storage) -> None:
    """What somebody wrote into the file of a model's imports changes nothing of what `inspect` says."""
    record = store.store("m", Ridge())
    for recorded in (
        {"imports": [], "troubles": []},
        {"imports": ["os.system"], "troubles": ["nothing"], "has_code": True},
    ):
        lie(store, "m", json.dumps({"protocol": 5, **recorded}))
        found = store.inspect("m")
        assert (found.imports, found.troubles, found.has_code) == (record.imports, (), False)


def test_inspect_of_damaged_bytes(store: Storage, viewser: Viewser) -> None:
    """Bytes that are damaged are said to be so, and will not load."""
    store.store("m", [bytes(3_000_000), Ridge()])
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        sql.execute("UPDATE model_parts SET data = zeroblob(length(data)) WHERE part = 3")
    found = store.inspect("m")
    assert len(found.troubles) == 1 and found.troubles[0].startswith("damaged:")
    assert found.loadable().verdict == WILL_NOT
    assert "damaged" in viewser("model", "inspect", "m").stdout


#: What somebody may have written where something else should be.
LIES: list[Any] = [
    5,
    -1,
    1.5,
    "text",
    "\x1b[31m",
    None,
    True,
    [],
    [1],
    ["a"],
    [None],
    [["a"]],
    {},
    {"a": 1},
    {"a": ["b"]},
]
LIES += [10**30, ["nodot", "..", ":"], ["a.b\x1b[31m"], {"x; touch owned": "1"}, {"numpy": "1; touch owned"}]


@pytest.mark.abridged
@pytest.mark.parametrize(
    "field", ["type", "python", "platform", "protocol", "imports", "troubles", "packages", "suppliers"]
)
def test_lies_of_other_kinds(store: Storage, field: str, viewser: Viewser) -> None:
    """What is not of its kind breaks nothing, reaches no terminal, and gets into no line for the shell."""
    store.store("m", [1])
    for value in LIES if IN_FULL else LIES[::2]:
        lie(store, "m", json.dumps({"protocol": 5, "imports": ["gone.Model"], field: value}))
        assert len(store.find()) == 1
        for record in (store.find()[0], store.inspect("m")):
            assert record.loadable().verdict and json.dumps(record.as_json())
            assert ";" not in record.loadable().fix
        if "x1b" in repr(value):
            for verb in (
                ["list"],
                ["inspect", "m"],
                ["check", "m"],
                ["diff", "m", "m", "--all"],
                ["trust", "m", "--yes"],
            ):
                assert "\x1b" not in viewser("model", *verb, exit_code=None).output


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", "[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_an_environment_that_is_none(store: Storage, text: str, viewser: Viewser) -> None:
    """A record that cannot be read is reported, and the others are shown; the model is fetched all the same."""
    store.store("m", [1])
    store.store("other", [2])
    lie(store, "m", text)
    damage: list[records.Damage] = []
    assert [record.name for record in store.find(on_damage=damage.append)] == ["other"]
    assert [record.name for record, _ in store.check(on_damage=damage.append)] == ["other"]
    assert [(one.name, one.version) for one in damage] == [("m", 1)] * 2
    with pytest.raises(StoreDamagedError):
        store.inspect("m")
    assert store.fetch("m") == [1]
    viewser("model", "list", exit_code=1)


@pytest.mark.parametrize(
    "name", ["x; touch owned", "$(touch owned)", "-r/etc/passwd", "--index-url=http://x", "a b", "`x`"]
)
def test_the_line_can_be_pasted(store: Storage, name: str) -> None:
    """Neither a module nor what supplies it, nor a version, brings anything but itself into the line to be pasted."""
    put(
        store,
        "m",
        imports("gone"),
        imports=["gone.Model"],
        suppliers={"gone": name},
        packages={name: "1", "numpy": name},
    )
    for text in (store.inspect("m").loadable().fix, store.check("m")[0][1].fix):
        assert text == "pip install numpy"
    with pytest.raises(ModelLoadError) as caught:
        store.fetch("m")
    assert name not in str(caught.value).partition("Try: ")[2]
    put(store, "n", imports(name.replace(".", "_")), imports=[f"{name}.Model"])
    assert store.inspect("n").loadable().fix == ""


def test_many_imports_are_not_all_recorded(store: Storage, tmp_path: Path) -> None:
    """Of a pickle that imports more than any honest one, some are recorded, and that there are more."""
    data = b"".join(b"cjson\nname%d\n0" % number for number in range(1000)) + b"N."
    (tmp_path / "many.pickle").write_bytes(data)
    record = store.upload(tmp_path / "many.pickle", "many")
    assert len(record.imports or ()) == records.MOST_IMPORTS
    assert record.troubles == ("more imports than these, 1,000 in all",)
    assert record == store.inspect("many") and record.loadable().verdict == MAY_NOT


@pytest.mark.parametrize(
    "recorded",
    [
        {"imports": ["\x1b[31mgone.Model"]},
        {"imports": ["gone\nTry, too.Model"]},
        {"imports": ["\ud800.Model"]},
        {"imports": ["builtins.len"], "packages": {"\x1b[31m": "1", "numpy": "\x1b[31m"}},
        {"imports": ["builtins.len"], "has_code": True, "python": "CPython \x1b[31m3"},
    ],
)
def test_errors_that_a_terminal_would_not_show_as_they_are(store: Storage, recorded: dict[str, Any]) -> None:
    """No text that somebody wrote into the file changes a terminal when the error is printed, or ends its line."""
    put(store, "m", b"cbuiltins\nlen\n(tR.", **recorded)
    with pytest.raises(ModelLoadError, match="unpickling them failed") as caught:
        store.fetch("m")
    assert str(caught.value).replace("\n", "").isprintable() and "Try" not in str(caught.value)


def test_a_huge_record_is_none(store: Storage) -> None:
    """What is far too long is not parsed: in memory it would be many times as large."""
    store.store("m", [1])
    tracemalloc.start()
    try:
        lie(store, "m", '{"imports": [' + ",".join(["[]"] * 2_000_000) + "]}")
        tracemalloc.reset_peak()
        assert store.find()[0].imports is None and store.fetch("m") == [1]
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_far_too_much_is_not_recorded(store: Storage) -> None:
    """Somebody who writes a million packages into a model's row keeps nobody busy with looking for them."""
    store.store("m", [1])
    names = {f"package-{number}": "1" for number in range(100_000)}
    lie(store, "m", json.dumps({"protocol": 5, "imports": [f"{name}.Model" for name in names], "packages": names}))
    assert (store.find()[0].imports, store.find()[0].packages) == (None, {})
    assert store.check("m")[0][1] == loadability.Verdict(LOADS)
    assert store.fetch("m") == [1]


# The command line.


def test_check(store: Storage, viewser: Viewser) -> None:
    """`check` prints a verdict a model, why, and what to do; it exits with 1 if one will not load."""
    store.store("good", [1])
    put(store, "other", b"N.", imports=[], packages={"scikit-learn": "1.0.2"})
    assert viewser("model", "check", "good").stdout.split() == ["loads", "good:1"]
    output = viewser("model", "check", "--all").stdout
    assert "may not load" in output and "pip install scikit-learn==1.0.2" in output
    put(store, "bad", imports("gone"), imports=["gone.Model"])
    result = viewser("model", "check", "--all", exit_code=1)
    assert "will not load" in result.stdout and "the module gone is not installed" in result.stdout
    assert result.stderr == ""
    viewser("model", "check", "good", "other:1")
    found = json.loads(viewser("model", "check", "--all", "--json", exit_code=1).stdout)
    assert {one["name"]: one["verdict"] for one in found} == {"good": LOADS, "other": MAY_NOT, "bad": WILL_NOT}
    assert found[0].keys() == {"name", "version", "verdict", "reasons", "fix"}


def test_check_looks_each_version_up_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that need the same packages take one look at each; the next check looks again."""
    for number in range(30):
        put(store, f"m{number}", b"N.", imports=[], packages={"numpy": "1.0", "click": "1.0"})
    asked: list[str] = []
    monkeypatch.setattr(metadata, "version", lambda name: asked.append(name) or "1.0")
    assert {verdict.verdict for _, verdict in store.check()} == {LOADS}
    assert sorted(asked) == ["click", "numpy"]
    monkeypatch.setattr(metadata, "version", lambda name: "2.0")
    assert {verdict.verdict for _, verdict in store.check()} == {MAY_NOT}
    packages.version.cache_clear()


@pytest.mark.parametrize("arguments", [["check"], ["check", "m", "--all"], ["upload"], ["trust"], ["trust", "m", "n"]])
def test_bad_usage(store: Storage, viewser: Viewser, arguments: list[str]) -> None:
    """What cannot be meant is wrong usage."""
    store.store("m", 1)
    assert "Usage:" in viewser("model", *arguments, exit_code=2).stderr


@pytest.mark.parametrize("verb", ["check", "inspect", "trust"])
def test_a_model_that_is_not_there(store: Storage, viewser: Viewser, verb: str) -> None:
    """A name that is not there is an error that names the nearest."""
    store.store("forest", 1)
    assert "forest" in viewser("model", verb, "forrest", exit_code=1).stderr.replace("'forrest'", "")


def test_check_of_an_empty_store(viewser: Viewser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With no models there is nothing that will not load."""
    monkeypatch.delenv("VIEWS_RUNS_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert viewser("model", "check", "--all").stdout.strip() == ""
    assert json.loads(viewser("model", "check", "--all", "--json").stdout) == []


@pytest.mark.parametrize("columns", ["20", "40", "80"])
def test_narrow_terminals(store: Storage, viewser: Viewser, columns: str) -> None:
    """On a narrow terminal nothing is cut off, and no line is longer than it."""
    store.store("forest", fitted(RandomForestRegressor(2)))
    lie(store, "forest", json.dumps({"protocol": 5, "imports": ["gone.Model"], "packages": {"scikit-learn": "1.0.2"}}))
    for verb, code in ((["check", "forest"], 1), (["inspect", "forest"], 0), (["trust", "forest", "--yes"], 0)):
        result = viewser("model", *verb, exit_code=code, env={"COLUMNS": columns, "NO_COLOR": "1"})
        lines = (result.stdout + result.stderr).splitlines()
        text = "".join(line.strip(" │╭╰─╮╯") for line in lines).replace(" ", "")
        assert ("willnotload" if verb[0] == "check" else "sklearn.tree._tree.Tree") in text, result.output


def test_inspect_shows_what_it_needs(store: Storage, viewser: Viewser) -> None:
    """`inspect` shows the imports by package, and the verdict; with --json all of it."""
    record = store.store("forest", fitted(RandomForestRegressor(2)))
    output = viewser("model", "inspect", "forest").stdout
    assert "imports" in output and f"scikit-learn {metadata.version('scikit-learn')}" in output and "loads" in output
    found = json.loads(viewser("model", "inspect", "forest", "--json").stdout)
    assert tuple(found["imports"]) == record.imports and found["packages"] == record.packages


def test_check_looks_anew_at_what_is_installed(store: Storage) -> None:
    """What was installed since the last look, as in a notebook, counts."""
    put(store, "m", pickle.dumps([1]), imports=[], packages={"scikit-learn": "0.1"})
    packages.forget()
    packages._folders()["scikit-learn"] = "scikit_learn-0.1.dist-info"
    assert [verdict.verdict for _, verdict in store.check("m")] == [MAY_NOT]
