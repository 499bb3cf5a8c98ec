"""Diagnose who can read and write a store."""

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from views_runs import filesystems
from views_runs.files import companion
from views_runs.pickles.permissions import list_places, open_to_everyone
from views_runs.records import Finding

#: The name prefix of the file on which `chmod` is tested.
PROBE = ".views_runs-modes"

_failure = partial(Finding, "permissions", "failure")
_warning = partial(Finding, "permissions", "warning")


def check_permissions(path: Path) -> Iterator[Finding]:
    """Check who can write to a store, and whether this seems intended."""
    if not filesystems.has_modes(path):
        yield describe_unknown(filesystems.find_mount(path))
        return
    yield from check_modes(path)
    yield from check_journal(path)
    yield from check_group(path)
    if path.exists() and not os.access(path, os.R_OK):
        yield _failure("you cannot read the store", "Ask its owner for permission to read it")
    elif path.exists() and not os.access(path, os.W_OK):
        advice = "To store models, ask its owner for permission to write to it"
        yield _warning("you can read the store, but not write to it", advice)


def describe_unknown(mount: filesystems.Mount | None) -> Finding:
    """Report that mode bits do not show who can write to a store, and how to find out."""
    where, advice = mount.kind if mount else "this system", "Ask the administrator of the server who can write to it"
    if mount and filesystems.WITHOUT_OWNERS in mount.options:
        where = f"{mount.kind} with ownership ignored (noowners)"
        advice = "Everyone who uses this computer can write to it: keep the store on another disk if that is a risk"
    elif os.name == "nt" and not (mount and mount.kind == filesystems.SHARE):
        advice = "The folder's properties show it, under Security; folders in your own user folder are yours"
    return _warning(f"on {where}, mode bits do not show who can write", advice)


def check_modes(path: Path) -> Iterator[Finding]:
    """Report the modes of a store's files and folder; a mode that lets everyone write is a failure."""
    opened = dict(open_to_everyone(path))
    danger = "everyone on this system can write to it, and so run code as anyone who fetches"
    if opened and not chmod_has_effect(Path(os.path.realpath(path)).parent):
        danger = "its mode lets everyone write to it, but chmod has no effect on this volume, so that may not be true"
        advice = "If only people you trust can write to it, set VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS=1"
        opened = dict.fromkeys(opened, f"Ask the volume's administrator. {advice}")
    for place in dict.fromkeys([*filter(Path.exists, map(Path, list_places(path))), *opened]):
        what = "folder" if place.is_dir() else "journal" if place.name.endswith("-journal") else "file"
        status = place.stat()
        owners = f"{_name_user(status.st_uid)}:{_name_group(status.st_gid)}"
        text = f"{what} {place}: {stat.filemode(status.st_mode)} {owners}"
        if place in opened:
            yield _failure(f"{text}: {danger}", opened[place])
        else:
            yield Finding("permissions", "ok", text)


def check_journal(path: Path) -> Iterator[Finding]:
    """Check that those who can write to the file can also create or write to its journal."""
    file, journal = Path(os.path.realpath(path)), companion(path, "-journal")
    if not file.exists() or not file.stat().st_mode & stat.S_IWGRP:
        return
    if not journal.exists():
        if not file.parent.stat().st_mode & stat.S_IWGRP:
            text = f"the group can write to {file.name}, but cannot create its journal"
            yield _failure(text, _suggest("chmod g+ws", file.parent))
    elif not journal.stat().st_mode & stat.S_IWGRP:
        text = f"the group can write to {file.name}, but not to {journal.name}"
        yield _failure(text, _suggest("chmod g+w", journal))
    elif journal.stat().st_gid != file.stat().st_gid:
        text = f"{journal.name} and {file.name} belong to different groups"
        yield _failure(text, _suggest(f"chgrp {_name_group(file.stat().st_gid)}", journal))


def check_group(path: Path) -> Iterator[Finding]:
    """Check that files created in a group-writable folder get the folder's group."""
    file, journal = Path(os.path.realpath(path)), companion(path, "-journal")
    folder = file.parent.stat()
    if not folder.st_mode & stat.S_IWGRP:
        return
    if not folder.st_mode & stat.S_ISGID:
        text = f"files created in {file.parent} get their creator's group, not the folder's"
        yield _warning(text, _suggest("chmod g+s", file.parent))
    elif file.exists() and file.stat().st_gid != folder.st_gid:
        group = _name_group(folder.st_gid)
        text = f"{file.name} does not belong to its folder's group, {group}"
        yield _warning(text, _suggest(f"chgrp {group}", *filter(Path.exists, (file, journal))))


def chmod_has_effect(folder: Path) -> bool:
    """Return whether `chmod` changes modes in a folder; if no file can be created there, assume that it does."""
    with suppress(OSError), NamedTemporaryFile(prefix=PROBE, dir=folder) as file:
        for mode in (0o600, 0o640):
            os.chmod(file.name, mode)
            if stat.S_IMODE(os.stat(file.name).st_mode) != mode:
                return False
    return True


def _name_user(number: int) -> str:
    """Return the name of a user, or the number if no name can be looked up."""
    if sys.platform != "win32":
        with suppress(ImportError, KeyError):
            import pwd

            return pwd.getpwuid(number).pw_name
    return str(number)


def _name_group(number: int) -> str:
    """Return the name of a group, or the number if no name can be looked up."""
    if sys.platform != "win32":
        with suppress(ImportError, KeyError):
            import grp

            return grp.getgrgid(number).gr_name
    return str(number)


def _suggest(command: str, *places: Path) -> str:
    """Return advice to run a command on files."""
    return f"Run `{command} {shlex.join(map(str, places))}`"
