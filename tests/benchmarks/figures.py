"""The figures: each function measures some, and adds what it finds to the results."""

import os
import shutil
import sqlite3
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.objects import OBJECTS, load, make
from tests.benchmarks.processes import Failure, Process, Run, call, measure, repeat, run, say, time_command
from tests.benchmarks.stores import METADATA, STORES, ViewsRuns, label

if TYPE_CHECKING:
    # Not in the processes that measure: it imports rich.
    from tests.benchmarks.report import Results

#: How many small models are stored, fetched or deleted in one process: one alone is too quick to be measured.
MANY = 100


class Options(NamedTuple):
    folder: Path
    objects: list[str]
    stores: list[str]
    scale: float
    repeats: int

    def scaled(self, count: int) -> int:
        return max(MANY, round(count * self.scale))

    def make(self, name: str) -> str:
        """Leave an object's pickle in the folder; return its size in words."""
        size = call(make, name, self.scale, str(self.folder))
        return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"

    def rounds(self, title: str, kinds: Sequence[Any], measure_one: Callable[[Any], None]) -> None:
        """Measure each of the kinds as often as is repeated: in turn, and each time another first."""
        failed = []
        for number in range(self.repeats):
            say(f"{title}: {number + 1} of {self.repeats}")
            first = number % len(kinds)
            for kind in (*kinds[first:], *kinds[:first]):
                try:
                    if kind not in failed:
                        measure_one(kind)
                except Failure as error:
                    say(f"{title}, {kind}: {error}")
                    failed.append(kind)


# Storing, fetching and deleting objects, in every store.


def measure_objects(options: Options, results: "Results") -> None:
    for name in options.objects:
        kind, size = OBJECTS[name], options.make(name)
        [weight] = run([Process(weigh, str(options.folder), name)])
        stores = [*kind.baselines, *options.stores]
        before = options.scaled(kind.before) if kind.before else 0
        table = f"{kind.title.format(before)}, {size}"
        for store in stores if before else ():
            say(f"{name}: filling {store}")
            call(fill, store, str(options.folder / store), name, before)

        def measure_one(store: str) -> None:
            for verb, found in act_in_turn(store, options.folder / store, name, before):
                if verb in ("store", "fetch", "delete"):
                    memory = {"memory": found["peak"] - (weight["grown"] if verb == "fetch" else 0)}
                    found |= memory if verb != "delete" and not before else {}
                    # Deleting is compared with storing: a plain file is deleted in no time.
                    baseline = label(kind.baselines[0]), "store" if verb == "delete" else verb
                    results.add(table, label(store), verb, found, baseline)
                else:
                    results.add("Other methods of views_runs", f"{verb}: {table}", "time", found)

        options.rounds(name, stores, measure_one)
        for store in stores:
            shutil.rmtree(options.folder / store, ignore_errors=True)


def act_in_turn(store: str, place: Path, name: str, before: int) -> Iterator[tuple[str, Run]]:
    """Yield what each verb takes for a model in a new store, or for many beside others."""
    if not before:
        shutil.rmtree(place, ignore_errors=True)
    for verb in ("store", "fetch", "inspect", "verify", "annotate", "delete"):
        if hasattr(STORES[store], verb):
            names = [f"{'model' if before and verb == 'fetch' else 'new'}{one}" for one in range(MANY if before else 1)]
            [found] = run([Process(act, verb, store, str(place), name, names)], place if verb == "store" else None)
            if verb == "store":
                found["disk"] /= len(names) * Path(place.parent, f"{name}.pickle").stat().st_size
            yield verb, found


def act(verb: str, store: str, place: str, name: str, names: list[str]) -> Run:
    """Store models or do something else with each, after all that this needs was imported and used once."""
    target, folder, warm = STORES[store](Path(place)), str(Path(place).parent), f"warm{os.getpid()}"
    target.store(warm, load(folder, f"tiny {name}"))
    target.fetch(warm)
    if verb != "store":
        getattr(target, verb)(warm)
    model = [load(folder, name)] if verb == "store" else []
    return measure(lambda: [getattr(target, verb)(one, *model) for one in names], len(names))


def weigh(folder: str, name: str) -> Run:
    """Return what an object takes in memory when it is loaded from a file."""
    load(folder, f"tiny {name}")
    return measure(lambda: load(folder, name))


def fill(store: str, place: str, name: str, count: int) -> None:
    target = STORES[store](Path(place))
    target.fill(load(str(Path(place).parent), name), count)
    target.store("3 MB", os.urandom(3_000_000))


# Storing and deleting a large model, beside others in the same store.

#: Every fdatasync, which is what SQLite calls, takes 20 ms longer.
SLOW = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
SLOW += ["-e", "inject=fdatasync:delay_exit=20000"]

#: What is done, by how many at once, and what others do again and again.
SCENES: dict[str, tuple[str, int, list[str]]] = {
    "store": ("store", 1, ["reads"]),
    "two stores": ("store", 2, ["reads"]),
    "delete": ("delete", 1, ["reads", "writes"]),
}


def measure_beside(options: Options, results: "Results") -> None:
    table = f"Beside others, {options.make('float64')} of float64"
    options.make("small")
    disks = ("", ", slow disk") if shutil.which("strace") else ("",)
    cases = [("views_runs", scene, disk) for disk in disks for scene in SCENES]
    cases += [(store, "store", "") for store in options.stores if store != "views_runs"]

    def measure_one(case: tuple[str, str, str]) -> None:
        store, scene, disk = case
        row = f"{scene}{disk}" if store == "views_runs" else f"store, {label(store)}"
        for column, others in (("alone", []), ("beside", SCENES[scene][2])):
            found, *waits = play(store, scene, SLOW if disk else [], others, options.folder / store)
            results.add(table, row, column, found, (row, "alone"))
            for kind, seconds in (one for wait in waits for one in wait.items() if len(one[1]) > 1):
                cuts = statistics.quantiles(seconds, n=100, method="inclusive")
                for column, value in (("median", cuts[49]), ("99 %", cuts[98]), ("longest", max(seconds))):
                    results.add("What the others waited for", f"{kind} beside {row}", column, {"wall": value})

    options.rounds("beside", cases, measure_one)


def play(store: str, scene: str, before: list[str], others: list[str], place: Path) -> list[Any]:
    """Return what the slowest of those who store or delete took, and how long the others waited for each thing."""
    verb, count, _ = SCENES[scene]
    call(fill, store, str(place), "small", 50)
    if verb == "delete":
        run([Process(act, "store", store, str(place), "float64", ["large0"])])
    workers = [Process(act, verb, store, str(place), "float64", [f"large{n}"], before=before) for n in range(count)]
    found = run([*workers, *(Process(go_on, other, store, str(place)) for other in others)], waited_for=count)
    shutil.rmtree(place)
    return [max(found[:count], key=lambda one: one["wall"]), *found[count:]]


def go_on(what: str, store: str, place: str) -> dict[str, list[float]]:
    """Read or write again and again, with pauses of 10 ms."""
    return repeat(getattr(STORES[store](Path(place)), what)(), 0.01)


# Finding among many models.

BARE = "SELECT name, version, stored_at, stored_by, size, sha256, metadata, datetimes, environment FROM models"
AUTHOR = f"{BARE} WHERE json_extract(metadata, '$.author') ="

#: What is asked; a statement is executed by `sqlite3` alone, and the questions after it are compared with it.
QUESTIONS: dict[str, str | Callable[[Any], object]] = {
    "bare SELECT, all": BARE,
    "list": lambda storage: storage.list(),
    "bare SELECT, 1 of all": f"{AUTHOR} 'rare'",
    "find, 1 of all": lambda storage: storage.find("author = rare"),
    "find, a glob": lambda storage: storage.find("author ~ rare*"),
    "find, one of 1,000": lambda storage: storage.find(author=["rare", *(f"nobody{one}" for one in range(999))]),
    "find, no author": lambda storage: storage.find("!author"),
    "find, a name": lambda storage: storage.find(name="first*"),
    "bare SELECT, 1 in 40": f"{AUTHOR} 'author7'",
    "find, 1 in 40": lambda storage: storage.find("author = author7"),
    "find, 1 in 70, nested": lambda storage: storage.find("tuning.depth = 17"),
    "find, last 100": lambda storage: storage.find("train_end > 1", limit=100),
    "bare SELECT, by name": f"{BARE} WHERE name = 'model7'",
    "inspect": lambda storage: storage.inspect("model7"),
}


def measure_finding(options: Options, results: "Results") -> None:
    options.make("small")
    place = options.folder / "finding"
    for count in sorted({options.scaled(count) for count in (100, 10_000, 100_000)}):
        call(fill, "views_runs", str(place), "small", count)

        def measure_one(question: str) -> None:
            [found] = run([Process(ask, question, str(place))])
            asked = [*QUESTIONS][: [*QUESTIONS].index(question) + 1]
            baseline = [one for one in asked if isinstance(QUESTIONS[one], str)][-1]
            column = f"{count:,}"
            results.add("Finding among many models of 10 kB", question, column, found, (baseline, column))

        options.rounds(f"finding among {count:,}", [*QUESTIONS], measure_one)
        shutil.rmtree(place)


def ask(question: str, place: str) -> Run:
    asked, storage = QUESTIONS[question], ViewsRuns(Path(place)).storage
    if callable(asked):
        warm = ViewsRuns(Path(place, f"warm{os.getpid()}"))
        warm.store("model7", 1)
        asked(warm.storage)
        return measure(lambda: asked(storage))
    connection = sqlite3.connect(storage.path)
    return measure(lambda: connection.execute(asked).fetchall())


# Storing in a file with very many models, or a very large one.


def measure_growth(options: Options, results: "Results") -> None:
    options.make("small")
    many, large = options.scaled(1_000_000), options.scale * 50e9
    rows = {"an empty file": (0, 0.0), f"{many:,} models": (many, 0.0), f"{large / 1e9:.3g} GB, sparse": (0, large)}
    for row, sizes in rows.items():
        call(grow, str(options.folder / row), *sizes)

    def measure_one(row: str) -> None:
        names = [os.urandom(8).hex() for _ in range(MANY // 5)]
        [found] = run([Process(act, "store", "views_runs", str(options.folder / row), "small", names)])
        results.add("Storing a model of 10 kB in", row, "store", found, ("an empty file", "store"))

    options.rounds("growth", [*rows], measure_one)
    for row in rows:
        shutil.rmtree(options.folder / row)


def grow(place: str, count: int, size: float) -> None:
    store = ViewsRuns(Path(place))
    store.fill(None, count)
    if size:
        pages = int(size) // 16384
        with store.storage.path.open("r+b") as file:
            # The header has the number of pages. Those between the last and the next are neither used nor free.
            file.seek(28)
            file.write(pages.to_bytes(4, "big"))
            file.truncate(pages * 16384)


# Starting the command line.

#: Imports, and the commands that are compared with them.
STARTS = {
    "import click": ["--help", "model list --help"],
    "import click, rich.table, sqlite3": """model list; model inspect one; model diff one two; model guide;
        model annotate one --set note=x; model upload {0}/one.pickle one --overwrite; model check one;
        model download one {0}/one.pickle --force; model verify one; model doctor; model require;
        model delete --yes new{1}; model backup {0}/{1}.db""".split(";"),
}


def measure_start(options: Options, results: "Results") -> None:
    storage = ViewsRuns(options.folder / "start").storage
    numbers = iter(range(options.repeats))
    for name in ("one", "two", *(f"new{number}" for number in range(options.repeats))):
        storage.store(name, [name], METADATA)
    storage.download("one", options.folder / "one.pickle")
    os.environ["VIEWS_RUNS_STORE"] = str(storage.path)

    def measure_all(_: None) -> None:
        number = next(numbers)
        for imports, lines in STARTS.items():
            commands = {imports: [sys.executable, "-c", imports]}
            for line in lines:
                words = line.format(options.folder, number).split()
                row = line.strip() if "--help" in words else " ".join(words[:2])
                commands[row] = [str(Path(sys.executable).with_name("views-runs")), *words]
            for row, command in commands.items():
                results.add("Starting the command line", row, "start", time_command(command), (imports, "start"))

    options.rounds("start", [None], measure_all)


FIGURES: dict[str, Callable[[Options, "Results"], None]] = {
    "objects": measure_objects,
    "beside": measure_beside,
    "finding": measure_finding,
    "growth": measure_growth,
    "start": measure_start,
}
