"""The rules that keep the house in order."""

import ast
import configparser
import re
from pathlib import Path

import pytest

import views_runs

PACKAGE = Path(views_runs.__file__).parent
ROOT = PACKAGE.parent

#: A module imports only from those after it.
ORDER = (
    "__main__",
    "cli",
    "rendering",
    "__init__",
    "storage",
    "doctor",
    "backup",
    "verification",
    "loading",
    "trust",
    "pickle_files",
    "rows",
    "query",
    "peer",
    "uploads",
    "pickling",
    "schema",
    "files",
    "permissions",
    "filesystems",
    "connection",
    "locks",
    "records",
    "loadability",
    "packages",
    "opcodes",
    "names",
    "metadata",
    "exceptions",
    "version",
)


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


def test_every_module_has_its_place() -> None:
    """The order names each module of the package."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way_down(module: str) -> None:
    """A module imports only from modules below its own."""
    above = ORDER[: ORDER.index(module) + 1]
    assert not {f"views_runs.{name}" for name in above} & imports(module)


@pytest.mark.parametrize("module", ORDER)
def test_only_one_module_pickles(module: str) -> None:
    """`pickle` is imported in pickling.py alone, and sqlite3 where the file is opened and made."""
    assert ("pickle" in imports(module)) == (module == "pickling")
    assert ("sqlite3" in imports(module)) == (module in ("connection", "schema"))


def test_rendering_never_sees_a_store() -> None:
    """Rendering gets values, and only rendering builds a Console."""
    assert "views_runs.storage" not in imports("rendering")
    for module in set(ORDER) - {"rendering"}:
        assert not any(name.startswith("rich") for name in imports(module)), module


def test_three_packages_at_run_time() -> None:
    """Nothing but click, platformdirs and rich is installed with the package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    required = config["options"]["install_requires"].split()
    assert [re.split("[<>=]", name)[0] for name in required] == ["click", "platformdirs", "rich"]
