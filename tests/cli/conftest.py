"""What the tests of the command line share."""

from importlib import resources
from pathlib import Path

import pytest


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guide of two pages in the place of the package's own."""
    folder = tmp_path / "package" / "guide"
    folder.mkdir(parents=True)
    (folder / "index.rst").write_text("The guide\n=========\n\n``views-runs model guide TOPIC`` shows a page.\n")
    (folder / "conditions.rst").write_text("Conditions\n==========\n\nFIELD ≥ VALUE\n", "utf-8")
    (folder / "notes.txt").write_text("not a page")
    monkeypatch.setattr(resources, "files", lambda package: folder.parent)
    return folder
