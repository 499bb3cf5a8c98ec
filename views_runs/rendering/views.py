"""A view for each kind of value that a verb returns, and its JSON.

To add a view, register a function that prints the value; unless it is a record of the library, define it in `values`.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import partial, singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len, chop_cells
from rich.filesize import decimal as size

from views_runs.conditions import Field
from views_runs.exceptions import QueryError
from views_runs.metadata import KNOWN_FIELDS, MONTH, TIME, KnownField, differences, missing_fields
from views_runs.query import parse_field
from views_runs.records import Backup, Damage, Deletion, Disposition, Event, Lifetime, ModelRecord, RunRecord
from views_runs.rendering import console, values
from views_runs.rendering.console import local_time, show_lines, show_message, text
from views_runs.texts import printable

if TYPE_CHECKING:
    from rich.table import Table

#: Spaces between two columns.
GAP = 2

#: Names up to this width stay on one line; a narrow terminal hides columns instead.
NAME_WIDTH = 30

#: How many imports of one package are shown; --json shows all.
MOST_IMPORTS = 8

#: How many models that lack a required field are named; --json names all.
MOST_INCOMPLETE = 20

#: The maximum width of a value in `diff` when the output is not a terminal.
VALUE_WIDTH = 100

#: The styles of verdicts and of the states of findings.
STYLES = {"loads": "green", "may not load": "yellow", "will not load": "bold red"}
STYLES |= {"ok": "green", "warning": "yellow", "failure": "bold red"}


def show(value: Any, as_json: bool) -> None:
    """Print the result of a verb, and report the rows that could not be read."""
    for row in getattr(value, "unreadable", ()):
        console.show_error(f"cannot read {printable(row.name)}:{row.version}: {row.trouble}")
    if as_json:
        show_json(value)
    else:
        show_text(value)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    # All characters that are escaped are inside strings.
    shown = _escape_unless(str.isprintable, to_json(choose_part(value)))
    try:
        shown.encode(console.stream().encoding or "ascii")
    except UnicodeEncodeError:
        shown = _escape_unless(str.isascii, shown)
    console.write(shown)


def choose_part(value: Any) -> Any:
    """Return the part of the result of a verb that its JSON shows."""
    if isinstance(value, values.Several):
        return [*map(choose_part, value.values)]
    if isinstance(value, values.RunShown):
        run, its_models = as_objects([value.run, value.models])
        return {"run": run, "models": its_models, "like": value.like, "lacking": value.lacking}
    if isinstance(value, (Backup, *values.OBJECTS)):
        return value
    return value[0] if isinstance(value, tuple) else value


def to_json(value: Any) -> str:
    """Return a value as JSON, in which infinity and NaN, which another program may have written, are strings.

    >>> to_json([float("inf"), 1])
    '[\\n  "Infinity",\\n  1\\n]'
    """
    dump = partial(json.dumps, indent=2, ensure_ascii=False, default=to_plain)
    value = as_objects(value)
    try:
        return dump(value, allow_nan=False)
    except ValueError:
        return dump(json.loads(dump(value), parse_constant=str))


def _escape_unless(is_fine: Callable[[str], bool], text: str) -> str:
    """Return JSON with JSON's escapes for all characters that are not fine, except its line breaks."""
    if is_fine(text.replace("\n", "")):
        return text
    return "".join(one if is_fine(one) or one == "\n" else json.dumps(one)[1:-1] for one in text)


def as_objects(value: Any) -> Any:
    """Return a value with dicts in place of named tuples, which JSON would show as arrays, but not inside dicts.

    >>> as_objects([Damage("forest", 1, "a part is missing")])
    [{'name': 'forest', 'version': 1, 'trouble': 'a part is missing'}]
    """
    if hasattr(value, "_asdict"):
        return {field: as_objects(one) for field, one in value._asdict().items()}
    return [*map(as_objects, value)] if isinstance(value, (list, tuple)) else value


def to_plain(value: Any) -> Any:
    """Convert what `json.dumps` does not know: records of models, times and paths."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, ModelRecord):
        # As in `ModelRecord.as_json`, which would convert each record's metadata on its own.
        return {**vars(value), "stored_at": value.stored_at.isoformat(timespec="microseconds")}
    return vars(value)


@singledispatch
def show_text(value: Any) -> None:
    """Print a value for people: data to stdout, messages to stderr."""
    raise TypeError(f"there is no view of {type(value).__name__}")


def field_cell(fields: list[KnownField], record: ModelRecord) -> str:
    """Return the cell of known fields that share a column; two months are shown as a period."""
    metadata: dict[str, Any] = record.metadata or {}
    first, *others = (metadata.get(field.name) for field in fields)
    if fields[0].kind == MONTH:
        months = ["?" if month is None else printable(str(month)) for month in (first, *others)]
        return "-".join(months) if set(months) != {"?"} else ""
    if fields[0].kind == TIME and isinstance(first, date):
        return first.strftime("%Y-%m-%d")
    return text(fields[0].name, first)


Columns = dict[str, Callable[[ModelRecord], str]]

#: The usual columns of a list: each title, and the function that makes a cell.
COLUMNS: Columns = {
    "name": lambda record: printable(record.name),
    "version": lambda record: str(record.version),
    "alias": lambda record: " ".join(record.aliases),
    **{
        title: partial(field_cell, [field for field in KNOWN_FIELDS.values() if field.column == title])
        for title in dict.fromkeys(field.column for field in KNOWN_FIELDS.values())
        if title
    },
    "type": lambda record: printable((record.type or "").rpartition(".")[2]),
    "size": lambda record: size(record.size),
    "stored": lambda record: local_time(record.stored_at),
}

#: The columns that a narrow terminal hides last; the first is never hidden.
KEPT = ("name", "version", "alias", "stored", "size", "run", "author", "outcome", "training period", "type")


@show_text.register
def show_listing(listing: values.Listing) -> None:
    """Print a table of models, with the columns that fit the terminal.

    A `rich.table.Table` takes ten times as long for a thousand models.
    """
    if listing.names is not None:
        console.show_names(listing.names)
    elif not listing.records:
        show_message(listing.if_empty)
    else:
        usual, asked = choose_columns(listing.columns)
        cells = {title: [cell(record) for record in listing.records] for title, cell in (usual | asked).items()}
        if "alias" not in asked and not any(cells.get("alias", ())):
            cells.pop("alias", None)
        is_terminal = console.stream().isatty()
        room = _measure_terminal(console.stream())
        widths = fit(measure(cells), room, asked)
        console.write(table_line(widths, widths), bold=True)
        show_lines(table_line(row, widths) for row in zip(*(cells[title] for title in widths)))
        for title in asked:
            if not any(cells[title]) and title not in COLUMNS:
                show_message(f"No model in this list has a field {title!r}.")
        if is_terminal:
            show_message(f"{count(listing.records)}, {size(sum(record.size for record in listing.records))}")
        if len(widths) < len(cells):
            show_message("Some columns are hidden; use a wider terminal, `views-runs model inspect NAME` or --json.")


def _measure_terminal(file: TextIO) -> int:
    """Return the width of the terminal; what shutil imports for archives would delay a list that needs no width."""
    if not file.isatty():
        return console.UNLIMITED
    from shutil import get_terminal_size

    return get_terminal_size().columns


def choose_columns(columns: str) -> tuple[Columns, Columns]:
    """Return the usual columns to show, and those that were asked for, by title.

    >>> [[*titles] for titles in choose_columns("name,tuned.depth")], [*choose_columns("+mse")[1]]
    ([[], ['name', 'tuned.depth']], ['mse'])
    """
    if not columns:
        return COLUMNS, {}
    names = [name.strip().removeprefix("+") for name in columns.split(",")]
    if not all(names):
        raise QueryError("a column has no name", columns, advice="Give names, as in name,mse or +mse")
    asked = {printable(name): COLUMNS.get(name) or partial(value_cell, parse_field(name)) for name in names}
    return (COLUMNS if columns.startswith("+") else {}), asked


def value_cell(field: Field, record: ModelRecord) -> str:
    """Return the cell of any field that a condition can ask for."""
    if field.own:
        return recorded_text(str(field), getattr(record, str(field), None))
    return text(str(field), field.value_in(record.metadata or {}))


def count(records: Sequence[ModelRecord]) -> str:
    """Return the number of models, or of versions if there are several of one model, in words."""
    if len({record.name for record in records}) < len(records):
        return versions(len(records))
    return models(len(records))


def fit(widths: Mapping[str, int], room: int, asked: Container[str] = ()) -> dict[str, int]:
    """Return the widths of the columns that fit; if the first is the name, and still does not fit, it is folded.

    >>> fit({"name": 40, "version": 7, "size": 6}, 50), fit({"name": 40, "version": 7, "size": 6}, 40)
    ({'name': 33, 'version': 7, 'size': 6}, {'name': 31, 'version': 7})
    """
    kept = dict(widths)
    is_folded = next(iter(kept)) == "name"
    if is_folded:
        kept["name"] = min(widths["name"], NAME_WIDTH)
    dispensable = [title for title in widths if title != "name" and title not in asked]
    dispensable.sort(key=lambda title: KEPT.index(title) if title in KEPT else len(KEPT))
    while dispensable and span(kept) > room:
        del kept[dispensable.pop()]
    if not is_folded:
        return kept
    others = span(kept) - kept["name"]
    return {**kept, "name": max(1, min(widths["name"], room - others))}


def measure(cells: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the widths of columns, by title."""
    return {title: max(map(cell_len, [title, *texts])) for title, texts in cells.items()}


def span(widths: Mapping[str, int]) -> int:
    """Return the width of a table."""
    return sum(widths.values()) + GAP * (len(widths) - 1)


def table_line(row: Iterable[str], widths: Mapping[str, int]) -> str:
    """Return a row as a line, or as several if its first cell is folded; numbers are right-aligned."""
    name, *others = row
    room = next(iter(widths.values()))
    first, *more = chop_cells(name, room) if cell_len(name) > room else [name]
    padded = []
    for cell, (title, width) in zip([first, *others], widths.items()):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if title in ("version", "size", "models") else cell + space)
    return "\n".join([(" " * GAP).join(padded).rstrip(), *more])


@show_text.register
def show_several(several: values.Several) -> None:
    """Print several values, one after the other."""
    for value in several.values:
        if isinstance(value, values.Change):
            show_message(f"{printable(str(value.after.reference))}:")
        show_text(value)


@show_text.register
def show_record(record: ModelRecord) -> None:
    """Print a model in a panel: its metadata, then what the store recorded."""
    from rich.console import Group
    from rich.measure import Measurement
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.text import Text

    page = console.page()
    fields = {field: text(field, value) for field, _, value in differences({}, record.metadata, everything=True)}
    given = Text("stored without metadata", style="dim") if record.metadata is None else pairs(fields, page.width)
    verdict = record.loadable()
    recorded = pairs(recorded_fields(record, [verdict.verdict, *verdict.reasons]), page.width)
    title = Text(f"{printable(record.name)}, version {record.version}{'' if record.current else ' (not current)'}")
    widest = Measurement.get(page, page.options, Group(given, recorded)).maximum + 4
    # A Rule without a title draws its line in every encoding.
    rule = Rule(characters="-" if page.options.ascii_only else "─", style="dim")
    content = Group(given, rule, recorded)
    console.draw(Panel(content, title=title, width=min(page.width, max(widest, len(title) + 6))))
    show_fixes([verdict.fix])


def recorded_fields(record: ModelRecord, verdict: list[str]) -> dict[str, str]:
    """Return what the store recorded about a model, and whether it will load on this machine."""
    where = f"{record.python} on {record.platform}, " if record.python else ""
    shown = {
        "type": [record.type or "unknown (uploaded as a pickle)"],
        "size": [size(record.size) + (f" ({record.size:,} bytes)" if record.size >= 1000 else "")],
        "sha256": [record.sha256],
        "stored": [f"{local_time(record.stored_at)} by {record.stored_by}"],
        "made with": [f"{where}pickle protocol {record.protocol}"],
        "imports": imports_by_package(record, MOST_IMPORTS),
        "on this machine": verdict,
    }
    return {name: "\n".join(map(printable, lines)) for name, lines in shown.items()}


def imports_by_package(record: ModelRecord, most: int) -> list[str]:
    """Return the imports of a pickle, at most `most` per package, and why the list may be incomplete."""
    by_module: dict[str, list[str]] = {}
    for one in record.imports or ():
        by_module.setdefault(one.replace(":", ".").split(".")[0], []).append(one)
    lines = []
    for module, found in by_module.items():
        supplier = record.suppliers.get(module)
        lines.append(f"{supplier} {record.packages.get(supplier, '')}:" if supplier else f"{module}:")
        lines += [f"  {one}" for one in found[:most]]
        lines += [f"  and {len(found) - most} more"] if len(found) > most else []
    return [*lines, *record.troubles] or ["nothing"]


def pairs(fields: Mapping[str, str], width: int) -> "Table":
    """Return a table of names and values that is folded to a width."""
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP))
    grid.add_column(style="bold", overflow="fold", max_width=max(8, width // 2))
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        grid.add_row(printable(name), value)
    return grid


def show_fixes(lines: Iterable[str]) -> None:
    """Print shell commands, once each and never folded, so that they can be copied."""
    show_lines(printable(line) for line in dict.fromkeys(lines) if line)


@show_text.register
def show_differences(found: values.Differences) -> None:
    """Print two models side by side."""
    from rich.table import Table

    if not found.rows:
        show_message("No differences. Use --all to show equal fields.")
        return
    most = None if console.stream().isatty() else VALUE_WIDTH
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    table.add_column(style="bold", overflow="fold")
    for record in (found.one, found.other):
        table.add_column(f"{printable(record.name)}:{record.version}", overflow="fold", max_width=most)
    for row in found.rows:
        table.add_row(printable(row["field"]), *(recorded_text(row["field"], value) for value in row["values"]))
    console.draw(table, wrap=False)


def recorded_text(field: str, value: Any) -> str:
    """Return a value in `diff`, from the metadata or from what the store recorded, for people to read."""
    if field == "size" and isinstance(value, int):
        return size(value)
    return local_time(value) if field == "stored_at" and isinstance(value, datetime) else text(field, value)


@show_text.register
def show_stored(stored: values.Stored) -> None:
    """Say what was stored."""
    record = stored.record
    show_message(f"Stored {printable(record.name)}, version {record.version} ({size(record.size)}).")


@show_text.register
def show_change(change: values.Change) -> None:
    """Say which fields changed."""
    changes = differences(change.before.metadata, change.after.metadata)
    for field, old, new in changes:
        show_message(printable(describe_change(field, old, new)))
    if not changes:
        show_message(f"Nothing changed: {printable(change.after.name)} already has these values.")


@show_text.register
def show_naming(naming: values.Naming) -> None:
    """Say what a version is called now."""
    record, before = naming.record, naming.before
    here, there = printable(str(record.reference)), printable(str(before.reference)) if before else ""
    if naming.action == "renamed" and here == there:
        show_message(f"{printable(record.name)} already has this name.")
    elif naming.action == "renamed":
        show_message(f"Renamed {there.rpartition(':')[0]} to {printable(record.name)}.")
        if before and record.version != before.version:
            advice = "because deleted models of this name had the lower numbers"
            show_message(f"The current version, {before.version}, is now version {record.version}, {advice}.")
    elif naming.action == "unaliased":
        show_message(f"Removed the alias {naming.alias} from {here}.")
    else:
        what = f"{printable(record.name)}@{naming.alias}" if naming.alias else "the current version"
        instead = f" instead of {there}" if before else ""
        is_same = here == there
        show_message(f"{here} was already {what}." if is_same else f"{here} is now {what}{instead}.")


#: The text for each action of an event; braces are filled in from its changes. Newer releases may add other actions.
ACTIONS = {
    "aliased": "gave {model} the alias {alias}",
    "annotated": "annotated {model}: {fields}",
    "deleted": "deleted {model}",
    "ended": "left the run {run}",
    "entered": "entered the run {run}",
    "expected": "set the run {run} to use {models}",
    "failed": "left the run {run} with an error: {error}",
    "pruned": "pruned {model}",
    "renamed": "renamed {old} to {new}",
    "replaced": "used {model} instead of version {instead_of}",
    "required": "required {after} instead of {before}",
    "restored": "made {model} current instead of version {instead_of}",
    "stored": "stored {model}",
    "unaliased": "removed the alias {alias} from {model}",
    "used": "reused {model}",
}


@show_text.register
def show_log(log: values.Log) -> None:
    """Print a line for each event."""
    if not log.events:
        show_message(log.if_empty)
    show_lines(f"{local_time(event.at)}  {printable(event.by)}  {describe(event)}" for event in log.events)


def describe(event: Event) -> str:
    """Return what was done, and why."""
    model = "" if event.name is None else event.name if event.version is None else f"{event.name}:{event.version}"
    said = {name: text(name, value) for name, value in event.changes.items()}
    # Another program, or a later version of this one, may have recorded something else.
    with suppress(LookupError, TypeError):
        if isinstance(event.changes.get("fields"), list):
            said["fields"] = ", ".join(describe_change(*change) for change in event.changes["fields"])
        if isinstance(event.changes.get("models"), list):
            said["models"] = models(len(event.changes["models"]))
        said |= {name: value or "nothing" for name, value in said.items()} | {"model": model, "run": event.run or ""}
        what = ACTIONS[event.action].format_map(said)
        what += f" in the run {event.run}" if event.run and event.name else ""
        return printable(f"{what}  ({event.why})" if event.why else what)
    return printable(" ".join([event.action, model, event.run or "", event.why or ""]))


def describe_change(field: str, old: Any, new: Any) -> str:
    """Return how a field of the metadata changed."""
    was, now = ("(none)" if value is None else text(field, value) or '""' for value in (old, new))
    return f"{field} {was} -> {now}"


@show_text.register
def show_history(history: values.History) -> None:
    """Print the versions of a model, the highest first, and what changed from one to the next."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    table.add_column("version", justify="right")
    for title in ("stored", "by", "size", ""):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for one in history.versions:
        lines = [*state_lines(one), *(describe_change(*change) for change in one.changes)]
        cells = [str(one.version), local_time(one.stored_at), one.stored_by, size(one.size), "\n".join(lines)]
        table.add_row(*("\n".join(map(printable, cell.split("\n"))) for cell in cells))
    console.draw(table, wrap=False)


def state_lines(one: Lifetime) -> list[str]:
    """Return whether a version is current, has aliases, or was deleted."""
    if one.deletion is not None:
        why = f": {one.deletion.why}" if one.deletion.why else ""
        return [f"deleted {local_time(one.deletion.at)} by {one.deletion.by}{why}"]
    assert one.record is not None
    states = ["current" if one.record.current else "", *one.record.aliases]
    return [", ".join(filter(None, states))] if any(states) else []


#: The columns to show of a version before it is deleted.
DELETED_COLUMNS: dict[str, Callable[[Any], str]] = {
    **{title: COLUMNS[title] for title in ("name", "version")},
    "stored by": lambda record: printable(record.stored_by),
    "run": COLUMNS["run"],
    "aliases": lambda record: " ".join(record.aliases),
    "size": COLUMNS["size"],
}


def pruned_cell(title: str, one: Disposition) -> str:
    """Return the cell of a column of `list` for a version that may be deleted."""
    return COLUMNS[title](one.record)


#: What to see of a version that a rule keeps or does not keep.
PRUNED_COLUMNS: dict[str, Callable[[Any], str]] = {
    **{title: partial(pruned_cell, title) for title in ("name", "version", "size", "stored")},
    "": lambda one: "delete" if one.deleted else "keep",
    "why": lambda one: printable(one.reason),
}


def show_table(columns: Mapping[str, Callable[[Any], str]], rows: Sequence[Any], err: bool = False) -> None:
    """Print a whole table; no columns are hidden. On a narrow terminal, some get lines of their own."""
    cells = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    widths, room = measure(cells), _measure_terminal(console.stream(err))
    moved: list[list[str]] = []
    for title in ("run", "aliases", "why", "stored", "stored by"):
        # An empty column can go entirely, and these two only then.
        is_movable = title not in ("run", "aliases") or not any(cells.get(title, ()))
        if title in widths and span(widths) > room and is_movable:
            moved.insert(0, cells.pop(title))
            del widths[title]
    lines = [table_line(row, widths) for row in zip(*cells.values())]
    for number, notes in enumerate(zip(*moved)):
        if any(notes):
            lines[number] += f"\n{' ' * GAP}{(' ' * GAP).join(filter(None, notes))}"
    console.write("\n".join([table_line(widths, widths), *lines]), err=err)


def show_deletion_plan(found: Deletion, err: bool = True) -> None:
    """Say what will be deleted, how much space that frees, and which versions become current."""
    records = found.deleted
    show_table(DELETED_COLUMNS, records, err)
    for name in dict.fromkeys(record.name for record in records if record.current):
        if found.current[name] is not None:
            show_message(f"Version {found.current[name]} of {printable(name)} becomes current.")
    show_message(f"Deleting {versions(len(records))} frees {total(records)}.")


@show_text.register
def show_deletion(deletion: values.Deletion) -> None:
    """Say what was deleted, or would be, and which versions are current now."""
    if deletion.dry_run:
        show_deletion_plan(deletion.found, err=False)
        return
    show_deleted(deletion.found.versions)
    promoted = {one.name for one in deletion.records if one.current}
    for name, version in deletion.found.current.items():
        if name in promoted and version is not None:
            show_message(f"The current version of {printable(name)} is now {version}.")


def show_deleted(dispositions: Iterable[Disposition]) -> None:
    """Say which versions were deleted, and which were kept because they have changed."""
    for one in dispositions:
        name = f"{printable(one.record.name)}, version {one.record.version}"
        if one.deleted:
            show_message(f"Deleted {name} ({size(one.record.size)}).")
        elif one.changed:
            show_message(f"Did not delete {name}: {printable(one.reason)}.")


def show_pruning_plan(found: Sequence[Disposition]) -> None:
    """Say what will be deleted, and how much space that frees."""
    doomed = [one.record for one in found if one.deleted]
    show_table(DELETED_COLUMNS, doomed, err=True)
    show_message(f"Deleting {versions(len(doomed))} frees {total(doomed)}; {versions(len(found) - len(doomed))} stay.")


@show_text.register
def show_pruning(pruning: values.Pruning) -> None:
    """Say what was deleted or, for a dry run, what would be deleted or kept, and why."""
    deleted = [one.record for one in pruning.versions if one.deleted]
    if pruning.dry_run and pruning.versions:
        show_table(PRUNED_COLUMNS, pruning.versions)
    elif not pruning.dry_run:
        show_deleted(pruning.versions)
    what = "would be deleted" if pruning.dry_run else "deleted"
    stay = len(pruning.versions) - len(deleted)
    show_message(f"{versions(len(deleted))} {what} ({total(deleted)}); {versions(stay)} kept.")


def total(records: Iterable[ModelRecord]) -> str:
    """Return the total size of pickles, in words."""
    return size(sum(record.size for record in records))


@show_text.register
def show_requirements(requirements: values.Requirements) -> None:
    """Print the required fields, and say which models lack one."""
    required, incomplete = requirements.required, requirements.incomplete
    if not required:
        show_message("This store requires no metadata. `views-runs model require FIELD...` sets required fields.")
    show_lines(map(printable, required))
    if required and incomplete:
        count = "1 version lacks" if len(incomplete) == 1 else f"{len(incomplete):,} versions lack"
        show_message(f"{count} a required field; add it with `views-runs model annotate`:")
        for record in incomplete[:MOST_INCOMPLETE]:
            lacks = ", ".join(missing_fields(required, record.metadata))
            show_message(f"  {printable(record.name)}:{record.version} has no {lacks}")
        if len(incomplete) > MOST_INCOMPLETE:
            show_message(f"  and {len(incomplete) - MOST_INCOMPLETE:,} more; --json lists them all")


@show_text.register
def show_download(download: values.Download) -> None:
    """Say what was written where."""
    show_message(f"Wrote {download.name} to {download.file} ({size(download.size)}).")


@show_text.register
def show_backup(made: Backup) -> None:
    """Say what was copied, and what was not."""
    for damage in made.damaged:
        console.show_error(f"not copied: {printable(damage.name)}:{damage.version}: {damage.trouble}")
    for reference in made.deleted:
        show_message(f"Not copied: {printable(reference)} was deleted during the backup.")
    show_message(f"Copied and verified {versions(made.versions)} ({size(made.size)}) to {made.path}.")


def show_imports(record: ModelRecord) -> None:
    """Print everything that a model imports, before the question whether to trust it."""
    imports = "\n".join(map(printable, imports_by_package(record, len(record.imports or ()))))
    grid = pairs({"imports": imports}, console.page(err=True, wrap=False).width)
    console.draw(grid, err=True, wrap=False)


@show_text.register
def show_trust(trust: values.Trust) -> None:
    """Say what was added to the list."""
    if trust.added:
        show_message(f"Added {len(trust.added)} {'import' if len(trust.added) == 1 else 'imports'} to {trust.file}.")
    else:
        show_message("Nothing to add: every import is already on the list.")


@show_text.register
def show_checks(checks: values.Checks) -> None:
    """Print a line for each model, then the commands that install what is missing."""
    names = [one["name"] if one["version"] is None else f"{one['name']}:{one['version']}" for one in checks.models]
    show_states((one["verdict"], name, one["reasons"]) for name, one in zip(names, checks.models))
    show_fixes(one["fix"] for one in checks.models)


@show_text.register
def show_diagnosis(diagnosis: values.Diagnosis) -> None:
    """Print a line for each finding, followed by advice."""
    show_states(
        (one.state, one.topic, [one.text, f"-> {one.advice}"] if one.advice else [one.text])
        for one in diagnosis.findings
    )


def show_states(rows: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Print rows of a state, its subject, and lines about it."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, GAP, 0, 0))
    for style in ("", "bold", ""):
        grid.add_column(style=style, overflow="fold")
    for state, name, lines in rows:
        grid.add_row(Text(state, style=STYLES[state]), printable(name), "\n".join(map(printable, lines)))
    if grid.rows:
        console.draw(grid, wrap=False)


@show_text.register
def show_runs(listing: values.RunListing) -> None:
    """Print a table of runs."""
    if listing.quiet:
        console.show_names([run.id for run in listing.records])
        return
    if not listing.records:
        show_message(listing.if_empty)
        return
    cells = {title: [cell(run) for run in listing.records] for title, cell in RUN_COLUMNS.items()}
    widths, room = measure(cells), _measure_terminal(console.stream())
    for title in ("by", "size", "models"):
        if span(widths) > room:
            del widths[title]
    console.write(table_line(widths, widths), bold=True)
    show_lines(table_line(row, widths) for row in zip(*(cells[title] for title in widths)))
    if len(widths) < len(cells):
        show_message("Some columns are hidden; use a wider terminal or --json.")


def completeness(run: RunRecord) -> str:
    """Return whether a run is complete, in a few words."""
    if run.complete is None:
        return ""
    return "yes" if run.complete else f"no, {run.missing} of {run.expected} missing"


RUN_COLUMNS: dict[str, Callable[[RunRecord], str]] = {
    "run": lambda run: printable(run.id),
    "began": lambda run: local_time(run.started_at),
    "by": lambda run: printable(run.started_by),
    "state": lambda run: run.state or "",
    "models": lambda run: str(run.models),
    "size": lambda run: size(run.size),
    "complete": completeness,
}


@show_text.register
def show_run(shown: values.RunShown) -> None:
    """Print what is known about a run, and its models by the training period or another field."""
    run = shown.run
    ended = "" if run.ended_at is None else f", left {local_time(run.ended_at)}"
    fields = {
        "run": run.id,
        "state": run.state or "not recorded",
        "began": f"{local_time(run.started_at)} by {run.started_by}{ended}",
        "used": f"{models(run.models)}, {size(run.size)}",
        "complete": completeness(run) or "not known, because no models are expected",
    }
    grid = pairs({name: printable(value) for name, value in fields.items()}, console.page(wrap=False).width)
    console.draw(grid, wrap=False)
    for title, lines in run_groups(shown).items():
        console.write("")
        console.write(title, bold=True)
        show_lines(f"  {line}" for line in lines)
    by = shown.group_by
    records = [one.record for one in shown.models if one.record]
    if by and by not in COLUMNS and not any(value_cell(parse_field(by), record) for record in records):
        show_message(f"No model of this run has a field {printable(by)!r}.")
    if shown.like is not None and not shown.lacking:
        show_message(f"This run has all models that {printable(shown.like)} used.")


def run_groups(shown: values.RunShown) -> dict[str, list[str]]:
    """Return a line for each model of a run, by group."""
    by = shown.group_by or "training period"
    cell = COLUMNS.get(by) or partial(value_cell, parse_field(by))
    groups: dict[str, list[str]] = {}
    for one in shown.models:
        if one.record is not None:
            title = f"{printable(by)} {cell(one.record) or '(none)'}"
            how = f"{one.state} from {one.trained_in}" if one.state == "reused" and one.trained_in else one.state
            groups.setdefault(title, []).append(printable(f"{one.name}:{one.version}  {how}"))
    groups = dict(sorted(groups.items()))
    groups["deleted since"] = [printable(f"{one.name}:{one.version}") for one in shown.models if one.state == "deleted"]
    groups["missing"] = [printable(one.name) for one in shown.models if one.state == "missing"]
    groups[f"used by {printable(shown.like or '')} and not by this run"] = [*map(printable, shown.lacking)]
    return {title: lines for title, lines in groups.items() if lines}


@show_text.register
def show_verified(verified: values.Verified) -> None:
    """Print a line for each damaged version, and say how many are intact."""
    found = verified.found
    show_lines(printable(f"{damage.name}:{damage.version}  {damage.trouble}") for damage in found.damaged)
    damaged = [one for one in found.damaged if one.version or not one.name.startswith("(the table ")]
    intact = f"{found.versions - len(damaged):,} of " if found.damaged else ""
    verb = "is" if found.versions == 1 else "are"
    show_message(f"{intact}{versions(found.versions)} in {verified.store} {verb} intact; {size(found.size)} read.")


def models(count: int) -> str:
    """Return a number of models in words."""
    return "1 model" if count == 1 else f"{count:,} models"


def versions(count: int) -> str:
    """Return a number of versions in words."""
    return "1 version" if count == 1 else f"{count:,} versions"


@show_text.register
def show_topic(page: values.Topic) -> None:
    """Print a page, without the marks and targets of its links; on a terminal, through a pager."""
    text = re.sub(r"(\n+\.\. _\w+: \S+)+\n*\Z", "\n", page.text)
    # The first column of a table keeps its width.
    text = re.sub(r"\b([a-z]+)_(?=  )", r"\1 ", text)
    text = re.sub(r"\b([a-z]+)_(?![\w`])", r"*\1*", text)
    console.show_pages(text)
