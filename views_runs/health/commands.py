"""Find the package viewser, which also installs a command ``viewser``, and tell whose command is on the PATH.

pip lets both packages write the script, and gives it to the one that is installed last.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

from views_runs import signals
from views_runs.exceptions import StorageError
from views_runs.pickles import packages
from views_runs.records import Finding
from views_runs.texts import shell_line
from views_runs.version import __version__


def find_viewser() -> tuple[metadata.Distribution, Path] | None:
    """Return the installed distribution viewser and the file of its package; None if it is not installed."""
    places = [place for place in sys.path if place and not is_current(place)]
    for distribution in metadata.distributions(name="viewser", path=places):
        if (file := package_file(distribution)) and file.is_file():
            return distribution, file
    return None


def is_current(place: str) -> bool:
    """Return whether a place on sys.path is the current folder: a checkout may have been built there, not installed."""
    with suppress(OSError):
        return os.path.samefile(place, os.curdir)
    return False


def package_file(distribution: metadata.Distribution) -> Path | None:
    """Return where a distribution has ``viewser/__init__.py``: among its files or, if it is editable, in its folder."""
    for file in distribution.files or ():
        if file.as_posix() == "viewser/__init__.py":
            return Path(str(distribution.locate_file(file)))
    folder = packages.editable_folder(distribution)
    return Path(folder, "viewser", "__init__.py") if folder else None


def load(distribution: metadata.Distribution, file: Path) -> Callable[..., Any]:
    """Import viewser from exactly this file, whatever else sys.path has by that name, and return its command."""
    spec = util.spec_from_file_location("viewser", file, submodule_search_locations=[str(file.parent)])
    assert spec and spec.loader
    sys.modules["viewser"] = module = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        command: Callable[..., Any] = import_module("viewser.cli").viewser
    except Exception as error:
        signals.let_through(error)
        trouble = f"viewser {distribution.version} cannot be imported: {type(error).__name__}: {error}"
        advice = f"Run `{shell_line(sys.executable, '-P', '-c', 'import viewser.cli')}` to see where it fails"
        raise StorageError(trouble, advice).locate(path=file) from error
    return command


def check_command() -> Iterator[Finding]:
    """Report whose command ``viewser`` is: the first on the PATH or, if there is none, the one beside this Python."""
    scripts = sysconfig.get_path("scripts")
    on_path = shutil.which("viewser")
    script = on_path or shutil.which("viewser", path=scripts)
    if not script:
        text = f"there is no viewser in {scripts}: pip removes it with either of the packages views_runs and viewser"
        yield Finding("command", "warning", text, f"Use views-runs, or run `{repair()}`")
        return
    owner, is_here = read_script(Path(script))
    text = f"{script}{'' if on_path else ' (not on the PATH)'} is the command of {owner or 'an unknown package'}"
    text += "" if is_here or not owner else " in another environment"
    if owner != "viewser":
        yield Finding("command", "ok", text)
    elif is_here:
        yield Finding("command", "warning", text, f"Use views-runs, or run `{repair()}`")
    else:
        yield Finding("command", "warning", text, f"Use views-runs, or put {scripts} first on the PATH")


def read_script(script: Path) -> tuple[str, bool]:
    """Return which package a script runs, if it is one of the two, and whether with this environment's Python."""
    # Both packages claim the file, and its text says whose it is. On Windows it is a program that ends with this text.
    content = b""
    with suppress(OSError):
        content = script.read_bytes()
    runs = {"views_runs": b"from views_runs.cli import", "viewser": b"from viewser.cli import"}
    owner = next((name for name, line in runs.items() if line in content), "")
    return owner, os.fsencode(Path(sys.executable).with_name("python")) in content


def repair() -> str:
    """Return the command that gives ``viewser`` to this package."""
    return f"{pip()} install --force-reinstall --no-deps {source()}"


def advise_installing(version: str) -> str:
    """Return how to install viewser, and keep the command for this package."""
    return f"Run `{pip()} install viewser~={version}`, and then `{repair()}`, because the last one gets the command"


def pip() -> str:
    """Return the command that is the pip of this environment."""
    return f"{shell_line(sys.executable)} -m pip"


def source() -> str:
    """Return what pip can install this package from; never its bare name, which means 1.x on a package index."""
    try:
        origin = packages.origin(metadata.distribution("views_runs"))
    except metadata.PackageNotFoundError:
        origin = {}
    if not origin:
        return f"views_runs=={__version__}"
    if control := origin.get("vcs_info"):
        return shell_line(f"{control['vcs']}+{origin['url']}@{control['commit_id']}")
    return ("-e " if origin.get("dir_info", {}).get("editable") else "") + shell_line(origin["url"])
