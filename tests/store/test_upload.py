"""Pickle files from elsewhere: into the store as they are, or refused and explained."""

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import pickle
import sqlite3
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost
from click.testing import Result
from sklearn.ensemble import RandomForestRegressor

from tests.hostile import catalogue
from tests.support.budgets import IN_FULL, budget
from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers
from views_runs import (
    InvalidMetadataError,
    InvalidNameError,
    ModelExistsError,
    Storage,
    StorageError,
    StoreBusyError,
    UploadError,
)
from views_runs.pickles import opcodes
from views_runs.pickles.parts import FIRST_PART_SIZE, PART_SIZE, PickleWriter

Viewser = Callable[..., Result]


@cache
def forest() -> Any:
    """Return a fitted model."""
    data = np.random.default_rng(1).random((40, 3))
    return RandomForestRegressor(3, random_state=1).fit(data, data[:, 0])


@cache
def booster() -> bytes:
    """Return the file that xgboost writes of a model."""
    data = np.random.default_rng(1).random((40, 3))
    model = xgboost.XGBRegressor(n_estimators=1, n_jobs=1).fit(data, data[:, 0])
    return bytes(model.get_booster().save_raw("ubj"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a pickle."""
    path = tmp_path / "forest.pickle"
    path.write_bytes(pickle.dumps(forest(), 5))
    return path


# What is taken.


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bytes_as_they_are(store: Storage, file: Path, protocol: int) -> None:
    """A pickle of any protocol is stored byte for byte, with what its bytes say of it."""
    data = pickle.dumps(forest(), protocol)
    file.write_bytes(data)
    record = store.upload(file, "forest", {"author": "testuser"})
    assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (record.type, record.python, record.platform) == (None, None, None)
    assert record.protocol == (protocol if protocol >= 2 else 0)
    assert record.imports is not None and "sklearn.ensemble._forest.RandomForestRegressor" in record.imports
    assert record.metadata == {"author": "testuser"} and store.inspect("forest") == record
    assert store.download("forest").read_bytes() == data
    assert store.fetch("forest").n_estimators == 3
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    "size",
    [1, FIRST_PART_SIZE - 1, FIRST_PART_SIZE, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, PART_SIZE + FIRST_PART_SIZE]
    + [2 * PART_SIZE, 3 * PART_SIZE + 1],
)
def test_sizes(store: Storage, file: Path, size: int) -> None:
    """Files of one part and of several, of all sizes around them, are stored as the pickler's would be."""
    data = b"B" + (size - 7).to_bytes(4, "little") + os.urandom(size - 7) + b"0" if size > 6 else b""
    data = (b"N0" * 3 if len(data) % 2 else b"") + data
    data += b"N."
    file.write_bytes(data)
    assert store.upload(file, "m").sha256 == hashlib.sha256(data).hexdigest()
    assert store.verify().damaged == () and leftovers(store) == NOTHING
    assert store.fetch("m", sha256=hashlib.sha256(data).hexdigest()) is None


def test_nothing_is_unpickled(store: Storage, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a file would run when it is loaded is not run when it is uploaded."""
    monkeypatch.setenv("VIEWS_RUNS_CANARY", str(tmp_path / "canary"))
    file.write_bytes(catalogue()["global"].data)
    store.upload(file, "m")
    assert store.find()[0].imports == ("os.system",)
    assert not (tmp_path / "canary").exists()
    store.fetch("m")
    assert (tmp_path / "canary").exists()


def test_versions(store: Storage, file: Path) -> None:
    """A name that is taken is refused, or gets another version, as with `store`; the file is not read for nothing."""
    store.store("m", [1])
    with pytest.raises(ModelExistsError):
        store.upload(file, "m")
    with pytest.raises(ModelExistsError):
        store.upload("not there", "m")
    assert store.upload(file, "m", overwrite=True).version == 2
    assert store.fetch("m:1") == [1]


def test_metadata_and_names(store: Storage, file: Path) -> None:
    """Names and metadata are held to what `store` holds them to."""
    store.require("author")
    with pytest.raises(InvalidMetadataError, match="author"):
        store.upload(file, "m")
    with pytest.raises(InvalidMetadataError):
        store.upload(file, "m", {"author": float("nan")})
    with pytest.raises(InvalidNameError):
        store.upload(file, "m:1", {"author": "testuser"})
    assert store.upload(str(file), "m", {"author": "testuser"}).metadata == {"author": "testuser"}
    assert leftovers(store) == NOTHING and store.list() == ["m"]


MEMORY = """
import resource, sys
from pathlib import Path
from views_runs import Storage, query
from views_runs.database import schema, uploads
from views_runs.pickles import pickle_files
store = Storage(sys.argv[2])
store.store("small", bytes(5_000_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.upload(sys.argv[1], "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.abridged
def test_memory(store: Storage, tmp_path: Path) -> None:
    """A file of 300 MB, or of 40 among the quick tests, is uploaded in little memory."""
    need(sys.platform == "linux", "memory is measured as Linux counts it")
    path = tmp_path / "large.pickle"
    with path.open("wb") as stream:
        pickle.dump([os.urandom(1_000_000) * 10 for _ in range(budget(30, 4))], stream, 5)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", MEMORY, path, store.path]
    done = subprocess.run(command, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
    path.unlink()
    assert int(done.stdout) < 24 * 1024
    assert store.inspect("large").size > 10_000_000 * budget(30, 4)


# What is refused.


def others(folder: Path) -> dict[str, Path]:
    """Make files that are no pickles; return them by kind."""
    contents: dict[str, bytes] = {
        "empty": b"",
        "text": b"year,month\n2019,12\n",
        "json": b'{"a": 1}',
        "html": b"<!DOCTYPE html><html></html>",
        "zeros": bytes(100_000),
        "truncated": pickle.dumps([bytes(100_000)])[:-1],
        "half": pickle.dumps(forest())[:5000],
        "data after the end": pickle.dumps([1]) + b"x",
        "two pickles": pickle.dumps([1]) + pickle.dumps([2]),
        "late data": pickle.dumps(bytes(5_000_000)) + b"x",
        "torn": pickle.dumps(bytes(5_000_000))[:-1],
        "protocol 6": b"\x80\x06N.",
        "text in the middle of an opcode": b"In the beginning",
        "cut off in protocol 0": pickle.dumps(forest(), 0)[:5000],
        "cut off in a frame": pickle.dumps([1.5] * 1000)[:500],
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "login": b"\n\n<html lang='en'><head><title>Log in</title></head></html>",
        "torch": b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {}, [1])),
        "onnx": b"\x08\x08\x12\x08skl2onnx\x1a\x061.16.0\x22\x07ai.onnx",
        "safetensors": (120).to_bytes(8, "little") + b'{"weights": {"dtype": "F32"}}',
        "lightgbm": b"tree\nversion=v4\nnum_class=1\n",
        "xgboost": booster(),
        "gzip of text": gzip.compress(b"year,month\n2019,12\n"),
        "gzip of a pointer": gzip.compress(b"version https://git-lfs.github.com/spec/v1\n"),
        "begins like zlib": b"x,y\n1,2\n",
    }
    paths = {}
    for kind, content in contents.items():
        paths[kind] = folder / kind
        paths[kind].write_bytes(content)
    for name, mode in ("a.tar", "w"), ("a.tar.gz", "w:gz"):
        with tarfile.open(folder / name, mode) as tar:
            tar.add(folder / "json", "model.json")
        paths[name] = folder / name
    np.save(folder / "array.npy", np.arange(9))
    np.savez(folder / "arrays.npz", a=np.arange(9))
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    with sqlite3.connect(folder / "database.db") as database:
        database.execute("CREATE TABLE t (a)")
    database.close()
    (folder / "folder").mkdir()
    for name in ("array.npy", "arrays.npz", "archive.zip", "database.db", "folder", "missing", "folder/missing"):
        paths[name] = folder / name
    return paths


KINDS = {
    "empty": "it is empty",
    "text": "not a pickle",
    "json": "a text",
    "html": "a web page. Download the file itself",
    "zeros": "not a pickle",
    "truncated": "a pickle that was cut off: it ends too early, after 100,0",
    "half": "a pickle that was cut off: it ends too early, after 5,000 bytes. Copy it again",
    "text in the middle of an opcode": "not a pickle",
    "cut off in protocol 0": "cut off: it ends too early, after 5,000 bytes",
    "cut off in a frame": "cut off: it ends too early, after 500 bytes",
    "pointer": "a Git LFS pointer, not the file itself. Run `git lfs pull`",
    "login": "a web page. Download the file itself",
    "torch": "as torch wrote them before 1.6. Load it with torch.load",
    "onnx": "an ONNX model. Store its contents as bytes",
    "safetensors": "a file of tensors (safetensors). Load it",
    "lightgbm": "Load it with lightgbm.Booster(model_file=file)",
    "xgboost": "Load it with xgboost.Booster(model_file=file)",
    "a.tar": "a tar archive. Unpack it",
    "a.tar.gz": "a tar archive, compressed (gzip). Unpack it",
    "gzip of text": "a file that contains no pickle, compressed (gzip). Decompress it",
    "gzip of a pointer": "a Git LFS pointer, not the file itself, compressed (gzip). Run `git lfs pull`",
    "begins like zlib": "not a pickle",
    "data after the end": "data after the end",
    "two pickles": "data after the end",
    "late data": "data after the end",
    "torn": "ends too early",
    "protocol 6": "protocol 6",
    "array.npy": "a numpy array",
    "arrays.npz": "a zip archive",
    "archive.zip": "a zip archive",
    "database.db": "an SQLite database",
    "folder": "not a regular file",
    "missing": "No such file",
    "folder/missing": "No such file",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_pickle(store: Storage, tmp_path: Path, kind: str, viewser: Viewser) -> None:
    """What is no pickle is refused and named for what it is; no file is made, and nothing is left in one."""
    folder = tmp_path / "files"
    folder.mkdir()
    path = others(folder)[kind]
    with pytest.raises(UploadError, match="cannot store 'm'.*nothing was stored") as caught:
        store.upload(path, "m")
    assert KINDS[kind] in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) < 700
    if path.stat().st_size < PART_SIZE if path.is_file() else True:
        assert not store.path.exists()
    store.store("other", [1])
    with pytest.raises(UploadError):
        store.upload(path, "m")
    shown = viewser("model", "upload", str(path), "m", exit_code=1).stderr
    assert KINDS[kind].replace(" ", "") in "".join(shown.split())
    assert store.list() == ["other"] and leftovers(store) == NOTHING
    assert store.store("m", [2]).version == 1


def test_no_file_is_made(store: Storage, tmp_path: Path) -> None:
    """A refusal makes no store where there was none, also when it comes at the end of a file of many parts."""
    path = tmp_path / "late"
    path.write_bytes(pickle.dumps([bytes(3_000_000)] * 3 + [bytes(12_000_000)]) + b"x")
    with pytest.raises(UploadError):
        store.upload(path, "m")
    assert not store.path.exists() or (store.list() == [] and leftovers(store) == NOTHING)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file(store: Storage, tmp_path: Path, kind: str) -> None:
    """A pipe, a socket or a device is refused, and never waited for."""
    need(hasattr(os, "mkfifo"), "this system has no named pipes")
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        os.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(kind)
    else:
        path = Path("/dev/zero")
    raised: list[BaseException] = []

    def upload() -> None:
        try:
            store.upload(path, "m")
        except UploadError as error:
            raised.append(error)

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive() and "not a regular file" in str(raised[0])


@pytest.mark.parametrize("how", ["itself", "symlink", "hard link"])
def test_the_store_itself(store: Storage, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own file is refused without opening it: to close it again would drop SQLite's locks."""
    store.store("m", [1])
    path = store.path if how == "itself" else tmp_path / "link"
    if how == "symlink":
        path.symlink_to(store.path)
    elif how == "hard link":
        os.link(store.path, path)
    monkeypatch.setattr(Path, "open", None)
    with pytest.raises(StorageError, match="the store itself|hard link"):
        store.upload(path, "n")


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "x" * 5000, "~nobody/x"])
def test_odd_paths(store: Storage, path: str) -> None:
    """A path that cannot be one is an error like any other."""
    with pytest.raises(UploadError, match="nothing was stored"):
        store.upload(path, "m")


def test_a_file_that_may_not_be_read(store: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission to read the file the error says so."""
    if os.geteuid() == 0:
        # Root may read everything.
        def refuse(self: Path, *mode: str) -> Any:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

        monkeypatch.setattr(Path, "open", refuse)
    file.chmod(0)
    with pytest.raises(UploadError, match="Permission denied"):
        store.upload(file, "m")


@pytest.mark.abridged
@pytest.mark.parametrize(
    "name", [name for name in catalogue() if name.startswith(("bomb", "broken", "frame", "no_end"))]
)
def test_bombs(store: Storage, file: Path, name: str) -> None:
    """Hostile files are stored as they are or refused, and nothing else comes of them."""
    one = catalogue()[name]
    file.write_bytes(one.data)
    if opcodes.read([one.data]).is_whole:
        assert store.upload(file, "m").size == len(one.data)
    else:
        with pytest.raises(UploadError):
            store.upload(file, "m")
        assert not store.path.exists()


def test_a_file_that_changes(store: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is what was looked at: the file is read once."""
    opened = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode: opened.append(self) or plain(self, *mode))
    store.upload(file, "m")
    assert opened.count(file) == 1


def test_what_is_no_pickle_is_not_read_to_its_end(store: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the beginning tells that it is no pickle, the rest is not read, and no store is created for it."""
    file.write_bytes(b"year,month\n" * 1_000_000)
    sizes = []
    write = PickleWriter.write
    monkeypatch.setattr(PickleWriter, "write", lambda self, data: sizes.append(len(data)) or write(self, data))
    with pytest.raises(UploadError, match="not a pickle"):
        store.upload(file, "m")
    assert len(sizes) == 1 and sizes[0] < PART_SIZE and not store.path.exists()


def test_errors_of_the_store_are_its_own(store: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be written is not a fault of the file."""

    def write(self: PickleWriter, data: bytes) -> int:
        raise StoreBusyError("another program keeps it locked", "Try again")

    monkeypatch.setattr(PickleWriter, "write", write)
    with pytest.raises(StoreBusyError) as caught:
        store.upload(file, "m")
    assert caught.value.path == store.path


# Joblib.


@pytest.mark.abridged
@pytest.mark.parametrize(
    "compress", [0, 3, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)] if IN_FULL else [0, 3, ("xz", 3)]
)
@pytest.mark.parametrize("model", ["forest", "large array", "plain"])
def test_joblib(store: Storage, file: Path, compress: Any, model: str, viewser: Viewser) -> None:
    """A file of joblib is recognised and explained, unless it is a plain pickle."""
    value = {"forest": forest, "large array": lambda: np.zeros(1_000_000), "plain": lambda: [1, 2]}[model]()
    joblib.dump(value, file, compress=compress)
    if model == "plain" and not compress:
        store.upload(file, "m")
        assert store.fetch("m") == value
        return
    with pytest.raises(UploadError, match="Load it with joblib.load, and store the resulting object") as caught:
        store.upload(file, "m")
    if compress:
        assert f"compressed ({compress[0] if isinstance(compress, tuple) else 'zlib'})" in str(caught.value)
    else:
        assert "joblib wrote it" in str(caught.value)
    assert not store.path.exists() or leftovers(store) == NOTHING
    assert "joblib" in viewser("model", "upload", str(file), "m", exit_code=1).stderr
    store.store("m", joblib.load(file))


@pytest.mark.parametrize("value", [[1], list(range(100_000))])
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_compressed_by_others(store: Storage, file: Path, compress: Callable[[bytes], bytes], value: Any) -> None:
    """A compressed pickle is no plain one, and joblib loads it whatever wrote it."""
    file.write_bytes(compress(pickle.dumps(value)))
    with pytest.raises(UploadError, match="compressed .*Load it with joblib.load"):
        store.upload(file, "m")
    assert joblib.load(file) == value


def old_joblib(module: str, name: str) -> bytes:
    """Return what joblib wrote in versions before 0.10: instead of an array, the name of another file."""
    texts = [b"U%c%b" % (len(one), one) for one in (b"weights", b"filename", b"m.pkl_01.npy", b"subclass")]
    wrapper = f"c{module}\n{name}\n)\x81}}(".encode()
    return b"\x80\x02}" + texts[0] + wrapper + b"".join(texts[1:]) + b"cnumpy\nndarray\nubs."


@pytest.mark.parametrize("module", ["joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle_compat"])
@pytest.mark.parametrize("name", ["NDArrayWrapper", "ZNDArrayWrapper"])
def test_joblib_with_arrays_in_other_files(store: Storage, tmp_path: Path, module: str, name: str) -> None:
    """A file of joblib without its arrays is refused, and the files that have them are named."""
    file = tmp_path / "m.pkl"
    file.write_bytes(old_joblib(module, name))
    load = f"Load it with {module.partition('.numpy')[0]}.load, with these files in the same folder"
    with pytest.raises(UploadError, match=rf"files beside it \(such as m.pkl_01.npy\)\. {load}"):
        store.upload(file, "m")
    for number in range(1, 6):
        (tmp_path / f"m.pkl_{number:02}.npy.z").write_bytes(b"")
    with pytest.raises(UploadError, match=r"\(m.pkl_01.npy.z, m.pkl_02.npy.z, m.pkl_03.npy.z, ...\)"):
        store.upload(file, "m")
    assert not store.path.exists()


def test_a_copy_of_joblib(store: Storage, file: Path) -> None:
    """The arrays of a joblib that is in another package are no opcodes either."""
    joblib.dump(np.arange(1000.0), file)
    data = file.read_bytes()
    name = b"\x8c\x13joblib.numpy_pickle"
    assert name in data
    module = b"sklearn.externals.joblib.numpy_pickle"
    # Its frame is longer by as much.
    frame = int.from_bytes(data[3:11], "little") + len(module) + 2 - len(name)
    file.write_bytes(data[:3] + frame.to_bytes(8, "little") + data[11:].replace(name, b"\x8c%c" % len(module) + module))
    with pytest.raises(UploadError, match="joblib wrote it.*Load it with sklearn.externals.joblib.load"):
        store.upload(file, "m")


# The command line.


def test_upload_by_the_command_line(store: Storage, file: Path, viewser: Viewser) -> None:
    """`upload` stores a file under its own name or another, with metadata, and says what it stored."""
    result = viewser(
        "model", "upload", str(file), "--author", "testuser", "--train-end", "2019-12", "--set", "note='a b'"
    )
    assert "Stored forest, version 1" in result.stderr and result.stdout == ""
    assert store.fetch_metadata("forest") == {"author": "testuser", "train_end": 480, "note": "a b"}
    assert "forest" in viewser("model", "upload", str(file), exit_code=1).stderr
    found = json.loads(viewser("model", "upload", str(file), "forest", "--overwrite", "--json").stdout)
    assert (found["name"], found["version"], found["metadata"]) == ("forest", 2, None)
    assert found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    viewser("model", "upload", str(file), "by-another-name", "--step", "1", "--step", "2")
    assert store.fetch_metadata("by-another-name").steps == [1, 2]


def test_options_that_cannot_be_meant(store: Storage, file: Path, viewser: Viewser) -> None:
    """What is wrong in the metadata or the name is said before anything is stored."""
    for options in (["--set", "nothing"], ["--train-end", "last year"], ["bad:1"]):
        viewser("model", "upload", str(file), *options, exit_code=1)
    viewser("model", "upload", str(file), "m", "--step", "x", exit_code=2)
    assert not store.path.exists()


def test_a_file_without_a_name(store: Storage, tmp_path: Path, viewser: Viewser) -> None:
    """Where the file's name cannot be a model's, another has to be given."""
    path = tmp_path / "forest:1.pickle"
    path.write_bytes(b"N.")
    assert "forest:1" in viewser("model", "upload", str(path), exit_code=1).stderr
    assert "empty" in viewser("model", "upload", str(path), "", exit_code=1).stderr
    viewser("model", "upload", str(path), "forest")
