"""The tests lie where their folder says: what several share is in `support`, and no test module is imported."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]

#: An import of something in the tests.
IMPORT = re.compile(r"^\s*(?:from|import) (tests\b.*)", re.MULTILINE)


def test_nothing_imports_from_a_test_module() -> None:
    """Nor from conftest, whose fixtures need no import."""
    wrong = {
        str(file.relative_to(TESTS)): found
        for file in TESTS.rglob("*.py")
        for found in IMPORT.findall(file.read_text("utf-8"))
        if re.search(r"\b(test_\w+|conftest)", found)
    }
    assert wrong == {}
