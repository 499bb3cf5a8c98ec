"""Verbs that show, check and download runs."""

from typing import Any

import click

import views_runs
from views_runs.cli.command import decode, verb
from views_runs.rendering.values import Checks, Download, RunListing, RunShown, Several

run_argument = click.argument("id", metavar="RUN", type=decode)


@verb(name="list")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only, one per line.")
def list_runs(storage: "views_runs.Storage", quiet: bool) -> RunListing:
    """List the runs, the latest first.

    A run is complete if it has all models that it is expected to use, as set with run.expect in Python. Runs that were
    never entered are listed too if they are in the metadata field run_id of a model.

    \b
    Examples:
      views-runs run list
      views-runs run list -q
    """
    return RunListing(storage.runs(), quiet, f"No runs yet in {storage.path}. Enter one from Python: Storage().run(id)")


@verb()
@run_argument
@click.option("--like", metavar="RUN", type=decode, help="Also show models that only this other run used.")
@click.option("--group-by", metavar="FIELD", type=decode, help="Group by a field instead of the training period.")
def show(storage: "views_runs.Storage", id: str, like: str | None = None, group_by: str | None = None) -> RunShown:
    """Show the models of a run: trained, reused, deleted since, or missing.

    A model is missing if the run is expected to use it, as set with run.expect in Python, and does not have it. With
    --like, also shows the models that another run used and this one does not have.

    \b
    Examples:
      views-runs run show 2026-11
      views-runs run show 2026-11 --like 2026-10
      views-runs run show 2026-11 --group-by outcome
    """
    run = storage.run(id)
    unreadable: list[views_runs.Damage] = []
    record, models = run.inspect(), run.models(unreadable.append)
    lacking = [] if like is None else run.missing(like)
    return RunShown(record, models, lacking, unreadable, like, group_by)


@verb(fails=lambda checks: any(one["verdict"] == "will not load" for one in checks.models))
@run_argument
def check(storage: "views_runs.Storage", id: str) -> Checks:
    """Check whether all models of a run will load on this machine.

    Compares what each model needs with what is installed here, without loading it. Exits with 1 if a model will not
    load, has been deleted, or is missing.

    \b
    Example:
      views-runs run check 2026-11
    """
    run = storage.run(id)
    unreadable: list[views_runs.Damage] = []
    absent = [one for one in run.models(unreadable.append) if one.record is None]
    checked: list[dict[str, Any]] = [
        {"name": record.name, "version": record.version, **vars(found)} for record, found in run.check()
    ]
    for one in absent:
        reason = "the run does not have it" if one.version is None else "it was deleted after the run used it"
        checked.append(
            {"name": one.name, "version": one.version, "verdict": "will not load", "reasons": [reason], "fix": ""}
        )
    return Checks(checked, unreadable)


@verb()
@run_argument
@click.option("--to", "folder", metavar="DIR", required=True, help="The folder; it is created if necessary.")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist.")
def download(storage: "views_runs.Storage", id: str, folder: str, force: bool) -> Several:
    """Write the pickles of a run's models to files in DIR, without loading them.

    These are the versions that the run used, current or not. The file of a current version is NAME.pickle, that of
    another version NAME_VERSION.pickle. Nothing is written if a file exists.

    \b
    Example:
      views-runs run download 2026-11 --to models
    """
    found = storage.run(id).download(folder, overwrite=force)
    return Several([Download(record.name, path, record.size) for record, path in found])
