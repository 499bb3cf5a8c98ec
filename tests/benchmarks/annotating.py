"""Annotating a model of 1 GB against one of 1 kB: the ratio of the medians of alternating runs.

python tests/benchmarks/annotating.py [--runs N]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from views_runs import Storage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(Path(folder, "models.db"))
        store.store("small", os.urandom(1000), {"author": "me"})
        store.store("large", [os.urandom(100_000_000) for _ in range(10)], {"author": "me"})
        times: dict[str, list[float]] = {"small": [], "large": []}
        for number in range(runs):
            for name, seconds in times.items():
                started = time.perf_counter()
                store.annotate(name, note="x" * number)
                seconds.append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, median in medians.items():
        print(f"annotate the {name} model: median {median * 1000:.1f} ms")
    print(f"ratio: {medians['large'] / medians['small']:.2f}")


if __name__ == "__main__":
    main()
