"""Copy existing pickle files, and refuse files of other kinds."""

import glob
import os
import re
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from views_runs.exceptions import StorageError, UploadError
from views_runs.pickles import opcodes
from views_runs.pickles.opcodes import Import, Reading, TroubleKind
from views_runs.pickles.parts import PART_SIZE, PickleWriter

#: Bytes to read at a time, so that other files are refused before the first part is full and anything is stored.
_CHUNK = PART_SIZE // 16

_LOAD = "Load it with {}, and store the resulting object"
_READ = "Store its contents as bytes, as in store(name, Path(file).read_bytes())"


class _Format(NamedTuple):
    """A format of files that are no pickles: what the first bytes match, what it is, and what to do."""

    start: bytes
    what: str
    advice: str


#: The first that matches counts.
_FORMATS = (
    _Format(rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`, and try again"),
    _Format(
        rb"\s*<(?i:!doctype|html|head|body)",
        "a web page",
        "Download the file itself; open the page in a browser to see why you got it, such as a missing login",
    ),
    # The number that torch writes first, as a pickle.
    _Format(
        rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
        "several pickles, as torch wrote them before 1.6",
        _LOAD.format("torch.load"),
    ),
    _Format(
        rb"PK\x03\x04",
        "a zip archive, as written by torch and keras",
        _LOAD.format("torch.load, or the library that wrote it"),
    ),
    _Format(rb"\x89HDF", "an HDF5 file, as written by keras", _LOAD.format("the library that wrote it")),
    _Format(rb"\x93NUMPY", "a numpy array (.npy)", _LOAD.format("numpy.load")),
    _Format(rb"SQLite format 3", "an SQLite database, perhaps a store itself", "Fetch the model with Storage(file)"),
    # A protocol buffer: the version of the format, and then a field that a model has.
    _Format(rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a\x42]", "an ONNX model", _READ),
    _Format(rb".{6}\0\0\{", "a file of tensors (safetensors)", _LOAD.format("the library that wrote it")),
    _Format(rb".{257}ustar", "a tar archive", "Unpack it with `tar -xf`, and upload the pickle that is in it"),
    _Format(rb"tree\nversion=", "a text file from LightGBM", _LOAD.format("lightgbm.Booster(model_file=file)")),
    _Format(rb"CBM1", "a file from CatBoost", _LOAD.format("catboost.CatBoost().load_model")),
    _Format(rb"\{L\0{7}", "a file from XGBoost", _LOAD.format("xgboost.Booster(model_file=file)")),
    _Format(rb"\{", "a text file, such as JSON", _LOAD.format("the library that wrote it")),
)


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
                start = start or piece
                writer.write(piece)
    except StorageError:
        # Some of these, such as StoreBusyError, are OSErrors too.
        raise
    except (OSError, ValueError, TypeError) as error:
        trouble = getattr(error, "strerror", None) or str(error)
        raise UploadError(trouble, "Check the path; nothing was stored").locate(path=str(file)) from error
    reading = writer.reader.result()
    if found := _find_trouble(reading, start, path):
        trouble, advice = found
        raise UploadError(f"it is {trouble}", f"{advice}; nothing was stored").locate(path=path)


def _find_trouble(reading: Reading, start: bytes, path: Path) -> tuple[str, str] | None:
    """Return why a file is not a single complete, plain pickle, and what to do; None if it is."""
    if wrappers := opcodes.joblib_wrappers(reading):
        return _explain_joblib(wrappers, path)
    if reading.is_whole:
        return None
    if not start:
        return "empty", "Check the path, or copy the file again"
    if name := opcodes.compression(start):
        return _explain_compressed(name, start)
    if found := _find_format(start):
        return found.what, found.advice
    if rest := [trouble for trouble in reading.troubles if trouble.kind is TroubleKind.REST]:
        return f"not a single pickle: {rest[0]}", _LOAD.format("the library that wrote it")
    if reading.is_cut_off and (reading.protocol or reading.imports):
        return f"a pickle that was cut off: it ends too early, after {reading.size:,} bytes", "Copy it again"
    return f"not a pickle ({reading.troubles[-1]})", _LOAD.format("the library that wrote it")


def _find_format(start: bytes) -> _Format | None:
    return next((found for found in _FORMATS if re.match(found.start, start, re.DOTALL)), None)


def _explain_joblib(wrappers: list[Import], path: Path) -> tuple[str, str]:
    """Explain a file that only the joblib that wrote it can load; before 0.10, it put arrays into other files."""
    load = Import(wrappers[0].module.rpartition(".")[0], "load")
    if all(found.name == "NumpyArrayWrapper" for found in wrappers):
        return "not a plain pickle: joblib wrote it, with raw arrays between the opcodes", _LOAD.format(load)
    beside = sorted(found.name for found in path.parent.glob(f"{glob.escape(path.name)}_*.npy*"))
    names = ", ".join(beside[:3]) + ", ..." * (len(beside) > 3) if beside else f"such as {path.name}_01.npy"
    return f"not a plain pickle: joblib wrote it, with its arrays in files beside it ({names})", _LOAD.format(
        f"{load}, with these files in the same folder"
    )


def _explain_compressed(name: str, start: bytes) -> tuple[str, str]:
    """Explain a compressed file by what is in it: joblib loads any compressed pickle, and nothing else."""
    inside = b""
    if name in ("gzip", "zlib"):
        with suppress(zlib.error):
            inside = zlib.decompressobj(wbits=47).decompress(start, _CHUNK)
    reading = opcodes.read([inside])
    if not inside or reading.is_whole or reading.is_cut_off or opcodes.joblib_wrappers(reading):
        return f"not a plain pickle: it is compressed ({name}), as joblib can do", _LOAD.format("joblib.load")
    found = _find_format(inside)
    what = found.what if found else "a file that contains no pickle"
    return f"{what}, compressed ({name})", found.advice if found else "Decompress it to see what it is"
