"""Whether a pickle will load on this machine: what it needs, held against what is here, without importing any of it."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import (
    BuiltinImporter,
    FrozenImporter,
    ModuleSpec,
    PathFinder,
)
from importlib.util import find_spec
from typing import Any

from views_runs.pickles import packages
from views_runs.pickles.opcodes import Import

#: The verdicts, from good to bad.
LOADS, MAY_NOT, WILL_NOT = "loads", "may not load", "will not load"

#: What supplies the modules that models are mostly made with.
_WELL_KNOWN = {
    **{
        name: name
        for name in ("catboost", "joblib", "lightgbm", "numpy", "pandas", "scipy", "statsmodels", "torch", "xgboost")
    },
    "sklearn": "scikit-learn",
}

#: What can be the name of a distribution, and its version, and means nothing else to a shell or to pip.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")

_NOT_RECORDED = ("what it imports was not recorded when it was stored; inspect reads it from its bytes",)


@dataclass(frozen=True)
class Verdict:
    """Whether a model will load here, and what to do if not."""

    #: ``loads``, ``may not load`` or ``will not load``.
    verdict: str
    #: Why it may not, or will not, in words.
    reasons: tuple[str, ...] = ()
    #: A line for the shell that makes this machine as the one that stored the model; empty when there is none.
    fix: str = ""

    def __str__(self) -> str:
        """Return all of it in one line."""
        return "; ".join([self.verdict, *self.reasons, *filter(None, [self.fix])])


@dataclass(frozen=True)
class Needs:
    """What a pickle needs where it is loaded.

    Args:
        imports: what it imports.
        troubles: why there may be more than these.
        packages: the distributions that supplied the modules, with their versions and those of what they require.
        suppliers: which of them supplied each top-level module.
        python: of the machine that stored it, as in ``CPython 3.11.7``; None if that is not known.
        protocol: of the pickle; None if that is not known.
        has_code: whether it holds code, which fits one version of Python.
    """

    imports: tuple[Import, ...]
    troubles: tuple[str, ...]
    packages: Mapping[str, str]
    suppliers: Mapping[str, str]
    python: str | None
    protocol: int | None
    has_code: bool

    @classmethod
    def recorded(cls, imports: Iterable[str] | None = None, troubles: tuple[str, ...] = (), **known: Any) -> "Needs":
        """Return what a record tells; of an older one it is not known what the pickle imports."""
        return cls(
            imports=tuple(map(Import.parse, imports or ())),
            troubles=_NOT_RECORDED if imports is None else troubles,
            packages=known.get("packages", {}),
            suppliers=known.get("suppliers", {}),
            python=known.get("python"),
            protocol=known.get("protocol"),
            has_code=known.get("has_code", False),
        )


def verdict(needs: Needs) -> Verdict:
    """Hold what a pickle needs against this machine."""
    findings = [*_broken(needs), *_missing(needs), *_others(needs)]
    worst = max((finding[0] for finding in findings), key=[LOADS, MAY_NOT, WILL_NOT].index, default=LOADS)
    return Verdict(worst, tuple(dict.fromkeys(reason for _, reason in findings)), _fix(needs))


def missing_modules(modules: Iterable[str]) -> list[str]:
    """Return those of the top-level modules that are not here.

    >>> missing_modules(["json.decoder", "nowhere.to.be.found"])
    ['nowhere']
    """
    return [module for module in dict.fromkeys(name.split(".")[0] for name in modules) if not _is_there(module)]


def install(modules: Iterable[str], needs: Needs) -> str:
    """Return the line that installs what supplies these top-level modules; empty when there is none."""
    return _pip(suppliers(modules, needs), needs)


def _broken(needs: Needs) -> Iterator[tuple[str, str]]:
    if (needs.protocol or 0) > 5:
        yield WILL_NOT, f"it is of pickle protocol {needs.protocol}, and this Python knows 5"
    for trouble in needs.troubles:
        is_broken = trouble.startswith(("broken", "damaged"))
        yield (WILL_NOT, trouble) if is_broken else (MAY_NOT, f"not all that it imports can be told: {trouble}")


def _missing(needs: Needs) -> Iterator[tuple[str, str]]:
    modules = sorted({module for module, _ in needs.imports})
    absent = missing_modules(modules)
    for module in absent:
        yield WILL_NOT, f"the module {module} is not here"
    for module in modules:
        if module == "__main__":
            yield (
                MAY_NOT,
                "it needs what the script that stored it defines in __main__: move that to a module, and store it again",
            )
        elif module.split(".")[0] not in absent and not _is_there(module):
            # It may be made when its package is imported.
            yield MAY_NOT, f"the module {module} is not here"


def _others(needs: Needs) -> Iterator[tuple[str, str]]:
    for name, (stored, here) in _differences(needs).items():
        yield (
            MAY_NOT,
            f"{name} is {here} here, and it was stored with {stored}" if here else f"{name} {stored} is not here",
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stored_with = (needs.python or "").partition(" ")[2]
    if needs.has_code and not stored_with.startswith(f"{python}."):
        yield MAY_NOT, f"it holds code of Python {stored_with or 'of an unknown version'}, and this is {python}"


def _differences(needs: Needs) -> dict[str, tuple[str, str | None]]:
    """Return the distributions of another version here: that of the store, and that of here."""
    others = {name: stored for name, stored in needs.packages.items() if not packages.is_installed(name, stored)}
    here = {name: packages.version(name) for name in others}
    return {name: (stored, here[name]) for name, stored in others.items() if stored != here[name]}


def _fix(needs: Needs) -> str:
    missing = missing_modules(module for module, _ in needs.imports)
    return _pip([*suppliers(missing, needs), *_differences(needs)], needs)


def suppliers(modules: Iterable[str], needs: Needs) -> list[str]:
    """Return the distributions of modules, of those that are known.

    Never a guess by the module's name: a colleague's own utils.py is not the package that somebody called utils.
    """
    known = {**_WELL_KNOWN, **needs.suppliers}
    return [known[module] for module in modules if module in known]


def _pip(names: Iterable[str], needs: Needs) -> str:
    # Whoever may write the store may have written these, and the line is there to be pasted into a shell.
    pinned = [_pinned(name, needs) for name in dict.fromkeys(names) if _NAME.fullmatch(name)]
    return f"pip install {' '.join(pinned)}" if pinned else ""


def _pinned(name: str, needs: Needs) -> str:
    version = needs.packages.get(name, "")
    return f"{name}=={version}" if _VERSION.fullmatch(version) else name


def _find(name: str) -> ModuleSpec | None:
    """Find a top-level module: what is not imported, first with those finders that only look."""
    looking = () if name in sys.modules else (BuiltinImporter, FrozenImporter, PathFinder)
    for finder in looking:
        if spec := finder.find_spec(name):
            return spec
    # A finder of setuptools finds distutils by importing setuptools, where it is.
    return find_spec("setuptools" if name == "distutils" else name)


def _find_in(locations: Iterable[str], name: str) -> ModuleSpec | None:
    """Find a module in its package, without importing that."""
    locations = [*locations]
    try:
        return PathFinder.find_spec(name, locations)
    except KeyError:
        # It is a folder without __init__, and PathFinder looks for its parent among what is imported.
        from pkgutil import get_importer

        found = [finder.find_spec(name) for finder in map(get_importer, locations) if finder]
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [
            place for one in found if one for place in one.submodule_search_locations or ()
        ]
        return spec


def _is_there(module: str) -> bool:
    """Whether a module can be found; `find_spec` would import the packages around it, and run their code."""
    if module in sys.modules:
        return sys.modules[module] is not None
    top, *others = module.split(".")
    try:
        spec = _find(top)
        for name in others:
            top = f"{top}.{name}"
            if spec is None or spec.submodule_search_locations is None:
                return False
            spec = _find_in(spec.submodule_search_locations, top)
        return spec is not None
    except Exception:
        # Finders are anybody's, and look on shares and in archives that may be damaged.
        return False
