"""The distributions that are installed here: which one supplies a module, in what version, and what it needs."""

import re
import sys
from collections.abc import Iterable
from functools import cache


def suppliers(modules: Iterable[str]) -> dict[str, str]:
    """Return the distribution that supplies each of these top-level modules, of those that one does.

    >>> suppliers(["click", "json"])
    {'click': 'click'}
    """
    known = {
        module: _distributions().get(module) for module in sorted(modules) if module not in sys.stdlib_module_names
    }
    return {module: names[0] for module, names in known.items() if names}


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of distributions that are installed, and of those that they directly require.

    >>> sorted(versions(["rich"]))
    ['markdown-it-py', 'pygments', 'rich']
    """
    wanted = [*distributions]
    wanted += [needed for name in wanted for needed in _requirements(name)]
    found = {name: version(name) for name in sorted(set(wanted))}
    return {name: value for name, value in found.items() if value is not None}


@cache
def version(distribution: str) -> str | None:
    """Return the version of a distribution that is installed here; None if there is none."""
    # This takes a while to import, and who only reads does not need it.
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError, KeyError):
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
def _requirements(distribution: str) -> tuple[str, ...]:
    """Return the names of what a distribution directly requires, without its extras."""
    from importlib import metadata

    try:
        lines = metadata.requires(distribution) or []
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        return ()
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not re.search(r";.*\bextra\b", line))
    return tuple(normal(name[0]) for name in names if name)


def normal(name: str) -> str:
    """Return the name of a distribution in the one way to write it.

    >>> normal("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()
