"""Scripts and models of 1.x where the extra `views` is not installed: all that they meet says what to install."""

import configparser
import pickle
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas
import pytest

import views_runs
from tests.support.machine import ROOT
from views_runs import ModelLoadError, Storage, extra, validation
from views_runs.pickles import loadability, packages
from views_runs.pickles.loadability import Needs
from views_runs.validation import ValidationError, views_validate

#: What a pickle of 1.x imports besides the libraries of its model; this one ends before it calls anything.
IMPORTED = ["views_runs.run ViewsRun", "stepshift.views StepshiftedModels"]
IMPORTED += ["views_partitioning.data_partitioner DataPartitioner", "views_schema.partitioning Partitions"]
OLD = b"(" + b"".join("c{}\n{}\n".format(*name.split()).encode() for name in IMPORTED) + b"l."


def installed_by(line: str) -> list[str]:
    """Return the names of what a line in a message installs."""
    command = re.search(r"pip install ((?:'[^']+'|[\w.=<>-]+)(?: (?:'[^']+'|[\w.=<>-]+))*)", line)
    assert command, line
    return [packages.normal(re.split("[<>=]", name)[0]) for name in shlex.split(command[1])]


NEEDED = sorted(["numpy", *(name for name, _ in extra.REQUIREMENTS.values())])


@pytest.mark.parametrize("name", [*"ViewsRun DataPartitioner StepshiftedModels run run_result operations".split()])
def test_names_say_what_to_install(name: str) -> None:
    """Each raises an ImportError whose line installs the packages, and never the views_runs of PyPI."""
    with pytest.raises(ImportError, match="cannot be imported: No module named") as caught:
        getattr(views_runs, name)
    assert sorted(installed_by(str(caught.value))) == NEEDED
    with pytest.raises(ImportError):
        exec(f"from views_runs import {name}")


@pytest.mark.parametrize("name", ["utilities", "stats"])
def test_modules_that_are_gone(name: str) -> None:
    """Importing them says so, in either way."""
    for statement in f"import views_runs.{name}", f"from views_runs import {name}":
        with pytest.raises(ImportError, match=f"has no module views_runs.{name}"):
            exec(statement)


def test_nothing_else_needs_the_extra() -> None:
    """All names of the package can be listed and imported without it, and pandas is not imported."""
    code = "import inspect, sys, views_runs.cli\nfrom views_runs import *\ninspect.getmembers(views_runs)\n"
    code += "assert not {'pandas', 'views_runs.run', 'views_runs.validation'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_newer_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pandas 1 has no wheels, the error says which Python to use."""
    monkeypatch.setattr(extra, "can_be_installed", lambda: False)
    with pytest.raises(ImportError, match=r"so Python 3\.11; `views-runs model guide migrating`"):
        extra.load("stepshift.views", "a test")
    verdict = loadability.verdict(Needs(("stepshift.views.StepshiftedModels",)))
    assert "Python 3.11" in verdict.reasons[0]


def test_broken_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pandas that was made for another numpy raises something else than an ImportError."""
    (tmp_path / "made_for_another.py").write_text("raise ValueError('numpy.dtype size changed')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="a test needs made_for_another, .*: numpy.dtype size changed. Try: pip"):
        extra.load("made_for_another", "a test")


def test_lines_are_those_of_setup_cfg() -> None:
    """The extra installs what the messages name, where there are wheels for it."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", "utf-8")
    lines = config["options.extras_require"]["views"].split("\n")[1:]
    wanted = [extra.NUMPY, *(line for _, line in extra.REQUIREMENTS.values())]
    assert lines == [f'{line}; python_version < "3.12"' for line in wanted]


def test_nothing_says_to_install_another_views_runs() -> None:
    """On PyPI, that name is 1.14: pip is told to install a folder or a URL, or what the package needs."""
    pages = [ROOT / "README.rst", *(ROOT / "views_runs").rglob("*.rst"), *(ROOT / "views_runs").rglob("*.py")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    assert [line for line in lines if re.search(r"pip3? install ([^&`]* )?views[-_]runs", line)] == []


def test_old_model(store: Storage, tmp_path: Path) -> None:
    """`check` and `fetch` name the packages and the line; nothing is loaded."""
    (tmp_path / "old.pickle").write_bytes(OLD)
    store.upload(tmp_path / "old.pickle", "old")
    [(_, verdict)] = store.check("old")
    assert verdict.verdict == "will not load"
    assert verdict.reasons == ("it needs stepshift and views-partitioning, which are not installed",)
    assert sorted(installed_by(verdict.fix)) == NEEDED
    with pytest.raises(ModelLoadError, match="nothing was loaded") as caught:
        store.fetch("old")
    assert sorted(installed_by(str(caught.value))) == NEEDED
    command = [sys.executable, "-m", "views_runs", "--store", str(store.path), "model", "check", "old"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "will not load  old:1  it needs stepshift and views-partitioning" in done.stdout
    assert sorted(installed_by(done.stdout)) == NEEDED


def test_recorded_versions_are_those_to_install() -> None:
    """A run that was stored here is loaded with the packages that it was stored with."""
    recorded = {"stepshift": "2.2.6", "views-partitioning": "3.0.1", "numpy": "1.26.4", "views-runs": "1.14.2"}
    recorded["views-schema"] = "2.3.3"
    suppliers = {"views_runs": "views-runs"}
    needs = Needs(tuple(name.replace(" ", ".") for name in IMPORTED), packages=recorded, suppliers=suppliers)
    verdict = loadability.verdict(needs)
    assert sorted(installed_by(verdict.fix)) == NEEDED
    assert not re.search("views.runs|[<>]", verdict.fix + "".join(verdict.reasons))


def test_this_package_is_not_recorded(store: Storage) -> None:
    """A model that imports this package needs what reads it anyway; what it requires is not what the model needs."""
    record = store.store("names", views_runs.ModelMetadata(author="ines"))
    assert record.imports == ("views_runs.metadata.ModelMetadata",)
    assert (record.packages, record.suppliers) == ({}, {})


INDEX = pandas.MultiIndex.from_product([[480, 481], [1, 2]], names=["month_id", "country_id"])
DATA = pandas.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]}, INDEX)

BAD = {
    "must be a pandas DataFrame, not Series": DATA["a"],
    "must be a pandas DataFrame, not NoneType": None,
    "the index of the data has 1 level, not 2": DATA.reset_index(level=1, drop=True),
    "the index of the data has 3 levels, not 2": DATA.assign(b=1).set_index("b", append=True),
    "the data has no columns": DATA[[]],
    "the column b is int64, not float64": DATA.assign(b=1),
    "the column a is float32, not float64": DATA.astype("float32"),
    "the column a is object, not float64": DATA.astype(object),
}


@pytest.mark.parametrize("trouble", BAD)
def test_validation(trouble: str) -> None:
    """The error says what is wrong with the data."""
    with pytest.raises(ValidationError, match=trouble) as caught:
        validation.dataframe_is_right_format(BAD[trouble])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_validated_functions() -> None:
    """The data is the argument of this name, however it is given, or else the last one."""

    @views_validate
    def predict(name: str, data: Any, proba: bool = False) -> str:
        """Predict."""
        return f"{name} {proba}"

    @views_validate
    def clean(name: str, frame: Any) -> str:
        return name

    assert predict("a", DATA, True) == "a True" and predict(name="b", data=DATA, proba=False) == "b False"
    assert clean("c", DATA) == clean("c", frame=DATA) == "c"
    assert (predict.__name__, predict.__doc__) == ("predict", "Predict.")
    for call in lambda: predict("a", None), lambda: predict("a", data=1), lambda: clean("a", 1):
        with pytest.raises(ValidationError):
            call()
    with pytest.raises(TypeError, match="missing a required argument: 'data'"):
        predict("a")  # type: ignore[call-arg]


def test_validation_needs_pandas_only() -> None:
    """It works where stepshift is not installed, and is found lazily."""
    assert views_runs.validation is import_module("views_runs.validation") is validation
