"""Predict whether a pickle will load on this machine: compare its needs with what is installed, importing nothing."""

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.util import find_spec
from pkgutil import get_importer
from typing import Any

from views_runs import extra, signals
from views_runs.pickles import packages
from views_runs.pickles.opcodes import Import, Trouble, TroubleKind
from views_runs.texts import shell_line

#: The verdicts, from best to worst.
LOADS, MAY_NOT, WILL_NOT = "loads", "may not load", "will not load"

#: The distributions that supply the modules most often used in models.
_SAME_NAME = ("catboost", "joblib", "lightgbm", "numpy", "pandas", "scipy", "statsmodels", "torch", "xgboost")
_OF_THE_EXTRA = {module: name for module, (name, _) in extra.REQUIREMENTS.items()}
_WELL_KNOWN = {**{name: name for name in _SAME_NAME}, "sklearn": "scikit-learn", **_OF_THE_EXTRA}

#: This package: it is installed, and pip may install something else under its name.
_OWN = "views-runs"

#: Distribution names and versions that have no special meaning to a shell or to pip.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")


@dataclass(frozen=True)
class Verdict:
    """Whether a model will load on this machine, and what to do if not."""

    #: ``loads``, ``may not load`` or ``will not load``.
    verdict: str
    #: The reasons why it may not or will not load.
    reasons: tuple[str, ...] = ()
    #: A shell command that installs what the model was stored with; empty if not applicable.
    fix: str = ""

    def __str__(self) -> str:
        """Return everything in one line."""
        return "; ".join([self.verdict, *self.reasons, *filter(None, [self.fix])])


@dataclass(frozen=True)
class Needs:
    """The requirements for loading a pickle, as they are recorded."""

    #: Its imports; None if they were not recorded, as by early versions of this package.
    imports: tuple[str, ...] | None = None
    #: The reasons why there may be further imports.
    troubles: tuple[str, ...] = ()
    #: The distributions that supplied its modules, and their direct requirements, with versions.
    packages: Mapping[str, str] = field(default_factory=dict)
    #: The distribution that supplied each top-level module.
    suppliers: Mapping[str, str] = field(default_factory=dict)
    #: The files of modules that no distribution supplied, where it was stored.
    files: Mapping[str, str] = field(default_factory=dict)
    #: The Python version that stored it, as in ``CPython 3.11.7``; None if unknown.
    python: str | None = None
    protocol: int | None = None
    #: Whether it contains code, which works with one version of Python only.
    has_code: bool = False

    @classmethod
    def recorded(cls, **known: Any) -> "Needs":
        """Create an instance from the fields of a record, which has more."""
        return cls(**{name: known[name] for name in known.keys() & cls.__dataclass_fields__.keys()})

    @property
    def modules(self) -> list[str]:
        """The modules that it imports."""
        return sorted({Import.parse(text).module for text in self.imports or ()})

    def find_file(self, module: str) -> str | None:
        """Return the file that a top-level module was, if it was no installed distribution's."""
        return next((file for name, file in self.files.items() if name.split(".")[0] == module), None)


def verdict(needs: Needs) -> Verdict:
    """Compare what a pickle needs with this machine."""
    missing, others = missing_modules(needs.modules), dict(_compare_versions(needs))
    others |= _find_missing_requirements(needs)
    findings = [*_check_bytes(needs), *_check_modules(needs, missing), *_check_unknown(needs, missing)]
    findings += [(MAY_NOT, text) for text in others.values()]
    worst = max((state for state, _ in findings), key=[LOADS, MAY_NOT, WILL_NOT].index, default=LOADS)
    reasons = tuple(dict.fromkeys(reason for _, reason in findings))
    # Another stepshift has no module stepshift.views.
    lacking = [module.split(".")[0] for module in needs.modules if extra.supplies(module) and not _can_find(module)]
    names = [*suppliers([*missing, *lacking], needs).values(), *others]
    return Verdict(worst, reasons, format_command(names, needs))


def missing_modules(modules: Iterable[str]) -> list[str]:
    """Return the top-level modules that cannot be found on this machine.

    >>> missing_modules(["json.decoder", "nowhere.to.be.found"])
    ['nowhere']
    """
    return [module for module in dict.fromkeys(name.split(".")[0] for name in modules) if not _can_find(module)]


def suppliers(modules: Iterable[str], needs: Needs) -> dict[str, str]:
    """Return the distributions of top-level modules, where known.

    Never guess from a module's name: a colleague's own utils.py is not the package of that name on PyPI.
    """
    known = {**_WELL_KNOWN, **needs.suppliers}
    return {module: known[module] for module in modules if module in known}


def format_command(names: Collection[str], needs: Needs) -> str:
    """Return a command that installs distributions, in the versions that were recorded; empty if there are none."""
    # Users paste the command into a shell, and anyone who can write to the store may have chosen the names.
    usual = dict(extra.REQUIREMENTS.values())
    pinned = []
    for name in dict.fromkeys(filter(_NAME.fullmatch, names)):
        version = needs.packages.get(name, "")
        if name != _OWN:
            pinned.append(f"{name}=={version}" if _VERSION.fullmatch(version) else shell_line(usual.get(name, name)))
    if not needs.packages and any(name in usual for name in names):
        pinned.append(shell_line(extra.NUMPY))
    return f"pip install {' '.join(pinned)}" if pinned else ""


def _check_bytes(needs: Needs) -> Iterator[tuple[str, str]]:
    if (needs.protocol or 0) > 5:
        yield WILL_NOT, f"it uses pickle protocol {needs.protocol}, and this Python supports protocols up to 5"
    troubles = needs.troubles
    if needs.imports is None:
        troubles = ("its imports were not recorded when it was stored; `inspect` reads them from the pickle",)
    for trouble in troubles:
        if Trouble(trouble).kind in (TroubleKind.BROKEN, TroubleKind.DAMAGED):
            yield WILL_NOT, trouble
        elif Trouble(trouble).kind is TroubleKind.BYTE_STRINGS:
            yield WILL_NOT, (
                f"it contains {trouble}: download it, load it with pickle.load(file, encoding='latin1'), and store the "
                "result"
            )
        else:
            yield MAY_NOT, f"it may have imports that are not known: {trouble}"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    stored_with = (needs.python or "").partition(" ")[2]
    if needs.has_code and not stored_with.startswith(f"{here}."):
        yield MAY_NOT, f"it contains code for Python {stored_with or '(version unknown)'}, and this is Python {here}"


def _check_modules(needs: Needs, missing: list[str]) -> Iterator[tuple[str, str]]:
    for module in missing:
        if not extra.supplies(module):
            file = needs.find_file(module)
            yield WILL_NOT, f"the module {module} is not installed" + (f"; it was loaded from {file}" if file else "")
    if needed := [_OF_THE_EXTRA[module] for module in missing if extra.supplies(module)]:
        yield WILL_NOT, _describe_extra(needed)
    for module in needs.modules:
        if module == "__main__":
            yield MAY_NOT, (
                "it needs something defined in the script that stored it (__main__): move that to a module, and store "
                "the model again"
            )
        elif module.split(".")[0] not in missing and not _can_find(module):
            # Importing its package may create it.
            yield MAY_NOT, f"the module {module} cannot be found"


def _describe_extra(needed: list[str]) -> str:
    # Who installs views-partitioning has views-schema too.
    shown = [name for name in needed if name != "views-schema"] or needed
    where = "" if extra.can_be_installed() else f". {extra.WHERE}"
    return f"it needs {' and '.join(shown)}, which {'are' if shown[1:] else 'is'} not installed{where}"


def _compare_versions(needs: Needs) -> Iterator[tuple[str, str]]:
    """Yield each distribution that is missing here or has another version, with a description of the difference."""
    for name, stored in needs.packages.items():
        # Check the folder names first: reading a distribution's metadata takes much longer.
        if name == _OWN or packages.is_installed(name, stored):
            continue
        found = _find_installed(name, needs)
        here = packages.version(found) if found else None
        if here != stored:
            how = "created" if needs.python is None else "stored"
            shown = "but " + (f"{here}" if found == name else f"{found} {here}") + " is installed"
            yield name, f"{how} with {name} {stored}, {shown if found else 'which is not installed'}"


def _find_installed(distribution: str, needs: Needs) -> str | None:
    """Return a distribution, or what supplies its modules here instead, such as xgboost-cpu; None if nothing does."""
    if packages.version(distribution) is not None:
        return distribution
    modules = [module for module, name in {**_WELL_KNOWN, **needs.suppliers}.items() if name == distribution]
    return next(iter(packages.suppliers(modules).values()), None)


def _find_missing_requirements(needs: Needs) -> dict[str, str]:
    """Return the distributions that those needed require and that are missing, with a description of each.

    A distribution may have been installed without its requirements, and its modules import theirs.
    """
    installed = [*needs.packages, *suppliers({name.split(".")[0] for name in needs.modules}, needs).values()]
    missing = packages.missing_requirements(installed)
    return {
        name: f"{by} requires {name}, which is not installed"
        for name, by in missing.items()
        if name not in needs.packages
    }


def _check_unknown(needs: Needs, missing: list[str]) -> Iterator[tuple[str, str]]:
    """Name the modules of an uploaded pickle whose versions are not known, beyond what those known require."""
    if needs.python is not None:
        return
    installed = filter(None, (_find_installed(name, needs) for name in needs.packages))
    known = {*needs.packages, *(one.name for name in installed for one in packages.requirements(name))}
    here = {*missing, *sys.stdlib_module_names, *packages.MAIN, "views_runs"}
    modules = {name.split(".")[0] for name in needs.modules} - here
    names = sorted(modules - {module for module, name in suppliers(modules, needs).items() if name in known})
    if names:
        yield MAY_NOT, f"it was created with unknown versions of {', '.join(names)}"


def _can_find(module: str) -> bool:
    """Return whether a module can be found; `find_spec` would import its parent packages, and so run their code."""
    if module in sys.modules:
        return sys.modules[module] is not None
    name, *others = module.split(".")
    # Finders without side effects come first; the finder of setuptools, if installed, imports it to find distutils.
    looking = () if name in sys.modules else (BuiltinImporter, FrozenImporter, PathFinder)
    try:
        spec = next(filter(None, (finder.find_spec(name) for finder in looking)), None)
        spec = spec or find_spec("setuptools" if name == "distutils" else name)
        found = [spec] if spec else []
        for other in others:
            name = f"{name}.{other}"
            # `PathFinder` would look for a package without __init__ in the imported modules.
            places = [place for spec in found for place in spec.submodule_search_locations or ()]
            finders = filter(None, map(get_importer, places))
            found = [spec for finder in finders if (spec := finder.find_spec(name))]
            # Folders without __init__ are one package together, unless there is one with it.
            found = [spec for spec in found if spec.loader][:1] or found
        return bool(found)
    except Exception as error:
        signals.let_through(error)
        # Finders can be third-party code, and may search shares and damaged archives.
        return False
