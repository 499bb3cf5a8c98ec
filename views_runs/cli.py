"""The command line: parse, call the library, and hand what it returns to rendering."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from views_runs.exceptions import StorageError
from views_runs.version import __version__

if TYPE_CHECKING:
    from views_runs.storage import Storage

F = TypeVar("F", bound=Callable[..., Any])


class Group(click.Group):
    """A group of commands that prints a `StorageError` and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except StorageError as error:
            from views_runs import rendering

            rendering.show_error(str(error))
            ctx.exit(1)


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


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="viewser")
@shared_options
def main() -> None:
    """Find, look at and fetch the models that ViEWS trained.

    \b
    Example:
      viewser model list
    """


@main.group()
@shared_options
def model() -> None:
    """List, inspect, download and delete stored models.

    NAME:VERSION names one version of a model; NAME alone its current one.

    \b
    Examples:
      viewser model list
      viewser model inspect my-model
      viewser model --store /shared/models.db list
    """


@model.command("list")
@click.argument("glob", required=False)
@click.option("--all-versions", is_flag=True, help="Older versions too.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone, one a line.")
@shared_options
def list_models(glob: str | None, all_versions: bool, quiet: bool) -> None:
    """List the models, the last stored first.

    GLOB chooses by name: * stands for any characters, ? for one. Quote it, so that the shell leaves it alone.

    \b
    Examples:
      viewser model list
      viewser model list 'fatalities*' --all-versions
    """
    from views_runs import rendering

    storage = _storage()
    records = storage.find(name=glob, all_versions=all_versions)
    if _wants_json():
        rendering.show_json([record.as_json() for record in records])
    elif quiet:
        rendering.show_lines(record.name for record in records)
    elif records:
        rendering.show_records(records)
    else:
        rendering.show_empty(storage.path, glob, _given_store())


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
        if sys.stdout.isatty():
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
    doomed = [record for name in dict.fromkeys(names) for record in storage.versions(name)]
    if not yes:
        rendering.show_doomed(doomed)
        click.confirm("Delete them?" if len(doomed) > 1 else "Delete it?", abort=True, err=True)
    current = {name: storage.delete(name) for name in dict.fromkeys(names)}
    if _wants_json():
        rendering.show_json([record.as_json() for record in doomed])
    else:
        rendering.show_deleted(doomed, current)
