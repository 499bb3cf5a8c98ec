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
    yes_option,
)
from views_runs.rendering.values import Change, Deletion


@verb(params=field_options(*KINDS, old=OLD_NAMES))
@click.argument("name", type=MODEL_NAME)
@click.option("-s", "starts", metavar="MONTH", type=decode, multiple=True, help="The same as --train-start.")
@set_option
@click.option("--unset", metavar="KEY", type=decode, multiple=True, help="Remove a field; repeatable.")
def annotate(
    storage: "views_runs.Storage",
    name: str,
    starts: Sequence[str] = (),
    settings: Sequence[str] = (),
    unset: Sequence[str] = (),
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
    return Change(storage.annotate_fields(before.name, changes, unset, before.version), before)


@verb()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=MODEL_NAME)
@yes_option
def delete(storage: "views_runs.Storage", names: list[str], yes: bool) -> Deletion:
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
    return Deletion(records, {record.name: storage.delete(record.name, record.version) for record in records})
