"""What a pickle imports is read from its bytes: all of it, whatever the bytes, and nothing is run."""

import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import json
import logging
import os
import pathlib
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import sklearn
import xgboost
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.hostile import CODE, Hostile, catalogue
from tests.support.budgets import IN_FULL, budget
from tests.support.machine import ROOT, need
from views_runs.pickles import opcodes
from views_runs.pickles.opcodes import (
    MAX_IMPORTS,
    MAX_NAMES,
    MAX_PACKED,
    MAX_TROUBLES,
    NAME_BYTES,
    Import,
    Reader,
    Reading,
    Trouble,
    TroubleKind,
    compression,
    imported,
    joblib_wrappers,
    read,
)
from views_runs.records import MOST_IMPORTS

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
HOSTILE = catalogue()
BOMBS = [name for name in HOSTILE if name.startswith("bomb_")]


def cut(data: bytes, size: int) -> Iterator[memoryview]:
    """Yield a pickle in pieces, in memory that is overwritten with each."""
    memory = bytearray(size)
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        memory[: len(piece)] = piece
        yield memoryview(memory)[: len(piece)]


# Honest pickles.


class Colour(enum.Enum):
    """Something to pickle by its name."""

    RED = 1


class Outer:
    """A class with another one in it."""

    class Inner:
        """Has a dotted name."""

        def method(self) -> None:
            """Bound methods are pickled by `getattr`."""


Point = collections.namedtuple("Point", "x y")


def recursive() -> list[Any]:
    """Return a list that holds itself."""
    loop: list[Any] = [{}]
    loop.append((loop, loop[0]))
    loop[0]["loop"] = loop
    return loop


def covariates() -> pd.DataFrame:
    """Return a little data."""
    index = pd.MultiIndex.from_product([range(121, 131), range(1, 5)], names=["month_id", "country_id"])
    return pd.DataFrame(np.random.default_rng(1).random((40, 3)), index=index, columns=["a", "b", "c"])


def fitted(model: Any) -> Callable[[], Any]:
    """Return what fits a model."""
    return lambda: model.fit(covariates(), np.arange(40) % 2)


OBJECTS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "plain": lambda: [
        1,
        -1,
        10**20,
        1.5,
        True,
        None,
        "text",
        "ü\udc80",
        b"bytes",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        {"a": 1},
    ],
    "long": lambda: ["x" * 70_000, b"y" * 70_000, bytearray(b"z" * 70_000), 7**5000, list(range(3000)), "t" * 300],
    "many": lambda: [{"x": i, "y": float(i), "z": str(i)} for i in range(budget(3000, 1000))],
    "sets": lambda: [{1, 2}, frozenset({"a", "b"}), set()],
    "dates": lambda: [datetime.datetime.now(datetime.timezone.utc), datetime.date.today(), datetime.timedelta(1)],
    "numbers": lambda: [decimal.Decimal("1.5"), fractions.Fraction(1, 3), 1 + 2j],
    "containers": lambda: [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("abca"),
        collections.deque([1, 2]),
        Point(1, 2),
    ],
    "names": lambda: [Outer.Inner, Outer.Inner(), Outer.Inner().method, Colour.RED, os.path.join, len, dict.fromkeys],
    "others": lambda: [
        pathlib.PurePosixPath("a/b"),
        uuid.UUID(int=1),
        re.compile("a+"),
        functools.partial(int, "7"),
        ValueError("wrong", 1),
        range(5),
        slice(1, 2),
        logging.getLogger("views_runs"),
        itertools.count,
    ],
    "recursive": recursive,
    "numpy": lambda: [np.arange(5), np.zeros((200, 200)), np.float32(1.5), np.array(["a", None], dtype=object)],
    "numpy generator": lambda: np.random.default_rng(1),
    "pandas": lambda: [covariates(), covariates()["a"], pd.Timestamp("2020-01-01"), pd.Series(["a", "b"])],
    "forest": fitted(RandomForestClassifier(3)),
    "boosted": fitted(HistGradientBoostingRegressor(max_iter=3)),
    "pipeline": fitted(make_pipeline(StandardScaler(), Ridge())),
    "xgboost": fitted(xgboost.XGBRegressor(n_estimators=3, n_jobs=1)),
    "lightgbm": fitted(lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1)),
}


@functools.cache
def made(kind: str) -> Any:
    """Return one of the objects."""
    return OBJECTS[kind]()


heard: list[Import] | None = None


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Hear what an unpickler imports, while somebody wants to know."""
    if heard is not None and event == "pickle.find_class":
        heard.append(Import(*arguments))


@pytest.fixture(scope="module")
def hook() -> None:
    """Hooks cannot be taken away again; this one does nothing when `heard` is None."""
    sys.addaudithook(listen)


def asked_in_a_load(data: bytes) -> frozenset[Import]:
    """Unpickle something, and return what was imported."""
    global heard
    heard = []
    try:
        pickle.loads(data)
        return frozenset(heard)
    finally:
        heard = None


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.filterwarnings("ignore")
def test_what_a_load_imports(hook: None, kind: str) -> None:
    """What is read from the bytes is what the unpickler asks for in a load, in all protocols; none is joblib's."""
    value = made(kind)
    for protocol in PROTOCOLS:
        data = pickle.dumps(value, protocol)
        reading = read([data])
        assert reading.asked == asked_in_a_load(data), protocol
        assert (reading.troubles, reading.is_whole, reading.size) == ((), True, len(data))
        assert reading.protocol == (protocol if protocol > 1 else None)
        assert not joblib_wrappers(reading) and compression(data[:8]) is None


@pytest.mark.abridged
@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.filterwarnings("ignore")
def test_pieces_of_any_size(kind: str) -> None:
    """However a pickle is cut, the same is read, from memory that is overwritten meanwhile."""
    value = made(kind)
    for protocol in PROTOCOLS if IN_FULL else (0, 5):
        data = pickle.dumps(value, protocol)
        reading = read([data])
        for size in (*((1, 3) if len(data) < 20_000 else ()), 1000, 65537):
            assert read(cut(data, size)) == reading, size


def test_names_of_python_2() -> None:
    """They are given in the spelling of Python 3, and as the unpickler asks for them too."""
    reading = read([pickle.dumps([ValueError, collections.OrderedDict, range], 2)])
    assert Import("exceptions", "ValueError") in reading.asked
    assert reading.imports == {
        Import("builtins", "ValueError"),
        Import("builtins", "range"),
        Import("collections", "OrderedDict"),
    }
    for protocol in (3, 4, 5):
        reading = read([b"\x80" + bytes([protocol]) + b"cexceptions\nValueError\n."])
        assert reading.imports == reading.asked == {Import("exceptions", "ValueError")}


def test_all_strings_are_kept() -> None:
    """A name can be used after any number of strings that a model has, whether it was used as one before or not."""
    strings = b"".join(b"\x8c\x06%06d\x940" % number for number in range(3 * MAX_NAMES))
    begin = b"\x80\x04\x8c\x02os\x94\x8c\x04path\x94\x93\x94"
    again = b"h\x00\x8c\x04open\x94\x93."
    assert read([begin + strings + again]).imports == {Import("os", "path"), Import("os", "open")}
    assert read([b"\x80\x04\x8c\x02os\x94" + strings + again]).imports == {Import("os", "open")}
    first, last = (b"j" + struct.pack("<I", number + 1) for number in (0, 3 * MAX_NAMES - 1))
    imports = read([b"\x80\x04N\x94" + strings + first + last + b"\x93."]).imports
    assert imports == {Import("000000", f"{3 * MAX_NAMES - 1:06}")}


class Asking(pickle.Unpickler):
    """Imports nothing, but knows what it was asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.asked: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.asked.add((module, name))
        return None


def strings_and_names(chance: random.Random) -> bytes:
    """Return a pickle with many strings, some of them replaced, and imports of which some come from the memo."""
    start = chance.choice((0, 0, 1))
    # Strings that BINGET could get are not packed.
    data, count = b"\x80\x04N" + numbered(256, lambda n: b"r" + struct.pack("<I", start + n)), 256
    for _ in range(chance.randrange(20, 400)):
        text = b"\x8c\x03%03d" % chance.randrange(999)
        one, other = (struct.pack("<I", start + chance.randrange(256, max(257, count))) for _ in range(2))
        kind = chance.choices(("put", "import", "replace"), (600, 300, 5))[0]
        if kind == "import" and count > 256:
            data += b"j" + one + chance.choice((b"j" + other, text)) + b"\x930"
        else:
            is_new = kind != "replace" or count == 256
            data += text + b"r" + (struct.pack("<I", start + count) if is_new else one) + b"0"
            count += is_new
    return data + b"N."


@pytest.mark.parametrize("packed", [0, 500, 10**8])
def test_imports_among_many_strings(packed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many strings are kept, the imports that are read are those of the unpickler, or some are said to lack."""
    monkeypatch.setattr(opcodes, "MAX_NAMES", 12)
    monkeypatch.setattr(opcodes, "MAX_PACKED", packed)
    complete = 0
    for seed in range(budget(1000)):
        chance = random.Random(seed)
        data = strings_and_names(chance)
        reading = read(cut(data, chance.choice((7, 50, 1000))))
        unpickler = Asking(data)
        unpickler.load()
        assert reading.asked <= unpickler.asked, seed
        assert reading.troubles or reading.asked == unpickler.asked, seed
        complete += not reading.troubles
    assert complete > budget(1000) / 4 or packed < 10**8


def test_a_string_that_is_replaced_late() -> None:
    """What is put over a string after very many others is not followed, rather than taken for the first."""
    strings = numbered(3 * MAX_NAMES, lambda n: b"\x8c\x06%06d\x940" % n)
    data = b"\x80\x04" + strings + b"\x8c\x02osr\0\1\0\0j\0\1\0\0\x8c\x06system\x93."
    reading = read([data])
    assert [trouble.kind for trouble in reading.troubles] == [TroubleKind.NOT_FOLLOWED] and not reading.is_whole


def test_a_limit_on_strings_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, only names that were used are kept, and nobody is accused of a computed one."""
    monkeypatch.setattr(opcodes, "MAX_PACKED", 0)
    few, many = (numbered(count, lambda n: b"\x8c\x06%06d\x940" % n) for count in (300, 3 * MAX_NAMES))
    names = b"\x8c\x02os\x94\x8c\x04path\x94"
    again = b"0j" + struct.pack("<I", 300) + b"\x8c\x04open\x93."
    assert read([b"\x80\x04" + few + names + b"\x93" + many + again]).imports == {
        Import("os", "path"),
        Import("os", "open"),
    }
    reading = read([b"\x80\x04" + few + names + b"0" + many + again])
    assert not reading.imports and [trouble.kind for trouble in reading.troubles] == [TroubleKind.FORGOTTEN_NAME]


def test_the_limit_on_strings_is_beyond_any_64_mib() -> None:
    """However short they are: each takes three bytes in a pickle beyond its own, and eight in the reader."""
    assert max(2**26 / (size + 3) * (size + 8) for size in range(1, NAME_BYTES)) < MAX_PACKED


@pytest.mark.parametrize("kind", [list, tuple, set, dict.fromkeys])
def test_texts_between_two_uses_of_a_word(hook: None, kind: Callable[[Any], Any]) -> None:
    """A word of the model that is a module's name too is pickled once, however many texts come before the module."""
    texts = kind([f"id{number}" for number in range(30_000)])
    value = {"columns": ["datetime"], "ids": texts, "trained": datetime.datetime(2026, 1, 1)}
    for protocol in (2, 4, 5):
        data = pickle.dumps(value, protocol)
        assert (read([data]).asked, read([data]).troubles) == (asked_in_a_load(data), ())


def test_the_memo_of_python_2(hook: None) -> None:
    """Its pickler in C begins with 1, and its pickles can have any number of entries."""
    data = b"\x80\x02]q\x01(" + numbered(70_000, lambda n: b"U\x01ar" + struct.pack("<I", n + 2)) + b"h\x02e."
    assert len(pickle.loads(data)) == 70_001 and read([data]).troubles == ()
    assert read([b"\x80\x02Nq\x01h\x00."]).troubles == ("broken after byte 5: something is missing in its memo",)
    assert read([b"Nq\x01\x94cos\nsystem\nh\x01."]).imports == {Import("os", "system")}
    assert read([b"Nq\x01N\x94h\x00."]).is_whole is False
    assert read([b"Nq\x01Nq\x00\x94h\x02."]).is_whole and read([b"Nq\x01Nq\x02Nq\x00h\x00."]).is_whole


LATIN = "Ålesund".encode()
#: Strings of Python 2, each with whether the unpickler fails.
BYTE_STRINGS = {
    "short": (b"U\x08" + LATIN, True),
    "ASCII": (b"U\x03abcT\x03\0\0\0abcS'abc\\n'\n", False),
    "counted": (b"T\x08\0\0\0" + LATIN, True),
    "escaped": (b"S'\\xc3\\x85lesund'\n", True),
    "in a line": (b"S'" + LATIN + b"'\n", True),
    "in octal": (b"S'\\303'\n", True),
    "long ASCII": (b"T\0\0\x02\0" + b"a" * 2**17 + b"S'" + b"\\x41\\\\x80" * 9999 + b"'\n", False),
    "long": (b"T\0\0\x02\0" + b"a" * (2**17 - 8) + LATIN, True),
    "a long line": (b"S'" + b"\\x41" * 40_000 + b"\\x80'\n", True),
    "a long line of bytes": (b"S'" + b"\\x41" * 40_000 + b"\xc3'\n", True),
}


@pytest.mark.parametrize("kind", BYTE_STRINGS)
def test_byte_strings_of_python_2(kind: str) -> None:
    """Those outside ASCII are a trouble, however long they are and however they are cut: the unpickler fails."""
    string, fails = BYTE_STRINGS[kind]
    data = b"\x80\x02}" + string + b"."
    if fails:
        with pytest.raises(UnicodeDecodeError):
            pickle.loads(data)
    for size in (1, 7, 1000, 2**20) if len(data) < 1000 else (999, 1000, 2**20):
        reading = read(cut(data, size))
        assert reading.troubles == (("Python 2 byte strings (byte 3)",) if fails else ()) and reading.is_whole


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["forest", "boosted", "pipeline", "xgboost"])
@pytest.mark.filterwarnings("ignore")
def test_versions_are_read(kind: str, protocol: int) -> None:
    """What scikit-learn and xgboost write of their own versions is read; in protocol 0, xgboost's is behind escapes."""
    data = pickle.dumps(made(kind), protocol)
    versions = {"xgboost": xgboost.__version__} if kind == "xgboost" else {"scikit-learn": sklearn.__version__}
    assert read([data]).versions == (versions if kind != "xgboost" or protocol else {})
    text = sklearn.__version__.encode()
    if kind != "xgboost" and text in data:
        assert read([data.replace(text, b"0.2.1"[: len(text)])]).versions == {"scikit-learn": "0.2.1"}


def test_versions_that_are_none() -> None:
    """What could not be a version is not taken for one, and neither is what is not where libraries write theirs."""
    key = b"\x8c\x10_sklearn_version"
    for value in (b"\x8c\x041; x", b"\x8c\x00", b"K\x01", b"X\x3c\0\0\0" + b"1" * 60, b"\x8c\x02\xc2\xb2"):
        assert read([b"\x80\x04}" + key + value + b"s."]).versions == {}
    assert read([b"\x80\x04}" + key + b"\x8c\x031.0s."]).versions == {"scikit-learn": "1.0"}
    assert read([b"\x80\x04](" + key + b"\x8c\x031.0e."]).versions == {}
    booster = b"cxgboost.core\nBooster\n"
    snapshot = b'{"Config":{"learner":{},"version":[1,5,2]},' + b" " * 500
    raw = b"B" + struct.pack("<I", len(snapshot)) + snapshot + b"."
    assert (read([booster + raw]).versions, read([raw]).versions) == ({"xgboost": "1.5.2"}, {})


def test_a_real_pickle_whose_names_lie_far_apart(hook: None) -> None:
    """The same with a pickle that Python wrote."""
    data = pickle.dumps([Colour.RED, [f"string {number}" for number in range(3 * MAX_NAMES)], Outer.Inner()], 4)
    assert read([data]).asked == asked_in_a_load(data)


def test_names_that_are_not_letters() -> None:
    """A module and a name are kept apart, and what cannot be printed is escaped."""
    assert read([b"ca b\nc\n."]).imports != read([b"ca\nb c\n."]).imports
    assert str(Import("os", "path\n")) == r"os.path\n"
    assert str(Import("os", r"path\n")) == r"os.path\\n"
    assert str(Import("os", "\udc80")) == r"os.\udc80"
    assert str(Import("modèle", "Forêt")) == "modèle.Forêt"


@pytest.mark.parametrize("by_value", [True, False])
def test_code_by_value(by_value: bool) -> None:
    """It is told apart from names of functions."""
    value = (lambda x: x + 1) if by_value else os.path.join
    assert read([cloudpickle.dumps(value)]).has_code is by_value


def test_code_by_value_of_others() -> None:
    """Bare code objects, marshalled code, and the copies of cloudpickle in other packages."""
    for module, name in (
        ("types", "CodeType"),
        ("marshal", "loads"),
        ("joblib.externals.cloudpickle.cloudpickle", "_make_function"),
        ("dill._dill", "_create_function"),
    ):
        assert read([f"c{module}\n{name}\n.".encode()]).has_code
    assert not read([b"ctypes\nSimpleNamespace\n."]).has_code


# joblib.


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib(tmp_path: pathlib.Path, compress: Any) -> None:
    """Its files are recognised by their first bytes when they are compressed, by what they import when not."""
    path = tmp_path / "model.joblib"
    joblib.dump({"weights": np.arange(1000.0)}, path, compress=compress)
    data = path.read_bytes()
    reading = read([data])
    assert compression(data[:8]) == (compress[0] if compress else None)
    assert joblib_wrappers(reading) is not bool(compress)
    assert not reading.is_whole


# Hostile pickles.

UNPICKLE = f"""
import copyreg, io, os, pickle, sys
copyreg.add_extension("os", "system", {CODE})
copyreg._extension_cache[{CODE}] = os.system
for path in sys.argv[1:]:
    for source in ("file", "memory"):
        # Each in a process of its own: what one does to modules is not there for the next.
        if not os.fork():
            os.environ["VIEWS_RUNS_CANARY"] = f"{{path}}-{{source}}"
            data = open(path, "rb").read()
            try:
                pickle.load(io.BytesIO(data)) if source == "file" else pickle.loads(data)
            except BaseException as error:
                open(f"{{path}}-{{source}}-failed", "w").write(type(error).__name__)
            os._exit(0)
        os.wait()
"""


@pytest.fixture(scope="module")
def unpickled(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the hostile pickles, all of which were unpickled, and of the files that this made."""
    need(hasattr(os, "fork"), "this system does not fork")
    folder = tmp_path_factory.mktemp("hostile")
    tried = [name for name, entry in HOSTILE.items() if entry.unpickling != "is not tried"]
    for name in tried:
        (folder / name).write_bytes(HOSTILE[name].data)
    subprocess.run([sys.executable, "-c", UNPICKLE, *tried], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name].unpickling != "is not tried"])
def test_hostile_pickles_are_hostile(name: str, unpickled: pathlib.Path) -> None:
    """Each does what its file says when it is unpickled, so that the other tests do not show that a dud is harmless."""
    entry = HOSTILE[name]
    ran = {source: (unpickled / f"{name}-{source}").exists() for source in ("file", "memory")}
    assert ran == {"file": entry.unpickling.startswith("runs"), "memory": entry.unpickling == "runs"}
    if entry.unpickling in ("loads", "fails"):
        for source in ran:
            assert (unpickled / f"{name}-{source}-failed").exists() == (entry.unpickling == "fails"), source


def as_told(entry: Hostile, reading: Reading) -> None:
    """Check that what was read of a pickle is what its file says."""
    assert {str(found) for found in reading.imports} == entry.imports
    assert len(reading.troubles) == len(entry.troubles), reading.troubles
    for trouble, begin in zip(reading.troubles, entry.troubles):
        assert trouble.startswith(begin)
    assert reading.is_whole == (not {"broken", "not followed", "data after the end"} & set(entry.troubles))


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in BOMBS])
def test_reading_hostile_pickles(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they import is read, or it is said that it cannot be told, however they are cut; nothing runs."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("VIEWS_RUNS_CANARY", str(canary))
    entry = HOSTILE[name]
    reading = read([entry.data])
    as_told(entry, reading)
    sizes = (1, 3, 1000) if len(entry.data) < 1000 else (999,)
    assert all(read(cut(entry.data, size)) == reading for size in sizes)
    assert not canary.exists()


def test_each_hostile_pickle_is_seen() -> None:
    """What runs something imports something, or is in trouble."""
    for entry in HOSTILE.values():
        if entry.unpickling.startswith("runs"):
            assert entry.imports or entry.troubles, entry.tries


#: What grows is this long, or several times as long; what has to pass a limit is as long among the quick tests.
MANY = budget(100_000, 5_000)


def numbered(count: int, one: Callable[[int], bytes]) -> bytes:
    """Return opcodes that differ by a number."""
    return b"".join(map(one, range(count)))


GROWING: dict[str, Callable[[], bytes]] = {
    "memo in disorder": lambda: b"N" + numbered(70_000, lambda n: b"r" + struct.pack("<I", 2 * n + 2)),
    "memo backwards": lambda: b"N" + numbered(60_000, lambda n: b"r" + struct.pack("<I", 60_000 - n)) + b"r\0\0\0\0.",
    "strings in the memo": lambda: numbered(5 * MANY, lambda n: b"\x8c\x06%06d\x94" % n),
    "long strings in the memo": lambda: numbered(MANY // 5, lambda n: b"X\xf4\x01\0\0%0500d\x940" % n),
    "names used again": lambda: b"".join(
        [b"\x80\x04\x8c\x02os\x940" * 2 * MANY, b"h\x00h\x01\x930", b"\x8c\x02os\x940" * 2 * MANY]
    ),
    "strings on the stack": lambda: b"\x8c\x08some_str\x94" + b"h\x00" * 20 * MANY,
    "strings in tuples": lambda: b"\x8c\x08some_str\x94" + b"(h\x00h\x00" * 2 * MANY + b"t" * 2 * MANY,
    "marks and things": lambda: b"(N" * 10 * MANY,
    "many imports": lambda: numbered(MANY, lambda n: b"cmodule%d\nname\n" % n),
    "many extension codes": lambda: numbered(2 * MANY, lambda n: b"\x84" + struct.pack("<I", n + 1)),
    "things in the memo": lambda: b"N" + b"\x94" * 20 * MANY,
    "groups that do not end": lambda: b"N" + b"\x94" * 300 + (b"(" + b"K\x01" * 30_000) * budget(50),
    "marks under many things": lambda: b"N" * 10 * MANY + b"((1" * 2 * MANY,
    "instances over many things": lambda: b"N" * 10 * MANY + b"(ia\nb\n" * MANY,
    "frames": lambda: b"\x95\x01\0\0\0\0\0\0\0N" * MANY,
    "a long text": lambda: b"V" + b"a" * 3_000_000 + b"\n.",
    "an unfinished name": lambda: b"c" + b"a" * 3_000_000,
}


#: Reads the files that it is told, each in a process that is forked for it: nothing has to be imported again, and its
#: memory is counted anew.
FORKING = """
import os, pickle, resource, sys
from views_runs.pickles.opcodes import read
for line in sys.stdin:
    if not os.fork():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(line.strip(), "rb") as file:
            reading = read(iter(lambda: file.read(2**20), b""))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(pickle.dumps((grown, reading)).hex(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def forking() -> Iterator["subprocess.Popen[str]"]:
    """The process that reads files in others."""
    need(sys.platform == "linux", "the memory of a process is counted in kilobytes on Linux")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORKING], stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield process


@pytest.mark.abridged
@pytest.mark.parametrize("name", [*BOMBS, *GROWING])
def test_bombs(forking: "subprocess.Popen[str]", name: str, tmp_path: pathlib.Path) -> None:
    """Reading a bomb takes no more memory than its size and a few MiB, and ends: a square of its size would not."""
    data = HOSTILE[name].data if name in HOSTILE else GROWING[name]()
    (tmp_path / "bomb").write_bytes(data)
    assert forking.stdin and forking.stdout
    forking.stdin.write(f"{tmp_path}/bomb\n")
    forking.stdin.flush()
    grown, reading = pickle.loads(bytes.fromhex(forking.stdout.readline()))
    assert reading.size == len(data)
    most = (16 if IN_FULL else 13) * 2**20 + len(data)
    assert grown * 1024 < most, f"{grown / 1024:.1f} MiB for {len(data) / 2**20:.1f} MiB"
    if name in HOSTILE:
        as_told(HOSTILE[name], reading)


def test_a_large_pickle_in_little_memory() -> None:
    """Arrays are passed over, not kept and not looked at."""
    piece = b"\x8e" + struct.pack("<Q", 2**26) + bytes(2**20)

    def pieces() -> Iterator[bytes]:
        yield b"\x80\x05cnumpy\nndarray\n"
        for _ in range(8):
            yield piece
            yield from itertools.repeat(bytes(2**20), 63)
        yield b"."

    tracemalloc.start()
    try:
        reading = read(pieces())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reading.size > 2**29 and not reading.troubles and peak < 8 * 2**20


def test_limits_are_told() -> None:
    """What the reader does not follow to its end, it says."""
    many = read([GROWING["many imports"]()])
    assert len(many.imports) == MAX_IMPORTS and "more than 4,096 things" in many.troubles[-1]
    codes = read([GROWING["many extension codes"]()])
    assert len(codes.troubles) == MAX_TROUBLES + 1 and codes.troubles[-1].startswith(f"broken after byte {10 * MANY:,}")
    assert "not followed after byte 0: a name is too long" in read([GROWING["an unfinished name"]()]).troubles
    assert "out of order" in read([GROWING["memo in disorder"]()]).troubles[0]
    longest = b"a" * NAME_BYTES
    assert not read([b"c" + longest + b"\nb\n."]).troubles
    assert not read([b"ca" + longest + b"\nb\n."]).imports


def test_kinds_of_troubles() -> None:
    """Each trouble has a kind, also when it is restored from its recorded text."""
    for data, kinds in (
        (b"NN\x93.", [TroubleKind.COMPUTED_NAME]),
        (b"U\x01\xe9.", [TroubleKind.BYTE_STRINGS]),
        (b"\x82\x07.", [TroubleKind.EXTENSION]),
        (b"NQ.", [TroubleKind.PERSISTENT]),
        (b"\x97.", [TroubleKind.BUFFER]),
        (b"N.N", [TroubleKind.REST]),
        (b"\x97\x97\xff", [TroubleKind.BUFFER, TroubleKind.BROKEN]),
        (b"c" + b"a" * (NAME_BYTES + 1) + b"\n.", [TroubleKind.NOT_FOLLOWED]),
        (b"\x95\x09\0\0\0\0\0\0\0N.", [TroubleKind.BROKEN]),
    ):
        troubles = read([data]).troubles
        assert [trouble.kind for trouble in troubles] == kinds, data
        assert [Trouble(str(trouble)).kind for trouble in troubles] == kinds, data
        assert [trouble.kind for trouble in pickle.loads(pickle.dumps(troubles))] == kinds, data
    assert Trouble("damaged: part 2").kind is TroubleKind.DAMAGED
    assert Trouble("something else").kind is TroubleKind.OTHER


def test_data_after_the_end_is_told_after_any_number_of_troubles() -> None:
    """The limit for troubles does not hide that a pickle does not end where its bytes end."""
    troubles = read([numbered(30, lambda n: b"\x82%c" % (n + 1)) + b".N"]).troubles
    assert [trouble.kind for trouble in troubles] == [TroubleKind.EXTENSION] * MAX_TROUBLES + [TroubleKind.REST]


def test_what_is_recorded() -> None:
    """As many imports as fit in a record, in order, as plain texts, and how many there are in all."""
    count = MOST_IMPORTS + 1
    record = imported(read([numbered(count, lambda n: b"cm\nn%03d\n" % n) + b"Q."]))
    assert record == {
        "imports": tuple(f"m.n{number:03}" for number in range(MOST_IMPORTS)),
        "troubles": (f"a persistent id (byte {8 * count:,})", f"more imports than these, {count} in all"),
        "has_code": False,
    }
    assert {type(trouble) for trouble in record["troubles"]} == {str}
    assert Trouble(record["troubles"][-1]).kind is TroubleKind.LIMIT


def test_where_it_breaks() -> None:
    """The byte is that of the opcode where the unpickler stops."""
    for data, trouble in (
        (b"", "broken after byte 0: it ends too early"),
        (b"N", "broken after byte 1: it ends too early"),
        (b"NN\xff", r"broken after byte 2: b'\xff' is not an opcode"),
        (b"N(K\x01(h\x00", "broken after byte 5: something is missing in its memo"),
        (b"N" * 70_000 + b"\x81\xff", r"broken after byte 70,001: b'\xff' is not an opcode"),
        (b"N.N", "data after the end (byte 2)"),
        (b"NP1\nP2\n.", "a persistent id (byte 1)"),
        (b"N)(K\x01u.", "broken after byte 5: a key has no value"),
        (b"N" + b"\x94" * 300 + b"}(K\x01u.", "broken after byte 305: a key has no value"),
        (b"](h\x05e.", "broken after byte 2: something is missing in its memo"),
        (b"\x8e" + bytes(7) + b"\x80.", "broken after byte 0: a length is impossible"),
        (b"\x8b\xff\xff\xff\xff.", "broken after byte 0: a length is impossible"),
        (b"V\\udc8\nU\x01a\x93.", "a name that is computed at load time (byte 10)"),
        (b"\x95\x03\0\0\0\0\0\0\0C\x05abcde.", "not followed after byte 12: an opcode crosses the end of its frame"),
        (b"\x95\x03\0\0\0\0\0\0\0K\x01.", ""),
        (b"\x95\x02\0\0\0\0\0\0\0NK\x01.", "not followed after byte 11: an opcode crosses the end of its frame"),
        (b"\x95\x02\0\0\0\0\0\0\0NI1\n.", "not followed after byte 11: an opcode crosses the end of its frame"),
        (
            b"\x95\x0b\0\0\0\0\0\0\0N\x95\x02\0\0\0\0\0\0\0NN.",
            "not followed after byte 10: a frame begins inside another",
        ),
        (b"\x95\x0a\0\0\0\0\0\0\0N\x95\x02\0\0\0\0\0\0\0NN.", ""),
    ):
        for size in (1, 2, 3, 100_000) if len(data) < 1000 else (7, 1000, 100_000):
            assert read(cut(data, size)).troubles == ((trouble,) if trouble else ()), data


def test_fed_while_it_is_written() -> None:
    """A reader can be handed what a pickler writes."""

    class File:
        reader = Reader()

        def write(self, data: Any) -> int:
            self.reader.feed(data)
            return len(pickle.PickleBuffer(data).raw())

    value = [covariates(), np.zeros(10**6), Colour.RED]
    file = File()
    pickle.Pickler(file, 5).dump(value)
    assert file.reader.result() == read([pickle.dumps(value, 5)])


# Bytes that nobody wrote.

#: Asks the unpickler what it imports: both that of C, as from a file and from memory, and that of Python.
SERVER = """
import io, json, pickle, resource, struct, sys
resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20,) * 2)
sys.unraisablehook = lambda error: None

class Stub:
    def __new__(cls, *args, **kwargs): return object.__new__(cls)
    def __init__(self, *args, **kwargs): pass
    def __call__(self, *args, **kwargs): return Stub()
    def __setstate__(self, state): pass
    def __setitem__(self, key, value): pass
    def append(self, item): pass
    def extend(self, items): pass
    def add(self, item): pass

class File:
    def __init__(self, data):
        file = io.BytesIO(data)
        self.read, self.readline, self.readinto = file.read, file.readline, file.readinto

def ask(unpickler, file):
    asked = []
    class Asking(unpickler):
        def find_class(self, module, name):
            asked.append((module, name))
            return Stub
    try:
        Asking(file).load()
        return asked, None
    except BaseException as error:
        return asked, type(error).__name__

while head := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    answers = [ask(pickle.Unpickler, File(data)), ask(pickle.Unpickler, io.BufferedReader(io.BytesIO(data)))]
    print(json.dumps(answers), flush=True)
"""

Answer = tuple[frozenset[Import], str | None]


class Unpicklers:
    """A process that imports nothing and runs nothing, but says what it was asked to import."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, data: bytes) -> list[Answer]:
        """Return what the unpicklers asked for, and how they failed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(struct.pack("<I", len(data)) + data)
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline())
        return [(frozenset(Import(*pair) for pair in asked), error) for asked, error in answers]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def unpicklers() -> Iterator[Unpicklers]:
    """One process for all."""
    need(sys.platform != "win32", "memory can be limited on Unix only")
    unpicklers = Unpicklers()
    yield unpicklers
    unpicklers.close()


def check(unpicklers: Unpicklers, data: bytes, size: int) -> tuple[Reading, list[Answer]]:
    """Hold what is read against what the unpicklers ask for."""
    reading = read(cut(data, size))
    answers = unpicklers.ask(data)
    unknown = any(trouble.startswith(("not followed", "a name that is computed")) for trouble in reading.troubles)
    for asked, error in answers:
        if not unknown:
            assert asked <= reading.asked, (data, reading, asked, error)
        if error is None:
            assert unknown or not any(trouble.startswith("broken") for trouble in reading.troubles), (data, reading)
            assert unknown or asked == reading.asked, (data, reading, asked)
    return reading, answers


def seeds() -> list[bytes]:
    """Return honest pickles, small ones."""
    kinds = ("plain", "sets", "dates", "numbers", "containers", "names", "others", "recursive", "numpy")
    values = [OBJECTS[kind]() for kind in kinds[:-1]] + [np.arange(5)]
    values += [
        [Point(1, 2), "x" * 300, Colour.RED, [{"a": i, "b": 0.5} for i in range(9)], [str(i) for i in range(300)]]
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in PROTOCOLS]


SEEDS = seeds()
SNIPPETS = [
    *(opcode.code.encode("latin-1") for opcode in pickletools.opcodes),
    b"cos\nsystem\n",
    b"(ios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"Vos\nVsystem\n\x93",
    b"S'os'\nS'system'\n\x93",
    b"U\x02osU\x06system\x93",
    b"h\x00h\x01\x93",
    b"h\x01h\x03\x93",
    b"j\x01\0\0\0g2\n\x93",
    b"2\x93",
    b"q\x00",
    b"q\x03",
    b"p1\n",
    b"p 0_1\n",
    b"r\x01\0\0\0",
    b"\x94\x94",
    b"\x80\x02",
    b"\x80\x04",
    b"\x82\xf0",
    b"\x95\x05\0\0\0\0\0\0\0",
    b"X\x01\0\0",
    b"(K\x01K\x02e",
    b"(h\x00K\x02u",
]

Edit = tuple[str, int, int, bytes]


def edit(data: bytes, edits: list[Edit]) -> bytes:
    """Return a pickle with some changes."""
    raw = bytearray(data)
    for kind, at, length, new in edits:
        at %= len(raw) + 1
        if kind == "flip" and at < len(raw):
            raw[at] ^= 1 << length % 8
        elif kind == "insert":
            raw[at:at] = new
        elif kind == "replace":
            raw[at : at + len(new)] = new
        elif kind == "delete":
            del raw[at : at + length]
        elif kind == "repeat":
            raw[at:at] = raw[at : at + length]
        elif kind == "splice":
            other = SEEDS[length % len(SEEDS)]
            raw[at:] = other[at % len(other) :]
    return bytes(raw)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "replace", "delete", "repeat", "splice"]),
        st.integers(0, 5000),
        st.integers(1, 40),
        st.sampled_from(SNIPPETS) | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=budget(1500, 60), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.sampled_from(SEEDS), edits=EDITS, size=st.sampled_from([1, 7, 100, 10**6]))
@example(seed=b"c" + b"a" * 600 + b"\nb\n.", edits=[], size=100)
def test_changed_pickles(unpicklers: Unpicklers, seed: bytes, edits: list[Edit], size: int) -> None:
    """Whatever an unpickler asks for was read before, or it is said that it cannot be told; reading never fails."""
    check(unpicklers, edit(seed, edits), size)


@settings(max_examples=budget(700, 30), deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=3), max_size=40))
def test_pickles_of_any_opcodes(unpicklers: Unpicklers, parts: list[bytes]) -> None:
    """The same for opcodes that are put together blindly."""
    check(unpicklers, b"".join(parts) + b".", 10**6)


def test_unpicklers_agree_on_hostile_pickles(unpicklers: Unpicklers) -> None:
    """The same for the pickles written by hand, and on most pickles that are changed the two have something to say."""
    for name, entry in HOSTILE.items():
        if entry.unpickling != "is not tried":
            check(unpicklers, entry.data, 1000)


@pytest.mark.abridged
def test_changes_leave_something_to_compare(unpicklers: Unpicklers) -> None:
    """Some of the changed pickles load, and some import something else than before: the fuzzing is not idle."""
    chance = random.Random(1)
    loaded = changed = 0
    for number in range(budget(300, 50)):
        seed = SEEDS[number % len(SEEDS)]
        edits = [("insert", chance.randrange(5000), 1, chance.choice(SNIPPETS))]
        reading, answers = check(unpicklers, edit(seed, edits), 100)
        loaded += answers[0][1] is None
        changed += bool(answers[0][0]) and answers[0][0] != read([seed]).asked
    enough = budget(20, 3)
    assert loaded > enough and changed > enough, (loaded, changed)
