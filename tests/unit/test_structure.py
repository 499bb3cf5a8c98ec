"""The rules that keep the house in order."""

import ast
import configparser
import re
from functools import cache
from pathlib import Path

import pytest

import views_runs

PACKAGE = Path(views_runs.__file__).parent
ROOT = PACKAGE.parent

#: A module imports only from its own folder and from those below. The modules at the top level that are not named here
#: are values, and lie below all folders.
FOLDERS = ("__main__", "cli", "__init__", "1.x", "runs", "storage")
FOLDERS += ("rendering", "health", "database", "pickles", "values")

#: What scripts of 1.x import: modules at the top level that use the storage, and that nothing else imports.
OF_1X = ("operations", "run", "run_result", "stats", "utilities", "validation")

#: Imports that go up, each inside a function, and why.
UPWARD: dict[tuple[str, str], str] = {
    ("records", "pickles"): "ModelRecord.loadable() is a method for its users' sake",
    ("storage", "runs"): "Storage.run() is a method for its users' sake",
}

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def folder(module: str) -> str:
    """Return the folder of a module, as `FOLDERS` names it."""
    top = module.removesuffix("/__init__").split("/")[0]
    if top in OF_1X:
        return "1.x"
    return top if top in FOLDERS else "values"


@cache
def imports(module: str) -> set[str]:
    """Return what a module imports, by full name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imported(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    own = [name for name in imports(module) if name.startswith("views_runs.")]
    places = {name.removeprefix("views_runs.").replace(".", "/") for name in own}
    return {place for place in places if place in MODULES or f"{place}/__init__" in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way_down(module: str) -> None:
    """A module imports only from its own folder, and from those below it."""
    place = FOLDERS.index(folder(module))
    wrong = {name for name in imported(module) if FOLDERS.index(folder(name)) < place}
    assert not {name for name in wrong if (module, folder(name)) not in UPWARD}


@pytest.mark.parametrize("module", MODULES)
def test_one_place_for_each_library(module: str) -> None:
    """Only pickles/ imports pickle, only database/ sqlite3, only rendering/ rich, and only 1.x the extra."""
    views = dict.fromkeys(("pandas", "stepshift", "views_partitioning", "views_schema"), "1.x")
    for library, place in {"pickle": "pickles", "sqlite3": "database", "rich": "rendering", **views}.items():
        if any(name.split(".")[0] == library for name in imports(module)):
            # For the types only, the package's own names are declared where they are published.
            assert folder(module) in (place, "__init__" if library in views else place)


@pytest.mark.parametrize("module", MODULES)
def test_one_place_lets_text_out(module: str) -> None:
    """Only the console prints and asks: it escapes what would do something to a terminal."""
    tree = ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text("utf-8")))
    called = {ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)}
    prints = re.compile(r"print|click\.(s?echo\w*|confirm|prompt|pause)|.*page(\(.*\))?\.print|.*std(out|err)\.write")
    assert module == "rendering/console" or not list(filter(prints.fullmatch, called))


@pytest.mark.parametrize("module", MODULES)
def test_pickles_know_no_sql(module: str) -> None:
    """What reads and writes pickles gets bytes and paths, not a connection; what renders gets values, not a store."""
    below = {"pickles": {"pickles", "values"}, "rendering": {"rendering", "values"}}.get(folder(module))
    if below:
        assert {folder(name) for name in imported(module)} <= below


def test_three_packages_at_run_time() -> None:
    """Nothing but click, platformdirs and rich is installed with the package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    required = config["options"]["install_requires"].split()
    assert [re.split("[<>=]", name)[0] for name in required] == ["click", "platformdirs", "rich"]
