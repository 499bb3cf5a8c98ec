"""Verbs that check models and the store."""

from typing import TYPE_CHECKING

import click

from views_runs.cli.command import verb
from views_runs.cli.options import MODEL_NAME
from views_runs.rendering.values import Check, Checks, Diagnosis, Verified

if TYPE_CHECKING:
    from views_runs.records import Damage
    from views_runs.storage import Storage


def will_not_load(checks: Checks) -> bool:
    """Return whether a model will not load."""
    from views_runs.pickles.loadability import WILL_NOT

    return any(one.verdict == WILL_NOT for one in checks.models)


@verb(fails=will_not_load)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
@click.option("--all", "everything", is_flag=True, help="Check the current versions of all models.")
def check(storage: "Storage", names: tuple[str, ...], everything: bool) -> Checks:
    """Check whether models will load on this machine.

    Compares what each model needs with what is installed here, without loading it. Run it in a new environment before
    you switch to it. Exits with 1 if a model will not load.

    \b
    Examples:
      viewser model check my-model
      viewser model check --all
    """
    if bool(names) == everything:
        raise click.UsageError("give either NAMEs or --all.")
    unreadable: list[Damage] = []
    checked = storage.check(*names, on_damage=unreadable.append)
    models = [Check(one.name, one.version, found.verdict, found.reasons, found.fix) for one, found in checked]
    return Checks(models, unreadable)


@verb(fails=lambda verified: verified.found.damaged)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
def verify(storage: "Storage", names: tuple[str, ...]) -> Verified:
    """Verify that models are byte for byte as they were stored.

    Reads all versions of the given models, or of all models, without loading them. Others can use the store meanwhile.
    Exits with 1 if a model is damaged.

    \b
    Examples:
      viewser model verify
      viewser model verify my-model my-model:1
    """
    from views_runs.rendering.console import progress

    with progress("Verifying") as report:
        return Verified(storage.verify(*names, progress=report), storage.path)


def has_failed(diagnosis: Diagnosis) -> bool:
    """Return whether a finding is a failure."""
    return any(finding.state == "failure" for finding in diagnosis.findings)


@verb(fails=has_failed)
@click.option("--peer", is_flag=True, help="Test the share together with a second computer that runs the same command.")
def doctor(storage: "Storage", peer: bool) -> Diagnosis:
    """Check the store, its permissions and its file system.

    Reads no models; `viewser model verify` does. Whether a share keeps what several computers write can only be tested
    from two of them: run this with --peer on both within a minute. Exits with 1 on a failure.

    \b
    Examples:
      viewser model doctor
      viewser model doctor --peer --store /shared/models/models.db
    """
    from views_runs.rendering.console import show_message

    return Diagnosis(storage.doctor(peer, show_message))
