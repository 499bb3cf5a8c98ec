"""Pickle files from elsewhere: told from what is none, and copied as they are."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from views_runs.database import rows
from views_runs.pickles import opcodes
from views_runs.exceptions import UploadError
from views_runs.pickles.pickling import PART_SIZE, Part, PartWriter

#: How files of other kinds begin that hold models too, and what they are.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, such as torch and keras write",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"SQLite format 3": "an SQLite database: is it a store of its own?",
    b"{": "a text, such as JSON",
}


def copy(
    file: str | os.PathLike[str], store: Path, sink: Callable[[Part], None], doing: str
) -> tuple[PartWriter, opcodes.Reading]:
    """Copy a pickle into parts; return the writer, and what was read on the way.

    Args:
        file: its path.
        store: that of the store, which must not be opened here: to close it again would drop SQLite's locks.
        sink: called with each part, in order.
        doing: what for; for messages.

    Raises:
        UploadError: it is no pickle, or cannot be read; the sink may have got some parts.
    """
    reader, writer = opcodes.Reader(), PartWriter(sink)
    start = b""
    try:
        path = Path(os.path.expanduser(file))
        if not stat.S_ISREG(path.stat().st_mode):
            raise UploadError(f"cannot {doing}: {path}: it is not a regular file. Check the path; nothing was stored")
        if store.exists() and path.samefile(store):
            raise UploadError(f"cannot {doing}: {path}: it is the store itself. Give another file; nothing was stored")
        with path.open("rb") as stream:
            while piece := stream.read(PART_SIZE):
                start = start or piece[:16]
                reader.feed(piece)
                if reader.is_broken:
                    break
                writer.write(piece)
    except (OSError, ValueError, TypeError) as error:
        trouble = getattr(error, "strerror", None) or error
        raise UploadError(f"cannot {doing}: {file}: {trouble}. Check the path; nothing was stored") from error
    reading = reader.result()
    _refuse(reading, start, f"cannot {doing}: {path}")
    writer.close()
    return writer, reading


def description(reading: opcodes.Reading) -> dict[str, Any]:
    """Return what to record of a pickle that was not made here: of its type and its libraries nothing is known."""
    return {"protocol": reading.protocol or 0, **rows.imported(reading)}


def _refuse(reading: opcodes.Reading, start: bytes, doing: str) -> None:
    compression = opcodes.compression(start)
    if opcodes.is_joblib(reading) or compression:
        what = f"it is compressed ({compression}), as joblib does it" if compression else "joblib wrote it"
        raise UploadError(
            f"{doing}: {what}, and that is no plain pickle: joblib.load it in Python, and store what that returns; "
            "nothing was stored"
        )
    if reading.troubles and reading.troubles[-1].startswith("data after the end"):
        raise UploadError(
            f"{doing}: there is {reading.troubles[-1]} of its first pickle. Load it with what wrote it, and store each of them; "
            "nothing was stored"
        )
    if not reading.is_whole:
        other = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), "not a pickle")
        trouble = "it is empty" if not start else f"it is {other} ({'; '.join(reading.troubles[-1:])})"
        raise UploadError(
            f"{doing}: {trouble}. Load it with what wrote it, and store what that returns; nothing was stored"
        )
