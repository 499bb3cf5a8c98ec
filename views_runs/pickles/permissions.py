"""Who may write a store: whoever may can run code as whoever fetches from it."""

import logging
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from views_runs import filesystems
from views_runs.files import companion
from views_runs.exceptions import OpenPermissionsError

log = logging.getLogger("views_runs")

#: Stores of which it was said, or need not be, that mode bits do not count.
_looked_at: set[Path] = set()


def places(path: Path) -> Iterator[Path]:
    """Yield what makes up a store: its file, the journal, and the folder, in which a journal can be made."""
    real = os.path.realpath(path)
    for place in (real, f"{real}-journal", os.path.dirname(real)):
        if os.path.exists(place):
            yield Path(place)


def open_to_everyone(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each place of a store that everyone on the system may write, and the command that mends it."""
    if os.name != "posix":
        return
    for place in places(path):
        # A sticky folder too: SQLite plays a journal that somebody puts there back into the store.
        with suppress(FileNotFoundError):
            # The journal may be gone by now.
            if place.stat().st_mode & stat.S_IWOTH:
                yield place, f"chmod o-w {_quoted(place)}"
    for folder in _folders_above(path):
        mode = folder.stat().st_mode
        # In a sticky one nobody can put another folder, or another link, in the place of somebody else's.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield folder, f"chmod o-w {_quoted(folder)}"


def _folders_above(path: Path) -> list[Path]:
    """Return the folders that lead to a store, the one that it is in aside; also those that lead to a link to it."""
    real = Path(os.path.realpath(path))
    return [*dict.fromkeys(one for one in (*path.parents, *real.parents) if one != real.parent and os.path.exists(one))]


def refuse_open(path: Path) -> None:
    """Refuse a store that everyone on the system may write.

    Raises:
        OpenPermissionsError: with what mends it.
    """
    for place, mend in open_to_everyone(path):
        if _has_modes(path):
            raise OpenPermissionsError(
                f"everyone on this system may write {place}, and so run code as whoever fetches. Nothing was loaded. "
                f"Mend it with `{mend}` (or move the store, if that folder is the system's, as /tmp is), or pin the model "
                "with sha256=, or allow it with Storage(..., allow_open_permissions=True)",
            )
    if path not in _looked_at:
        _looked_at.add(path)
        if not _has_modes(path):
            log.warning(
                "%s: mode bits do not say who may write here; whoever may can run code as whoever fetches", path
            )


def _has_modes(path: Path) -> bool:
    """Whether mode bits say who may write."""
    mount = filesystems.mount_of(path)
    return os.name == "posix" and not (mount and mount.kind in filesystems.WITHOUT_MODES)


def troubles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what keeps some of those out who may write the file, and what to do."""
    file, journal = Path(os.path.realpath(path)), companion(path, "-journal")
    if not file.exists():
        return
    for_group = file.stat().st_mode & stat.S_IWGRP
    if journal.exists():
        if for_group & ~journal.stat().st_mode:
            yield f"not all who may write {file.name} may write {journal.name}", f"chmod g+w {_quoted(journal)}"
        elif for_group and journal.stat().st_gid != file.stat().st_gid:
            yield f"{journal.name} has another group than {file.name}", f"chgrp {_group(file)} {_quoted(journal)}"
    elif for_group and not file.parent.stat().st_mode & stat.S_IWGRP:
        yield f"the group may write {file.name}, and not make its journal", f"chmod g+ws {_quoted(file.parent)}"


def doubts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what may be as it is meant to be, or not, and what to do."""
    file = Path(os.path.realpath(path))
    mode = file.parent.stat().st_mode
    if mode & stat.S_IWGRP and not mode & stat.S_ISGID:
        yield (
            f"what is made in {file.parent} gets its maker's own group, not the folder's",
            f"chmod g+s {_quoted(file.parent)}",
        )
    elif mode & stat.S_IWGRP and file.exists() and file.stat().st_gid != file.parent.stat().st_gid:
        group = _group(file.parent)
        yield f"{file.name} is not of the folder's group, {group}", f"chgrp {group} {_quoted(file)}*"
    if file.exists() and not os.access(file, os.W_OK):
        yield "you may read the store, not write it", "If you want to store, ask its owner"


def _quoted(place: Path) -> str:
    """Return a path as the shell takes it."""
    return shlex.quote(str(place))


def described(place: Path) -> str:
    """Return mode bits, owner and group, as in ``-rw-rw-r-- ines:views``."""
    status = place.stat()
    return f"{stat.filemode(status.st_mode)} {_owner(place)}:{_group(place)}"


def _owner(place: Path) -> str:
    try:
        return place.owner()
    except (KeyError, NotImplementedError):
        return str(place.stat().st_uid)


def _group(place: Path) -> str:
    try:
        return place.group()
    except (KeyError, NotImplementedError):
        return str(place.stat().st_gid)
