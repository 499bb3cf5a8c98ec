"""Benchmarks of this package and of other stores.

    python -m tests.benchmarks [--scale 0.1] [--repeats 3] [--figures ...] [--objects ...] [--stores ...]

It needs Linux or macOS and the extra ``bench``; packages that are not installed are left out. At scale 1, it takes
several hours, 8 GB of memory, and 20 GB in the folder, which must be on the disk to measure. If you interrupt it, it
shows the results so far.
"""

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.figures import FIGURES, Options
from tests.benchmarks.objects import OBJECTS
from tests.benchmarks.processes import Failure, say, time_fsync
from tests.benchmarks.stores import COMPARED


def main() -> None:
    options = parse()
    results = report.Results.read(options.read) if options.read else measure(options)
    if options.rst:
        report.write_page(results, options.rst)
    if options.plot:
        report.draw(results, options.plot)
    report.print_text(results, Console() if sys.stdout.isatty() else Console(width=120))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for name, choices in (("figures", FIGURES), ("objects", OBJECTS), ("stores", COMPARED)):
        add(f"--{name}", nargs="+", choices=[*choices], default=[*choices], help="default: all", metavar="NAME")
    add("--scale", type=float, default=1.0, help="the size of objects and stores; 0.1 for a quick look")
    add("--repeats", type=int, default=9, help="how often each is measured (default: 9)")
    add("--folder", type=Path, help="where to put the stores; default: a temporary folder")
    add("--json", type=Path, metavar="FILE", help="also write every run to this file")
    add("--rst", type=Path, metavar="FILE", help="also replace the figures in this page of the guide")
    add("--plot", type=Path, metavar="FILE", help="also draw a chart")
    add("--read", type=Path, metavar="FILE", help="measure nothing, and show what --json wrote")
    for action in parser._actions:
        if action.choices:
            action.help = f"{', '.join(action.choices)} (default: all)"
    return parser.parse_args()


def measure(options: argparse.Namespace) -> report.Results:
    # An installed package is compiled already.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="views_runs-benchmark-") as folder:
        objects = [name for name in options.objects if is_installed(OBJECTS[name].package)]
        stores = [name for name in options.stores if is_installed(COMPARED[name].package)]
        results = report.Results(describe_machine(options, Path(folder), stores) | {"repeats": options.repeats})
        chosen = Options(Path(folder), objects, stores, options.scale, options.repeats)
        for name in options.figures:
            try:
                FIGURES[name](chosen, results)
            except (Failure, OSError) as error:
                say(f"{name}: {error}")
            except KeyboardInterrupt:
                results.about["interrupted"] = "some numbers are medians of fewer runs"
                break
            finally:
                results.about["load after"] = show_load()
                if options.json:
                    results.save(options.json)
    return results


def is_installed(package: str) -> bool:
    if not package or find_spec(package):
        return True
    say(f"{package} is not installed, and left out")
    return False


def show_command(options: argparse.Namespace) -> str:
    """Return the command line, without the names of files and folders."""
    words = [f"--{name} {getattr(options, name)}" for name in ("scale", "repeats")]
    for name, choices in (("figures", FIGURES), ("objects", OBJECTS), ("stores", COMPARED)):
        words += [f"--{name} {' '.join(getattr(options, name))}"] if getattr(options, name) != [*choices] else []
    return " ".join(["python -m tests.benchmarks", *words])


def describe_machine(options: argparse.Namespace, folder: Path, stores: list[str]) -> dict[str, Any]:
    packages = [COMPARED[name].package for name in stores if COMPARED[name].package]
    versions = [f"{name} {version('mlflow-skinny' if name == 'mlflow' else name)}" for name in packages]
    return {
        "date": date.today().isoformat(),
        "command": show_command(options),
        "machine": f"{os.cpu_count()} processors ({find_processor()}), {platform.platform()}",
        "software": ", ".join([f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}", *versions]),
        "disk": f"{time_fsync(folder) * 1000:.2g} ms to write and fsync 4 kB",
        "load before": show_load(),
    }


def find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def show_load() -> str:
    """Return the machine's load in the last 1, 5 and 15 minutes."""
    return ", ".join(f"{one:.2f}" for one in os.getloadavg())


if __name__ == "__main__":
    main()
