"""Look up installed distributions: which one supplies a module, their versions, and their requirements.

An installation may be damaged in any way; errors here must never cause the loss of a model.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from views_runs import signals

if TYPE_CHECKING:
    from importlib.metadata import Distribution

#: The module names of a running script, and of a script in the processes that multiprocessing spawns.
MAIN = {"__main__", "__mp_main__"}

# `importlib.metadata` is imported where needed: the import takes a while, and reading a model rarely needs it.


class Requirement(NamedTuple):
    """A requirement of a distribution, with its extra and its condition, such as ``sys_platform == "win32"``."""

    name: str
    extra: str
    condition: str


def suppliers(modules: Iterable[str]) -> dict[str, str]:
    """Return the distributions of modules by top-level module; omit those with several distributions, such as `google`.

    Omit this package too: what reads a record is this package, and what pip installs under its name may be another.

    >>> suppliers(["click.core", "json"])
    {'click': 'click'}
    """
    found = {}
    for module in sorted({module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"views_runs"}):
        names = _distributions().get(module, [])
        if len(names) == 1 or normal(module) in names:
            found[module] = names[0] if len(names) == 1 else normal(module)
    return found


def own_files(modules: Iterable[str]) -> dict[str, str]:
    """Return the files of imported modules that no installed distribution supplies, by module.

    Such as those in a folder that a script has added to ``sys.path``: elsewhere, nothing says where they are.
    """
    found = {}
    for module in sorted(modules):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top == "views_runs" or _distributions().get(top):
            continue
        # A module can be any object, and run code when it is asked for its file.
        with signals.ignoring_failures():
            path = os.path.abspath(sys.modules[module].__file__ or "")
            if os.path.isfile(path) and not path.startswith(_editable_folders()):
                found[module] = path
    return found


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of distributions and of their direct requirements.

    >>> sorted(versions(["rich"]))
    ['markdown-it-py', 'pygments', 'rich']
    """
    wanted = {*distributions}
    for needed, extra, _ in [requirement for name in wanted for requirement in requirements(name)]:
        # An extra named after its requirement, such as xgboost[scikit-learn], counts if the requirement is in use.
        if not extra or extra == needed and any(
            needed in names and module in sys.modules for module, names in _distributions().items()
        ):
            wanted.add(needed)
    return {name: found for name in sorted(wanted) if (found := version(name)) is not None}


def missing_requirements(distributions: Iterable[str]) -> dict[str, str]:
    """Return what distributions and their requirements require and is not installed, each with what requires it.

    Conditions are not evaluated, which would take a parser: a requirement that has one counts as there.
    """
    found, seen, wanted = {}, set(), [*distributions]
    while wanted:
        if (name := wanted.pop()) not in seen:
            seen.add(name)
            needed = [one.name for one in requirements(name) if not one.condition]
            found.update({one: name for one in needed if one not in _folders() and version(one) is None})
            wanted += needed
    return found


def is_installed(distribution: str, version: str) -> bool:
    """Return whether there is a .dist-info folder for this version; if False, `version` gives the definite answer."""
    folder = _folders().get(distribution)
    return folder is not None and _split_folder(folder)[1] == version


def forget() -> None:
    """Clear the caches, so that changes to the installed distributions are noticed."""
    version.cache_clear()
    requirements.cache_clear()
    _folders.cache_clear()


@cache
def _folders() -> dict[str, str]:
    """Return the .dist-info folders of distributions; looking for each one takes much longer."""
    found: dict[str, str] = {}
    for place in sys.path:
        with suppress(OSError, ValueError):
            for folder in os.listdir(place or "."):
                if folder.endswith(".dist-info"):
                    found.setdefault(normal(_split_folder(folder)[0]), os.path.abspath(os.path.join(place, folder)))
    return found


def _split_folder(folder: str) -> tuple[str, str]:
    name, _, version = os.path.basename(folder).removesuffix(".dist-info").partition("-")
    return name, version


@cache
def version(distribution: str) -> str | None:
    """Return the installed version of a distribution; None if it is not installed."""
    from importlib import metadata

    with signals.ignoring_failures():
        return metadata.version(distribution)
    return None


@cache
def _editable_folders() -> tuple[str, ...]:
    """Return the folders of distributions that were installed from where they are edited."""
    from importlib import metadata

    found = map(editable_folder, metadata.distributions())
    return tuple(folder + os.sep for folder in found if folder)


def editable_folder(distribution: "Distribution") -> str | None:
    """Return the folder that a distribution was installed from, if it is edited there."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    found = origin(distribution)
    with signals.ignoring_failures():
        return url2pathname(urlsplit(found["url"]).path) if found["dir_info"]["editable"] else None
    return None


def origin(distribution: "Distribution") -> dict[str, Any]:
    """Return what pip recorded about where a distribution came from; empty if that was a package index."""
    with signals.ignoring_failures():
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
        if isinstance(found, dict) and isinstance(found.get("url"), str):
            return found
    return {}


@cache
def _distributions() -> dict[str, list[str]]:
    """Return the distributions of each top-level module; cached, because this reads all installed distributions."""
    from importlib import metadata

    with signals.ignoring_failures():
        found = metadata.packages_distributions()
        return {module: sorted({normal(name) for name in names if name}) for module, names in found.items()}
    return {}


@cache
def requirements(distribution: str) -> list[Requirement]:
    """Return the direct requirements of a distribution."""
    lines: list[str] = []
    with signals.ignoring_failures():
        lines = _read_requirements(distribution)
    found = (
        re.match(r"""\s*([A-Za-z0-9._-]+)[^;]*;?\s*(.*?(?:\bextra\s*==\s*['"]([^'"]+).*)?)$""", line) for line in lines
    )
    return [Requirement(normal(one[1]), normal(one[3] or ""), one[2]) for one in found if one]


def _read_requirements(distribution: str) -> list[str]:
    """Return the direct requirements of a distribution, as its metadata has them."""
    if folder := _folders().get(distribution):
        # Without `importlib.metadata`, `inspect` and `check` start 35 ms earlier.
        try:
            with open(os.path.join(folder, "METADATA"), encoding="utf-8", errors="replace") as file:
                # The header ends with an empty line; a line that begins with a space continues the one before.
                header = re.sub(r"\n[ \t]+", " ", "".join(takewhile("\n".__ne__, file)))
            return re.findall(r"(?im)^requires-dist:\s*(.*)$", header)
        except OSError as error:
            # It was replaced by another version since the folders were listed.
            signals.let_through(error)
    from importlib import metadata

    return metadata.requires(distribution) or []


def normal(name: str) -> str:
    """Return the normalized name of a distribution, such as ``scikit-learn`` for ``Scikit_Learn``."""
    return re.sub(r"[-_.]+", "-", name).lower()
