"""Copy existing pickle files, and refuse files of other kinds."""

import os
import stat
from pathlib import Path

from views_runs.exceptions import StorageError, UploadError
from views_runs.pickles import opcodes
from views_runs.pickles.opcodes import TroubleKind
from views_runs.pickles.parts import PART_SIZE, PickleWriter

#: Bytes to read at a time, so that other files are refused before the first part is full and anything is stored.
_CHUNK = PART_SIZE // 16

#: The first bytes of other file formats that may contain models, with descriptions.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, such as torch and keras write",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"SQLite format 3": "an SQLite database, perhaps a store itself",
    b"{": "a text file, such as JSON",
}


def copy(file: str | os.PathLike[str], writer: PickleWriter) -> None:
    """Copy a pickle file, in one pass, to a writer that has a reader; refuse all but a single complete pickle."""
    assert writer.reader is not None
    start = b""
    try:
        path = Path(os.path.expanduser(file))
        if not stat.S_ISREG(path.stat().st_mode):
            raise UploadError("it is not a regular file", "Check the path; nothing was stored").locate(path=path)
        with path.open("rb") as stream:
            while not writer.reader.is_broken and (piece := stream.read(_CHUNK)):
                start = start or piece[:16]
                writer.write(piece)
    except StorageError:
        # Some of these, such as StoreBusyError, are OSErrors too.
        raise
    except (OSError, ValueError, TypeError) as error:
        trouble = getattr(error, "strerror", None) or str(error)
        raise UploadError(trouble, "Check the path; nothing was stored").locate(path=str(file)) from error
    reading = writer.reader.result()
    compression = opcodes.compression(start)
    if trouble := _find_trouble(reading, start, compression):
        loader = "joblib.load" if compression or opcodes.is_joblib(reading) else "the library that wrote it"
        advice = f"Load it with {loader}, and store the resulting object; nothing was stored"
        raise UploadError(trouble, advice).locate(path=path)


def _find_trouble(reading: opcodes.Reading, start: bytes, compression: str | None) -> str:
    """Return why a file is not a single complete, plain pickle; empty if it is."""
    if compression:
        return f"it is not a plain pickle: it is compressed ({compression}), as joblib can do"
    if opcodes.is_joblib(reading):
        return "it is not a plain pickle: joblib wrote it, with raw arrays between the opcodes"
    if rest := [trouble for trouble in reading.troubles if trouble.kind is TroubleKind.REST]:
        return f"it is not a single pickle: {rest[0]}"
    if reading.is_whole:
        return ""
    other = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "not a pickle")
    return f"it is {other} ({reading.troubles[-1]})" if start else "it is empty"
