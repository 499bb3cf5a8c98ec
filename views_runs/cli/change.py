"""Verbs that change or delete models."""

from collections.abc import Callable, Sequence
from typing import Any

import click

import views_runs
from views_runs.cli.command import decode, restate, verb
from views_runs.cli.options import (
    KINDS,
    MODEL_NAME,
    OLD_NAMES,
    condition_options,
    dry_run_option,
    field_options,
    is_one_model,
    parse_metadata,
    refuse_nothing,
    set_option,
    where_option,
    why_option,
    yes_option,
)
from views_runs.exceptions import QueryError
from views_runs.rendering.values import Change, Deletion, Naming, Pruning, Several

#: What a bar says while the space of deleted models is returned.
RETURNING = "Returning space to the disk (Ctrl-C to do this later)"


def check_age(context: click.Context, parameter: click.Parameter, age: str | None) -> str | None:
    """Raise an error if the value of an option is not an age."""
    from views_runs.query import parse_age

    try:
        if age is not None:
            parse_age(age)
        return age
    except QueryError as error:
        raise click.BadParameter(f"{error.trouble}. {error.advice}.") from error


@verb(params=[*field_options(*KINDS, old=OLD_NAMES), where_option()])
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
@click.option("-s", "starts", metavar="MONTH", type=decode, multiple=True, help="The same as --train-start.")
@set_option
@click.option("--unset", metavar="KEY", type=decode, multiple=True, help="Remove a field; repeatable.")
@why_option
def annotate(
    storage: "views_runs.Storage",
    names: Sequence[str] = (),
    where: Sequence[str] = (),
    starts: Sequence[str] = (),
    settings: Sequence[str] = (),
    unset: Sequence[str] = (),
    why: str | None = None,
    **fields: Any,
) -> Change | Several:
    """Change some of the metadata of models and keep the rest.

    Takes NAMEs, globs and --where; the other options set fields. Nothing is changed unless all models can be changed.
    A VALUE that looks like a number, true or false, a date or a time is read as one. A VALUE that begins with [ or { is
    read as JSON, and any other as text.

    \b
    Examples:
      views-runs model annotate my-model --author me --train-end 2019-12
      views-runs model annotate my-model:1 --set "note=too few countries" --unset draft
      views-runs model annotate "fatalities*" -w "stage = test" --set stage=prod
    """
    refuse_nothing(names, {"where": where} if where else {})
    if len([*starts, *fields.keys() & {"train_start"}]) > 1:
        # The help of viewser 6.6 has -s for both, and its parser took it for --step.
        raise click.UsageError("-s is --train-start, which takes one month; give steps with --step.")
    changes = parse_metadata(fields | {"train_start": month for month in starts}, settings)
    if not changes and not unset:
        raise click.UsageError("nothing to change; give a field's option, --set or --unset.")
    is_one = is_one_model(storage, names, {"where": where} if where else {})
    found = storage.annotate_many(*names, fields=changes, unset=unset, where=where, why=why)
    several = [Change(after, before) for before, after in found]
    return several[0] if is_one else Several(several)


@verb()
@click.argument("name", type=MODEL_NAME)
@click.argument("alias", type=decode)
@click.argument("version", required=False, type=int)
@why_option
def alias(
    storage: "views_runs.Storage", name: str, alias: str, version: int | None = None, why: str | None = None
) -> Naming:
    """Give a version of a model another name, such as production.

    NAME@ALIAS then means this version, even if new versions are stored. VERSION defaults to the current one. If
    another version has the alias, the alias is moved. A version with an alias is not deleted without --force.

    \b
    Examples:
      views-runs model alias my-model production
      views-runs model alias my-model production 2 --why "validated for the report"
      views-runs model inspect my-model@production
    """
    with restate(f"give an alias to {name!r}"):
        before = find_version(storage, name, lambda one: alias in one.aliases)
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

    Nothing is copied or deleted; to undo this, restore the later version. The next version that is stored becomes
    current.

    \b
    Examples:
      views-runs model restore my-model:2
      views-runs model restore my-model@production --why "version 3 was trained on the wrong data"
    """
    with restate(f"restore {name!r}"):
        before = find_version(storage, name, lambda one: one.current)
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
        before = find_version(storage, old, lambda one: one.current)
    return Naming(storage.rename(old, new, why=why), "renamed", before)


def find_version(
    storage: "views_runs.Storage", name: str, matches: "Callable[[views_runs.ModelRecord], bool]"
) -> "views_runs.ModelRecord | None":
    """Return the first matching version of the model that NAME, NAME:VERSION or NAME@ALIAS refers to."""
    return next(filter(matches, storage.versions(storage.versions(name)[0].name)), None)


@verb(params=condition_options(), fails=lambda deletion: any(one.changed for one in deletion.found.versions))
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
@click.option("--promote-older", is_flag=True, help="Let an older version become current.")
@click.option("--force", is_flag=True, help="Also delete versions that have an alias.")
@dry_run_option
@why_option
@yes_option
def delete(
    storage: "views_runs.Storage", yes: bool, dry_run: bool, names: Sequence[str] = (), **options: Any
) -> Deletion:
    """Delete models with all their versions, or single versions.

    NAME means all versions of a model, NAME:VERSION only one. A glob or a condition means the versions that `views-runs
    model list` shows for it. It does not delete the current version of a model that has others, unless you give
    --all-versions or --promote-older. Nothing is deleted that was not shown.

    \b
    Examples:
      views-runs model delete my-model
      views-runs model delete my-model:1 my-model:2 --yes
      views-runs model delete "test*" --all-versions --dry-run
      views-runs model delete --all-versions -w "not current and train_end < 2019-12"
    """
    from views_runs.rendering.console import late_progress

    refuse_nothing(names, options)
    confirm = None if yes else ask_to_delete
    with late_progress(RETURNING) as report:
        found = storage.delete_many(*names, dry_run=dry_run, confirm=confirm, progress=report, **options)
    return Deletion(found.deleted, found, dry_run)


def ask_to_delete(found: "views_runs.Deletion") -> None:
    """Show what will be deleted, and abort the command unless the answer is yes."""
    from views_runs.rendering.console import confirm
    from views_runs.rendering.views import show_deletion_plan

    show_deletion_plan(found)
    confirm("Delete them?" if len(found.versions) > 1 else "Delete it?")


@verb(params=[one for one in condition_options() if one.name != "all_versions"])
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
@click.option("--keep-last", metavar="N", type=click.IntRange(1), help="Keep the last N versions of each model.")
@click.option("--keep-within", metavar="AGE", callback=check_age, help="Keep versions no older than 90d, 12w or 36h.")
@click.option("--keep-runs", metavar="N", type=click.IntRange(1), help="Keep versions that the last N runs used.")
@click.option("--keep", metavar="CONDITION", type=decode, multiple=True, help="Keep what meets this; repeatable.")
@click.option("--group-by", metavar="FIELD", type=decode, help="Apply --keep-last to each value of FIELD.")
@dry_run_option
@why_option
@yes_option
def prune(
    storage: "views_runs.Storage", yes: bool, dry_run: bool, names: Sequence[str] = (), **options: Any
) -> Pruning:
    """Delete the versions that no rule keeps.

    Give at least one --keep rule; a version is kept if any of them keeps it. Current versions, versions with an alias
    and those that a complete run used are never deleted. With NAMEs, globs or conditions, only the versions that they
    choose are considered and counted.

    \b
    Examples:
      views-runs model prune --keep-last 3 --keep-within 90d --dry-run
      views-runs model prune "fatalities*" --keep-last 2 --keep "stage = prod"
      views-runs model prune --keep-last 1 --group-by train_end --run-id 2026-11
    """
    if not any(rule in options for rule in ("keep_last", "keep_within", "keep_runs", "keep")):
        raise click.UsageError("give what to keep: --keep-last, --keep-within, --keep-runs or --keep.")
    from views_runs.rendering.console import late_progress

    confirm = None if yes else ask_to_prune
    with late_progress(RETURNING) as report:
        found = storage.prune(*names, dry_run=dry_run, confirm=confirm, progress=report, **options)
    return Pruning(found, dry_run)


def ask_to_prune(found: "list[views_runs.Disposition]") -> None:
    """Show what will be deleted, and abort the command unless the answer is yes."""
    from views_runs.rendering.console import confirm
    from views_runs.rendering.views import show_pruning_plan

    show_pruning_plan(found)
    confirm("Delete these?")
