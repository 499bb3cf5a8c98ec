"""The tests lie where their folder says: what several share is in `support`, and no test module is imported."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def imported(file: Path) -> set[str]:
    """Return the modules that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_nothing_imports_from_a_test_module() -> None:
    """Nor from conftest, whose fixtures need no import."""
    wrong = {
        str(file.relative_to(TESTS)): name
        for file in TESTS.rglob("*.py")
        for name in imported(file)
        if name.startswith("tests.") and any(part.startswith(("test_", "conftest")) for part in name.split(".")[1:])
    }
    assert wrong == {}
