"""Listing: `views-runs model list` on a store of 1,000 models against the imports that it cannot do without.

    python tests/benchmarks/listing.py [--runs N]

Whole processes, alternating; the ratio is that of the medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from views_runs import Storage

MODELS = 1000
LIMIT = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    # An installed package is compiled already.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "models.db")
        fill(Storage(path))
        imports = [sys.executable, "-c", "import click, rich.table, sqlite3"]
        listing = [str(Path(sys.executable).with_name("viewser")), "--store", str(path), "model", "list"]
        times: dict[str, list[float]] = {"imports": [], "listing": []}
        for _ in range(runs + 1):
            for what, command in (("imports", imports), ("listing", listing)):
                times[what].append(seconds(command))
    medians = {what: statistics.median(one[1:]) for what, one in times.items()}
    print(f"imports alone: median {medians['imports'] * 1000:.0f} ms")
    print(f"list {MODELS} models: median {medians['listing'] * 1000:.0f} ms")
    print(f"ratio: {medians['listing'] / medians['imports']:.2f} (at most {LIMIT})")


def fill(store: Storage) -> None:
    for number in range(MODELS):
        metadata = {
            "author": f"author{number % 7}",
            "run_id": f"2026-{number % 12 + 1:02}",
            "queryset_name": "fatalities_broad",
            "level_of_analysis": "country_month",
            "outcome": "ged_sb",
            "train_start": 121,
            "train_end": 480 + number % 12,
        }
        store.store(f"fatalities_{number:04}", os.urandom(2000), metadata)


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
