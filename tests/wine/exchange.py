"""A store that goes from one system to the other and back: exchange.py make|use|compare NAME."""

import sys
from datetime import datetime
from pathlib import Path

from views_runs import Storage
from views_runs.database import database

#: More than a part, the same on both systems.
LARGE = bytes(range(256)) * 12_000

METADATA = {
    "author": "Žofie",
    "train_end": 480,
    "training_date": datetime(2026, 11, 23, 14, 13, 19, 946809),
    "é": [1.5],
}

#: In the header: how often the file was changed, and by which SQLite.
VARYING = [slice(24, 28), slice(92, 100)]


def make(name: str) -> None:
    """Make a store without models, and one with three."""
    database.connect(Path(f"{name}-empty.db").absolute(), 10, create=True).close()
    store = Storage(f"{name}.db")
    store.store("small", [1, "Žofie"], METADATA)
    store.store("large", LARGE)
    store.store("gone", LARGE)
    store.require("author")


def use(name: str) -> None:
    """Do everything with a store that the other system made, or has used since."""
    store = Storage(f"{name}.db")
    assert store.verify().damaged == () and store.required() == ["author"]
    assert store.fetch("small") == [1, "Žofie"] and store.fetch("large") == LARGE
    assert store.fetch_metadata("small") == {**METADATA, **store.inspect("small").metadata}
    assert store.list("author = Žofie", "train_end >= 2019-12") == ["small"]
    store.annotate("small", **{f"seen on {sys.platform}": True})
    record = store.store("large", LARGE, {"author": sys.platform}, overwrite=True)
    assert store.fetch(f"large:{record.version}") == LARGE
    if store.exists("gone"):
        store.delete("gone")
    states = {finding.topic: finding.state for finding in store.doctor()}
    assert states["journal"] == states["file"] == states["leftovers"] == "ok", states


def plain(file: str) -> bytes:
    """Return a file without what varies."""
    data = bytearray(Path(file).read_bytes())
    for place in VARYING:
        data[place] = bytes(place.stop - place.start)
    return bytes(data)


def compare(name: str) -> None:
    """Compare the empty stores of both systems, byte for byte, and the sizes of the journals."""
    one, other = plain(f"{name}-empty.db"), plain("windows-empty.db")
    assert one == other, [place for place, (a, b) in enumerate(zip(one, other)) if a != b][:20]
    assert len({Path(f"{system}-empty.db-journal").stat().st_size for system in (name, "windows")}) == 1
    seen = {system: [*Storage(f"{system}.db").inspect("small").metadata] for system in (name, "windows")}
    assert all({"seen on linux", "seen on win32"} <= {*fields} for fields in seen.values()), seen
    print(f"stores of both systems: {len(one):,} bytes, the same; each was used on the other, and {name}'s again here")


if __name__ == "__main__":
    {"make": make, "use": use, "compare": compare}[sys.argv[1]](sys.argv[2])
