"""Check who can write to a store: they can run code as anyone who fetches from it."""

import errno
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from views_runs import filesystems, signals
from views_runs.exceptions import OpenPermissionsError

log = logging.getLogger("views_runs")

#: The number of links after which Linux gives up.
MOST_LINKS = 40

_MOVE = "Move the store to a folder of its own, for example with `views-runs model backup FILE`"


def refuse_open(path: Path) -> None:
    """Refuse a store that everyone on the system can write to; log a warning if mode bits do not show who can."""
    if not _check_modes(path):
        return
    for place, advice in open_to_everyone(path):
        mount = filesystems.find_mount(path)
        if not mount or mount.kind not in filesystems.WITH_MODES:
            advice += ". If chmod has no effect there, ask the volume's administrator who can write to it"
        raise OpenPermissionsError(
            f"everyone on this system can write to {place}, and so run code as anyone who fetches; nothing was loaded",
            f"{advice}. Or pin the model with sha256=, or allow this with Storage(..., allow_open_permissions=True)",
        )


@cache
def _check_modes(path: Path) -> bool:
    """Return whether mode bits show who can write to a store; if not, warn once."""
    if filesystems.has_modes(path):
        return True
    log.warning("%s: mode bits do not show who can write here, and so run code as anyone who fetches", path)
    return False


def open_to_everyone(path: Path, move: str = _MOVE) -> Iterator[tuple[Path, str]]:
    """Yield what everyone can write to of a file, its journal and the folders above, each with advice.

    In a shared folder such as /tmp, the advice is `move`.
    """
    if os.name != "posix":
        return
    own = list_places(path)
    for place in dict.fromkeys([*own, *list_folders(path)]):
        try:
            mode = os.stat(place).st_mode
        except OSError as error:
            signals.let_through(error)
            # The journal may be missing.
            continue
        if not mode & stat.S_IWOTH:
            continue
        if not stat.S_ISDIR(mode) or not mode & stat.S_ISVTX:
            yield Path(place), f"Run `chmod o-w {shlex.quote(place)}`"
        elif place in own:
            # In a sticky folder, nobody can replace the folders and links of others, but anyone can put a journal
            # beside the store, which SQLite plays back into it. Such folders, like /tmp, are shared on purpose.
            yield Path(place), f"{move}; do not change the mode of {place}, which others use"


def list_places(path: Path) -> list[str]:
    """Return the parts of a store: its file, its journal, and the folder in which a journal can be created."""
    # As strings: to make paths of these and of the folders took an eighth of the time of a small fetch.
    real = os.path.realpath(path)
    return [real, f"{real}-journal", os.path.dirname(real)]


def list_folders(path: Path) -> Iterator[str]:
    """Yield each folder in which the system looks something up on the way to a file, links on the way included.

    Whoever can write to one of them can lead the way elsewhere.
    """
    folder, *rest = path.absolute().parts
    links = 0
    while rest:
        step = rest.pop(0)
        if step == "..":
            folder = os.path.dirname(folder)
            continue
        yield folder
        place = os.path.join(folder, step)
        try:
            target = Path(os.readlink(place))
        except OSError as error:
            # EINVAL: it is no link.
            if error.errno != errno.EINVAL:
                signals.let_through(error)
            folder = place
            continue
        if (links := links + 1) > MOST_LINKS:
            return
        rest = [*target.relative_to(target.anchor).parts, *rest]
        folder = target.anchor or folder
