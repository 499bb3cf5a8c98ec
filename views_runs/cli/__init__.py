"""The command line: parse the arguments, call the library, and pass the result to rendering."""

import click

from views_runs.cli.beside import Beside
from views_runs.cli.command import SHARED_OPTIONS, Main, Verbs
from views_runs.version import __version__

#: The verbs of ``views-runs model`` by module of this package; the module's name is also their heading in the help.
FAMILIES = {
    "look": ("list", "inspect", "diff", "history", "log", "guide"),
    "change": ("annotate", "alias", "unalias", "restore", "rename", "delete", "prune"),
    "move": ("upload", "download", "backup"),
    "check": ("check", "verify", "doctor"),
    "share": ("require", "trust"),
}

#: The verbs of ``views-runs run``.
RUN_FAMILIES = {"runs": ("list", "show", "check", "download")}

#: The command ``views-runs``.
main = Main(
    "main",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find, inspect and manage the models that ViEWS trained.

    \b
    Example:
      views-runs model list
    """,
)
click.version_option(__version__, prog_name="views_runs")(main)
main.params += SHARED_OPTIONS

model = Verbs(
    "model",
    FAMILIES,
    help="""Store, find, inspect and manage models.

    NAME:VERSION and NAME@ALIAS are one version of a model. NAME alone is its current version; for delete and verify,
    all its versions.

    \b
    Examples:
      views-runs model list
      views-runs model inspect my-model
      views-runs model --store /shared/models.db list
    """,
)
main.add_command(model)

run = Verbs(
    "run",
    RUN_FAMILIES,
    help="""Show what production runs trained and reused.

    A run is a set of versions, at most one of each model. Enter one from Python: Storage().run("2026-11").

    \b
    Examples:
      views-runs run list
      views-runs run show 2026-11
    """,
)
main.add_command(run)

#: The command ``viewser``.
viewser = Beside(main)
