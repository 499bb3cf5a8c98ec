"""Verbs that change or delete models."""

from collections.abc import Sequence
from typing import Any

import click

import views_runs
from views_runs.cli.command import decode, restate, verb
from views_runs.cli.options import (
    KINDS,
    MODEL_NAME,
    OLD_NAMES,
    field_options,
    parse_metadata,
    set_option,
    why_option,
    yes_option,
)
from views_runs.rendering.values import Change, Deletion, Naming


@verb(params=field_options(*KINDS, old=OLD_NAMES))
@click.argument("name", type=MODEL_NAME)
@click.option("-s", "starts", metavar="MONTH", type=decode, multiple=True, help="The same as --train-start.")
@set_option
@click.option("--unset", metavar="KEY", type=decode, multiple=True, help="Remove a field; repeatable.")
@why_option
def annotate(
    storage: "views_runs.Storage",
    name: str,
    starts: Sequence[str] = (),
    settings: Sequence[str] = (),
    unset: Sequence[str] = (),
    why: str | None = None,
    **fields: Any,
) -> Change:
    """Change some of a model's metadata and keep the rest.

    A VALUE that looks like a number, true or false, a date or a time is read as one. A VALUE that begins with [ or { is
    read as JSON, and any other as text.

    \b
    Examples:
      views-runs model annotate my-model --author me --train-end 2019-12
      views-runs model annotate my-model:1 --set "note=too few countries" --unset draft
    """
    if len([*starts, *fields.keys() & {"train_start"}]) > 1:
        # The help of viewser 6.6 has -s for both, and its parser took it for --step.
        raise click.UsageError("-s is --train-start, which takes one month; give steps with --step.")
    changes = parse_metadata(fields | {"train_start": month for month in starts}, settings)
    if not changes and not unset:
        raise click.UsageError("nothing to change; give a field's option, --set or --unset.")
    with restate(f"annotate {name!r}"):
        before = storage.versions(name)[0]
    return Change(storage.annotate_fields(before.name, changes, unset, before.version, why=why), before)


@verb()
@click.argument("name", type=MODEL_NAME)
@click.argument("alias", type=decode)
@click.argument("version", required=False, type=int)
@why_option
def alias(
    storage: "views_runs.Storage", name: str, alias: str, version: int | None = None, why: str | None = None
) -> Naming:
    """Give a version of a model another name, such as production.

    NAME@ALIAS then means this version, whatever is stored later. VERSION defaults to the current one. If another
    version has the alias, it is moved. A version with an alias is not deleted without --force.

    \b
    Examples:
      views-runs model alias my-model production
      views-runs model alias my-model production 2 --why "validated for the report"
      views-runs model inspect my-model@production
    """
    with restate(f"give an alias to {name!r}"):
        before = find_aliased(storage.versions(storage.versions(name)[0].name), alias)
    return Naming(storage.alias(name, alias, version, why=why), "aliased", before, alias)


@verb()
@click.argument("name", type=MODEL_NAME)
@click.argument("alias", type=decode)
@why_option
def unalias(storage: "views_runs.Storage", name: str, alias: str, why: str | None = None) -> Naming:
    """Remove an alias of a model; the version stays.

    \b
    Example:
      views-runs model unalias my-model production
    """
    return Naming(storage.unalias(name, alias, why=why), "unaliased", None, alias)


@verb()
@click.argument("name", metavar="NAME:VERSION", type=MODEL_NAME)
@why_option
def restore(storage: "views_runs.Storage", name: str, why: str | None = None) -> Naming:
    """Make an earlier version of a model current again.

    Nothing is copied or deleted, and restoring the later version undoes it. The next model that is stored under this
    name is current again.

    \b
    Examples:
      views-runs model restore my-model:2
      views-runs model restore my-model@production --why "version 3 was trained on the wrong data"
    """
    with restate(f"restore {name!r}"):
        versions = storage.versions(storage.versions(name)[0].name)
    before = next((one for one in versions if one.current), None)
    return Naming(storage.restore(name, why=why), "restored", before)


@verb()
@click.argument("old", type=MODEL_NAME)
@click.argument("new", type=decode)
@why_option
def rename(storage: "views_runs.Storage", old: str, new: str, why: str | None = None) -> Naming:
    """Rename a model, with all its versions, aliases and history.

    \b
    Example:
      views-runs model rename my-model our-model
    """
    with restate(f"rename {old!r} to {new!r}"):
        before = next((one for one in storage.versions(old) if one.current), None)
    return Naming(storage.rename(old, new, why=why), "renamed", before)


def find_aliased(records: "list[views_runs.ModelRecord]", alias: str) -> "views_runs.ModelRecord | None":
    """Return the version with an alias."""
    return next((one for one in records if alias in one.aliases), None)


@verb()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=MODEL_NAME)
@click.option("--force", is_flag=True, help="Also delete versions that have an alias.")
@why_option
@yes_option
def delete(
    storage: "views_runs.Storage", names: list[str], yes: bool, force: bool, why: str | None = None
) -> Deletion:
    """Delete models with all their versions, or single versions.

    NAME deletes all versions of a model, NAME:VERSION only one. Globs are not expanded; to delete what `views-runs
    model list` shows, pass the names on with xargs. `views-runs model guide commands` shows how.

    \b
    Examples:
      views-runs model delete my-model
      views-runs model delete my-model:1 my-model:2 --yes
    """
    from views_runs.rendering.console import confirm
    from views_runs.rendering.views import show_deletion_plan

    found = {}
    for name in names:
        with restate(f"delete {name!r}"):
            # A model can be named twice, with and without a version.
            found.update({(record.name, record.version): record for record in storage.versions(name)})
    records = [*found.values()]
    if not yes:
        show_deletion_plan(records)
        confirm("Delete them?" if len(records) > 1 else "Delete it?")
    return Deletion(records, {record.name: storage.delete(record.name, record.version, force=force, why=why) for record in records})
