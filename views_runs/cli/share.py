"""Verbs for sharing a store."""

from collections.abc import Sequence

import click

import views_runs
from views_runs.cli.command import decode, restate, verb
from views_runs.cli.options import MODEL_NAME, why_option, yes_option
from views_runs.rendering.values import Requirements, Trust


@verb()
@click.argument("fields", metavar="[FIELD]...", nargs=-1, type=decode)
@click.option("--none", "clear", is_flag=True, help="Require no fields.")
@why_option
def require(
    storage: "views_runs.Storage", clear: bool, fields: Sequence[str] = (), why: str | None = None
) -> Requirements:
    """Show or set the metadata fields that every model must have.

    This applies to everyone who uses the store. Models already stored stay as they are.

    \b
    Examples:
      views-runs model require
      views-runs model require author run_id
      views-runs model require --none
    """
    if fields and clear:
        raise click.UsageError("give FIELDs or --none, not both.")
    if fields or clear:
        storage.require(*fields, why=why)
    return Requirements(storage.required(), storage.incomplete())


@verb()
@click.argument("name", type=MODEL_NAME)
@yes_option
def trust(storage: "views_runs.Storage", name: str, yes: bool) -> Trust:
    """Add what a model imports to your list of trusted imports.

    The list is a file in your own configuration folder. With VIEWS_RUNS_TRUSTED_ONLY=1, or Storage(trusted=True), a
    model can only import what is on the list.

    \b
    Examples:
      views-runs model trust my-model
    """
    from views_runs.pickles import trust
    from views_runs.rendering.console import confirm
    from views_runs.rendering.views import show_imports

    with restate(f"trust {name!r}"):
        record = storage.inspect(name)
    show_imports(trust.as_installed(record))
    if not yes and record.imports and not record.troubles:
        confirm(f"Add these to {trust.path()}?")
    return Trust(trust.path(), [str(one) for one in trust.add_all(record)])
