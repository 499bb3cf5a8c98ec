"""Arguments and options that several verbs have."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

import views_runs
from views_runs import names
from views_runs.cli.command import decode
from views_runs.metadata import KNOWN_FIELDS, MONTH, MONTHS, TEXT, TIME, Kind


class ModelName(click.types.StringParamType):
    """NAME, NAME:VERSION or NAME@ALIAS of a model that need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or raise the library's own error if no model can have this name."""
        text = decode(value)
        names.reference(text, None)
        return text


MODEL_NAME = ModelName()

#: For each kind of known field: the metavar and type of its option, and the end of its help.
KINDS = {
    TEXT: ("TEXT", decode, ""),
    MONTH: ("MONTH", decode, ", as in 480 or 2019-12"),
    MONTHS: ("N", int, "; repeatable"),
    TIME: ("TIME", decode, ", as in 2026-11-23 or 2026-11-23T08:00"),
}

#: The names of these options in the command of the package viewser. `annotate` itself handles ``-s``.
OLD_NAMES = {"author": ["-a"], "queryset_name": ["-q", "--queryset-name"], "train_end": ["-e"], "training_date": ["-d"]}

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")

why_option = click.option("--why", metavar="TEXT", type=decode, help="The reason, shown by `views-runs model log`.")

dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")

set_option = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    type=decode,
    multiple=True,
    help="Set any field; to store a number or date as text, quote VALUE. Repeatable.",
)


def field_options(
    *kinds: Kind, multiple: bool = False, old: Mapping[str, list[str]] = MappingProxyType({})
) -> list[click.Parameter]:
    """Return an option for each known field of these kinds; `multiple` ones match any of several values.

    `old` has other names of options, by field.
    """
    return [
        click.Option(
            [field.option, *old.get(field.name, ()), field.name],
            metavar=KINDS[field.kind][0],
            type=KINDS[field.kind][1],
            multiple=multiple or field.kind == MONTHS,
            help=f"{field.help[0].upper()}{field.help[1:]}{KINDS[field.kind][2]}.",
        )
        for field in KNOWN_FIELDS.values()
        if field.option and field.kind in kinds
    ]


def where_option(explained: str = "`views-runs model list --help`") -> click.Option:
    """Return the option for conditions; its help says where they are `explained`."""
    help = f"Only models that meet this (see {explained}); repeatable."
    return click.Option(["-w", "--where"], metavar="CONDITION", type=decode, multiple=True, help=help)


def condition_options(where: click.Option | None = None) -> list[click.Parameter]:
    """Return the options of `list` that choose models."""
    time: dict[str, Any] = {"metavar": "TIME", "type": decode}
    run = "Only versions that this run used, current or not; repeatable."
    since = "Stored at this time or later, as in 2026-11-01, 7d or yesterday."
    return [
        *field_options(TEXT, MONTH, multiple=True),
        where or where_option(),
        click.Option(["--run"], metavar="RUN", type=decode, multiple=True, help=run),
        click.Option(["--since"], help=since, **time),
        click.Option(["--until"], help="Stored at this time or earlier; a date includes the whole day.", **time),
        click.Option(["--all-versions"], is_flag=True, help="Include older versions."),
    ]


#: The names of these options, without --all-versions.
CONDITIONS = {str(option.name) for option in condition_options()} - {"all_versions"}


def has_conditions(options: Mapping[str, Any]) -> bool:
    """Return whether any of the options of `list` that choose models is on the line."""
    return not options.keys().isdisjoint(CONDITIONS)


def refuse_nothing(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raise an error if the line says nothing about which models are meant."""
    if not names and not has_conditions(options):
        raise click.UsageError("give NAMEs, globs or conditions; '*' means all models.")


def is_one_model(storage: "views_runs.Storage", given: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Return whether the line has one name and no glob or condition: its JSON is an object rather than an array."""
    if len(given) != 1 or has_conditions(options) or options.get("all_versions"):
        return False
    return not names.is_glob(given[0]) or storage.exists(given[0])


def parse_metadata(fields: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the metadata given with the options of known fields and with `set_option`."""
    from views_runs import query

    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    typed = {name: query.parse_value(name, text) for name, text in texts.items()}
    return fields | typed | dict(query.parse_assignment(text) for text in settings)
