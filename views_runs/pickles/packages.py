"""The distributions that are installed here: which one supplies a module, in what version, and what it needs."""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache


def suppliers(modules: Iterable[str]) -> dict[str, str]:
    """Return the distribution that supplies each of these top-level modules, of those that one does.

    >>> suppliers(["click", "json"])
    {'click': 'click'}
    """
    known = {
        module: _distributions().get(module) for module in sorted(modules) if module not in sys.stdlib_module_names
    }
    chosen = {module: _one_of(module, names or []) for module, names in known.items()}
    return {module: name for module, name in chosen.items() if name}


def _one_of(module: str, names: list[str]) -> str | None:
    """Return the distribution that supplies a module, if that can be told: `google` is of many."""
    own = [name for name in names if name == normal(module)]
    return names[0] if len(names) == 1 else next(iter(own), None)


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of distributions that are installed, and of those that they directly require.

    >>> sorted(versions(["rich"]))
    ['markdown-it-py', 'pygments', 'rich']
    """
    wanted = [*distributions]
    # An extra that has the name of what it brings, as xgboost[scikit-learn], is needed when that is in use.
    wanted += [
        needed
        for name in wanted
        for needed, extra in _requirements(name)
        if not extra or extra == needed and _is_imported(needed)
    ]
    found = {name: version(name) for name in sorted(set(wanted))}
    return {name: value for name, value in found.items() if value is not None}


def is_installed(distribution: str, version: str) -> bool:
    """Whether a distribution is installed here in this version, by the name of its folder; `version` is to be asked else.

    >>> is_installed("rich", version("rich"))
    True
    """
    return _folders().get(distribution) == version


def forget() -> None:
    """Look again at what is installed, when asked for it next."""
    version.cache_clear()
    _folders.cache_clear()


@cache
def _folders() -> dict[str, str]:
    """Return the versions of distributions, by the names of their folders; to read what is in them takes much longer."""
    found: dict[str, str] = {}
    for place in sys.path:
        with suppress(OSError, ValueError):
            for folder in os.listdir(place or "."):
                if folder.endswith(".dist-info"):
                    name, _, version = folder.removesuffix(".dist-info").partition("-")
                    found.setdefault(normal(name), version)
    return found


@cache
def version(distribution: str) -> str | None:
    """Return the version of a distribution that is installed here; None if there is none."""
    # This takes a while to import, and who only reads does not need it.
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except Exception:
        # As below.
        return None


@cache
def _distributions() -> dict[str, list[str]]:
    """Return the distributions of every top-level module; this looks at all that is installed, and so is done once."""
    from importlib import metadata

    try:
        return {
            module: sorted({normal(name) for name in names if name})
            for module, names in metadata.packages_distributions().items()
        }
    except Exception:
        # What is installed may be damaged in any way; a model must not be lost for that.
        return {}


@cache
def _requirements(distribution: str) -> tuple[tuple[str, str], ...]:
    """Return the names of what a distribution directly requires, each with the extra that it is for, or nothing."""
    from importlib import metadata

    try:
        lines = metadata.requires(distribution) or []
    except Exception:
        # As above.
        return ()
    found = (re.match(r"""\s*([A-Za-z0-9._-]+)(?:.*\bextra\s*==\s*['"]([^'"]+))?""", line) for line in lines)
    return tuple((normal(one[1]), normal(one[2] or "")) for one in found if one)


def _is_imported(distribution: str) -> bool:
    """Whether a module of a distribution is imported in this process."""
    return any(distribution in names and module in sys.modules for module, names in _distributions().items())


def normal(name: str) -> str:
    """Return the name of a distribution in the one way to write it.

    >>> normal("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()
