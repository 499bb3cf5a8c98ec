"""The package as pip installs it."""

import os
import venv
import zipfile
from pathlib import Path

from tests.support.wheels import build_wheel, run


def test_a_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    """It brings the command line and the guide, and no tests."""
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    information = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"views_runs", information}
    assert "views_runs/py.typed" in names and "views_runs/guide/index.rst" in names
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": ""}
    assert run(programs / "viewser", "model", "list", "--json", **home) == "[]\n"
    assert "conditions" in run(programs / "views-runs", "model", "guide", **home)
    assert run(programs / "python", "-m", "views_runs", "model", "guide", "conditions", **home)
