"""Identify the file system that a path is on, and assess how suitable it is for a store."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from views_runs import signals

#: Where Linux lists the mounted file systems.
MOUNTS = "/proc/self/mountinfo"

#: Where macOS mounts the writable part of the system disk.
MAC_DATA = "/System/Volumes/Data"

#: What Windows calls a network drive, and how many characters it writes of a name.
DRIVE_REMOTE, MAX_PATH = 4, 260

#: File systems of removable disks.
PORTABLE = {"exfat", "fat", "fat32", "msdos", "vfat"}

#: File systems that only one computer can see.
LOCAL = PORTABLE | {
    "apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs", "refs", "xfs", "zfs"
}

#: File systems on which mode bits do not show who can write to a file.
WITHOUT_MODES = PORTABLE | {"9p", "cifs", "drvfs", "fuse.sshfs", "fuseblk", "ntfs3", "smb3", "smbfs", "vboxsf"}

#: The mount option of a volume on which macOS ignores ownership: each file is everyone's, with any mode.
WITHOUT_OWNERS = "noowners"

#: File systems on which `chmod` always takes effect. On some network volumes it succeeds without changing anything.
WITH_MODES = (LOCAL - PORTABLE - {"hfs", "ntfs", "refs"}) | {"overlay", "ramfs", "tmpfs"}

#: What is called a network drive here: Windows does not say which protocol it speaks.
SHARE = "a network drive"

#: SMB shares, as Linux mounts them, and what finds one in `MOUNTS`.
SMB = ("cifs", "smb3", "smbfs")
SMB_LINE = re.compile(f" - ({'|'.join(SMB)}) ".encode())

#: What to do instead of writing to a store on an SMB share.
SMB_ADVICE = (
    "Reading works. To write, mount the share over NFS 4.2, or keep the file on a local disk and copy it to the share"
)

#: Name prefixes of synchronised folders.
SYNCHRONISED = (
    "dropbox", "google drive", "googledrive", "icloud", "mobile documents", "nextcloud", "onedrive", "owncloud"
)

#: A state as in `Finding`, the assessment, and what to do about it.
Assessment = tuple[str, str, str]

_PEER = "Run `views-runs model doctor --peer` on two computers at the same time before you rely on it"
_MEMORY = ("warning", "in memory: the store is lost when this computer restarts", "Keep the store on a disk")
_NO_LOCKS = ("failure", "it does not lock files between computers", "Use NFS version 4")
_PORTABLE = ("warning", "not tested; unplugging such a disk in use can damage it", "Eject it before you unplug it")
_SHARE = (
    "warning",
    "stores on Windows shares were not tested, and may lose models",
    "Keep the store on a local disk, or on a share that speaks NFS 4.2",
)
_CEPH = ("warning", "not tested; CephFS keeps the caches of its clients coherent", _PEER)

#: Assessments of file systems whose mount options do not matter.
KNOWN: dict[str, Assessment] = {
    **dict.fromkeys(LOCAL, ("ok", "a local disk", "")),
    **dict.fromkeys(PORTABLE, _PORTABLE),
    SHARE: _SHARE,
    **dict.fromkeys(("tmpfs", "ramfs"), _MEMORY),
    **dict.fromkeys(("davfs", "fuse.gcsfuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"), _NO_LOCKS),
    **dict.fromkeys(("ceph", "fuse.ceph-fuse"), _CEPH),
    "overlay": ("warning", "inside a container: the store may be deleted with it", "Keep the store on a volume"),
    "afs": ("failure", "it locks whole files only", "Use NFS version 4"),
    "lustre": ("warning", "not tested; it needs the mount option flock, and not localflock", _PEER),
    "beegfs": ("warning", "not tested; its clients need tuneUseGlobalFileLocks = true", _PEER),
}


class Mount(NamedTuple):
    """A mounted file system."""

    #: Its type, such as ``ext4``, ``nfs4`` or ``fuse.glusterfs``.
    kind: str
    #: The device or share, such as ``server:/export``.
    source: str
    #: The mount point.
    point: str
    options: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> "Mount":
        r"""Return the mount that a line of `MOUNTS` describes.

        >>> Mount.parse(r"36 35 98:0 / /a\040share rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue")
        Mount(kind='ext4', source='/dev/sda1', point='/a share', options=('rw', 'noatime', 'errors=continue'))
        """
        mount, _, system = line.partition(" - ")
        _, _, _, _, point, options, *_ = mount.split(" ")
        kind, source, own = (*system.split(), "", "")[:3]
        source, point = (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text) for text in (source, point))
        distinct = dict.fromkeys(f"{options},{own}".split(","))
        return cls(kind, source, point, tuple(filter(None, distinct)))

    @classmethod
    def parse_mac(cls, line: str) -> "Mount | None":
        """Return the mount that macOS's command `mount` describes in a line, or None if it describes none.

        >>> Mount.parse_mac("/dev/disk4s1 on /Volumes/A STICK (exfat, local, noowners)")
        Mount(kind='exfat', source='/dev/disk4s1', point='/Volumes/A STICK', options=('local', 'noowners'))
        """
        if not (found := re.fullmatch(r"(.*?) on (/.*) \(([^()]*)\)", line)):
            return None
        source, point, about = found.groups()
        kind, *options = about.split(", ")
        # This is the writable part of the system disk, which is visible below /.
        return cls(kind, source, "/" if point == MAC_DATA else point, tuple(options))


def find_mount(path: Path) -> Mount | None:
    """Return the mount that a path is on, or None if that cannot be determined."""
    if sys.platform == "win32":
        return _find_drive(path)
    real = os.path.realpath(path)
    try:
        mounts = [*_list_mounts()]
    except (OSError, ValueError) as error:
        signals.let_through(error)
        return None
    above = [mount for mount in mounts if real == mount.point or real.startswith(mount.point.rstrip("/") + "/")]
    # Of two mounts at the same point, the later hides the earlier.
    return max(reversed(above), key=lambda mount: len(mount.point), default=None)


def find_smb(path: Path) -> Mount | None:
    """Return the mount that a path is on if it is an SMB share."""
    mount = find_mount(path)
    return mount if mount and mount.kind in SMB else None


def _list_mounts() -> Iterator[Mount]:
    if sys.platform == "darwin":
        import subprocess

        printed = subprocess.run(["/sbin/mount"], stdout=subprocess.PIPE, check=False).stdout
        yield from filter(None, map(Mount.parse_mac, os.fsdecode(printed).splitlines()))
        return
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        yield from map(Mount.parse, file)


def _find_drive(path: Path) -> Mount | None:
    """Return the drive of Windows that a path is on."""
    import ctypes

    drive, system = path.absolute().anchor, ctypes.create_unicode_buffer(MAX_PATH)
    if is_share(path):
        return Mount(SHARE, drive, drive, ())
    volume = ctypes.WinDLL("kernel32").GetVolumeInformationW  # type: ignore[attr-defined, unused-ignore]
    found = volume(drive, None, 0, None, None, None, system, MAX_PATH)
    return Mount(system.value.lower(), drive, drive, ()) if found else None


def is_unc(path: str | Path) -> bool:
    r"""Return whether a path of Windows names a server.

    >>> is_unc(r"\\server\share\models.db"), is_unc(r"\\?\UNC\server\share\models.db"), is_unc(r"\\?\C:\models.db")
    (True, True, False)
    """
    return re.match(r"(?i)[\\/]{2}([?.][\\/]UNC[\\/]|[^?.\\/])", str(path)) is not None


def is_share(path: Path) -> bool:
    """Return whether a path of Windows is on a share, by its server's name or as a network drive."""
    import ctypes

    # Windows waits long for a server that does not exist, so it is not asked about UNC paths.
    drive = path.absolute().anchor
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    return is_unc(drive) or kernel.GetDriveTypeW(drive) == DRIVE_REMOTE


def has_modes(path: Path) -> bool:
    """Return whether mode bits show who can write to a path."""
    if os.name != "posix":
        return False
    mount = find_mount(path)
    return not mount or not (mount.kind in WITHOUT_MODES or WITHOUT_OWNERS in mount.options)


def assess_folders(path: Path) -> Iterator[Assessment]:
    """Yield an assessment if the store at `path` is in a folder that a program synchronises."""
    for folder in Path(os.path.realpath(path)).parent.parts:
        if folder.lower().startswith(SYNCHRONISED):
            text = f"{folder} appears to be synchronised between computers, which can lose changes to a store"
            yield "failure", text, "Move the store to a local disk or a network share"
            break


def assess(mount: Mount) -> Iterator[Assessment]:
    """Yield assessments of a file system."""
    if mount.kind.startswith("nfs"):
        yield from _assess_nfs(mount)
    elif mount.kind in SMB:
        yield from _assess_smb(mount)
    elif mount.kind == "fuse.glusterfs":
        yield _assess_gluster(mount)
    else:
        yield KNOWN.get(mount.kind, ("warning", "it is not known whether this file system is safe for a store", _PEER))


def _assess_nfs(mount: Mount) -> Iterator[Assessment]:
    options = dict(option.partition("=")[::2] for option in mount.options)
    advice = "Mount it with vers=4.2,hard"
    if "nolock" in options or options.get("local_lock", "none") in ("all", "posix"):
        yield "failure", "nolock or local_lock: locks are local, so writers on two computers damage the store", advice
    if options.keys() & {"soft", "softerr", "softreval"}:
        yield "warning", "soft: operations fail when the server is slow", advice
    if "nocto" in options:
        yield "failure", "nocto: changes by other computers may not be seen", "Mount it without nocto"
    if not options.get("vers", "4").startswith("4"):
        yield "warning", "only version 4 was tested", advice
    if "vers" not in options:
        # macOS does not show it.
        yield "warning", "its version cannot be determined; only 4.2 was tested, on Linux", f"{advice}. {_PEER}"
        return
    yield "ok", "NFS 4.2 lost nothing in tests with two writing computers, even when either or the server crashed", ""


def _assess_smb(mount: Mount) -> Iterator[Assessment]:
    yield "failure", f"on SMB shares, {describe_smb(mount)}", SMB_ADVICE
    if "cache=loose" in mount.options:
        yield "failure", "cache=loose: changes by other computers may not be seen", "Mount it with cache=strict"


def describe_smb(mount: Mount) -> str:
    """Return why a store on an SMB share can only be read."""
    if "nobrl" in mount.options:
        return "the mount option nobrl lets two computers write at once, and models are lost"
    return "the server refuses the locks that a store needs for writing"


def _assess_gluster(mount: Mount) -> Assessment:
    needed = ("attribute-timeout=0", "direct-io-mode=enable", "entry-timeout=0")
    volume = "set the volume up with `gluster volume set VOLUME group db-workload`"
    advice = f"Mount it with {','.join(needed)}, and {volume}"
    given = _find_gluster_options(mount.point)
    if given is None:
        return "warning", f"its mount options cannot be determined; without {', '.join(needed)} it loses data", advice
    missing = [option for option in needed if option not in given]
    if missing:
        return "failure", f"mounted without {', '.join(missing)}: it loses data when two computers write", advice
    return "ok", "GlusterFS with these mount options lost nothing in tests with two computers writing", ""


def _find_gluster_options(point: str) -> list[str] | None:
    """Return the options of the process that serves the mount, since the mount itself does not show them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program, *arguments = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
        except OSError:
            continue
        if Path(program).name.startswith("glusterfs") and point in arguments:
            return [argument.removeprefix("--").replace("=on", "=enable") for argument in arguments]
    return None
