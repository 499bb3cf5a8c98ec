"""Values as rich shows them; the only module that builds a Console."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from views_runs.pickles.loadability import LOADS, MAY_NOT, WILL_NOT, Verdict
from views_runs.metadata import (
    KNOWN_FIELDS,
    MONTH,
    differences,
    missing_fields,
    month_name,
    to_jsonable,
)
from views_runs.records import Backup, Finding, ModelRecord, Verification

if TYPE_CHECKING:
    from rich.table import Table

#: As wide as it takes: what is not read on a terminal is not cut.
UNLIMITED = 100_000

#: Spaces between two columns.
GAP = 2

#: How many models that lack a required field are named.
MOST_INCOMPLETE = 20

#: So much of a name stays on one line: a narrow terminal does without columns instead.
NAME_WIDTH = 30

#: How many imports of one package are shown; --json shows all.
MOST_SHOWN = 8

Cell = Callable[[ModelRecord], str]


def output() -> Console:
    """Return the console for data, on stdout."""
    return _console(stderr=False)


def messages() -> Console:
    """Return the console for messages, on stderr."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if stream is None:
        # The shell closed it, as with >&-.
        return Console(file=StringIO())
    if isinstance(stream, TextIOWrapper):
        # A name that the terminal has no characters for is shown with escapes.
        stream.reconfigure(errors="backslashreplace")
    width = None if stream.isatty() else UNLIMITED
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def size(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> size(1_200_000_000)
    '1.2 GB'
    """
    return decimal(count)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def show_lines(lines: Iterable[str]) -> None:
    """Print texts, one a line."""
    console = output()
    for line in lines:
        console.out(line, highlight=False)


def show_message(text: str) -> None:
    """Print a message for people."""
    messages().print(text, soft_wrap=True)


def show_error(text: str) -> None:
    """Print what went wrong."""
    messages().print(Text.assemble(("Error: ", "bold red"), text), soft_wrap=True)


def show_empty(path: Path, conditional: bool, given: str | None) -> None:
    """Say that there is nothing to list, and what to do next.

    Args:
        path: the store.
        conditional: whether only some models were asked for.
        given: the path that was given on the line.
    """
    if conditional:
        show_message(f"No model in {path} meets these conditions. `viewser model list` shows all.")
    else:
        show_message(
            f"No models yet in {path}. Store one from Python:\n\n"
            "    from views_runs import Storage\n"
            f"    Storage({'' if given is None else repr(given)}).store('my-model', my_model, {{'author': 'me'}})"
        )


def show_records(records: list[ModelRecord]) -> None:
    """Print a table of records, with the columns that the terminal has room for.

    A `rich.table.Table` takes ten times as long for a thousand records.
    """
    console = output()
    cells = {column: [cell(record) for record in records] for column, cell in COLUMNS.items()}
    widths = {column: max(map(cell_len, [column, *texts])) for column, texts in cells.items()}
    # A long name is folded before a column goes.
    folded = min(widths["name"], NAME_WIDTH)
    dispensable = list(DISPENSABLE)
    while dispensable and folded + sum(widths.values()) - widths["name"] + GAP * (len(widths) - 1) > console.width:
        del widths[dispensable.pop(0)]
    others = sum(widths.values()) - widths["name"] + GAP * (len(widths) - 1)
    widths["name"] = max(1, min(widths["name"], console.width - others))
    console.print(Text(_line(list(widths), widths), style="bold"), soft_wrap=True)
    console.out("\n".join(_lines({column: cells[column] for column in widths}, widths)), highlight=False)
    if len(widths) < len(COLUMNS):
        show_message("Some columns are not shown: use a wider terminal, `viewser model inspect NAME`, or --json.")


def _lines(cells: Mapping[str, list[str]], widths: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each record, and more where its name is folded."""
    for name, *row in zip(*cells.values()):
        first, *more = chop_cells(name, widths["name"]) if cell_len(name) > widths["name"] else [name]
        yield _line([first, *row], widths)
        yield from more


def _line(row: list[str], widths: Mapping[str, int]) -> str:
    """Return the cells of a row in one line, each as wide as its column; numbers to the right."""
    padded = []
    for text, (column, width) in zip(row, widths.items()):
        space = " " * (width - cell_len(text))
        padded.append(space + text if column in ("version", "size") else text + space)
    return (" " * GAP).join(padded).rstrip()


def _given(record: ModelRecord) -> dict[str, Any]:
    return {} if record.metadata is None else record.metadata


def _field(name: str) -> Cell:
    return lambda record: text(name, _given(record).get(name))


def _period(record: ModelRecord) -> str:
    start, end = (_given(record).get(field) for field in ("train_start", "train_end"))
    if start is None and end is None:
        return ""
    return "-".join("?" if month is None else str(month) for month in (start, end))


def _trained(record: ModelRecord) -> str:
    trained = _given(record).get("training_date")
    return trained.strftime("%Y-%m-%d") if isinstance(trained, date) else text("training_date", trained)


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


COLUMNS: dict[str, Cell] = {
    "name": lambda record: printable(record.name),
    "version": lambda record: str(record.version),
    "author": _field("author"),
    "run": _field("run_id"),
    "level of analysis": _field("level_of_analysis"),
    "training period": _period,
    "trained": _trained,
    "size": lambda record: size(record.size),
    "stored": lambda record: _local(record.stored_at),
}

#: What a narrow terminal does without, the first first.
DISPENSABLE = ("trained", "level of analysis", "training period", "author", "run", "size", "stored", "version")


def show_record(record: ModelRecord) -> None:
    """Print one record in a panel: the metadata, then what the store recorded."""
    from rich.console import Group as Together
    from rich.measure import Measurement
    from rich.panel import Panel
    from rich.rule import Rule

    metadata = _given(record)
    known = [field for field in KNOWN_FIELDS if field in metadata]
    fields = {field: text(field, metadata[field]) for field in [*known, *sorted(set(metadata) - set(known))]}
    given = _pairs(fields) if record.metadata is not None else Text("stored without metadata", style="dim")
    verdict = record.loadable()
    recorded = _pairs(_recorded(record, verdict))
    content = Together(given, Rule(style="dim"), recorded)
    title = Text(f"{printable(record.name)}, version {record.version}{'' if record.current else ' (not current)'}")
    console = output()
    widest = Measurement.get(console, console.options, Together(given, recorded)).maximum + 4
    console.print(Panel(content, title=title, width=min(console.width, max(widest, len(title) + 6))))
    _show_fixes([verdict])


def _recorded(record: ModelRecord, verdict: Verdict) -> dict[str, str]:
    where = f"{record.python} on {record.platform}, " if record.python else ""
    shown = {
        "type": record.type or "not known: its pickle was uploaded",
        "size": size(record.size) + (f" ({record.size:,} bytes)" if record.size >= 1000 else ""),
        "sha256": record.sha256,
        "stored": f"{_local(record.stored_at)} by {record.stored_by}",
        "made with": f"{where}pickle protocol {record.protocol}",
    }
    lines = {"imports": _imports(record, MOST_SHOWN), "here it": _verdict(verdict)}
    return {name: printable(value) for name, value in shown.items()} | lines


def _imports(record: ModelRecord, most: int) -> str:
    """Return what a pickle imports, by top-level module with so many of each, and why it may be more than that."""
    by_module: dict[str, list[str]] = {}
    for one in record.imports or ():
        by_module.setdefault(one.replace(":", ".").split(".")[0], []).append(one)
    lines = []
    for module, found in by_module.items():
        supplier = record.suppliers.get(module)
        lines.append(f"{supplier} {record.packages.get(supplier, '')}:" if supplier else f"{module}:")
        lines += [f"  {one}" for one in found[:most]]
        lines += [f"  and {len(found) - most} more"] if len(found) > most else []
    return printable_lines([*lines, *record.troubles]) or "nothing"


def printable_lines(lines: Iterable[str]) -> str:
    """Return texts one under the other, each `printable`."""
    return "\n".join(map(printable, lines))


def show_imports(record: ModelRecord) -> None:
    """Print all that a model imports, for a question."""
    messages().print(_pairs({"imports": _imports(record, len(record.imports or ()))}))


def show_stored(record: ModelRecord) -> None:
    """Say that a model was stored."""
    show_message(f"Stored {printable(record.name)}, version {record.version} ({size(record.size)}).")


def show_verdicts(checked: list[tuple[ModelRecord, Verdict]]) -> None:
    """Print a line for each model, and what to do once for all that need it."""
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(3):
        grid.add_column(overflow="fold")
    for record, verdict in checked:
        style = {LOADS: "green", MAY_NOT: "yellow", WILL_NOT: "bold red"}[verdict.verdict]
        text = printable_lines(verdict.reasons)
        name = Text(f"{printable(record.name)}:{record.version}")
        grid.add_row(Text(verdict.verdict, style=style), name, Text(text))
    output().print(grid)
    _show_fixes(verdict for _, verdict in checked)


def _show_fixes(verdicts: Iterable[Verdict]) -> None:
    """Print the lines for the shell, once each and never folded: they are there to be copied."""
    for fix in dict.fromkeys(verdict.fix for verdict in verdicts if verdict.fix):
        output().print(Text(printable(fix)), soft_wrap=True)


def _verdict(verdict: Verdict) -> str:
    return printable_lines([verdict.verdict, *verdict.reasons])


def _pairs(pairs: Mapping[str, str]) -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", overflow="fold", ratio=None, max_width=max(8, output().width // 2))
    grid.add_column(overflow="fold")
    for key, value in pairs.items():
        grid.add_row(Text(printable(key)), Text(value))
    return grid


def show_doomed(records: list[ModelRecord]) -> None:
    """Say what deleting these models frees."""
    for record in records:
        show_message(f"{printable(record.name)}, version {record.version}: {size(record.size)}")
    show_message(f"Deleting frees {size(sum(record.size for record in records))}.")


def show_deleted(records: list[ModelRecord], current: Mapping[str, ModelRecord | None]) -> None:
    """Say what was deleted, and which versions are current now."""
    for record in records:
        show_message(f"Deleted {printable(record.name)}, version {record.version} ({size(record.size)}).")
    for left in current.values():
        if left is not None:
            show_message(f"The current version of {printable(left.name)} is {left.version} now.")


def show_changes(before: ModelRecord, after: ModelRecord) -> None:
    """Say which fields of a model's metadata changed."""
    changes = differences(before.metadata, after.metadata)
    for field, old, new in changes:
        show_message(f"{printable(field)} {_value(field, old)} -> {_value(field, new)}")
    if not changes:
        show_message(f"Nothing changed: {printable(after.name)} has these values already.")


def show_required(fields: list[str], incomplete: list[ModelRecord]) -> None:
    """Say which fields a store requires, and which models lack one."""
    if not fields:
        show_message("This store requires no metadata. `viewser model require FIELD ...` sets what it requires.")
        return
    show_lines(printable(field) for field in fields)
    if incomplete:
        count = "1 version lacks" if len(incomplete) == 1 else f"{len(incomplete)} versions lack"
        show_message(f"{count} a required field; `viewser model annotate` adds it:")
        for record in incomplete[:MOST_INCOMPLETE]:
            show_message(
                f"  {printable(record.name)}:{record.version} has no {', '.join(missing_fields(fields, record.metadata))}"
            )
        if len(incomplete) > MOST_INCOMPLETE:
            show_message(f"  and {len(incomplete) - MOST_INCOMPLETE} more; --json shows all")


def show_differences(one: ModelRecord, other: ModelRecord, rows: list[tuple[Any, ...]]) -> None:
    """Print two records side by side."""
    from rich.table import Table

    if not rows:
        show_message("They do not differ. --all shows what is equal.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for record in (one, other):
        table.add_column(Text(f"{printable(record.name)}:{record.version}"), overflow="fold")
    for field, *values in rows:
        cells = [_recorded_text(field, value) for value in values]
        table.add_row(Text(printable(field), style="bold"), *map(Text, cells))
    output().print(table)


def _recorded_text(field: str, value: Any) -> str:
    if field == "size" and isinstance(value, int):
        return size(value)
    if field == "stored_at" and isinstance(value, datetime):
        return _local(value)
    return text(field, value)


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how far it is; yield what is to be called with the bytes done, and how many there are."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = messages()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def show_verification(found: Verification, path: Path) -> None:
    """Say which versions are damaged."""
    for damage in found.damaged:
        show_lines([printable(f"{damage.name}:{damage.version}  {damage.trouble}")])
    whole = f"{found.versions - len(found.damaged):,} of " if found.damaged else ""
    versions = "1 version" if found.versions == 1 else f"{found.versions:,} versions"
    verb = "is" if found.versions == 1 else "are"
    show_message(f"{whole}{versions} in {path} {verb} whole; {size(found.size)} read.")


def show_backup(made: Backup) -> None:
    """Say what was copied, and what was not."""
    for damage in made.damaged:
        show_error(f"not copied: {printable(damage.name)}:{damage.version}: {damage.trouble}")
    for reference in made.deleted:
        show_message(f"Not copied: {printable(reference)} was deleted meanwhile.")
    versions = "1 version" if made.versions == 1 else f"{made.versions:,} versions"
    show_message(f"Copied and verified {versions} ({size(made.size)}) to {made.path}.")


def show_findings(findings: list[Finding]) -> None:
    """Print a line for each finding, and under it what to do."""
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP, 0, 0))
    for overflow in ("fold", "fold", "fold"):
        grid.add_column(overflow=overflow)
    for finding in findings:
        text = printable(finding.text)
        if finding.advice:
            text += f"\n-> {printable(finding.advice)}"
        style = {"ok": "green", "warning": "yellow", "failure": "bold red"}[finding.state]
        grid.add_row(Text(finding.state, style=style), Text(finding.topic, style="bold"), Text(text))
    output().print(grid)


def _value(field: str, value: Any) -> str:
    return "(none)" if value is None else text(field, value) or '""'


def text(field: str, value: Any) -> str:
    """Return the value of a metadata field as one reads it.

    >>> text("train_end", 480), text("tuned", True), text("steps", [1, 2])
    ('480 (Dec 2019)', 'true', '[1, 2]')
    """
    if value is None:
        return ""
    is_month = field in KNOWN_FIELDS and KNOWN_FIELDS[field].kind is MONTH
    if is_month and type(value) is int and value > 0:
        return f"{value} ({month_name(value)})"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="auto")
    return printable(json.dumps(to_jsonable(value), ensure_ascii=False).strip('"'))


def printable(value: str) -> str:
    """Return a text without what would move the cursor or change the terminal.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)
