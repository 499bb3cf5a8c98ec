"""The command line: parse, call the library, and hand what it returns to rendering."""

import errno
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from views_runs.exceptions import StorageError
from views_runs.version import __version__

if TYPE_CHECKING:
    from views_runs.storage import Storage

LOG = logging.getLogger("views_runs")

F = TypeVar("F", bound=Callable[..., Any])


class ShownLog(logging.Handler):
    """Shows what the library logs while it is entered: that it waits for a lock, or has made a file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it for people."""
        from views_runs import rendering

        rendering.show_message(record.getMessage())

    def __enter__(self) -> None:
        self._before = LOG.level
        LOG.setLevel(logging.INFO)
        LOG.addHandler(self)

    def __exit__(self, *error: object) -> None:
        LOG.removeHandler(self)
        LOG.setLevel(self._before)


class Group(click.Group):
    """A group of commands that prints a `StorageError` and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (StorageError, OSError) as error:
            from views_runs import rendering

            if getattr(error, "errno", None) == errno.EPIPE:
                # Whoever read the output has enough; click ends quietly.
                raise
            rendering.show_error(str(error))
            ctx.exit(1)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: it removes what it has half written."""
    before = None
    # Only the main thread may; a handler of somebody else's stays.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def shared_options(command: F) -> F:
    """Add the options that may stand anywhere on the line: ``--store`` and ``--json``."""
    for option in (
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print JSON instead of a table.",
        ),
        click.option(
            "--store",
            metavar="PATH",
            expose_value=False,
            callback=_remember,
            help="The store file. Without it: $VIEWS_RUNS_STORE, or models.db in your data folder.",
        ),
    ):
        command = option(command)
    return command


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    # `meta` is one dict for the whole line, so it does not matter which command took the option.
    if value not in (None, False):
        ctx.meta[f"views_runs.{parameter.name}"] = value


def _storage() -> "Storage":
    """Open the store that the line asks for; in the command, so that --help needs none."""
    from views_runs.storage import Storage

    return Storage(_given_store())


def _given_store() -> str | None:
    return click.get_current_context().meta.get("views_runs.store")


def _wants_json() -> bool:
    return bool(click.get_current_context().meta.get("views_runs.json"))


#: The options for known fields, and the fields.
FIELD_OPTIONS = {
    "--author": "author",
    "--run-id": "run_id",
    "--loa": "level_of_analysis",
    "--outcome": "outcome",
    "--queryset": "queryset_name",
    "--train-start": "train_start",
    "--train-end": "train_end",
}


def field_options(multiple: bool) -> Callable[[F], F]:
    """Add an option for each known field that is one text or month; the command gets them as ``**fields``."""

    def decorate(command: F) -> F:
        for option, field in reversed(FIELD_OPTIONS.items()):
            metavar = "MONTH" if field.startswith("train_") else "TEXT"
            help = "As 480 or 2019-12." if metavar == "MONTH" else f"The {field.replace('_', ' ')}."
            command = click.option(option, field, metavar=metavar, multiple=multiple, help=help)(command)
        return command

    return decorate


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that were given; an option that may be repeated means any of its values."""
    return {
        field: list(value) if isinstance(value, tuple) else value
        for field, value in fields.items()
        if value not in (None, ())
    }


def annotations(command: F) -> F:
    """Add the options that give metadata; the command gets them as ``settings`` and ``**fields``, for `_metadata`."""
    for option in (
        click.option(
            "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any field; quote a VALUE that is a text."
        ),
        click.option("--step", "steps", metavar="N", type=int, multiple=True, help="How many months ahead; repeat it."),
        click.option("--training-date", metavar="TIME", help="As 2026-11-23 or 2026-11-23T08:00."),
        field_options(multiple=False),
    ):
        command = option(command)
    return command


def _metadata(fields: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata that the options of `annotations` give."""
    from views_runs import query

    given = {
        field: query.parse_value(field, value) if isinstance(value, str) else value
        for field, value in _given(fields).items()
    }
    return given | dict(query.parse_assignment(text) for text in settings)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="viewser")
@shared_options
def main() -> None:
    """Find, look at and fetch the models that ViEWS trained.

    \b
    Example:
      viewser model list
    """
    click.get_current_context().with_resource(ShownLog())
    click.get_current_context().with_resource(_tidy_end())


@main.group()
@shared_options
def model() -> None:
    """Find, inspect, download, annotate, compare and delete stored models.

    NAME:VERSION names one version of a model; NAME alone its current one.

    \b
    Examples:
      viewser model list
      viewser model inspect my-model
      viewser model --store /shared/models.db list
    """


@model.command("list", short_help="List models, the last stored first.")
@click.argument("glob", required=False)
@field_options(multiple=True)
@click.option("-w", "--where", metavar="CONDITION", multiple=True, help="FIELD OP VALUE, FIELD or !FIELD.")
@click.option("--since", metavar="TIME", help="Stored at this time or later, as 2026-11-01.")
@click.option("--until", metavar="TIME", help="Stored at this time or before; a date is its whole day.")
@click.option("--all-versions", is_flag=True, help="Older versions too.")
@click.option("--sort", metavar="FIELD", help="By this field; -FIELD for descending.")
@click.option("--limit", metavar="N", type=click.IntRange(min=0), help="So many models at most.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone, one a line.")
@shared_options
def list_models(
    glob: str | None,
    where: tuple[str, ...],
    since: str | None,
    until: str | None,
    all_versions: bool,
    sort: str | None,
    limit: int | None,
    quiet: bool,
    **fields: Any,
) -> None:
    """List the models that meet all conditions, the last stored first.

    GLOB chooses by name: * stands for any characters, ? for one. An option for a field may be repeated, for any of
    several values. The operators of a CONDITION are = != < <= > >= and ~ for a glob; FIELD alone asks that a model has
    it, !FIELD that it lacks it. A VALUE is a number, true or false, a date or a time, a month for train_start and
    train_end, or a text, in quotes if it looks like something else. A dot goes into nested metadata; size, stored_at,
    stored_by, version and type are what the store recorded, and metadata.size is yours. Quote globs and conditions, so that the shell leaves them alone.

    \b
    Examples:
      viewser model list --author me --run-id 2026-11
      viewser model list 'fatalities*' --where 'train_end >= 2019-12' --where 'size > 100MB'
      viewser model list --since 2026-11-01 --sort -train_end --limit 20
    """
    from views_runs import rendering

    storage = _storage()
    records = storage.find(
        *where,
        name=glob,
        since=since,
        until=until,
        all_versions=all_versions,
        sort=sort,
        limit=limit,
        **_given(fields),
    )
    if _wants_json():
        rendering.show_json([record.as_json() for record in records])
    elif quiet:
        rendering.show_lines(record.name for record in records)
    elif records:
        rendering.show_records(records)
    else:
        conditional = any([glob is not None, where, since, until, limit is not None, _given(fields)])
        rendering.show_empty(storage.path, conditional, _given_store())


@model.command()
@click.argument("name")
@shared_options
def inspect(name: str) -> None:
    """Show what is known of a model, without loading it.

    \b
    Examples:
      viewser model inspect my-model
      viewser model inspect my-model:2 --json
    """
    from views_runs import rendering

    record = _storage().inspect(name)
    if _wants_json():
        rendering.show_json(record.as_json())
    else:
        rendering.show_record(record)


@model.command()
@click.argument("name")
@click.argument("file", required=False)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@shared_options
def download(name: str, file: str | None, force: bool) -> None:
    """Write a model's pickle to FILE, without loading it.

    FILE is NAME.pickle in this folder unless you say otherwise; - is the standard output.

    \b
    Examples:
      viewser model download my-model
      viewser model download my-model:2 old.pickle
      viewser model download my-model - | sha256sum
    """
    from views_runs import rendering

    storage = _storage()
    if file == "-":
        if sys.stdout is None or sys.stdout.isatty():
            raise click.UsageError("a pickle is not for a terminal: give a FILE, or send the output to one.")
        storage.write_pickle(name, sys.stdout.buffer)
        return
    path = storage.download(name, file, overwrite=force)
    if _wants_json():
        rendering.show_json({"name": name, "file": str(path), "size": path.stat().st_size})
    else:
        rendering.show_message(f"Wrote {name} to {path} ({rendering.size(path.stat().st_size)}).")


@model.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@shared_options
def delete(names: tuple[str, ...], yes: bool) -> None:
    """Delete models with all their versions, or NAME:VERSION alone.

    \b
    Examples:
      viewser model delete my-model
      viewser model delete my-model:1 my-model:2 --yes
    """
    from views_runs import rendering

    storage = _storage()
    # A model may be named twice, with a version and without.
    doomed = list({(one.name, one.version): one for name in names for one in storage.versions(name)}.values())
    if not yes:
        rendering.show_doomed(doomed)
        click.confirm("Delete them?" if len(doomed) > 1 else "Delete it?", abort=True, err=True)
    current = {record.name: storage.delete(record.name, record.version) for record in doomed}
    if _wants_json():
        rendering.show_json([record.as_json() for record in doomed])
    else:
        rendering.show_deleted(doomed, current)


@model.command()
@click.argument("name")
@annotations
@click.option("--unset", metavar="KEY", multiple=True, help="Remove a field.")
@shared_options
def annotate(name: str, settings: tuple[str, ...], unset: tuple[str, ...], **fields: Any) -> None:
    """Change some of a model's metadata, and keep the rest.

    A VALUE is a number, true, false, a date or a time if it looks like one, JSON if it is a list or an object, and a
    text otherwise.

    \b
    Examples:
      viewser model annotate my-model --author me --train-end 2019-12
      viewser model annotate my-model:1 --set note='too few countries' --unset draft
    """
    from views_runs import rendering

    given = _metadata(fields, settings)
    if not given and not unset:
        raise click.UsageError("nothing to change: give a field, --set or --unset.")
    storage = _storage()
    before = storage.versions(name)[0]
    after = storage.annotate_fields(before.name, given, unset, before.version)
    if _wants_json():
        rendering.show_json(after.as_json())
    else:
        rendering.show_changes(before, after)


@model.command(short_help="Store a pickle FILE from elsewhere.")
@click.argument("file", type=click.Path())
@click.argument("name", required=False)
@annotations
@click.option("-f", "--overwrite", is_flag=True, help="If there is a model of this name, add a version.")
@shared_options
def upload(file: str, name: str | None, overwrite: bool, settings: tuple[str, ...], **fields: Any) -> None:
    """Store a pickle FILE from elsewhere, as it is and without loading it.

    Without NAME it is stored under the name of the file, without its ending.

    \b
    Examples:
      viewser model upload forest.pickle --author me --train-end 2019-12
      viewser model upload forest.pickle my-model --set note='of 2019'
    """
    from pathlib import Path

    from views_runs import rendering

    record = _storage().upload(
        file, Path(file).stem if name is None else name, _metadata(fields, settings) or None, overwrite
    )
    if _wants_json():
        rendering.show_json(record.as_json())
    else:
        rendering.show_stored(record)


@model.command(short_help="Say whether models will load on this machine.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All current versions.")
@shared_options
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], everything: bool) -> None:
    """Say of models whether they will load on this machine, without loading them.

    It holds what each needs against what is installed here. Run it in a new environment before you move to it. Exits
    with 1 if a model will not load.

    \b
    Examples:
      viewser model check my-model
      viewser model check --all
    """
    from views_runs import rendering
    from views_runs.pickles.loadability import WILL_NOT

    if bool(names) == everything:
        raise click.UsageError("give NAMEs or --all.")
    checked = _storage().check(*names)
    if _wants_json():
        rendering.show_json([{"name": one.name, "version": one.version, **asdict(verdict)} for one, verdict in checked])
    else:
        rendering.show_verdicts(checked)
    if any(verdict.verdict == WILL_NOT for _, verdict in checked):
        ctx.exit(1)


@model.command(short_help="Put what a model imports on your own list.")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@shared_options
def trust(name: str, yes: bool) -> None:
    """Put what a model imports on your own list of what you trust.

    The list is yours, in your own folder. With VIEWS_RUNS_TRUSTED_ONLY=1, or Storage(trusted=True), each fetch imports
    what is on it and nothing else.

    \b
    Examples:
      viewser model trust my-model
    """
    from views_runs import rendering
    from views_runs.pickles import trust as own_list

    record = _storage().inspect(name)
    rendering.show_imports(own_list.as_installed(record))
    if not yes and not record.troubles:
        click.confirm(f"Add these to {own_list.path()}?", abort=True, err=True)
    added = [str(one) for one in own_list.add_all(record)]
    if _wants_json():
        rendering.show_json({"file": str(own_list.path()), "added": added})
    else:
        rendering.show_message(
            f"Added {len(added)} to {own_list.path()}." if added else "Nothing to add: all is on the list."
        )


@model.command(short_help="Show or set the fields that every model must have.")
@click.argument("fields", metavar="[FIELD]...", nargs=-1)
@click.option("--none", "clear", is_flag=True, help="Require nothing.")
@shared_options
def require(fields: tuple[str, ...], clear: bool) -> None:
    """Show or set the metadata fields that every model in this store must have.

    Everyone who uses the store is held to them. Models that are there already stay.

    \b
    Examples:
      viewser model require
      viewser model require author run_id
      viewser model require --none
    """
    from views_runs import rendering

    if fields and clear:
        raise click.UsageError("give fields or --none, not both.")
    storage = _storage()
    if fields or clear:
        storage.require(*fields)
    required, incomplete = storage.required(), storage.incomplete()
    if _wants_json():
        rendering.show_json({"required": required, "incomplete": [record.as_json() for record in incomplete]})
    else:
        rendering.show_required(required, incomplete)


@model.command(short_help="Show how two models, or two versions, differ.")
@click.argument("name")
@click.argument("other", required=False)
@click.option("--all", "everything", is_flag=True, help="What is equal too.")
@shared_options
def diff(name: str, other: str | None, everything: bool) -> None:
    """Show side by side how two models differ, or how a model differs from its version before.

    \b
    Examples:
      viewser model diff my-model
      viewser model diff my-model:1 my-model:3 --all
      viewser model diff my-model another-model
    """
    from views_runs import rendering
    from views_runs.metadata import to_jsonable
    from views_runs.records import compared

    one, two = _storage().diff(name, other)
    rows = compared(one, two, everything)
    if _wants_json():
        rendering.show_json([{"field": row[0], "values": to_jsonable(list(row[1:]))} for row in rows])
    else:
        rendering.show_differences(one, two, rows)


@model.command(short_help="Check that every byte is as it was stored.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@shared_options
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Read models to their end, and check that every byte is as it was stored.

    Without a NAME, all of them. Nothing is loaded, and others can store meanwhile. Exits with 1 if one is damaged.

    \b
    Examples:
      viewser model verify
      viewser model verify my-model my-model:1
    """
    from views_runs import rendering

    storage = _storage()
    with rendering.progress("Verifying") as progress:
        verification = storage.verify(*names, progress=progress)
    if _wants_json():
        rendering.show_json(asdict(verification))
    else:
        rendering.show_verification(verification, storage.path)
    if verification.damaged:
        ctx.exit(1)


@model.command(short_help="Copy the whole store to FILE, and verify the copy.")
@click.argument("file")
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@shared_options
@click.pass_context
def backup(ctx: click.Context, file: str, force: bool) -> None:
    """Copy the whole store to FILE, as it is at one moment, and verify the copy.

    Others can store and delete meanwhile. The copy is a store like this one. Exits with 1 if a model is damaged, and
    so is not in the copy.

    \b
    Examples:
      viewser model backup /backups/models.db
      viewser --store /backups/models.db model list
    """
    from views_runs import rendering

    storage = _storage()
    with rendering.progress("Copying and verifying") as progress:
        made = storage.backup(file, overwrite=force, progress=progress)
    if _wants_json():
        rendering.show_json({**asdict(made), "path": str(made.path)})
    else:
        rendering.show_backup(made)
    if made.damaged:
        ctx.exit(1)


@model.command(short_help="Look at the store, and where it lies.")
@click.option("--peer", is_flag=True, help="Try the share together with another computer that says this too.")
@shared_options
@click.pass_context
def doctor(ctx: click.Context, peer: bool) -> None:
    """Look at the store, where it lies, who may write it, and what is known of its file system.

    No model is read; `viewser model verify` reads them. Only two computers together can tell whether a share keeps what
    both write: run it with --peer on both within a minute. Exits with 1 on a failure.

    \b
    Examples:
      viewser model doctor
      viewser model doctor --peer --store /shared/models/models.db
    """
    from views_runs import rendering

    findings = _storage().doctor(peer, rendering.show_message)
    if _wants_json():
        rendering.show_json([asdict(finding) for finding in findings])
    else:
        rendering.show_findings(findings)
    if any(finding.state == "failure" for finding in findings):
        ctx.exit(1)
