"""Argument types, and options that several verbs have."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from views_runs import names
from views_runs.metadata import KNOWN_FIELDS, MONTH, MONTHS, TEXT, TIME, Kind

F = TypeVar("F", bound=Callable[..., Any])


class Words(click.types.StringParamType):
    """Text, decoded as UTF-8 whatever the locale; not for paths, whose bytes must stay as they are."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = str(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            # In an ASCII locale each byte of a character arrives as a lone surrogate.
            with suppress(UnicodeError):
                return os.fsencode(text).decode("utf-8")
        return text


class ModelName(Words):
    """NAME or NAME:VERSION of a model that need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text.

        Raises:
            InvalidNameError: no model can have this name.
        """
        text = super().convert(value, param, ctx)
        names.reference(text, None)
        return text


WORDS, MODEL_NAME = Words(), ModelName()

#: For each kind of known field: the metavar and type of its option, and the end of its help.
KINDS = {
    TEXT: ("TEXT", WORDS, ""),
    MONTH: ("MONTH", WORDS, ", as in 480 or 2019-12"),
    MONTHS: ("N", click.INT, "; repeatable"),
    TIME: ("TIME", WORDS, ", as in 2026-11-23 or 2026-11-23T08:00"),
}


def field_options(*kinds: Kind, multiple: bool = False) -> Callable[[F], F]:
    """Add an option for each known field of these kinds; the verb passes ``**fields`` to `given`.

    Args:
        kinds: keys of `KINDS`.
        multiple: whether options can be repeated, to match any of several values; a list's option always can.
    """

    def decorate(command: F) -> F:
        for field in reversed([*KNOWN_FIELDS.values()]):
            if field.option and field.kind in kinds:
                metavar, kind, example = KINDS[field.kind]
                command = click.option(
                    field.option,
                    field.name,
                    metavar=metavar,
                    type=kind,
                    multiple=multiple or field.kind == MONTHS,
                    help=f"{field.help[0].upper()}{field.help[1:]}{example}.",
                )(command)
        return command

    return decorate


def metadata_options(command: F) -> F:
    """Add the options for metadata; the verb passes ``**fields`` and ``settings`` to `metadata`."""
    set_option = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        type=WORDS,
        multiple=True,
        help="Set any field; quote a VALUE that is text but looks like something else. Repeatable.",
    )
    return field_options(*KINDS)(set_option(command))


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields given on the command line; repeatable options give lists."""
    return {
        field: list(value) if isinstance(value, tuple) else value
        for field, value in fields.items()
        if value not in (None, ())
    }


def metadata(fields: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata given with the options of `metadata_options`.

    Raises:
        QueryError: a value is not valid.
    """
    from views_runs import query

    typed = {
        name: query.parse_value(name, value) if isinstance(value, str) else value
        for name, value in given(fields).items()
    }
    return typed | dict(query.parse_assignment(text) for text in settings)


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
