"""Verbs that show models and the guide."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

import views_runs
from views_runs.cli.command import decode, restate, verb
from views_runs.cli.options import MODEL_NAME, condition_options, is_one_model, refuse_nothing, where_option
from views_runs.exceptions import InvalidNameError, ModelNotFoundError
from views_runs.names import check_new_name, listed
from views_runs.rendering.values import Differences, History, Listing, Log, Several, Topic


@verb(name="list", params=condition_options(where_option("above")))
@click.argument("name", metavar="[GLOB]", required=False, type=decode)
@click.option("--sort", metavar="FIELD", type=decode, help="Sort by FIELD; -FIELD for descending order.")
@click.option("--columns", metavar="NAMES", type=decode, help="Columns to show, as in name,outcome,mse; +mse adds one.")
@click.option("--limit", metavar="N", type=click.IntRange(min=0), help="List at most N models.")
@click.option("-q", "--quiet", is_flag=True, help="Print names; NAME:VERSION if not current or with --all-versions.")
def list_models(
    storage: "views_runs.Storage", quiet: bool, where: Sequence[str] = (), columns: str = "", **options: Any
) -> Listing:
    """List models, the most recently stored first.

    A model is listed if it meets all conditions. GLOB selects by name: * matches any characters, ? any single one. A
    field's option can be repeated to match any of several values.

    A CONDITION is FIELD OPERATOR VALUE, with = != < <= > >= or ~ (glob); FIELD in (VALUE, VALUE); FIELD has VALUE, for
    lists; FIELD alone, for models that have it; or several of these with and, or, not and parentheses. A VALUE is a
    number, true or false, a date, a time, a month (for train_start and train_end) or text. Without quotes it ends at
    and, at or, and at a closing parenthesis: put text that contains these, or looks like something else, in single
    quotes. a.b is the field b in a. size, stored_at, stored_by, version, current, alias, run and type are recorded by
    the store; metadata.size is a metadata field of that name. Put globs and conditions in double quotes, which work in
    every shell. See also `views-runs model guide conditions`.

    \b
    Examples:
      views-runs model list --author me --run-id 2026-11
      views-runs model list "fatalities*" -w "train_end >= 2019-12 and (size > 100MB or type ~ *Forest*)"
      views-runs model list -w "outcome in (ged_sb, ged_ns) and steps has 3" --columns +mse
      views-runs model list --since 2w --sort -train_end --limit 20
    """
    unreadable: list[views_runs.Damage] = []
    with restate("list models"):
        records = storage.find(*where, **options, on_damage=unreadable.append)
    names = None
    if quiet:
        usable = [one for one in records if has_usable_name(one, unreadable)]
        short = not options["all_versions"]
        names = [one.name if short and one.current else str(one.reference) for one in usable]
    return Listing(records, unreadable, names, "" if records else explain_empty(storage, where, options), columns)


def has_usable_name(record: "views_runs.ModelRecord", unreadable: "list[views_runs.Damage]") -> bool:
    """Return whether the name of a model is what another command takes it for; if not, add to the unreadable rows.

    Another program may have given it a name with a line break, which would be two names for xargs.
    """
    try:
        return bool(check_new_name(record.name))
    except InvalidNameError as error:
        unreadable.append(views_runs.Damage(record.name, record.version, str(error)))
        return False


def shorten(text: str, most: int = 300) -> str:
    """Return the beginning of a text that would hide the rest of a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def explain_empty(storage: "views_runs.Storage", where: Sequence[str], options: dict[str, Any]) -> str:
    """Return the message to show when there is nothing to list."""
    if options.get("limit") == 0:
        return "--limit 0 lists nothing."
    has_file = storage.exists_file()
    asked = {key: value for key, value in options.items() if key not in ("all_versions", "sort", "limit")}
    # Shows what the shell makes of an unquoted `-w train_end >= 480`: a condition, a redirection and a GLOB.
    values = {key: value if isinstance(value, list) else [value] for key, value in asked.items()}
    shown = [f"{key} {' or '.join(map(str, several))}" for key, several in values.items()]
    shown.extend(where)
    if has_file and shown:
        start = f"No model in {storage.path} meets these conditions: {shorten(', '.join(shown))}."
        return f"{start} `views-runs model list` lists all models."
    start = f"No models yet in {storage.path}. Store one from Python:"
    if not has_file:
        start = f"There is no store yet at {storage.path}; `views-runs model upload` or Storage().store() creates it:"
    path = click.get_current_context().meta.get("views_runs.store")
    made = f"Storage({path!r})" if path else "Storage()"
    return f"{start}\n\n    from views_runs import Storage\n    {made}.store('my-model', my_model, {{'author': 'me'}})"


@verb(params=condition_options())
@click.argument("names", metavar="[NAME]...", nargs=-1, type=MODEL_NAME)
def inspect(
    storage: "views_runs.Storage", names: Sequence[str] = (), **options: Any
) -> "views_runs.ModelRecord | Several":
    """Show everything known about models, without loading them.

    A glob or a condition means the versions that `views-runs model list` shows for it.

    \b
    Examples:
      views-runs model inspect my-model
      views-runs model inspect my-model:2 my-model@production --json
      views-runs model inspect "fatalities*" -w "train_end >= 2019-12"
    """
    refuse_nothing(names, options)
    if is_one_model(storage, names, options):
        return storage.inspect(names[0])
    unreadable: list[views_runs.Damage] = []
    with restate(f"inspect {listed([*map(repr, names)]) or 'models'}"):
        records = storage.select(*names, on_damage=unreadable.append, **options)
    found = []
    for record in records:
        # One that was deleted meanwhile is not a reason to show none of the others.
        with suppress(ModelNotFoundError):
            found.append(storage.inspect(*record.reference))
    return Several(found, unreadable)


@verb()
@click.argument("name", type=MODEL_NAME)
@click.argument("other", required=False, type=MODEL_NAME)
@click.option("--all", "everything", is_flag=True, help="Also show equal fields.")
def diff(storage: "views_runs.Storage", name: str, everything: bool, other: str | None = None) -> Differences:
    """Compare two models, or a model with its previous version.

    \b
    Examples:
      views-runs model diff my-model
      views-runs model diff my-model:1 my-model:3 --all
      views-runs model diff my-model another-model
    """
    from views_runs.records import compared

    records = storage.diff(name, other)
    rows = [{"field": field, "values": values} for field, *values in compared(*records, everything)]
    return Differences(rows, *records)


@verb()
@click.argument("name", type=decode)
def history(storage: "views_runs.Storage", name: str) -> History:
    """Show the versions of a model, including deleted ones.

    For each version, this also shows how its metadata differs from that of the version before it that still exists.

    \b
    Example:
      views-runs model history my-model
    """
    return History(storage.history(name), name)


@verb()
@click.argument("name", required=False, type=decode)
@click.option("--since", metavar="TIME", type=decode, help="Only changes made at this time or later.")
@click.option("--by", metavar="USER", type=decode, help="Only changes by USER or USER@HOST; globs are allowed.")
@click.option("--limit", metavar="N", type=click.IntRange(min=0), help="Show at most N changes.")
def log(storage: "views_runs.Storage", **options: Any) -> Log:
    """Show what was changed in the store, by whom and why.

    The latest change comes first. With NAME, show the changes to this model, including those before it was renamed.

    \b
    Examples:
      views-runs model log my-model
      views-runs model log --since 2026-11-01 --by ines
    """
    return Log(storage.log(**options), "No changes found." if options else "The log is empty.")


@verb(opens=False)
@click.argument("topic", default="index")
def guide(topic: str) -> Topic:
    """Show a page of the guide, or its index.

    The index lists the topics.

    \b
    Examples:
      views-runs model guide
      views-runs model guide conditions
    """
    from importlib import resources

    folder = resources.files("views_runs") / "guide"
    pages = {page.name.removesuffix(".rst"): page for page in folder.iterdir() if page.name.endswith(".rst")}
    if topic not in pages:
        raise click.UsageError(f"there is no topic {topic!r}. The topics are {', '.join(sorted(pages))}.")
    return Topic(topic, pages[topic].read_text("utf-8"))
