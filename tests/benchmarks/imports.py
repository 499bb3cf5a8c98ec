"""Imports: what it costs to read them from a pickle, to record them, to check them, and to show them.

    python tests/benchmarks/imports.py [--folder FOLDER] [--runs N]

Every run is a process of its own that has imported what it needs before the clock starts; the runs of what is
compared alternate, and the ratio is that of the medians. FOLDER needs 3 GB, and is on the disk that is measured.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(CHILDREN[options.child[0]](Path(options.child[1])))
        return
    # An installed package is compiled already.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        in_child("train", folder)
        reading(folder, options.runs)
        compare(folder, "store, nothing recorded", "store", 1.05, options.runs)
        compare(folder, "fetch, nothing checked", "fetch", 1.05, options.runs)
        compare(folder, "fetch of a small one, nothing checked", "fetch of a small one", 1.05, 3 * options.runs)
        verbs(folder, options.runs)


def reading(folder: str, runs: int) -> None:
    for what, limit in (("forest.pickle", "at most 0.5 s, 16 MiB"), ("objects.pickle", "a million small objects")):
        found = [in_child("read", str(Path(folder, what))).split() for _ in range(runs)]
        seconds, size = statistics.median(float(one[0]) for one in found), max(float(one[1]) for one in found)
        megabytes = Path(folder, what).stat().st_size / 1e6
        print(f"reading the imports of {megabytes:.0f} MB: median {seconds:.3f} s, {size:.1f} MiB ({limit})")


def verbs(folder: str, runs: int) -> None:
    viewser = [str(Path(sys.executable).with_name("viewser")), "--store", str(Path(folder, "models.db")), "model"]
    commands = {
        "list": ["list"],
        "inspect a small one": ["inspect", "small"],
        "inspect the forest": ["inspect", "forest"],
    }
    times = alternated({what: lambda c=command: timed([*viewser, *c]) for what, command in commands.items()}, 3 * runs)
    medians = report(times)
    print(f"inspect the forest: {medians['inspect the forest']:.3f} s (at most 1)")
    print(f"inspect a small one / list: {medians['inspect a small one'] / medians['list']:.2f} (at most 1.2)")


def compare(folder: str, plain: str, ours: str, limit: float, runs: int) -> None:
    def measure(what: str) -> Callable[[], float]:
        return lambda: float(in_child(what, folder))

    medians = report(alternated({what: measure(what) for what in (plain, ours)}, runs))
    print(f"{ours} / {plain}: {medians[ours] / medians[plain]:.3f} (at most {limit})")


def alternated(measures: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Measure each in turn, as often as that; a first time is not counted."""
    times: dict[str, list[float]] = {what: [] for what in measures}
    for number in range(runs + 1):
        for what, measure in measures.items():
            seconds = measure()
            times[what] += [seconds] if number else []
    return times


def report(times: dict[str, list[float]]) -> dict[str, float]:
    medians = {what: statistics.median(seconds) for what, seconds in times.items()}
    for what, seconds in times.items():
        print(f"{what}: median {medians[what]:.4f} s of", " ".join(f"{one:.3f}" for one in sorted(seconds)))
    return medians


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def in_child(what: str, place: str) -> str:
    command = [sys.executable, __file__, "--child", what, place]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Small:
    """One of a million."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, str(number)


def train(folder: Path) -> str:
    """Leave a forest whose pickle has about 300 MB in a plain file and in a store, and other things."""
    import pickle

    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    from views_runs import Storage

    random = np.random.default_rng(1)
    rows = random.random((50_000, 20))
    forest = RandomForestRegressor(66, n_jobs=2, random_state=1).fit(rows, random.random(50_000))
    with open(folder / "forest.pickle", "wb") as file:
        pickle.dump(forest, file, 5)
    with open(folder / "objects.pickle", "wb") as file:
        pickle.dump([Small(number) for number in range(1_000_000)], file, 5)
    store = Storage(folder / "models.db")
    store.store("forest", forest)
    store.store("small", RandomForestRegressor(2, random_state=1).fit(rows[:50], rows[:50, 0]))
    return ""


def read(path: Path) -> str:
    """Read the imports of a file; return seconds, and MiB above what there was before."""
    import pickle

    from views_runs.pickles import opcodes

    opcodes.read([pickle.dumps([Small(1)], 5)])
    # From the disk's cache: it is the reading of opcodes that is measured.
    for _ in parts(path):
        pass
    before, started = peak(), time.perf_counter()
    found = opcodes.read(parts(path))
    seconds = time.perf_counter() - started
    assert found.imports and not found.troubles
    return f"{seconds} {peak() - before}"


def parts(path: Path) -> Iterator[memoryview]:
    """Yield a file in pieces, as a store hands them to the reader."""
    memory = bytearray(2**20)
    with path.open("rb") as file:
        while count := file.readinto(memory):
            yield memoryview(memory)[:count]


def peak() -> float:
    """Return the most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def store(folder: Path, records: bool = True) -> str:
    """Store the forest; return seconds."""
    import pickle

    from views_runs import Storage
    from views_runs.pickles import opcodes, packages
    from views_runs import storage as module

    with open(folder / "forest.pickle", "rb") as file:
        forest = pickle.load(file)
    if not records:
        nothing = opcodes.read([b"N."])
        opcodes.Reader.feed = lambda self, piece: None  # type: ignore[method-assign]
        opcodes.Reader.result = lambda self: nothing  # type: ignore[method-assign]
        module._environment = lambda model, reading: {"protocol": 5}  # type: ignore[assignment]
    else:
        # Once a process: it is what the first store of any model takes.
        packages.suppliers(["sklearn"])
    path = folder / "stored.db"
    for ending in ("", "-journal"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    target = Storage(path)
    target.store("warm", [1])
    os.sync()
    started = time.perf_counter()
    target.store("forest", forest)
    return str(time.perf_counter() - started)


def fetch(folder: Path, name: str = "forest", checks: bool = True) -> str:
    """Fetch a model; return seconds."""
    import sklearn.ensemble  # noqa: F401

    from views_runs import Storage
    from views_runs.pickles import loading, permissions

    if not checks:
        loading._refuse_missing = lambda connection, needs: None
        permissions.refuse_open = lambda connection: None
        loading.rows.needs = lambda stored: None  # type: ignore[assignment]
    target = Storage(folder / "models.db")
    target.fetch("small")
    started = time.perf_counter()
    for _ in range(50 if name == "small" else 1):
        target.fetch(name)
    return str(time.perf_counter() - started)


CHILDREN: dict[str, Callable[[Path], str]] = {
    "train": train,
    "read": read,
    "store": store,
    "store, nothing recorded": lambda folder: store(folder, records=False),
    "fetch": fetch,
    "fetch, nothing checked": lambda folder: fetch(folder, checks=False),
    "fetch of a small one": lambda folder: fetch(folder, "small"),
    "fetch of a small one, nothing checked": lambda folder: fetch(folder, "small", checks=False),
}

if __name__ == "__main__":
    main()
