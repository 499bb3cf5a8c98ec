"""What was measured, and how it is shown: as text, as JSON, as tables of the guide, and as a picture."""

import json
import math
import statistics
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.processes import Run

NOTES = """A number with a unit is a time. A number without a unit is a ratio: in the tables of an object, to the first
row; in a table with a column "alone", to that column; otherwise, to the nearest row above that begins with "bare",
"import" or "an empty file". The time to delete is relative to the time to store. Each number is the median of
{repeats} repetitions, ± half the interquartile range. Each repetition is a new process. The alternatives take turns,
and a ratio compares two measurements of the same turn. CPU is the same for CPU time, which is more reliable on a busy
machine. MiB is the memory used beyond that of the object, when storing and when fetching. disk is the number of bytes
on disk for each byte of the pickle. A store marked with a star does not fsync: a model that it acknowledged can be
lost."""

#: Where the guide's page has what `write_page` writes.
HEADING = "Figures\n-------\n"

#: The numbers of a run that are shown, and their headings.
KEYS = {"wall": "{}", "cpu": "CPU", "memory": "MiB", "disk": "disk"}


@dataclass
class Series:
    """What one thing was measured as: a run for each repeat."""

    table: str
    row: str
    column: str
    #: The row and the column of what it is compared with.
    baseline: tuple[str, str] | None
    runs: list[Run] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        return [run[key] for run in self.runs if key in run]


class Grid(NamedTuple):
    """A table of texts."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Results:
    """All that was measured, and about the run."""

    def __init__(self, about: dict[str, Any], series: list[dict[str, Any]] | None = None) -> None:
        self.about = about
        self._series = [Series(**one) for one in series or []]

    def add(self, table: str, row: str, column: str, run: Run, baseline: tuple[str, str] | None = None) -> None:
        found = self.find(table, row, column)
        if found is None:
            found = Series(table, row, column, baseline)
            self._series.append(found)
        found.runs.append(run)

    def find(self, table: str, row: str, column: str) -> Series | None:
        wanted = table, row, column
        return next((one for one in self._series if (one.table, one.row, one.column) == wanted), None)

    def save(self, path: Path) -> None:
        series = [asdict(one) for one in self._series]
        path.write_text(json.dumps({"about": self.about, "series": series}, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Results":
        return cls(**json.loads(path.read_text("utf-8")))

    def grids(self) -> Iterator[Grid]:
        for title in dict.fromkeys(one.table for one in self._series):
            yield self._grid(title, [one for one in self._series if one.table == title])

    def _grid(self, title: str, series: list[Series]) -> Grid:
        columns = [*dict.fromkeys(one.column for one in series)]
        known = {(one.column, key) for one in series for run in one.runs for key in run}
        places = [(column, key) for column in columns for key in KEYS if (column, key) in known]
        # The times of all columns come first.
        places.sort(key=lambda place: ("memory", "disk").index(place[1]) if place[1] in ("memory", "disk") else -1)
        header = ["what", *(KEYS[key].format(column) for column, key in places)]
        rows = [
            [row, *(self._cell(self.find(title, row, column), key) for column, key in places)]
            for row in dict.fromkeys(one.row for one in series)
        ]
        return Grid(title, header, rows)

    def _cell(self, series: Series | None, key: str) -> str:
        if series is None or not series.values(key):
            return "-"
        if key == "memory":
            return f"{statistics.median(series.values(key)):.0f}"
        if key == "disk":
            return f"{statistics.median(series.values(key)):.2f}"
        shown = self.ratios(series, key)
        median = statistics.median(shown or series.values(key))
        number = show_ratio(median) if shown else show_time(median, 3 if key == "wall" else 2)
        return f"{number} {show_spread(shown or series.values(key))}".strip() if key == "wall" else number

    def ratios(self, series: Series, key: str) -> list[float] | None:
        """Return a series as multiples of what it is compared with, or None if that is nothing or itself."""
        if series.baseline is None or [*series.baseline] == [series.row, series.column]:
            return None
        base = self.find(series.table, *series.baseline)
        return base and [one / other for one, other in zip(series.values(key), base.values(key))]


def show_time(seconds: float, digits: int) -> str:
    number, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1000, "ms")
    decimals = digits - 1 - math.floor(math.log10(max(number, 1e-6)))
    return f"{number:.{max(0, decimals)}f} {unit}"


def show_ratio(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def show_spread(values: list[float]) -> str:
    if len(values) < 2:
        return ""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"±{(high - low) / 2 / middle:.0%}"


def print_text(results: Results, console: Console) -> None:
    for grid in results.grids():
        table = Table(title=grid.title, box=box.SIMPLE, title_justify="left")
        for number, heading in enumerate(grid.header):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    console.print(describe(results), markup=False, highlight=False)


def describe(results: Results) -> str:
    """Return the notes, the machine, and its load."""
    about = results.about
    lines = [" ".join(NOTES.split()).format(repeats=about["repeats"]), ""]
    lines += [f"{name}: {value}" for name, value in about.items()]
    return "\n".join(lines)


def write_page(results: Results, path: Path) -> None:
    """Replace what the page has under `HEADING`."""
    before, _, _ = path.read_text("utf-8").partition(HEADING)
    notes, _, about = describe(results).partition("\n\n")
    parts = [before + HEADING, textwrap.fill(notes, 78)]
    parts += ["\n".join(textwrap.fill(f"- {line}", 78, subsequent_indent="  ") for line in about.splitlines())]
    for grid in results.grids():
        parts.append(f"{grid.title}\n{'~' * len(grid.title)}\n\n{rst_table(grid)}")
    path.write_text(parts[0] + "\n" + "\n\n".join(parts[1:]) + "\n", "utf-8")


def rst_table(grid: Grid) -> str:
    """Return a simple table; one that is wider than a page of the guide is shown without the CPU times."""
    rows = [grid.header, *grid.rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if sum(widths) + len(widths) > 81 and "CPU" in grid.header:
        header, *rest = [[cell for cell, title in zip(row, grid.header) if title != "CPU"] for row in rows]
        return rst_table(Grid(grid.title, header, rest))
    gap = "  " if sum(widths) + 2 * len(widths) <= 80 else " "
    line = gap.join("=" * width for width in widths)
    lines = [gap.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([line, lines[0], line, *lines[1:], line])


def draw(results: Results, path: Path) -> None:
    """Draw storing and fetching each object in each store, as multiples of the first of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grids = [grid for grid in results.grids() if {"store", "fetch"} < {*grid.header}]
    size = (10, 1 + 1.7 * len(grids))
    figure, axes = pyplot.subplots(max(1, len(grids)), 2, figsize=size, squeeze=False, sharex="col")
    for grid, pair in zip(grids, axes):
        for axis, column in zip(pair, ("store", "fetch")):
            found = [results.find(grid.title, row, column) for row, *_ in grid.rows[::-1]]
            bars = [(one.row, results.ratios(one, "wall") or [1.0]) for one in found if one]
            medians = [statistics.median(ratios) for _, ratios in bars]
            below = [median - min(ratios) for median, (_, ratios) in zip(medians, bars)]
            above = [max(ratios) - median for median, (_, ratios) in zip(medians, bars)]
            axis.barh([row for row, _ in bars], medians, xerr=[below, above], color="tab:blue", ecolor="gray")
            axis.axvline(1, color="black", linewidth=0.8)
            axis.set(xscale="log", title=f"{column}: {grid.title}" if column == "store" else column)
            axis.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
            axis.minorticks_off()
            axis.title.set_fontsize(9)
    figure.supxlabel("multiples of the first bar: median, shortest and longest")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
