"""Names of models: which are possible, what ``NAME:VERSION`` means, and which are nearly the same."""

import operator
import re
import unicodedata

from views_runs.exceptions import InvalidNameError

#: The longest name, in characters.
MAX_NAME = 255

#: The largest integer that SQLite knows.
MAX_INTEGER = (1 << 63) - 1

_REFERENCE = re.compile(r"(?s)(.*):([0-9]+)")


def new_name(name: str) -> str:
    """Return the name that a model is to be stored under.

    Raises:
        InvalidNameError: a model cannot have this name.
    """
    name = valid_name(name)
    if _REFERENCE.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} cannot be the name of a model: NAME:NUMBER names a version of NAME. Versions are numbered by "
            "the store; give a name that does not end in a colon and a number"
        )
    return name


def valid_name(name: str) -> str:
    """Return a name that a model may have, or that a version may be asked for by.

    Raises:
        InvalidNameError: no model can have this name.
    """
    if not isinstance(name, str):
        raise InvalidNameError(f"the name of a model is a string, not {name!r}")
    # What a subclass of str calls itself is not what it is: an enum's member, for one.
    name = str.__str__(name)
    trouble = ""
    if not name:
        trouble = "it is empty"
    elif len(name) > MAX_NAME:
        trouble = f"it has {len(name)} characters, and {MAX_NAME} are the most"
    elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        trouble = "it holds a control character, such as a line break"
    if trouble:
        raise InvalidNameError(f"{name[:60]!r} cannot be the name of a model: {trouble}")
    return name


def reference(name: str, version: int | None) -> tuple[str, int | None]:
    """Take ``NAME`` or ``NAME:VERSION`` apart.

    Raises:
        InvalidNameError: no model can have this name, or two versions are named.

    >>> reference("my-model:2", None), reference("my-model", None)
    (('my-model', 2), ('my-model', None))
    """
    if isinstance(name, str) and (match := _REFERENCE.fullmatch(str.__str__(name))):
        name, named = match[1], int(match[2]) if len(match[2]) < 19 else MAX_INTEGER
        if version not in (None, named):
            raise InvalidNameError(f"{match[0]!r} names version {named}, and version={version!r} another: give one")
        version = named
    try:
        return valid_name(name), None if version is None else max(0, min(operator.index(version), MAX_INTEGER))
    except TypeError as error:
        raise InvalidNameError(f"a version of {name!r} is a whole number, not {version!r}") from error


def similar(name: str, names: list[str]) -> str:
    """Return the end of a sentence that says which of the names are nearly this one.

    >>> similar("my-modle", ["my-model", "another"])
    "; did you mean 'my-model'?"
    """
    if not names:
        return "; the store is empty"
    from difflib import get_close_matches

    folded = {other.casefold(): other for other in reversed(names)}
    close = [folded[other] for other in get_close_matches(name.casefold(), folded, n=3)]
    if close:
        return f"; did you mean {' or '.join(repr(other) for other in close)}?"
    return "; `viewser model list` shows what is there"


def file_name(reference: str) -> str:
    """Return the name of the file for a model's pickle: one that stays in its folder, on any system.

    >>> file_name("../my-model:2")
    '_._my-model_2.pickle'
    """
    name = re.sub(r'[/\\:*?"<>|]', "_", reference)
    name = "_" + name[1:] if name.startswith((".", "-")) else name
    # File systems allow 255 bytes, and the file is written beside under a longer name first.
    return name.encode("utf-8")[:200].decode("utf-8", "ignore") + ".pickle"
