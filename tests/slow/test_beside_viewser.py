"""The package beside the real viewser: installed in each order, and uninstalled in each."""

import json
import os
import shlex
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.wheels import build_wheel, run

#: The newest viewser of the version that the help speaks of.
VIEWSER = "viewser==6.6.4"

#: What the two command lines need to start.
NEEDED = [
    *("click", "platformdirs", "rich", "colorama", "pydantic>=2", "python-dateutil", "requests", "strconv"),
    *("PyMonad", "SQLAlchemy<2", "setuptools<81", "tabulate<0.9", "toolz<0.12"),
]

#: Takes the place of what the rest of viewser needs: pandas below 2, numba, clients of clouds and data bases. They are
#: 900 MB, take minutes to install and seconds to import, and nothing that these tests run calls them.
STAND_INS = """
import importlib.machinery, sys
from unittest.mock import MagicMock

NAMES = set('''azure cryptography docker fitin IPython lz4 numpy pandas paramiko psutil psycopg2 pyarrow pyod scipy tqdm
views_storage views_tensor_utilities'''.split())

class Finder:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            return importlib.machinery.ModuleSpec(name, Finder, is_package=True)
    def create_module(spec):
        return MagicMock(name=spec.name)
    def exec_module(module):
        pass

sys.meta_path.append(Finder)
"""


class Environment(NamedTuple):
    """A virtual environment with what both packages need, and the wheels of both."""

    folder: Path
    wheels: dict[str, Path]

    def pip(self, *arguments: object) -> None:
        """Run the environment's pip, which has to succeed."""
        run(self.folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *arguments)

    def install(self, *names: str) -> None:
        """Install packages, each in a run of its own."""
        for name in names:
            self.pip("install", "--quiet", "--no-deps", "--no-index", self.wheels[name])

    def __call__(self, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line as a user does who has activated the environment, in a folder with a checkout of viewser."""
        home = self.folder / "home"
        environment = {"HOME": str(home), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **variables}
        command = [str(self.folder / "bin" / line.split()[0]), *shlex.split(line)[1:]]
        return subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment)

    def finding(self) -> dict[str, str]:
        """Return what doctor says about the command."""
        findings = json.loads(self("views-runs model doctor --json").stdout)
        [found] = [one for one in findings if one["topic"] == "command"]
        return dict(found)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Environment]:
    """An environment for all of these tests: what both packages need takes half a minute to install."""
    with tempfile.TemporaryDirectory(prefix="views_runs-") as name:
        folder = Path(name).resolve()
        venv.create(folder, with_pip=True)
        found = Environment(folder, {"views_runs": build_wheel(folder)})
        found.pip("download", "--quiet", "--no-deps", "--dest", folder, VIEWSER)
        found.wheels["viewser"] = next(folder.glob("viewser-*.whl"))
        found.pip("install", "--quiet", *NEEDED)
        found.pip("install", "--quiet", "--no-deps", "views-schema")
        [site] = folder.glob("lib/python*/site-packages")
        (site / "stand_ins.py").write_text(STAND_INS)
        (site / "stand_ins.pth").write_text("import stand_ins\n")
        (folder / "home" / "viewser").mkdir(parents=True)
        (folder / "home" / "viewser" / "__init__.py").write_text("raise SystemExit('the checkout')\n")
        yield found


@pytest.fixture
def env(prepared: Environment) -> Iterator[Environment]:
    """An environment that has neither of the packages yet."""
    yield prepared
    prepared.pip("uninstall", "--quiet", "--yes", *prepared.wheels)


def check_both(env: Environment) -> None:
    """Check that this package has the command, and hands the other commands to viewser."""
    assert env("viewser model list --json").stdout == "[]\n"
    listed = env("viewser --json config list")
    assert not listed.returncode and json.loads(listed.stdout)["values"]["LOG_LEVEL"] == "INFO", listed.stderr
    assert "LOG_LEVEL: INFO" in env("viewser --debug --formatted config get LOG_LEVEL").stdout
    assert env("viewser queryset --help").stdout.startswith("Usage: viewser queryset [OPTIONS] COMMAND [ARGS]...\n")
    assert env("viewser bogus").returncode == 2
    assert (found := env.finding())["state"] == "ok" and found["text"].endswith("is the command of views_runs")


def check_theirs(env: Environment) -> None:
    """Check that viewser has the command, that views-runs still is this package's, and what doctor says."""
    assert env("viewser --version").stdout == "6.6.4\n"
    assert "LOG_LEVEL: INFO" in env("viewser config get LOG_LEVEL").stdout
    assert "No such command 'doctor'" in env("viewser model doctor").stderr
    assert env("views-runs model list --json").stdout == "[]\n"
    assert (found := env.finding())["state"] == "warning" and found["text"].endswith("is the command of viewser")


def check_ours(env: Environment) -> None:
    """Check the command without viewser."""
    assert env("viewser model list --json").stdout == "[]\n"
    said = env("viewser config list")
    assert said.returncode == 1 and "the package viewser is not installed" in said.stderr


def repair(env: Environment) -> None:
    """Run the command that doctor prints."""
    advice = env.finding()["advice"]
    run(*shlex.split(advice.split("`")[1]))


@pytest.mark.parametrize("last", ["views_runs", "viewser"])
@pytest.mark.parametrize("uninstalled", ["views_runs", "viewser"])
def test_orders(env: Environment, last: str, uninstalled: str) -> None:
    """The last one has the command, uninstalling one removes it, and what doctor advises brings it back."""
    env.install(*sorted(env.wheels, key=lambda name: name == last))
    (check_theirs if last == "viewser" else check_both)(env)
    env.pip("uninstall", "--quiet", "--yes", uninstalled)
    assert not (env.folder / "bin" / "viewser").exists()
    if uninstalled == "viewser":
        assert env("views-runs model list --json").stdout == "[]\n"
        assert env.finding()["text"].startswith("there is no viewser in ")
        repair(env)
        check_ours(env)
    else:
        env.pip("install", "--quiet", "--force-reinstall", "--no-deps", "--no-index", env.wheels["viewser"])
        assert env("viewser --version").stdout == "6.6.4\n"


def test_repair(env: Environment) -> None:
    """What doctor and `viewser config` advise gives the command to this package, with viewser behind it."""
    env.install("views_runs")
    check_ours(env)
    env.install("viewser")
    check_theirs(env)
    repair(env)
    check_both(env)


def test_a_viewser_that_cannot_be_imported(env: Environment) -> None:
    """Its settings are a database in the home: where that cannot be, `viewser model` works and says nothing of it."""
    env.install("viewser", "views_runs")
    home = env.folder / "another home"
    home.mkdir()
    (home / ".views").write_text("not a folder")
    listed = env("viewser model list --json", HOME=str(home))
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "[]\n", "")
    said = env("viewser config list", HOME=str(home))
    assert said.returncode == 1 and "viewser 6.6.4 cannot be imported: " in said.stderr
    assert "Traceback" not in said.stderr
