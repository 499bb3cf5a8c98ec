"""Verbs that check models and the store."""

from collections.abc import Sequence
from typing import Any

import click

import views_runs
from views_runs.cli.command import verb
from views_runs.cli.options import MODEL_NAME, condition_options, has_conditions
from views_runs.rendering.values import Checks, Diagnosis, Verified


@verb(params=condition_options(), fails=lambda checks: any(one["verdict"] == "will not load" for one in checks.models))
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
@click.option("--all", "everything", is_flag=True, help="Check the current versions of all models.")
def check(storage: "views_runs.Storage", everything: bool, names: Sequence[str] = (), **options: Any) -> Checks:
    """Check whether models will load on this machine.

    Compares what each model needs with what is installed here, without loading it. Run it in a new environment before
    you switch to it. Exits with 1 if a model will not load.

    \b
    Examples:
      views-runs model check my-model my-model@production
      views-runs model check "fatalities*" --run-id 2026-11
      views-runs model check --all
    """
    if bool(names or has_conditions(options)) == everything:
        raise click.UsageError("give either NAMEs or conditions, or --all.")
    unreadable: list[views_runs.Damage] = []
    checked = storage.check(*names, on_damage=unreadable.append, **options)
    return Checks([{"name": one.name, "version": one.version, **vars(found)} for one, found in checked], unreadable)


@verb(params=condition_options(), fails=lambda verified: verified.found.damaged)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
def verify(storage: "views_runs.Storage", names: Sequence[str] = (), **options: Any) -> Verified:
    """Verify that models are byte for byte as they were stored.

    Reads all versions of the given models, or of all models, without loading them; for a glob or a condition, those
    that `views-runs model list` shows. Others can use the store meanwhile. Exits with 1 if a model is damaged.

    \b
    Examples:
      views-runs model verify
      views-runs model verify my-model another-model:1
      views-runs model verify --since yesterday
    """
    from views_runs.rendering.console import progress

    with progress("Verifying") as report:
        return Verified(storage.verify(*names, progress=report, **options), storage.path)


@verb(fails=lambda diagnosis: any(finding.state == "failure" for finding in diagnosis.findings))
@click.option("--peer", is_flag=True, help="Test the share together with a second computer that runs the same command.")
def doctor(storage: "views_runs.Storage", peer: bool) -> Diagnosis:
    """Check the store and its file system, and whose command viewser is.

    Reads no models; `views-runs model verify` does. Whether a share keeps what several computers write can only be
    tested from two of them: run this with --peer on both within a minute. Exits with 1 on a failure.

    \b
    Examples:
      views-runs model doctor
      views-runs model doctor --peer --store /shared/models/models.db
    """
    from views_runs.health.commands import check_command
    from views_runs.health.doctor import attempt
    from views_runs.rendering.console import show_message

    return Diagnosis([*storage.doctor(peer, show_message), *attempt("command", check_command())])
