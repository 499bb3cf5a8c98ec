"""Large models: time against a plain pickle file, and memory above the object.

    python tests/benchmarks/large_models.py [--folder FOLDER] [--runs N] [--no-memory]

Every run is a process of its own that has imported what it needs before the clock starts; the runs of what is
compared alternate, and the ratio is that of the medians. FOLDER needs 8 GB, and is on the disk that is measured.
"""

import argparse
import hashlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARRAYS, ARRAY_BYTES = 3, 400_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(CHILDREN[options.child[0]](Path(options.child[1])))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        in_child("train", folder)
        compare(folder, "dump", "store", 4.0, options.runs)
        compare(folder, "load", "fetch", 1.3, options.runs)
        if not options.no_memory:
            print(f"store of a 1.2 GB object: {float(in_child('store_memory', folder)):.1f} MiB above it (at most 32)")
            print(f"fetch of a 1.2 GB object: {float(in_child('fetch_memory', folder)):.1f} MiB above it (at most 32)")


def compare(folder: str, plain: str, ours: str, limit: float, runs: int) -> None:
    times: dict[str, list[float]] = {plain: [], ours: []}
    for _ in range(runs):
        for what, seconds in times.items():
            seconds.append(float(in_child(what, folder)))
    medians = {what: statistics.median(seconds) for what, seconds in times.items()}
    for what, seconds in times.items():
        print(f"{what}: median {medians[what]:.3f} s of", " ".join(f"{one:.3f}" for one in seconds))
    print(f"{ours} / {plain}: {medians[ours] / medians[plain]:.2f} (at most {limit})")


def in_child(what: str, folder: str) -> str:
    command = [sys.executable, __file__, "--child", what, folder]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def train(folder: Path) -> str:
    """Fit a forest whose pickle has about 300 MB, and leave it in a plain file and in a store."""
    import pickle

    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    from views_runs import Storage

    random = np.random.default_rng(0)
    forest = RandomForestRegressor(n_estimators=80, n_jobs=2, random_state=0)
    forest.fit(random.random((40_000, 10)), random.random(40_000))
    with open(folder / "forest.pickle", "wb") as file:
        pickle.dump(forest, file, pickle.HIGHEST_PROTOCOL)
    return str(Storage(folder / "models.db").store("forest", forest).size)


def load_plain(folder: Path) -> object:
    import pickle

    with open(folder / "forest.pickle", "rb") as file:
        return pickle.load(file)


def dump(folder: Path) -> float:
    import os
    import pickle

    forest = load_plain(folder)
    started = time.perf_counter()
    with open(folder / "dumped.pickle", "wb") as file:
        pickle.dump(forest, file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        os.fsync(file.fileno())
    took = time.perf_counter() - started
    (folder / "dumped.pickle").unlink()
    return took


def store(folder: Path) -> float:
    from views_runs import Storage

    # A file of its own: as the plain one, it is new.
    path = folder / "stored.db"
    small = Storage(path)
    small.store("small", None)
    forest = load_plain(folder)
    started = time.perf_counter()
    small.store("forest", forest)
    took = time.perf_counter() - started
    for file in folder.glob("stored.db*"):
        file.unlink()
    return took


def load(folder: Path) -> float:
    import concurrent.futures.thread  # noqa: F401

    import sklearn.ensemble  # noqa: F401

    started = time.perf_counter()
    load_plain(folder)
    return time.perf_counter() - started


def fetch(folder: Path) -> float:
    import concurrent.futures.thread  # noqa: F401

    import sklearn.ensemble  # noqa: F401

    from views_runs import Storage

    storage = Storage(folder / "models.db")
    started = time.perf_counter()
    storage.fetch("forest")
    return time.perf_counter() - started


def store_memory(folder: Path) -> float:
    import numpy as np

    from views_runs import Storage

    storage = Storage(folder / "large.db")
    storage.store("small", None)
    # Filled in place, so that nothing but the arrays was ever in memory.
    model = [np.random.default_rng(seed).integers(0, 256, ARRAY_BYTES, dtype=np.uint8) for seed in range(ARRAYS)]
    before = peak()
    storage.store("large", model)
    above = peak() - before
    digests = [hashlib.sha256(array).hexdigest() for array in model]
    (folder / "digests").write_text("\n".join(digests))
    return above


def fetch_memory(folder: Path) -> float:
    import numpy as np  # noqa: F401

    from views_runs import Storage

    before = peak()
    model = Storage(folder / "large.db").fetch("large")
    above = peak() - before - ARRAYS * ARRAY_BYTES / 2**20
    digests = [hashlib.sha256(array).hexdigest() for array in model]
    assert digests == (folder / "digests").read_text().split("\n"), "the bytes came back different"
    return above


def peak() -> float:
    """Return this process' peak RSS in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


CHILDREN = {
    "train": train,
    "dump": dump,
    "store": store,
    "load": load,
    "fetch": fetch,
    "store_memory": store_memory,
    "fetch_memory": fetch_memory,
}

if __name__ == "__main__":
    main()
