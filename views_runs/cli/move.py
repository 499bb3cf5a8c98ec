"""Verbs that move models into and out of a store."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

import views_runs
from views_runs.cli.command import decode, verb
from views_runs.cli.options import (
    KINDS,
    MODEL_NAME,
    condition_options,
    field_options,
    has_conditions,
    is_one_model,
    parse_metadata,
    refuse_nothing,
    set_option,
    why_option,
)
from views_runs.exceptions import InvalidNameError
from views_runs.rendering.values import Download, Several, Stored
from views_runs.texts import shell_line

#: Leaves arguments that are too many in the context, for the verb to explain.
EXTRA = {"allow_extra_args": True}


@verb(params=field_options(*KINDS), context_settings=EXTRA)
@click.argument("file", type=click.Path())
@click.argument("name", required=False, type=decode)
@set_option
@click.option("-f", "--overwrite", is_flag=True, help="If the model exists, add a version.")
@why_option
def upload(
    storage: "views_runs.Storage",
    file: str,
    overwrite: bool,
    name: str | None = None,
    settings: Sequence[str] = (),
    why: str | None = None,
    **fields: Any,
) -> Stored:
    """Store a pickle FILE, without loading it.

    The bytes are stored unchanged. NAME defaults to the name of the file without its extension.

    \b
    Examples:
      views-runs model upload forest.pickle --author me --train-end 2019-12
      views-runs model upload forest.pickle my-model --set "note=of 2019"
    """
    more = click.get_current_context().args
    if name is not None and os.path.isfile(name):
        raise click.UsageError(
            f"NAME is a file, {name!r}, and upload takes one FILE. To upload several files:\n"
            f"  {format_loop([file, name, *more])}\n"
            "To give a model the name of a file, upload it from another folder."
        )
    refuse_extra(more)
    name = decode(os.path.splitext(os.path.basename(file))[0]) if name is None else name
    return Stored(storage.upload(file, name, parse_metadata(fields, settings) or None, overwrite, why=why))


@verb(params=condition_options())
@click.argument("given", metavar="[NAME]... [FILE]", nargs=-1)
@click.option("--to", "folder", metavar="DIR", type=click.Path(), help="Write several models to files in this folder.")
@click.option("-f", "--force", is_flag=True, help="Replace existing files.")
def download(
    storage: "views_runs.Storage", force: bool, given: Sequence[str] = (), folder: str | None = None, **options: Any
) -> Download | Several | None:
    """Write the pickles of models to files, without loading them.

    Without --to, takes one NAME. FILE defaults to NAME.pickle in the current folder; - is standard output. With --to,
    takes NAMEs, globs and conditions, and writes NAME.pickle for a current version, NAME_VERSION.pickle for another.

    \b
    Examples:
      views-runs model download my-model
      views-runs model download my-model:2 old.pickle
      views-runs model download my-model - | sha256sum
      views-runs model download "fatalities*" --run-id 2026-11 --to models
    """
    if folder is not None:
        names = [str(MODEL_NAME.convert(name, None, None)) for name in given]
        refuse_nothing(names, options)
        found = storage.download_many(folder, *names, overwrite=force, **options)
        return Several([Download(record.name, path, record.size) for record, path in found])
    if not given or has_conditions(options):
        raise click.UsageError("give one NAME, or --to DIR with NAMEs, globs or conditions.")
    return download_one(storage, force, str(MODEL_NAME.convert(given[0], None, None)), *given[1:])


def download_one(
    storage: "views_runs.Storage", force: bool, name: str, file: str | None = None, *more: str
) -> Download | None:
    """Write one model to a file or to standard output."""
    if not is_one_model(storage, [name], {}):
        raise click.UsageError(f"{name!r} is a glob, which can mean several models; give --to DIR.")
    if file and names_a_model(storage, file):
        raise click.UsageError(
            f"FILE is the name of a model, {file!r}. To download several models to this folder:\n"
            f"  views-runs model download {shell_line(name, file, *more)} --to .\n"
            f"To write to a file of this name: {shell_line(os.path.join('.', file))}"
        )
    refuse_extra([*more])
    if file == "-":
        if sys.stdout is None or sys.stdout.isatty():
            raise click.UsageError("refusing to write a pickle to the terminal; give a FILE or redirect the output.")
        storage.write_pickle(name, sys.stdout.buffer)
        return None
    path = storage.download(name, file, overwrite=force)
    return Download(name, path, path.stat().st_size)


def format_loop(files: list[str]) -> str:
    """Return a line that uploads one file after the other, for sh, or for PowerShell."""
    if os.name != "nt":
        return f'for file in {shell_line(*files)}; do views-runs model upload "$file"; done'
    quoted = ['"' + shell_line(file).strip('"') + '"' for file in files]
    return f"{', '.join(quoted)} | ForEach-Object {{ views-runs model upload $_ }}"


def refuse_extra(arguments: list[str]) -> None:
    """Raise an error if the line has more arguments than the command takes."""
    if arguments:
        what = f"unexpected extra argument{'s' if len(arguments) > 1 else ''}"
        raise click.UsageError(f"{what}: {shell_line(*arguments)}. Quote a name that contains spaces.")


def names_a_model(storage: "views_runs.Storage", file: str) -> bool:
    """Return whether FILE is a bare name that is also a model's: the model was more likely meant."""
    with suppress(InvalidNameError):
        return not os.path.dirname(file) and not os.path.isdir(file) and file != "-" and storage.exists(decode(file))
    return False


@verb(fails=lambda made: made.damaged)
@click.argument("file")
def backup(storage: "views_runs.Storage", file: str) -> "views_runs.Backup":
    """Copy the whole store to a new FILE, and verify the copy.

    The copy is itself a store, with the state of a single moment; others can store and delete meanwhile. Exits with 1
    if a model is damaged and was not copied.

    \b
    Examples:
      views-runs model backup /backups/models.db
      views-runs model --store /backups/models.db list
    """
    from views_runs.rendering.console import progress

    with progress("Copying and verifying") as report:
        return storage.backup(file, progress=report)
