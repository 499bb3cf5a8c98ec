"""Copy pickle files from elsewhere, and refuse files of other kinds."""

import os
import stat
from pathlib import Path

from views_runs.exceptions import UploadError
from views_runs.pickles import opcodes
from views_runs.pickles.opcodes import TroubleKind
from views_runs.pickles.parts import PART_SIZE, PickleWriter

#: Bytes read at once: what is not a pickle is refused before the first part is full, and so before anything is stored.
_CHUNK = PART_SIZE // 16

#: How files of other kinds begin that may hold models too, and what they are.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, such as torch and keras write",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"SQLite format 3": "an SQLite database, perhaps a store itself",
    b"{": "a text file, such as JSON",
}


def copy(file: str | os.PathLike[str], writer: PickleWriter) -> None:
    """Write the bytes of a pickle file, which is read once, to a writer that has a reader.

    Raises:
        UploadError: the file cannot be read, or is not one whole pickle.
    """
    assert writer.reader is not None
    start = b""
    try:
        path = Path(os.path.expanduser(file))
        if not stat.S_ISREG(path.stat().st_mode):
            raise UploadError("it is not a regular file", "Check the path; nothing was stored").locate(path=file)
        with path.open("rb") as stream:
            while not writer.reader.is_broken and (piece := stream.read(_CHUNK)):
                start = start or piece[:16]
                writer.write(piece)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, UploadError):
            raise
        trouble = getattr(error, "strerror", None) or str(error)
        raise UploadError(trouble, "Check the path; nothing was stored").locate(path=str(file)) from error
    if trouble := _find_trouble(writer.reader.result(), start):
        advice = "Load it with what wrote it, and store the object that you get; nothing was stored"
        raise UploadError(trouble, advice).locate(path=file)


def _find_trouble(reading: opcodes.Reading, start: bytes) -> str:
    """Return why a file is not one whole plain pickle; empty if it is one."""
    if compression := opcodes.compression(start):
        return f"it is not a plain pickle but compressed ({compression}), as by joblib; joblib.load can read it"
    if opcodes.is_joblib(reading):
        return "it is not a plain pickle but has arrays of joblib in between; joblib.load can read it"
    if rest := [trouble for trouble in reading.troubles if trouble.kind is TroubleKind.REST]:
        return f"it is not a single pickle: {rest[0]}"
    if reading.is_whole:
        return ""
    other = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "not a pickle")
    return f"it is {other} ({reading.troubles[-1]})" if start else "it is empty"
