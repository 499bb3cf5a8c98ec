"""Pickle files from elsewhere: told from what is none, and copied as they are."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from views_runs.pickles import opcodes
from views_runs.exceptions import UploadError
PART_SIZE = 1<<20

#: How files of other kinds begin that hold models too, and what they are.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, such as torch and keras write",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"SQLite format 3": "an SQLite database: is it a store of its own?",
    b"{": "a text, such as JSON",
}


def copy(file, writer) -> None:
    start = b""
    doing = f"{file}"
    try:
        path = Path(os.path.expanduser(file))
        if not stat.S_ISREG(path.stat().st_mode):
            raise UploadError("it is not a regular file. Check the path; nothing was stored")
        with path.open("rb") as stream:
            while piece := stream.read(PART_SIZE):
                start = start or piece[:16]
                writer.write(piece)
                if writer.reader.is_broken:
                    break
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, UploadError): raise
        trouble = getattr(error, "strerror", None) or error
        raise UploadError(f"{file}: {trouble}. Check the path; nothing was stored") from error
    _refuse(writer.reader.result(), start, f"{path}")


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
