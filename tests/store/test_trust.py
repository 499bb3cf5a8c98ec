"""Whom a fetch trusts: a list of imports, a digest, the user's own list, and who may write the store."""

import hashlib
import json
import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.hostile import catalogue, extension
from tests.support.budgets import IN_FULL, budget
from tests.support.planted import lie, plant
from tests.support.stores import NOTHING, leftovers
from views_runs import (
    DigestMismatchError,
    OpenPermissionsError,
    Storage,
    StorageError,
    UntrustedModelError,
    UploadError,
    filesystems,
)
from views_runs.cli import main
from views_runs.pickles import opcodes, permissions, trust, unpickling
from views_runs.pickles.opcodes import Import

Viewser = Callable[..., Result]

HOSTILE = catalogue()

#: They name nothing, and only fill the memory, or nothing at all; a list has nothing against them.
NAMELESS = {name for name, one in HOSTILE.items() if not one.imports and not one.troubles}

#: What is looked for among what the interpreter does.
WATCHED = {"pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"}

_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event in WATCHED:
        _seen.append(f"{event} {arguments!r}")


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    """Watch what the interpreter does; a hook cannot be taken away again, so it is made to do nothing later."""
    sys.addaudithook(_hook)


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when something is run, or asked for by an unpickler, while the test goes on."""
    global _seen
    canary = tmp_path / "canary"
    monkeypatch.setenv("VIEWS_RUNS_CANARY", str(canary))
    _seen = []
    try:
        with extension():
            yield
        assert _seen == []
    finally:
        _seen = None
    assert not canary.exists()


@cache
def honest() -> dict[str, Any]:
    """Return fitted models, by name."""
    rows = np.random.default_rng(1).random((40, 3))
    models = {
        "forest": RandomForestRegressor(3, random_state=1),
        "pipeline": make_pipeline(StandardScaler(), Ridge()),
        "boosted": HistGradientBoostingRegressor(max_iter=2, random_state=np.random.RandomState(1)),
    }
    return {name: model.fit(rows, rows[:, 0]) for name, model in models.items()}


@cache
def needed() -> tuple[str, ...]:
    """Return what these models import."""
    readings = [opcodes.read([pickle.dumps(model, 5)]) for model in honest().values()]
    assert not any(reading.troubles for reading in readings)
    return tuple(sorted({str(found) for reading in readings for found in reading.imports}))


class Shape:
    """Something to store."""

    class Inner:
        """Has a dotted name."""


SHAPE = f"{__name__}.Shape"


# What a fetch is held to.


@pytest.mark.parametrize("name", ["forest", "pipeline", "boosted"])
def test_an_honest_model_with_its_list(store: Storage, name: str) -> None:
    """A model whose imports are all on the list is fetched, by one opening of the list and one digest."""
    record = store.store(name, honest()[name])
    rows = np.random.default_rng(2).random((5, 3))
    expected = honest()[name].predict(rows)
    for options in (
        {"trusted": needed()},
        {"trusted": record.imports},
        {"trusted": iter(needed())},
        {"sha256": record.sha256},
        {"sha256": record.sha256.upper()},
        {"trusted": set(needed()), "sha256": record.sha256},
        {},
    ):
        assert (store.fetch(name, **options).predict(rows) == expected).all()


def test_each_entry_is_needed(store: Storage) -> None:
    """Without any single one of what it imports, a model is refused, and the error names that one."""
    store.store("forest", honest()["forest"])
    imports = store.inspect("forest").imports
    assert imports is not None and len(imports) > 4
    for one in imports:
        with pytest.raises(UntrustedModelError, match="forest.*nothing was loaded") as caught:
            store.fetch("forest", trusted=[other for other in imports if other != one])
        assert one in str(caught.value) and "trust -- forest:1`" in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        __name__,
        f"{__name__}.",
        f"{__name__}.*",
        f"{__name__}.Shap",
        f"{__name__}.Shape.Inner",
        f"{__name__}.Shape ",
        f" {__name__}.Shape",
        f"{__name__}:Shape.Inner",
        f"tests:{__name__.partition('.')[2]}.Shape",
        f"{__name__.upper()}.Shape",
    ],
)
def test_entries_are_exact(store: Storage, entry: str) -> None:
    """No entry stands for what only begins like it, or is written in another way."""
    store.store("shape", Shape())
    assert isinstance(store.fetch("shape", trusted=[SHAPE]), Shape)
    assert isinstance(store.fetch("shape", trusted=[f"{__name__}:Shape"]), Shape)
    with pytest.raises(UntrustedModelError):
        store.fetch("shape", trusted=[entry])


def test_dotted_names(store: Storage) -> None:
    """A class in a class is listed with a colon; spelled with dots alone, it is something else."""
    store.store("inner", Shape.Inner())
    assert store.inspect("inner").imports == (f"{__name__}:Shape.Inner",)
    assert isinstance(store.fetch("inner", trusted=f"{__name__}:Shape.Inner"), Shape.Inner)
    for other in (f"{__name__}.Shape.Inner", SHAPE, f"{__name__}.Inner"):
        with pytest.raises(UntrustedModelError):
            store.fetch("inner", trusted=[other])


def test_an_export_again_is_another_name(store: Storage) -> None:
    """The public name of a class is not where it is pickled from; each counts as it is in the bytes."""
    store.store("ridge", Ridge())
    names = {"ridge": "sklearn.linear_model._ridge.Ridge", "public": "sklearn.linear_model.Ridge"}
    plant(store, "public", b"\x80\x04\x8c\x14sklearn.linear_model\x8c\x05Ridge\x93)\x81.")
    for name, other in (("ridge", "public"), ("public", "ridge")):
        assert type(store.fetch(name, trusted=[names[name]])) is Ridge
        with pytest.raises(UntrustedModelError, match=names[name].replace(".", r"\.")):
            store.fetch(name, trusted=[names[other]])


@pytest.mark.parametrize("entry", ["", "Ridge", ".Ridge", "sklearn.", 5, None, b"os.system", ("os", "system")])
def test_a_list_that_cannot_be_read(store: Storage, entry: Any) -> None:
    """What is no import's name is refused, and says how to write one."""
    store.store("m", [1])
    with pytest.raises(UntrustedModelError, match="cannot fetch 'm'.*list of trusted imports is invalid"):
        store.fetch("m", trusted=[entry])
    with pytest.raises(UntrustedModelError):
        store.fetch("m", trusted=5)  # type: ignore[arg-type]


def test_plain_data_needs_nothing(store: Storage) -> None:
    """What imports nothing is fetched with an empty list, and with any other."""
    store.store("m", {"a": [1, 2.5, None, b"x"]})
    assert store.fetch("m", trusted=[]) == store.fetch("m", trusted=needed()) == {"a": [1, 2.5, None, b"x"]}


# Hostile pickles.


def test_what_a_list_says_nothing_of() -> None:
    """Of the hostile pickles only bombs name nothing, and one that tries nothing."""
    assert {name for name in NAMELESS if not name.startswith("bomb_")} == {"decoy_in_bytes"}


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - NAMELESS))
def test_hostile_pickles_are_refused(store: Storage, name: str, quiet: None) -> None:
    """With a list of what honest models need, and with the digest in the file too, nothing of a hostile one is run."""
    plant(store, name, HOSTILE[name].data)
    for sha256 in (None, hashlib.sha256(HOSTILE[name].data).hexdigest()):
        with pytest.raises(UntrustedModelError, match="nothing was loaded"):
            store.fetch(name, trusted=needed(), sha256=sha256)


@pytest.mark.abridged
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_nothing_else_runs_a_hostile_pickle(store: Storage, name: str, quiet: None) -> None:
    """Whatever only looks at a model runs nothing, and has something to say of each."""
    data = HOSTILE[name].data
    plant(store, name, data)
    record = store.inspect(name)
    assert record.size == len(data) and record.imports is not None
    assert {*HOSTILE[name].imports} == {*record.imports} or "\\" in str(record.imports)
    assert len(record.troubles) == len(HOSTILE[name].troubles)
    assert store.list() == [name] and store.find()[0].sha256 == record.sha256
    assert record.loadable().verdict != "loads" or not record.troubles
    assert store.download(name, "it.pickle").read_bytes() == data
    assert store.verify(name).damaged == ()
    store.check(name)
    store.check()
    with suppress(UploadError):
        assert store.upload("it.pickle", "again").sha256 == record.sha256
    assert leftovers(store) == NOTHING


#: One that has no trouble, and one of each kind of trouble.
SHOWN = (
    "global",
    "after_the_end",
    "broken_tail",
    "buffer",
    "computed",
    "extension_1",
    "frame_in_frame",
    "persistent_id",
)


@pytest.mark.abridged
@pytest.mark.parametrize("name", sorted(HOSTILE) if IN_FULL else SHOWN)
def test_no_command_runs_a_hostile_pickle(store: Storage, viewser: Viewser, name: str, quiet: None) -> None:
    """The same for the commands, which show what was read."""
    plant(store, name, HOSTILE[name].data)
    store.download(name, "it.pickle")
    for verb in ("inspect", "list", "verify"):
        for options in ((), ("--json",)):
            result = viewser("model", verb, *([name] if verb != "list" else []), *options)
            assert not options or json.loads(result.stdout)
    assert viewser("model", "download", name, "again.pickle").stdout == ""
    for arguments in (["check", name], ["check", "--all", "--json"], ["upload", "it.pickle", "again"], ["trust", name]):
        result = CliRunner().invoke(main, ["model", *arguments], input="y\n")
        assert result.exit_code in (0, 1) and not isinstance(result.exception, Exception), result.output


def test_what_upload_takes_is_what_ends_well() -> None:
    """Several hostile pickles can be uploaded, so the test above shows something."""
    whole = {name for name, one in HOSTILE.items() if opcodes.read([one.data]).is_whole}
    assert {"global", "stack_global", "extension_1", "nested", "persistent_id"} < whole


def test_the_canary_would_sing(store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain fetch from a store runs what is in it; so the tests above show something."""
    monkeypatch.setenv("VIEWS_RUNS_CANARY", str(tmp_path / "canary"))
    plant(store, "m", HOSTILE["global"].data)
    store.fetch("m")
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["extension_1", "extension_2", "extension_4"])
def test_an_extension_code_is_not_an_import(store: Storage, name: str, quiet: None) -> None:
    """A number that stands for os.system is refused, also when the list has os.system, and the cache is warm."""
    plant(store, "m", HOSTILE[name].data)
    with pytest.raises(UntrustedModelError, match="extension code 240"):
        store.fetch("m", trusted=["os.system", *needed()])


@pytest.mark.parametrize(
    "name, trouble",
    [
        ("persistent_id", "a persistent id"),
        ("persistent_id_of_an_object", "a persistent id"),
        ("after_the_end", "data after the end"),
        ("newline_after_the_end", "data after the end"),
        ("frame_in_frame", "a frame begins inside another"),
        ("frame_straddled", "crosses the end of its frame"),
        ("broken_tail", "broken after byte"),
        ("no_end", "it ends too early"),
        ("computed", "computed at load time"),
        ("buffer", "a buffer that is kept elsewhere"),
    ],
)
def test_the_trouble_is_named(store: Storage, name: str, trouble: str, quiet: None) -> None:
    """What cannot be told is refused with all imports on the list, and the error says what it is."""
    plant(store, "m", HOSTILE[name].data)
    with pytest.raises(UntrustedModelError, match=trouble):
        store.fetch("m", trusted=["os.system", "builtins.str"])


@pytest.mark.parametrize("name", [name for name, one in HOSTILE.items() if one.unpickling.startswith("runs")])
def test_the_unpickler_holds_the_list_too(
    store: Storage, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would the first pass find nothing, the unpickler would still be given nothing that is not on the list."""
    if name.startswith("extension"):
        # No unpickler is asked for what is in the cache: that is why the first pass refuses them.
        return
    monkeypatch.setenv("VIEWS_RUNS_CANARY", str(tmp_path / "canary"))
    monkeypatch.setattr(
        opcodes.Reader, "result", lambda self: opcodes.Reading(frozenset(), frozenset(), (), 4, 9, True)
    )
    plant(store, "m", HOSTILE[name].data)
    with pytest.raises(UntrustedModelError, match="is not on the list"):
        store.fetch("m", trusted=needed())
    assert not (tmp_path / "canary").exists()


def test_a_list_of_thousands(store: Storage) -> None:
    """A pickle that imports more than honest ones do is refused, and the error stays short."""
    data = b"".join(b"cos\nname%d\n0" % number for number in range(20_000))
    plant(store, "m", data + b"N.")
    with pytest.raises(UntrustedModelError) as caught:
        store.fetch("m", trusted=needed())
    assert len(str(caught.value)) < 1500
    assert len(store.inspect("m").imports or ()) <= 300


# Digests.


@pytest.mark.parametrize(
    "sha256", ["", "x" * 64, "a" * 63, "a" * 65, "sha256:" + "a" * 64, b"a" * 64, 5, "a" * 64 + "\n"]
)
def test_what_is_no_digest(store: Storage, sha256: Any) -> None:
    """What is no SHA-256 fits nothing."""
    store.store("m", Shape())
    with pytest.raises(DigestMismatchError, match="is not a SHA-256 digest"):
        store.fetch("m", sha256=sha256)


def test_the_digest_of_another_model(store: Storage, quiet: None) -> None:
    """A digest that does not fit refuses, before anything is imported; and whatever the file says of itself."""
    other = store.store("other", [2]).sha256
    store.store("m", [1])
    plant(store, "m", HOSTILE["global"].data)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        sql.execute("UPDATE models SET name = 'hostile' WHERE name = 'm'")
    with pytest.raises(DigestMismatchError, match="nothing was loaded"):
        store.fetch("hostile", sha256=other)
    with pytest.raises(DigestMismatchError):
        store.fetch("hostile", sha256=other, trusted=["os.system"])


def test_a_digest_that_the_file_claims(store: Storage, quiet: None) -> None:
    """The file says of other bytes that they have the digest asked for: they are not taken for these."""
    wanted = store.store("m", [1]).sha256
    plant(store, "m", HOSTILE["global"].data)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        sql.execute("UPDATE models SET sha256 = ?", (wanted,))
    with pytest.raises(StorageError):
        store.fetch("m", sha256=wanted)


def large(hostile: bytes = b"", size: int = budget(20_000_000, 10_000_000)) -> bytes:
    """Return an honest pickle of some parts, or one with something else at its end."""
    blocks = [bytes([number]) * 1_000_000 for number in range(size // 1_000_000)]
    return pickle.dumps(blocks, 5)[:-1] + hostile + b"."


@pytest.mark.abridged
def test_large_models(store: Storage, quiet: None) -> None:
    """Models of many parts are held to a list and a digest too; what is in their last part counts."""
    data = large()
    plant(store, "m", data)
    assert pickle.dumps(store.fetch("m", trusted=[], sha256=hashlib.sha256(data).hexdigest()), 5) == data
    with pytest.raises(DigestMismatchError):
        store.fetch("m", sha256="0" * 64)
    plant(store, "hostile", large(b"0" + HOSTILE["global"].data[:-1]))
    with pytest.raises(UntrustedModelError, match="os.system|posix.system"):
        store.fetch("hostile", trusted=needed())


@pytest.mark.abridged
@pytest.mark.parametrize("place", [0.1, 0.5, 0.75, 1.0] if IN_FULL else [0.1, 1.0])
@pytest.mark.parametrize("pinned", [True, False])
def test_bytes_that_are_swapped_between_the_passes(
    store: Storage, place: float, pinned: bool, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    """Bytes that are others in the second pass are noticed before they are unpickled, also with all digests right."""
    data = large()
    # Between two blocks of bytes, or at the end.
    at = data.rindex(b".") if place == 1.0 else data.index(b"B\x40\x42\x0f\x00", int(len(data) * place))
    attack = HOSTILE["global"].data[:-1] + b"0"
    calm = b"C" + bytes([len(attack) - 3]) + attack[3:] + b"0"
    assert len(calm) == len(attack) and pickle.loads(b"N" + calm + b".") is None
    before, after = (data[:at] + piece + data[at:] for piece in (calm, attack))
    plant(store, "m", before)
    read_through = unpickling._read_through

    def swap(*arguments: Any) -> Any:
        seen = read_through(*arguments)
        replant(store, "m", after)
        return seen

    monkeypatch.setattr(unpickling, "_read_through", swap)
    options: dict[str, Any] = (
        {"sha256": hashlib.sha256(before).hexdigest()} if pinned else {"trusted": ["os.system", *needed()]}
    )
    # In the last group the digest of the whole, which was read before, does not fit; that is seen first.
    with pytest.raises(StorageError, match="changed while being read|is damaged") as caught:
        store.fetch("m", **options)
    assert type(caught.value) is DigestMismatchError or place > 0.7


def replant(store: Storage, name: str, data: bytes) -> None:
    """Write other bytes over a pickle, part by part where they are, with the digests of all parts right."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
        model, upload, first = sql.execute("SELECT id, upload, pickle FROM models WHERE name = ?", (name,)).fetchone()
        running, done = hashlib.sha256(data[: len(first)]), len(first)
        sql.execute(
            "UPDATE models SET pickle = ?, digest = ?, sha256 = ? WHERE id = ?",
            (data[:done], running.digest(), hashlib.sha256(data).hexdigest(), model),
        )
        sizes = sql.execute("SELECT part, length(data) FROM model_parts WHERE upload = ? ORDER BY part", (upload,))
        for part, size in sizes.fetchall():
            piece = data[done : done + size]
            running.update(piece)
            done += size
            sql.execute(
                "UPDATE model_parts SET data = ?, digest = ? WHERE upload = ? AND part = ?",
                (piece, running.digest(), upload, part),
            )
        assert done == len(data)


def test_a_model_that_grows_or_is_gone_between_the_passes(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was deleted between the passes, or whose parts were, is an error that says so."""
    read_through = unpickling._read_through
    for statement in ("DELETE FROM models", "DELETE FROM model_parts WHERE part > 5"):
        plant(store, "m", large())

        def change(*arguments: Any) -> Any:
            seen = read_through(*arguments)
            with closing(sqlite3.connect(store.path, isolation_level=None)) as sql:
                sql.execute(statement)
            return seen

        monkeypatch.setattr(unpickling, "_read_through", change)
        with pytest.raises(StorageError):
            store.fetch("m", trusted=[])


def test_a_plain_fetch_reads_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list and a digest the bytes are read once, and by the unpickler alone."""
    store.store("m", honest()["forest"])
    monkeypatch.setattr(unpickling, "_read_through", None)
    monkeypatch.setattr(opcodes.Reader, "feed", None)
    store.fetch("m")


# The user's own list.


def test_trust_a_model(store: Storage, viewser: Viewser, own_home: Path) -> None:
    """`trust` shows what a model imports, asks, and puts it on the list; then the model is fetched by the list."""
    store.store("forest", honest()["forest"])
    strict = Storage(store.path, trusted=True)
    with pytest.raises(UntrustedModelError, match="trust -- forest:1`"):
        strict.fetch("forest")
    result = viewser("model", "trust", "forest", input="n\n", exit_code=1)
    assert "sklearn.ensemble._forest.RandomForestRegressor" in result.stderr and not trust.path().exists()
    assert "scikit-learn" in result.stderr and "Add these to" in result.stderr
    viewser("model", "trust", "forest", input="y\n")
    assert own_home in trust.path().parents
    assert {str(one) for one in trust.listed()} == {*(store.inspect("forest").imports or ())}
    assert strict.fetch("forest").n_estimators == 3
    store.store("pipeline", honest()["pipeline"])
    with pytest.raises(UntrustedModelError):
        strict.fetch("pipeline")
    assert "Added" in viewser("model", "trust", "pipeline", "--yes").stderr
    assert strict.fetch("pipeline")


def test_nothing_to_trust(store: Storage, viewser: Viewser) -> None:
    """There is no question about it."""
    store.store("m", [1])
    assert viewser("model", "trust", "m").stderr.endswith("Nothing to add: every import is already on the list.\n")


def test_trust_as_json(store: Storage, viewser: Viewser) -> None:
    """`trust --json` prints JSON and nothing else on the standard output: what is new on the list."""
    store.store("shape", [Shape(), Ridge()])
    store.store("again", [Shape()])
    found = json.loads(viewser("model", "trust", "shape", "--yes", "--json").stdout)
    assert found == {"file": str(trust.path()), "added": sorted([SHAPE, "sklearn.linear_model._ridge.Ridge"])}
    assert json.loads(viewser("model", "--json", "trust", "again", "--yes").stdout)["added"] == []


def test_all_that_is_trusted_is_shown(store: Storage, viewser: Viewser) -> None:
    """Nobody is asked to trust what was not shown, however many imports there are."""
    names = [f"name{number:03}" for number in range(100)]
    plant(store, "m", b"".join(b"csklearn.utils\n%s\n0" % name.encode() for name in names) + b"cos\nsystem\n.")
    result = viewser("model", "trust", "m", input="n\n", exit_code=1, env={"COLUMNS": "1000"})
    for name in names:
        assert name in result.stderr
    assert "os.system" in result.stderr


@pytest.mark.parametrize("name", sorted(name for name in HOSTILE if HOSTILE[name].troubles))
def test_trust_what_cannot_be_told(store: Storage, viewser: Viewser, name: str, quiet: None) -> None:
    """Where it cannot be told what is imported, there is nothing that could be trusted; a digest can."""
    plant(store, "m", HOSTILE[name].data)
    result = viewser("model", "trust", "m", "--yes", exit_code=1)
    assert "cannot trust 'm'" in result.stderr and "sha256=" in result.stderr
    assert not trust.path().exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x02os\x8c\x08a\nsystem\x93.",
        b"\x80\x04\x8c\x02os\x8c\x08a\\system\x93.",
        b"\x80\x04\x8c\x06shutil\x8c\x08rmtree:x\x93.",
        b"\x80\x04\x8c\x09shutil:os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x03#os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x02os\x8c\x07system \x93.",
        b"\x80\x04\x8c\x03 os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x02os\x8c\x00\x93.",
        b"\x80\x04\x8c\x00\x8c\x06system\x93.",
    ],
)
def test_trust_odd_names(store: Storage, viewser: Viewser, data: bytes) -> None:
    """What could be taken for another name on the list does not get on it, nor what would make the list unreadable."""
    plant(store, "m", data)
    assert "looks forged" in viewser("model", "trust", "m", "--yes", exit_code=1).stderr
    assert trust.listed() == frozenset()
    assert not trust.path().exists()


@pytest.mark.parametrize("name", ["$(touch pwned)", "x; touch pwned", "`touch pwned`", "-y", "it's"])
def test_the_line_that_trusts_can_be_pasted(
    store: Storage, viewser: Viewser, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line in the message means this model of this store, whatever its name is to a shell."""
    monkeypatch.chdir(tmp_path)
    store.store(name, Ridge())
    with pytest.raises(UntrustedModelError) as caught:
        store.fetch(name, trusted=[])
    # The name of a shell function has no hyphen.
    line = str(caught.value).partition("run `views-runs ")[2][:-1]
    words = subprocess.run(
        ["sh", "-c", f"viewser() {{ printf '%s\\0' \"$@\"; }}; viewser {line}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")[:-1]
    assert not (tmp_path / "pwned").exists()
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "another.db"))
    assert "Added" in viewser(*words, input="y\n").stderr


def test_the_store_does_not_say_who_supplies(store: Storage, viewser: Viewser) -> None:
    """Which distribution supplies a module is what is installed here, and not what the store says."""
    store.store("m", Shape())
    lie(store, "m", '{"suppliers": {"tests": "scikit-learn"}, "packages": {"scikit-learn": "1.4.2"}, "protocol": 5}')
    assert "scikit-learn" not in viewser("model", "trust", "m", "--yes").stderr


def test_the_environment_asks_for_the_list(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """$VIEWS_RUNS_TRUSTED_ONLY holds every fetch to the list; 0 and nothing do not."""
    store.store("shape", Shape())
    for value, is_held in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("VIEWS_RUNS_TRUSTED_ONLY", value)
        if is_held:
            for fetch in (Storage(store.path).fetch, Storage(store.path).retrieve):
                with pytest.raises(UntrustedModelError):
                    fetch("shape")
        else:
            assert isinstance(Storage(store.path).fetch("shape"), Shape)


def test_every_way_to_fetch_is_held_to_the_list(store: Storage) -> None:
    """Also `fetch_or_train`, and a store that was pickled and sent to another process."""
    store.store("shape", Shape(), {"train_end": 480})
    strict = Storage(store.path, trusted=True)
    with pytest.raises(UntrustedModelError):
        strict.fetch_or_train("shape", Shape, {"train_end": 480})
    with pytest.raises(UntrustedModelError):
        pickle.loads(pickle.dumps(strict)).fetch("shape")
    trust.add([Import.parse(SHAPE)])
    assert isinstance(strict.fetch_or_train("shape", Shape, {"train_end": 480}), Shape)
    assert isinstance(pickle.loads(pickle.dumps(strict)).fetch("shape"), Shape)


def test_a_list_by_hand(store: Storage) -> None:
    """The list may have comments and blank lines, Windows' line ends, and no newline at its end; all stays in it."""
    trust.path().parent.mkdir(parents=True)
    trust.path().write_bytes(f"# mine\r\n\r\n   # more\n  {SHAPE}  \n\n\nsklearn.linear_model._ridge.Ridge".encode())
    assert {str(one) for one in trust.listed()} == {SHAPE, "sklearn.linear_model._ridge.Ridge"}
    store.store("shape", Shape())
    assert isinstance(Storage(store.path, trusted=True).fetch("shape"), Shape)
    trust.add([Import("shapes", "Circle.Style")])
    assert {str(one) for one in trust.listed()} == {SHAPE, "sklearn.linear_model._ridge.Ridge", "shapes:Circle.Style"}
    assert "# mine" in trust.path().read_text("utf-8")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"no-import\n", b"os.\n", None])
def test_a_list_that_is_damaged(store: Storage, viewser: Viewser, content: bytes | None) -> None:
    """A list that cannot be read is an error that names it, and trusts nothing."""
    store.store("m", [1])
    if content is None:
        trust.path().mkdir(parents=True)
    else:
        trust.path().parent.mkdir(parents=True)
        trust.path().write_bytes(content)
    with pytest.raises(StorageError, match="trusted.txt"):
        Storage(store.path, trusted=True).fetch("m")
    store.store("shape", Shape())
    assert "trusted.txt" in viewser("model", "trust", "shape", "--yes", exit_code=1).stderr.replace("\n", "")


def test_no_list_trusts_nothing(store: Storage) -> None:
    """Without a list only what imports nothing is fetched."""
    store.store("shape", Shape())
    store.store("plain", [1])
    strict = Storage(store.path, trusted=True)
    assert strict.fetch("plain") == [1]
    with pytest.raises(UntrustedModelError):
        strict.fetch("shape")


def test_a_folder_that_cannot_be_made(store: Storage, viewser: Viewser, own_home: Path) -> None:
    """A list that cannot be written is an error that names it."""
    (own_home / ".config").write_text("a file")
    store.store("shape", Shape())
    assert "trusted.txt" in viewser("model", "trust", "shape", "--yes", exit_code=1).stderr
    (own_home / ".config").unlink()
    (own_home / ".config").symlink_to("nowhere")
    message = viewser("model", "trust", "shape", "--yes", exit_code=1).stderr
    assert "cannot change the list of trusted imports" in message and "trusted.txt" in message


def test_no_home(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home folder there is no list, and the error says what to set."""
    import platformdirs

    def nowhere(*arguments: Any, **options: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    store.store("m", [1])
    monkeypatch.setattr(platformdirs, "user_config_path", nowhere)
    with pytest.raises(StorageError, match="Set HOME"):
        Storage(store.path, trusted=True).fetch("m")
    assert store.fetch("m") == [1]


def test_a_list_given_and_the_digest_hold_both(store: Storage) -> None:
    """A digest does not take a store off the user's list."""
    record = store.store("shape", Shape())
    with pytest.raises(UntrustedModelError):
        Storage(store.path, trusted=True).fetch("shape", sha256=record.sha256)


# Who may write the store.


def opened(store: Storage, what: str) -> Path:
    """Let everyone on the system write a part of a store; return which."""
    journal = store.path.with_name(store.path.name + "-journal")
    place, mode = {
        "file": (store.path, 0o666),
        "journal": (journal, 0o666),
        "folder": (store.path.parent, 0o777),
    }[what]
    place.chmod(mode)
    return place


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
@pytest.mark.parametrize("what", ["file", "journal", "folder"])
@pytest.mark.parametrize("through", ["itself", "symlink", "linked folder"])
def test_open_permissions(store: Storage, tmp_path: Path, what: str, through: str, viewser: Viewser) -> None:
    """A store that everyone may write is refused by `fetch`, also through a link; what the message says mends it."""
    inside = Storage(tmp_path / "in" / "models.db")
    inside.path.parent.mkdir()
    inside.store("shape", Shape(), {})
    (tmp_path / "elsewhere").mkdir()
    path = {
        "itself": inside.path,
        "symlink": tmp_path / "elsewhere" / "link.db",
        "linked folder": tmp_path / "elsewhere" / "folder" / "models.db",
    }[through]
    if through == "symlink":
        path.symlink_to(inside.path)
    elif through == "linked folder":
        path.parent.symlink_to(inside.path.parent)
    linked = Storage(path)
    assert isinstance(linked.fetch("shape"), Shape)
    place = opened(inside, what)
    for options in ({}, {"trusted": [SHAPE]}):
        with pytest.raises(OpenPermissionsError, match="nothing was loaded") as caught:
            linked.fetch("shape", **options)
        assert isinstance(caught.value, PermissionError)
    with pytest.raises(OpenPermissionsError):
        linked.fetch_or_train("shape", Shape, {})
    # Whoever only looks is not kept from it, nor whoever pins the bytes or says that it is meant so.
    sha256 = linked.inspect("shape").sha256
    assert linked.list() == ["shape"] and linked.download("shape").exists()
    assert isinstance(linked.fetch("shape", sha256=sha256), Shape)
    assert isinstance(Storage(path, allow_open_permissions=True).fetch("shape"), Shape)
    command = str(caught.value).split("`")[1]
    assert command == f"chmod o-w {place}"
    subprocess.run(command, shell=True, check=True)
    assert isinstance(linked.fetch("shape"), Shape)


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_a_sticky_folder(store: Storage) -> None:
    """A store in a folder such as /tmp is refused, and it is advised to move the store, not to change the folder."""
    store.store("m", [1])
    store.path.parent.chmod(0o1777)
    with pytest.raises(OpenPermissionsError, match="loaded. Move the store to a folder of its own") as caught:
        store.fetch("m")
    assert "chmod" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
@pytest.mark.parametrize("system, is_said", [("nfs4 server:/export rw", True), ("ext4 /dev/sda1 rw", False)])
def test_chmod_without_effect(
    store: Storage, monkeypatch: pytest.MonkeyPatch, system: str, is_said: bool
) -> None:
    """On a network volume, on which `chmod` may change nothing, it is said who knows more."""
    store.store("m", [1])
    opened(store, "file")
    table = store.path.parent / "mountinfo"
    table.write_text(f"22 1 0:1 / {store.path.parent} rw shared:1 - {system}\n")
    monkeypatch.setattr(filesystems, "MOUNTS", str(table))
    with pytest.raises(OpenPermissionsError) as caught:
        store.fetch("m")
    assert ("If chmod has no effect there, ask the volume's administrator" in str(caught.value)) == is_said


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_the_environment_allows_open_permissions(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """$VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS allows it for all that a process fetches."""
    store.store("m", [1])
    opened(store, "file")
    for value, is_allowed in (("1", True), ("0", False), ("false", False), ("No", False), ("true", True)):
        monkeypatch.setenv("VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS", value)
        if is_allowed:
            assert Storage(store.path).fetch("m") == [1]
        else:
            with pytest.raises(OpenPermissionsError):
                Storage(store.path).fetch("m")


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_a_journal_that_goes_while_it_is_looked_at(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may remove the journal at any moment; what is not there may be written by nobody."""
    store.store("m", [1])
    places = [*permissions.list_places(store.path), f"{store.path}.gone"]
    monkeypatch.setattr(permissions, "list_places", lambda path: places)
    assert store.fetch("m") == [1]


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_what_a_group_may_write_is_a_team_s(store: Storage) -> None:
    """A group that may write is no trouble, nor is everyone who may read."""
    store.store("m", [1])
    store.path.chmod(0o664)
    store.path.parent.chmod(0o2775)
    assert store.fetch("m") == [1]


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
@pytest.mark.parametrize("name", ["a store's.db", "a; touch owned; b.db", "$(touch owned).db"])
def test_the_command_can_be_pasted(tmp_path: Path, name: str) -> None:
    """The `chmod` of the message is right for the shell, whatever the file is called."""
    store = Storage(tmp_path / name)
    store.store("m", [1])
    store.path.chmod(0o666)
    with pytest.raises(OpenPermissionsError) as caught:
        store.fetch("m")
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True, cwd=tmp_path)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o664
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("system", ["cifs //server/models rw", "9p drvfs rw", "vfat /dev/sda1 rw"])
def test_where_mode_bits_mean_nothing(
    store: Storage, system: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where mode bits do not say who may write, that is said once, and nothing is refused."""
    store.store("m", [1])
    table = store.path.parent / "mountinfo"
    table.write_text(f"22 1 0:1 / {str(store.path.parent).replace(' ', chr(92) + '040')} rw shared:1 - {system}\n")
    monkeypatch.setattr(filesystems, "MOUNTS", str(table))
    store.path.chmod(0o777)
    with caplog.at_level(logging.INFO, "views_runs"):
        assert store.fetch("m") == store.fetch("m") == Storage(store.path).fetch("m") == [1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "mode bits" in caplog.text and str(store.path) in caplog.text


def test_folders_above(tmp_path: Path) -> None:
    """Who may write a folder above the store's, or that of a link to it, may put another in its place."""
    above, links = tmp_path / "above", tmp_path / "links"
    (above / "own").mkdir(parents=True)
    links.mkdir()
    store = Storage(above / "own" / "models.db")
    store.store("m", 1)
    (links / "models.db").symlink_to(store.path)
    for folder, opened in ((above, store), (links, Storage(links / "models.db"))):
        folder.chmod(0o777)
        with pytest.raises(OpenPermissionsError, match=f"chmod o-w {folder}`"):
            opened.fetch("m")
        assert [one.advice for one in opened.doctor() if one.state == "failure"] == [f"Run `chmod o-w {folder}`"]
        folder.chmod(0o1777)
        assert opened.fetch("m") == 1
        folder.chmod(0o755)


def test_what_is_no_list(store: Storage) -> None:
    """A wrong list is told from an empty one; True is one's own; and a list that everyone may change is none."""
    store.store("m", Fraction(1, 2))
    for wrong in (["sklearn.*"], ["sklearn"], 5, [5]):
        with pytest.raises(UntrustedModelError, match="the list of trusted imports is invalid"):
            store.fetch("m", trusted=wrong)  # type: ignore[arg-type]
    with pytest.raises(UntrustedModelError, match="it imports fractions.Fraction"):
        store.fetch("m", trusted=True)
    trust.add_all(store.inspect("m"))
    assert store.fetch("m", trusted=True) == Fraction(1, 2)
    trust.path().chmod(0o666)
    with pytest.raises(StorageError, match="everyone on this system can write to .*trusted.txt.*`chmod o-w"):
        store.fetch("m", trusted=True)


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
@pytest.mark.parametrize("what", ["folder", "folder above", "folder of a link"])
def test_a_list_that_others_can_replace(store: Storage, tmp_path: Path, what: str) -> None:
    """A list is refused if everyone can write to its folder, one above, or one that leads to it; `chmod` mends it."""
    store.store("m", Fraction(1, 2))
    trust.add_all(store.inspect("m"))
    folder = trust.path().parent
    place = {"folder": folder, "folder above": folder.parent, "folder of a link": tmp_path / "real" / "above"}[what]
    if what == "folder of a link":
        place.mkdir(parents=True)
        folder.rename(place / "own")
        folder.symlink_to(place / "own")
    place.chmod(0o777)
    with pytest.raises(StorageError) as caught:
        store.fetch("m", trusted=True)
    assert (caught.value.path, caught.value.advice) == (trust.path(), f"Run `chmod o-w {place}`")
    with pytest.raises(StorageError, match="cannot change the list of trusted imports"):
        trust.add([Import.parse(SHAPE)])
    place.chmod(0o755)
    assert store.fetch("m", trusted=True) == Fraction(1, 2)


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_a_list_in_a_sticky_folder(store: Storage) -> None:
    """In a folder that is shared on purpose, it is advised to move the list, not to change the folder."""
    store.store("m", Fraction(1, 2))
    trust.add_all(store.inspect("m"))
    folder = trust.path().parent
    folder.parent.chmod(0o1777)
    assert store.fetch("m", trusted=True) == Fraction(1, 2)
    folder.chmod(0o1777)
    with pytest.raises(StorageError) as caught:
        store.fetch("m", trusted=True)
    assert caught.value.advice == (
        f"Move the list to a folder of your own; do not change the mode of {folder}, which others use"
    )


def test_a_list_of_ones_own_and_another(store: Storage) -> None:
    """Who holds every fetch to their own list is held to it with another one too."""
    record = store.store("m", Fraction(1, 2))
    own = Storage(store.path, trusted=True)
    for trusted in (record.imports, None):
        with pytest.raises(UntrustedModelError):
            own.fetch("m", trusted=trusted)
    trust.add_all(store.inspect("m"))
    assert own.fetch("m", trusted=record.imports) == own.fetch("m") == Fraction(1, 2)
    with pytest.raises(UntrustedModelError):
        own.fetch("m", trusted=[])
