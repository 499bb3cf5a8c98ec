"""What file system a file is on, and what is known of it as a place for a store."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where Linux tells what is mounted.
MOUNTS = "/proc/self/mountinfo"

#: On these a file is seen by one computer alone.
LOCAL = {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs", "xfs", "zfs"}

#: On these the mode bits of a file do not say who may write it.
WITHOUT_MODES = {
    "9p",
    "cifs",
    "drvfs",
    "exfat",
    "fuse.sshfs",
    "fuseblk",
    "msdos",
    "ntfs3",
    "smb3",
    "smbfs",
    "vboxsf",
    "vfat",
}

#: What a synchronised folder is called.
SYNCHRONISED = (
    "dropbox",
    "google drive",
    "googledrive",
    "icloud",
    "mobile documents",
    "nextcloud",
    "onedrive",
    "owncloud",
)

_PEER = "Ask `viewser model doctor --peer` on two computers at once before you trust it"

#: What was seen, or is known, of the others: state, text, and what to do.
_OTHERS = {
    "tmpfs": ("warning", "in memory: it is gone when this computer stops", "Keep the store on a disk"),
    "ramfs": ("warning", "in memory: it is gone when this computer stops", "Keep the store on a disk"),
    "overlay": ("warning", "inside a container: it may be gone with it", "Keep the store on a volume or a disk"),
    "fuse.sshfs": ("failure", "it keeps no two computers out of each other's way", "Use NFS version 4"),
    "fuse.s3fs": ("failure", "it has no locks between computers", "Use NFS version 4"),
    "fuse.rclone": ("failure", "it has no locks between computers", "Use NFS version 4"),
    "fuse.gcsfuse": ("failure", "it has no locks between computers", "Use NFS version 4"),
    "davfs": ("failure", "it has no locks between computers", "Use NFS version 4"),
    "afs": ("failure", "it locks whole files only", "Use NFS version 4"),
    "lustre": ("warning", "not tried; it needs the mount option flock, and not localflock", _PEER),
    "beegfs": ("warning", "not tried; its clients need tuneUseGlobalFileLocks = true", _PEER),
    "ceph": ("warning", "not tried; CephFS keeps its clients' caches coherent", _PEER),
    "fuse.ceph-fuse": ("warning", "not tried; CephFS keeps its clients' caches coherent", _PEER),
}


@dataclass(frozen=True)
class Mount:
    """A file system as it is mounted here."""

    #: As in ``ext4``, ``nfs4``, ``fuse.glusterfs``.
    kind: str
    #: As in ``server:/export``.
    source: str
    #: The folder that it is mounted at.
    point: str
    options: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether no other computer sees what is on it."""
        return self.kind in LOCAL


def mount_of(path: Path) -> Mount | None:
    """Return what a path is on; None where the system does not tell, as on macOS and Windows."""
    real = os.path.realpath(path)
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [_mount(line) for line in file]
    except (OSError, ValueError, IndexError):
        return None
    # Of two at one place the later one is seen.
    found = [one for one in mounts if real == one.point or real.startswith(one.point.rstrip("/") + "/")]
    return max(reversed(found), key=lambda one: len(one.point), default=None)


def _mount(line: str) -> Mount:
    # 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue
    mount, _, system = line.partition(" - ")
    kind, source, own = (*system.split(), "", "")[:3]
    fields = mount.split(" ")
    options = dict.fromkeys([*fields[5].split(","), *own.strip().split(",")])
    return Mount(kind, _plain(source), _plain(fields[4]), tuple(option for option in options if option))


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def known(mount: Mount, path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield what is known of a file system as a place for a store: state, text, and what to do."""
    folder = next(
        (part for part in Path(os.path.realpath(path)).parent.parts if part.lower().startswith(SYNCHRONISED)), None
    )
    if folder:
        advice = "Move the store to a local disk or a network share"
        yield (
            "failure",
            f"{folder} seems to be synchronised between computers: it loses one's changes to a store",
            advice,
        )
    if mount.kind.startswith("nfs"):
        yield from _nfs(mount)
    elif mount.kind in ("cifs", "smb3", "smbfs"):
        yield from _smb(mount)
    elif mount.kind == "fuse.glusterfs":
        yield from _gluster(mount)
    elif mount.is_local:
        yield "ok", "a disk of this computer", ""
    else:
        yield _OTHERS.get(mount.kind, ("warning", "nothing is known of it as a place for a store", _PEER))


def _nfs(mount: Mount) -> Iterator[tuple[str, str, str]]:
    options = dict(option.partition("=")[::2] for option in mount.options)
    mend = "Mount it with vers=4.2,hard"
    if "nolock" in options or options.get("local_lock", "none") in ("all", "posix"):
        yield "failure", "locks stay on this computer (nolock or local_lock): two who write damage the store", mend
    if options.keys() & {"soft", "softerr", "softreval"}:
        yield "warning", "soft: a server that is slow makes stores fail", mend
    if "nocto" in options:
        yield "failure", "nocto: what others wrote is not looked for", "Mount it without nocto"
    if not options.get("vers", "4").startswith("4"):
        yield "warning", "not version 4, the one that was tried", mend
    yield (
        "ok",
        "NFS version 4.2 lost nothing with two computers writing, through crashes of either and of the server",
        "",
    )


def _smb(mount: Mount) -> Iterator[tuple[str, str, str]]:
    if "nobrl" in mount.options:
        yield "failure", "nobrl: locks stay on this computer", "Mount it without nobrl"
    if "cache=loose" in mount.options:
        yield "failure", "cache=loose: what others wrote is not looked for", "Mount it with cache=strict"
    yield "warning", "SMB was not tried", _PEER


def _gluster(mount: Mount) -> Iterator[tuple[str, str, str]]:
    needed = {"attribute-timeout=0", "entry-timeout=0", "direct-io-mode=enable"}
    mend = f"Mount it with {','.join(sorted(needed))}, and set the volume up with `gluster volume set VOLUME group db-workload`"
    given = _arguments(mount.point)
    if given is None:
        yield (
            "warning",
            f"its mount options cannot be seen, and with others than {', '.join(sorted(needed))} it loses data",
            mend,
        )
        return
    missing = needed - {argument.removeprefix("--").replace("=on", "=enable") for argument in given}
    if missing:
        yield "failure", f"mounted without {', '.join(sorted(missing))}: with two computers writing it loses data", mend
    else:
        yield "ok", "GlusterFS with these mount options lost nothing with two clients writing", ""


def _arguments(point: str) -> list[str] | None:
    """Return the arguments of the program that serves a GlusterFS mount; the mount itself does not show them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
        except OSError:
            continue
        if Path(arguments[0]).name.startswith("glusterfs") and point in arguments[1:]:
            return arguments
    return None
