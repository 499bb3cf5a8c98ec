"""Waiting: how long others wait while a large model is stored or deleted, and what they cost whoever stores it.

    python tests/benchmarks/waiting.py [--folder FOLDER] [--runs N] [--size BYTES] [--pause SECONDS] [--only WORD]
                                        [--no-slow-disk]

Beside the large store or delete a process of its own lists, finds, and fetches a small model and one of 3 MB; each
again as soon as it has waited for PAUSE seconds. Beside a delete another one stores small models too. Runs with and
without them alternate, and the ratio is that of the medians. Where there is strace, the same on a disk whose every
fdatasync takes 20 ms longer for those who store or delete. FOLDER needs 3 GB, and is on the disk that is measured.
"""

import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from views_runs import Storage

LONGEST = 0.5
RATIO = 1.3
SLOW = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
SLOW += ["-e", "inject=fdatasync:delay_exit=20000"]

#: Name, what is done, by how many at once, on a slow disk, and who is beside them.
SCENARIOS = [
    ("one store", "store", 1, False, ["read"]),
    ("two stores", "store", 2, False, ["read"]),
    ("one store, slow disk", "store", 1, True, ["read"]),
    ("two stores, slow disk", "store", 2, True, ["read"]),
    ("one delete", "delete", 1, False, ["read", "write"]),
    ("one delete, slow disk", "delete", 1, True, ["read", "write"]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1_000_000_000)
    parser.add_argument("--pause", type=float, default=0.01)
    parser.add_argument("--only", default="", help="what is to be in a scenario's name")
    parser.add_argument("--no-slow-disk", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, path, number = options.child
        CHILDREN[what](Storage(path), options, number)
        return
    for name, what, count, is_slow, others in SCENARIOS:
        if options.only in name and not (is_slow and (options.no_slow_disk or shutil.which("strace") is None)):
            measure(name, what, count, is_slow, others, options)


def measure(name: str, what: str, count: int, is_slow: bool, others: list[str], options: argparse.Namespace) -> None:
    times: dict[str, list[float]] = {"alone": [], "beside": []}
    waits: dict[str, list[float]] = {}
    for _ in range(options.runs):
        for how, seconds in times.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                path = Path(folder, "models.db")
                beside = others if how == "beside" else []
                seconds.append(run(path, what, count, is_slow, beside, options, waits))
    medians = {how: statistics.median(seconds) for how, seconds in times.items()}
    print(f"{name}: median {medians['alone']:.2f} s alone, {medians['beside']:.2f} s beside the others;", end=" ")
    print(f"ratio {medians['beside'] / medians['alone']:.2f} (at most {RATIO})")
    for kind, seconds in waits.items():
        seconds.sort()
        print(
            f"  {kind}: 50th percentile {quantile(seconds, 50):.3f} s, 99th {quantile(seconds, 99):.3f} s (at most "
            f"{LONGEST}), longest {seconds[-1]:.3f} s of {len(seconds)}",
            flush=True,
        )


def quantile(seconds: list[float], percent: int) -> float:
    """Return what so many of a hundred are at most."""
    return seconds[max(0, -(-len(seconds) * percent // 100) - 1)]


def run(
    path: Path,
    what: str,
    count: int,
    is_slow: bool,
    others: list[str],
    options: argparse.Namespace,
    waits: dict[str, list[float]],
) -> float:
    """Return how long the longest of the stores or deletes took; add what the others waited."""
    store = Storage(path)
    for number in range(50):
        store.store(f"small{number}", list(range(100)), {"author": f"author{number % 5}", "train_end": 450 + number})
    store.store("3 MB", os.urandom(3_000_000), {"author": "author1"})
    if what == "delete":
        store.store("large0", large(options.size))
    workers = [start(what, path, number, options, SLOW if is_slow else []) for number in range(count)]
    readers = [start(other, path, 0, options) for other in others]
    for process in workers + readers:
        answer(process)
    for process in readers + workers:
        tell(process)
    took = max(float(answer(process)) for process in workers)
    for process in readers:
        tell(process)
        for kind, seconds in json.loads(answer(process)).items():
            waits.setdefault(kind, []).extend(seconds)
    for process in workers + readers:
        process.communicate()
    return took


def start(
    what: str, path: Path, number: int, options: argparse.Namespace, before: list[str] | None = None
) -> "subprocess.Popen[str]":
    command = [*(before or []), sys.executable, __file__, "--child", what, str(path), str(number)]
    command += ["--size", str(options.size), "--pause", str(options.pause)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "a child process failed"
    return line


def large(size: int) -> list[bytes]:
    """Return a model of so many bytes, in pieces of 10 MB; equal ones are still stored each."""
    piece = os.urandom(10_000_000)
    return [bytes(bytearray(piece)) for _ in range(size // len(piece))]


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def store_large(store: Storage, options: argparse.Namespace, number: str) -> None:
    model = large(options.size)
    print("ready", flush=True)
    input()
    print(timed(lambda: store.store(f"large{number}", model)), flush=True)


def delete_large(store: Storage, options: argparse.Namespace, number: str) -> None:
    store.list()
    print("ready", flush=True)
    input()
    print(timed(lambda: store.delete(f"large{number}")), flush=True)


def repeat(actions: dict[str, Callable[[], object]], pause: float) -> None:
    """Do one action after the other until a line comes, and write what each took."""
    waits: dict[str, list[float]] = {kind: [] for kind in actions}
    for action in actions.values():
        action()
    print("ready", flush=True)
    input()
    while True:
        for kind, action in actions.items():
            if select.select([sys.stdin], [], [], pause)[0]:
                print(json.dumps(waits), flush=True)
                return
            waits[kind].append(timed(action))


def read(store: Storage, options: argparse.Namespace, number: str) -> None:
    actions: dict[str, Callable[[], object]] = {
        "list": store.list,
        "find": lambda: store.find("train_end > 470", author=["author1", "author2"]),
        "fetch": lambda: store.fetch("small7"),
        "fetch 3 MB": lambda: store.fetch("3 MB"),
    }
    repeat(actions, options.pause)


def write(store: Storage, options: argparse.Namespace, number: str) -> None:
    actions: dict[str, Callable[[], object]] = {
        "store": lambda: store.store("beside", 1, overwrite=True),
        "annotate": lambda: store.annotate("small7", note="x"),
    }
    repeat(actions, options.pause)


CHILDREN = {"store": store_large, "delete": delete_large, "read": read, "write": write}

if __name__ == "__main__":
    main()
