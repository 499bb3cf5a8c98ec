"""Types of arguments, and options that several verbs have."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from views_runs import names
from views_runs.known_fields import KNOWN_FIELDS, MONTH, MONTHS, TEXT, TIME

F = TypeVar("F", bound=Callable[..., Any])


class Words(click.types.StringParamType):
    """Text, in UTF-8 whatever the locale says; not for paths, which have to stay the bytes that the system knows."""

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
    """NAME or NAME:VERSION of a model, which need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text.

        Raises:
            InvalidNameError: no model can have this name.
        """
        text = super().convert(value, param, ctx)
        names.reference(text, None)
        return text


WORDS, MODEL_NAME = Words(), ModelName()

#: For each kind of known field, what its option takes, and an example.
KINDS = {
    TEXT: ("TEXT", WORDS, ""),
    MONTH: ("MONTH", WORDS, ", as in 480 or 2019-12"),
    MONTHS: ("N", click.INT, "; repeatable"),
    TIME: ("TIME", WORDS, ", as in 2026-11-23 or 2026-11-23T08:00"),
}


def field_options(*kinds: str, multiple: bool = False) -> Callable[[F], F]:
    """Add the option of each known field of these kinds; the verb gets them as ``**fields``, for `given`.

    Args:
        kinds: keys of `KINDS`.
        multiple: whether an option may be repeated, for any of several values; that of a list always may.
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
    """Add the options that give metadata; the verb gets them as ``settings`` and ``**fields``, for `metadata`."""
    set_option = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        type=WORDS,
        multiple=True,
        help="Any field; quote a VALUE that is text but looks like something else.",
    )
    return field_options(*KINDS)(set_option(command))


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the line gives; an option that was repeated gives a list."""
    return {
        field: list(value) if isinstance(value, tuple) else value
        for field, value in fields.items()
        if value not in (None, ())
    }


def metadata(fields: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata that the options of `metadata_options` give.

    Raises:
        QueryError: a value cannot be read.
    """
    from views_runs import query

    values = {
        name: query.typed(name, value) if isinstance(value, str) else value for name, value in given(fields).items()
    }
    return values | dict(query.assignment(text) for text in settings)


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
