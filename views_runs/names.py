"""Model names: validation, ``NAME:VERSION`` references, and suggestions for mistyped names."""

import operator
import re
import unicodedata
from collections.abc import Collection
from itertools import islice

from views_runs.exceptions import InvalidNameError

#: The longest name, in characters.
MAX_NAME = 255

#: The largest integer that SQLite can hold.
MAX_INTEGER = (1 << 63) - 1

#: The longest alias, in characters, and what cannot be an alias, because it would be taken for something else.
MAX_ALIAS = 64
NO_ALIASES = ("current", "latest")

#: How many of several things a message names.
MOST_LISTED = 3

_ALIAS = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_ALIAS}}}")
_VERSIONED = re.compile(r"(?s)(.*):([0-9]+)")


def check_new_name(name: str) -> str:
    """Check the name of a new model, and return it as a plain `str`."""
    name = check_name(name)
    if _VERSIONED.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} cannot be the name of a model, because NAME:NUMBER refers to a version of NAME",
            "Use a name that does not end in a colon and a number; the store numbers the versions itself",
        )
    return name


def explain_at_sign(name: str) -> InvalidNameError:
    """Return the error for a new name that could be taken for ``NAME@ALIAS``."""
    return InvalidNameError(
        f"{name!r} cannot be the name of a new model, because NAME@ALIAS refers to a version of NAME",
        "Use a name without @",
    )


def explain_one_version() -> InvalidNameError:
    """Return the error for a version where only a model can be meant, in ``rename``."""
    return InvalidNameError("a version cannot be renamed", "Give the name alone: all versions get the new name")


def check_alias(alias: str) -> str:
    """Check a new alias, and return it as a plain `str`."""
    text = str.__str__(alias) if isinstance(alias, str) else ""
    if not _ALIAS.fullmatch(text) or text.isdigit() or text.casefold() in NO_ALIASES:
        raise InvalidNameError(
            f"{alias!r:.80} cannot be an alias",
            f"Use up to {MAX_ALIAS} letters, digits, dots, underscores and hyphens, with at least one that is not a "
            f"digit, but not {' or '.join(NO_ALIASES)}",
        )
    return text


def check_name(name: str) -> str:
    """Check the name of a model to look up, and return it as a plain `str`."""
    if not isinstance(name, str):
        raise InvalidNameError(f"the name of a model must be a string, not {name!r}")
    # Instances of str subclasses, such as enum members, may print as something else.
    name = str.__str__(name)
    categories = {unicodedata.category(character) for character in name}
    trouble = ""
    if not name:
        trouble = "it is empty"
    elif len(name) > MAX_NAME:
        trouble = f"it has {len(name)} characters, but the limit is {MAX_NAME}"
    elif "Cs" in categories:
        trouble = "it contains a character that is not valid Unicode"
    elif categories & {"Cc", "Zl", "Zp"}:
        trouble = "it contains a control character, such as a line break"
    if trouble:
        raise InvalidNameError(f"{name[:60]!r} cannot be the name of a model: {trouble}")
    return name


def reference(name: str, version: int | None) -> tuple[str, int | None]:
    """Split ``NAME`` or ``NAME:VERSION``; it is an error if `version` is another version."""
    if isinstance(name, str) and (match := _VERSIONED.fullmatch(str.__str__(name))):
        name, named = match[1], int(match[2]) if len(match[2]) < 19 else MAX_INTEGER
        if version not in (None, named):
            raise InvalidNameError(f"{match[0]!r} and version={version!r} give different versions", "Give one of them")
        version = named
    try:
        return check_name(name), None if version is None else max(0, min(operator.index(version), MAX_INTEGER))
    except TypeError as error:
        raise InvalidNameError(f"the version of {name!r} must be an integer, not {version!r}") from error


def listed(texts: Collection[str]) -> str:
    """Return the first of several texts, for a message.

    >>> listed(["a", "b", "c", "d"]), listed(["a", "b", "c"])
    ('a, b, c and 1 more', 'a, b, c')
    """
    shown = ", ".join(islice(texts, MOST_LISTED))
    return shown if len(texts) <= MOST_LISTED else f"{shown} and {len(texts) - MOST_LISTED:,} more"


def is_glob(name: str) -> bool:
    """Return whether a name is a glob, unless a model has it."""
    return not set(name).isdisjoint("*?[")


def suggest(name: str, names: list[str], what: str = "model") -> str:
    """Return advice for the name of a model or a run that does not exist, with similar names that do."""
    if not names:
        return f"The store has no {what}s"
    from difflib import get_close_matches

    folded = {other.casefold(): other for other in reversed(names)}
    close = [folded[other] for other in get_close_matches(name.casefold(), folded, n=3)]
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Run `views-runs {what} list` to see the existing {what}s"


def file_name(reference: str) -> str:
    """Return a file name for a model's pickle that is valid on every system and contains no folder.

    >>> file_name("../my-model:2")
    '_._my-model_2.pickle'
    """
    name = re.sub(r'[/\\:*?"<>|]', "_", reference)
    name = "_" + name[1:] if name.startswith((".", "-")) else name
    # On Windows, these are devices in every folder, whatever follows the dot.
    name = re.sub(r"(?i)^(con|prn|aux|nul|(?:com|lpt)[\d¹²³])(?=[. ]|$)", r"_\1", name)
    # File systems allow 255 bytes; leave room for the longer temporary name under which the file is written.
    return name.encode("utf-8")[:200].decode("utf-8", "ignore") + ".pickle"
