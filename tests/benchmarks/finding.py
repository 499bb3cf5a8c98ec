"""Finding among 100,000 models: seconds for each kind of question, and how much of the file is read.

    python tests/benchmarks/finding.py [--models N] [--runs N]

The file is made with realistic metadata and pickles of 20 kB. Each figure is the median of the runs, in one process;
`views-runs model list --limit 20` is timed as a process, alternating with the same on a store of one model.
"""

import argparse
import hashlib
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from views_runs import Storage

#: The fields and the conditions of each question.
QUESTIONS = {
    "author and run": ({"author": "author7", "run_id": "2022-05"}, ()),
    "author": ({"author": "rare"}, ()),
    "level_of_analysis, != (1 of 100,000)": ({}, ("level_of_analysis != country_month",)),
    "train_end": ({}, ("train_end >= 2026-11",)),
    "training_date": ({}, ("training_date > 2026-12-24",)),
    "author, a glob": ({}, ("author ~ rare*",)),
    "author, any of 1,000": ({"author": ["rare", *(f"nobody{one}" for one in range(999))]}, ()),
    "no author": ({}, ("!author",)),
    "train_end, the last 100 of all": ({"limit": 100}, ("train_end > 1",)),
    "a nested field": ({}, ("tuning.depth = 77",)),
    "a nested text": ({}, ("tuning.note ~ 'rare*'",)),
    "an alternative": ({}, ("author = rare or not train_end < 2026-11",)),
    "a member of a list": ({}, ("steps has 77",)),
    "a field that no model has": ({}, ("authro = rare",)),
    "a name": ({"name": "rare*"}, ()),
    "a size": ({}, ("size > 1GB",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    # An installed package is compiled already.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        large, small = Storage(Path(folder, "large.db")), Storage(Path(folder, "small.db"))
        for store in (large, small):
            store.store("first", None)
        fill(large.path, options.models)
        print(f"{options.models:,} models, {large.path.stat().st_size / 1e6:,.0f} MB")
        for name, (fields, where) in QUESTIONS.items():
            ask(large, name, fields, where, options.runs)
        compare_lists(large, small, options.runs)


def ask(store: Storage, name: str, fields: dict[str, object], where: tuple[str, ...], runs: int) -> None:
    times = []
    for _ in range(runs):
        read, started = bytes_read(), time.perf_counter()
        found = store.find(*where, **fields)  # type: ignore[arg-type]
        times.append(time.perf_counter() - started)
        read = bytes_read() - read
    milliseconds = statistics.median(times) * 1000
    # The index with the records has 90 MB, and the pickles 2 GB.
    print(f"{name:38} {milliseconds:6.1f} ms, {len(found):4} models, {read / 1e6:6.2f} MB read")


def bytes_read() -> int:
    """Return how many bytes this process has read by system calls so far."""
    if not Path("/proc/self/io").exists():
        return 0
    return int(Path("/proc/self/io").read_text().split()[1])


def compare_lists(large: Storage, small: Storage, runs: int) -> None:
    times: dict[str, list[float]] = {"large": [], "small": []}
    for _ in range(runs + 1):
        for what, store in (("large", large), ("small", small)):
            started = time.perf_counter()
            command = [str(Path(sys.executable).with_name("viewser")), "--store", str(store.path)]
            subprocess.run([*command, "model", "list", "--limit", "20"], check=True, stdout=subprocess.DEVNULL)
            times[what].append(time.perf_counter() - started)
    ratio = statistics.median(times["large"][1:]) / statistics.median(times["small"][1:])
    print(f"views-runs model list --limit 20, against a store of one model: {ratio:.2f} (at most 1.5)")


def fill(path: Path, count: int) -> None:
    """Put models into the file in one transaction: to store each would take hours."""
    chance = random.Random(1)
    data = chance.randbytes(20_000)
    digest = hashlib.sha256(data)
    environment = json.dumps({"type": "sklearn.ensemble._forest.RandomForestRegressor", "python": "CPython 3.11.7"})
    connection = sqlite3.connect(path)
    with connection:
        for number in range(count):
            metadata = realistic(chance, number, count)
            connection.execute(
                "INSERT INTO models "
                "(name, version, stored_at, stored_by, metadata, datetimes, environment, size, sha256,"
                " digest, pickle) VALUES (?, 1, ?, 'user@host', ?, '[[\"training_date\"]]', ?, ?, ?, ?, ?)",
                (
                    f"{'rare' if number == count // 2 else 'fatalities'}_{number:06}",
                    f"2026-01-{number % 28 + 1:02}T08:00:00.000000+00:00",
                    json.dumps(metadata),
                    environment,
                    len(data),
                    digest.hexdigest(),
                    digest.digest(),
                    data,
                ),
            )
    connection.close()


def realistic(chance: random.Random, number: int, count: int) -> dict[str, object]:
    rare = number == count // 3
    metadata: dict[str, object] = {
        "author": "rare" if rare else f"author{number % 40}",
        "run_id": "rare" if rare else f"{2015 + number % 10}-{number // 40 % 12 + 1:02}",
        "queryset_name": "rare" if rare else f"fatalities_{number % 30:03}",
        "level_of_analysis": "rare" if rare else "country_month",
        "outcome": "rare" if rare else chance.choice(["ged_sb", "ged_ns", "ged_os"]),
        "train_start": 131 if rare else 121,
        "train_end": 563 if rare else 300 + number % 260,
        "training_date": "2026-12-25T08:00:00.123456"
        if rare
        else f"2026-{number % 11 + 1:02}-{number % 28 + 1:02}T08:00",
        "steps": list(range(1, 37)),
        "tuning": {"depth": 77 if rare else number % 70, "note": "rare note" if rare else "nothing of note"},
        "features": [f"feature_{one}" for one in range(8)],
    }
    if number == count // 4:
        del metadata["author"]
    return metadata


if __name__ == "__main__":
    main()
