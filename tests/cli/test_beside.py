"""The command `viewser` beside the package viewser: which of the two runs a line, and what doctor says about it."""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.machine import ROOT
from views_runs import Storage, __version__
from views_runs.cli.beside import VIEWSER_COMMANDS, command
from views_runs.health import commands

Viewser = Callable[..., Result]

#: What the command of the package in these tests does.
SHOWS = "import json, sys\n\ndef viewser():\n    print(json.dumps([__file__, *sys.argv[1:]]))\n    return 3\n"


def put_package(folder: Path, init: str = "", cli: str = SHOWS) -> None:
    """Write a package viewser into a folder."""
    (folder / "viewser").mkdir(parents=True)
    (folder / "viewser" / "__init__.py").write_text(init)
    (folder / "viewser" / "cli.py").write_text(cli)


def put_distribution(site: Path, *files: str, origin: object = None) -> None:
    """Write what pip writes about a distribution viewser."""
    folder = site / "viewser-6.6.4.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: viewser\nVersion: 6.6.4\n")
    (folder / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, f"{folder.name}/METADATA"]))
    if origin:
        (folder / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with nothing in it."""
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


@pytest.fixture
def installed(site: Path) -> Path:
    """The file of an installed viewser that shows what it is called with."""
    put_package(site)
    put_distribution(site, "viewser/__init__.py", "viewser/cli.py")
    return site / "viewser" / "cli.py"


def run(site: Path, *line: str, name: str = "viewser", path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line as a script of this package does, where the current folder comes first on sys.path."""
    function = {"viewser": "viewser", "views-runs": "main"}[name]
    code = f"import sys; from views_runs.cli import {function}; sys.exit({function}())"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([path, str(ROOT), str(site)])}
    return subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, env=variables)


@pytest.mark.parametrize(
    "line",
    ["config list", "--json config list --json", "--debug --formatted later --store", "--store x.db queryset -h"],
)
def test_commands_of_the_package_get_the_line_as_typed(site: Path, installed: Path, line: str) -> None:
    """Every command that is not this package's is run by viewser: its options too, and commands that are not listed."""
    result = run(site, *line.split())
    assert (result.returncode, result.stderr) == (3, "")
    assert json.loads(result.stdout) == [str(installed), *line.split()]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", ""),
        ("--help", ""),
        ("--store config", ""),
        ("--store=x.db model list", "model"),
        ("--store x.db --json model config", "model"),
        ("--no-debug -- config", "config"),
        ("config model", "config"),
    ],
)
def test_first_argument_that_is_no_option_decides(line: str, found: str) -> None:
    """The path of --store is not a command."""
    assert command(line.split()) == found


def test_own_commands_import_nothing_of_it(site: Path) -> None:
    """Whatever is wrong with viewser, `viewser model` and the help work and say nothing of it."""
    put_package(site, "raise RuntimeError('no database')")
    put_distribution(site, "viewser/__init__.py", "viewser/cli.py")
    Storage("model.db").store("m", 1)
    for line in ("--debug --formatted --store model.db model list -q", "model list -q --store model.db"):
        result = run(site, *line.split())
        assert (result.returncode, result.stdout, result.stderr) == (0, "m\n", "")
    shown = run(site, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert " ".join(shown.stdout.split()).endswith(
        f"Commands of the package viewser (6.6), if it is installed: {', '.join(VIEWSER_COMMANDS)}"
    )
    said = run(site, "config", "list")
    assert said.returncode == 1 and said.stdout == ""
    start = f"Error: cannot run `viewser config`: {site / 'viewser' / '__init__.py'}: viewser 6.6.4 cannot be imported"
    assert said.stderr.startswith(start)
    assert "RuntimeError: no database. Run `" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.parametrize("line", ["--help", "--json model list", "--version"])
def test_viewser_is_looked_for_only_when_it_is_needed(line: str) -> None:
    """Own commands do not import what looks for packages, which would take a third of the time of the help."""
    code = "import sys; from views_runs.cli import viewser as run\n"
    code += "try: run()\nfinally: print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=True)
    assert {*result.stderr.split()} & {"importlib.metadata", "views_runs.health.commands", "viewser"} == set()


def test_views_runs_hands_nothing_over(site: Path, installed: Path) -> None:
    """The command views-runs is this package's alone."""
    result = run(site, "config", "list", name="views-runs")
    assert result.returncode == 2 and "No such command 'config'" in result.stderr
    assert "config" not in run(site, "--help", name="views-runs").stdout
    assert run(site, "--formatted", "model", name="views-runs").returncode == 2


@pytest.mark.parametrize("path", ["", "."])
def test_a_checkout_in_the_current_folder_is_not_taken(site: Path, installed: Path, path: str) -> None:
    """A folder viewser/ is not the installed package, also if it was built there and is on sys.path."""
    put_package(Path.cwd(), "raise SystemExit('the checkout')")
    (Path.cwd() / "viewser.egg-info").mkdir()
    (Path.cwd() / "viewser.egg-info" / "PKG-INFO").write_text("Name: viewser\nVersion: 7.0\n")
    (Path.cwd() / "viewser.egg-info" / "SOURCES.txt").write_text("viewser/__init__.py\nviewser/cli.py\n")
    assert json.loads(run(site, "config", path=path).stdout)[0] == str(installed)
    installed.with_name("__init__.py").unlink()
    assert "the package viewser is not installed" in run(site, "config", path=path).stderr


def test_a_package_that_no_distribution_owns_is_not_taken(site: Path) -> None:
    """A package viewser that pip did not install is not run, wherever it is on sys.path."""
    put_package(site)
    assert "the package viewser is not installed" in run(site, "config").stderr
    put_distribution(site, "other/__init__.py")
    assert "the package viewser is not installed" in run(site, "config").stderr


def test_an_editable_installation_is_run_from_its_folder(site: Path, tmp_path: Path) -> None:
    """`pip install -e` notes the folder."""
    put_package(tmp_path / "a checkout")
    put_distribution(site, origin={"url": (tmp_path / "a checkout").as_uri(), "dir_info": {"editable": True}})
    assert json.loads(run(site, "config").stdout) == [str(tmp_path / "a checkout" / "viewser" / "cli.py"), "config"]


def test_without_the_package(site: Path) -> None:
    """A command of viewser says what to install, and how to keep the command; any other is a mistake as it was."""
    result = run(site, "--json", "queryset", "list")
    assert result.returncode == 1 and result.stdout == ""
    assert "cannot run `viewser queryset`: the package viewser is not installed" in result.stderr
    assert "-m pip install viewser~=6.6`" in result.stderr and commands.repair() in result.stderr
    assert "No such command 'bogus'" in run(site, "bogus").stderr
    assert "Did you mean 'viewser model list'?" in run(site, "list").stderr.replace("-c", "viewser")


@pytest.mark.usefixtures("installed")
def test_a_mistake_is_not_handed_over(site: Path) -> None:
    """What looks like a command of this package gets its suggestion, although viewser is installed."""
    for line in (["list"], ["modle", "list"]):
        result = run(site, *line)
        assert result.returncode == 2 and "Did you mean" in result.stderr


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (None, "views_runs=={version}"),
        ({"url": "file:///a%20b/views_runs", "dir_info": {}}, "file:///a%20b/views_runs"),
        ({"url": "file:///a/b", "dir_info": {"editable": True}}, "-e file:///a/b"),
        ({"url": "file:///a/b.whl", "archive_info": {"hash": "sha256=0"}}, "file:///a/b.whl"),
        ({"url": "https://a/b.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}}, "git+https://a/b.git@0a1b"),
        ({"url": "https://a/b.whl?x&y", "archive_info": {}}, "'https://a/b.whl?x&y'"),
    ],
)
def test_repair_installs_this_very_package(
    site: Path, monkeypatch: pytest.MonkeyPatch, origin: object, source: str
) -> None:
    """It is installed from where it came from: by name and without its version, pip would install 1.x."""
    put_distribution(site, origin=origin)
    found = metadata.PathDistribution(site / "viewser-6.6.4.dist-info")
    monkeypatch.setattr(metadata, "distribution", lambda name: found)
    assert commands.source() == source.format(version=__version__)
    assert commands.repair().endswith(f" -m pip install --force-reinstall --no-deps {commands.source()}")


def test_a_damaged_note_of_the_origin(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no JSON says nothing."""
    put_distribution(site, origin={"url": "file:///a"})
    found = metadata.PathDistribution(site / "viewser-6.6.4.dist-info")
    (site / "viewser-6.6.4.dist-info" / "direct_url.json").write_text("{")
    monkeypatch.setattr(metadata, "distribution", lambda name: found)
    assert commands.source() == f"views_runs=={__version__}"


def test_repair_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the source that is not installed has no place to install it from."""

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert commands.source().startswith("views_runs==2")


#: The lines of a script that pip writes, for a Python and a package.
SCRIPT = "#!{}\nimport sys\nfrom {}.cli import {}\nif __name__ == '__main__':\n    sys.exit(viewser())\n"
HERE, THERE = sys.executable, "/elsewhere/bin/python3"


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this environment's scripts, which is on the PATH, with no script in it."""
    (tmp_path / "scripts").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "scripts"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "scripts"))
    yield tmp_path / "scripts"


def about_the_command(viewser: Viewser) -> dict[str, str]:
    """Return what doctor finds out about the command."""
    findings: list[dict[str, str]] = json.loads(viewser("model", "doctor", "--json").stdout)
    [found] = [one for one in findings if one["topic"] == "command"]
    return found


@pytest.mark.parametrize(
    ("script", "state", "text", "advice"),
    [
        (SCRIPT.format(HERE, "views_runs", "viewser"), "ok", "is the command of views_runs", ""),
        (SCRIPT.format(THERE, "views_runs", "main"), "ok", "is the command of views_runs in another environment", ""),
        (SCRIPT.format(HERE, "viewser", "viewser"), "warning", "is the command of viewser", "Use views-runs, or run `"),
        (SCRIPT.format(THERE, "viewser", "viewser"), "warning", "viewser in another environment", "first on the PATH"),
        ("#!/bin/sh\nexit 1\n", "ok", "is the command of an unknown package", ""),
    ],
)
def test_doctor_says_whose_command_it_is(
    scripts: Path, store: Storage, viewser: Viewser, script: str, state: str, text: str, advice: str
) -> None:
    """doctor reads the script that is first on the PATH, and does not run it."""
    (scripts / "viewser").write_text(script)
    (scripts / "viewser").chmod(0o755)
    store.store("m", 1)
    for on_path in (True, False):
        finding = about_the_command(viewser)
        where = str(scripts / "viewser") + ("" if on_path else " (not on the PATH)")
        assert finding["state"] == state and finding["text"].startswith(where) and finding["text"].endswith(text)
        assert advice in finding["advice"] and bool(advice) == bool(finding["advice"])
        os.environ["PATH"] = ""


def test_doctor_misses_the_command(scripts: Path, store: Storage, viewser: Viewser) -> None:
    """Uninstalling one of the packages takes the command from the other."""
    store.store("m", 1)
    finding = about_the_command(viewser)
    assert finding["state"] == "warning" and finding["text"].startswith(f"there is no viewser in {scripts}")
    assert shlex.quote(commands.repair().split()[0]) in finding["advice"]


def test_annotate_has_the_options_of_viewser(store: Storage, viewser: Viewser) -> None:
    """The short options of `viewser model annotate` mean what its help says."""
    store.store("m", 1)
    viewser("model", "annotate", "m", *shlex.split("-a ines -q base -s 121 -e 480 -d '2026-11-23 08:00:00' --step 3"))
    assert store.fetch_metadata("m") == {
        "author": "ines",
        "queryset_name": "base",
        "train_start": 121,
        "train_end": 480,
        "training_date": datetime(2026, 11, 23, 8),
        "steps": [3],
    }
    viewser("model", "annotate", "m", "--queryset-name", "other", "--train-start", "1990-02")
    assert store.fetch_metadata("m").queryset_name == "other" and store.fetch_metadata("m").train_start == 122


@pytest.mark.parametrize("line", ["-s 1 -s 2", "-s 1 --train-start 2"])
def test_steps_are_not_taken_for_months(store: Storage, viewser: Viewser, line: str) -> None:
    """viewser 6.6 takes -s for --step, which is refused where it can be told."""
    store.store("m", 1, {"train_start": 121})
    assert "give steps with --step" in viewser("model", "annotate", "m", *line.split(), exit_code=2).stderr
    assert store.fetch_metadata("m") == {"train_start": 121}
