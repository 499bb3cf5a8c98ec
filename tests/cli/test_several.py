"""The verbs that take several models: names, globs and the conditions of `list`; and prune."""

import json
import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from tests.support.lines import environment, on_a_terminal, viewser_command
from views_runs import ModelRecord, Storage

Viewser = Callable[..., Result]


@pytest.fixture
def models(store: Storage) -> Storage:
    """A store in which `forest` has three versions, and one name is a glob."""
    for month in (480, 492, 504):
        metadata = {"train_end": month, "author": "ines", "run_id": "2026-11"}
        store.store("forest", [month], metadata, overwrite=True)
    store.store("fast", 1, {"train_end": 480, "stage": "prod"})
    store.store("f*t", 2, {"author": "ola"})
    store.store("ridge", 3)
    store.alias("fast", "production")
    return store


def versions(result: Result) -> list[tuple[str, int]]:
    """Return the versions in the JSON of a list of records."""
    return [(one["name"], one["version"]) for one in json.loads(result.stdout)]


@pytest.mark.parametrize(
    "line",
    [
        "'fo*'",
        "'*'",
        "'[fr]*'",
        "'fo*' --all-versions",
        "'*@production'",
        "--author ines",
        "--author ines --author ola",
        "--author ines --all-versions",
        "--train-end 2019-12 --all-versions",
        "-w 'train_end > 2019-11 and not stage = prod' --all-versions",
        "'f*' -w author -w 'train_end >= 492' --all-versions",
        "forest -w 'train_end > 500'",
        "--since 1d --until 2099-01-01",
        "--run 2026-11",
        "-w 'run = 2026-11 and version < 4' --all-versions",
    ],
)
def test_the_same_line_chooses_the_same(models: Storage, viewser: Viewser, line: str) -> None:
    """A glob or a condition takes exactly the versions that `list` shows for the same line."""
    words = shlex.split(line)
    listed = versions(viewser("model", "list", *words, "--json"))
    assert versions(viewser("model", "inspect", *words, "--json")) == listed
    assert versions(viewser("model", "check", *words, "--json")) == listed
    assert json.loads(viewser("model", "verify", *words, "--json").stdout)["versions"] == len(listed)
    wrote = json.loads(viewser("model", "download", *words, "--to", "files", "--json").stdout)
    assert [one["name"] for one in wrote] == [name for name, _ in listed] and len(os.listdir("files")) == len(listed)
    planned = viewser("model", "delete", *words, "--dry-run", "--promote-older", "--force", "--json")
    assert versions(planned) == listed
    assert len(models.find(all_versions=True)) == 6
    deleted = viewser("model", "delete", *words, "--yes", "--promote-older", "--force", "--json")
    assert versions(deleted) == listed


def test_one_name_is_an_object(models: Storage, viewser: Viewser) -> None:
    """The JSON of one name is an object, as ever, also if it looks like a glob; otherwise it is an array."""

    def shown(*arguments: str) -> Any:
        return json.loads(viewser("model", *arguments, "--json").stdout)

    for name in ("forest", "forest:1", "f*t", "fast@production"):
        assert shown("inspect", name)["name"] == name.partition(":")[0].partition("@")[0]
        assert shown("annotate", name, "--set", "note=x")["metadata"]["note"] == "x"
        assert shown("download", name, "--force")["name"] == name
    for arguments in (["forest", "ridge"], ["forest", "forest"], ["rid*"], ["ridge", "-w", "size > 0"]):
        assert isinstance(shown("inspect", *arguments), list)
        assert isinstance(shown("annotate", *arguments, "--set", "note=y"), list)
    assert isinstance(shown("inspect", "forest", "--all-versions"), list)
    assert isinstance(shown("download", "forest", "--to", "files"), list)


@pytest.mark.parametrize(
    "line, said",
    [
        ("inspect", "give NAMEs, globs or conditions"),
        ("inspect --all-versions", "give NAMEs, globs or conditions"),
        ("delete", "give NAMEs, globs or conditions"),
        ("delete --all-versions --yes", "give NAMEs, globs or conditions"),
        ("delete --force --promote-older --why x", "give NAMEs, globs or conditions"),
        ("annotate --author me", "give NAMEs, globs or conditions"),
        ("annotate '*'", "nothing to change"),
        ("check", "give either NAMEs or conditions, or --all"),
        ("check --all --author ines", "give either NAMEs or conditions, or --all"),
        ("download", "give one NAME, or --to DIR"),
        ("download --author ines", "give one NAME, or --to DIR"),
        ("download 'fo*'", "'fo*' is a glob, which can mean several models; give --to DIR"),
        ("download --to files", "give NAMEs, globs or conditions"),
        ("prune", "give what to keep"),
        ("prune forest --group-by stage", "give what to keep"),
        ("prune --keep-last 0", "0 is not in the range"),
        ("prune --keep-last many", "'many' is not a valid integer"),
        ("prune --keep-runs -1", "-1 is not in the range"),
        ("prune --keep-within 0d", "'0d' is not an age. Give a number of hours, days or weeks"),
        ("prune --keep-within 2019", "'2019' is not an age"),
        ("prune --keep-last 1 --all-versions", "No such option"),
    ],
)
def test_wrong_usage(models: Storage, viewser: Viewser, line: str, said: str) -> None:
    """It is explained, with the status 2, and nothing is done."""
    assert said in viewser("model", *shlex.split(line), exit_code=2).stderr
    assert len(models.find(all_versions=True)) == 6


@pytest.mark.parametrize(
    "line, said",
    [
        ("inspect 'x*'", "cannot inspect 'x*': {}: no model's name matches 'x*'"),
        ("delete -w 'stagee = prod' --yes", "nothing was changed: no model has a field 'stagee'; did you mean"),
        ("delete 'fo*' --yes", "another version would become current in place of forest:3"),
        ("delete ridge 'x*' --yes", "cannot delete 'ridge', 'x*'"),
        ("delete ridge fast --yes", "fast:1 has the alias production"),
        ("annotate '*' -w 'stagee = prod' --author me", "no model has a field 'stagee'"),
        ("annotate '*' --unset author", "the metadata has no field 'author'"),
        ("prune --keep 'stagee = prod' --yes", "cannot prune models: {}: nothing was changed: no model has a field"),
        ("prune 'x*' --keep-last 1 --yes", "no model's name matches 'x*'"),
        ("verify 'x*'", "no model's name matches 'x*'"),
        ("check --author nobody", "no model meets the conditions"),
    ],
)
def test_what_is_refused(models: Storage, viewser: Viewser, line: str, said: str) -> None:
    """It is explained, with the status 1, and nothing is done."""
    before = models.find(all_versions=True)
    assert said.format(models.path) in viewser("model", *shlex.split(line), exit_code=1).stderr
    assert models.find(all_versions=True) == before


def test_delete_shows_what_it_takes(models: Storage, viewser: Viewser) -> None:
    """Who stored it, the run, the aliases and the bytes, before it asks; a dry run prints the same and asks nothing."""
    owner = models.inspect("fast").stored_by
    result = viewser("model", "delete", "fast", "fo*", "--force", "--promote-older", exit_code=1, input="n\n")
    assert re.search(rf"^fast +1 +{owner} +production +5 bytes$", result.stderr, re.MULTILINE)
    assert re.search(rf"^forest +3 +{owner} +2026-11 +\d+ bytes$", result.stderr, re.MULTILINE)
    assert "Version 2 of forest becomes current." in result.stderr and "Delete them? [y/N]" in result.stderr
    dry = viewser("model", "delete", "fast", "fo*", "--force", "--promote-older", "-n")
    assert dry.stdout.splitlines() == result.stderr.splitlines()[:3]
    assert re.search(r"Deleting 2 versions frees \d+ bytes", dry.stderr)
    assert len(models.find(all_versions=True)) == 6
    viewser("model", "delete", "fast", "fo*", "--force", "--promote-older", "--why", "old", input="y\n")
    assert models.log("fast")[0].why == "old"


def test_inspect_and_annotate_several(models: Storage, viewser: Viewser) -> None:
    """Each is shown as if it were alone; a change says of which model."""
    shown = viewser("model", "inspect", "fo*", "ridge").stdout
    assert "forest, version 3" in shown and "ridge, version 1" in shown
    said = viewser("model", "annotate", "fo*", "ridge", "--author", "me", "--why", "moved").stderr
    assert said.splitlines() == ["ridge:1:", "author (none) -> me", "forest:3:", "author ines -> me"]
    assert models.log("ridge")[0].why == "moved"


def test_deleted_while_several_are_inspected(
    models: Storage, viewser: Viewser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are shown."""
    select = Storage.select

    def overtaken(self: Storage, *given: str, **options: Any) -> list[ModelRecord]:
        found = select(self, *given, **options)
        models.delete("ridge")
        return found

    monkeypatch.setattr(Storage, "select", overtaken)
    assert versions(viewser("model", "inspect", "ridge", "forest", "--json")) == [("forest", 3)]


def test_prune_shows_why(models: Storage, viewser: Viewser) -> None:
    """A dry run has a line for each version, and the bytes."""
    result = viewser("model", "prune", "fo*", "--keep-last", "1", "--keep", "train_end = 2019-12", "--dry-run")
    lines = [re.split("  +", line) for line in result.stdout.splitlines()]
    assert [(line[0], line[1], line[4], line[5]) for line in lines[1:]] == [
        ("forest", "3", "keep", "current, among the last 1"),
        ("forest", "2", "delete", "no rule keeps it"),
        ("forest", "1", "keep", "meets train_end = 2019-12"),
    ]
    assert re.fullmatch(r"1 version would be deleted \(\d+ bytes\); 2 versions kept\.\n", result.stderr)
    shown = json.loads(viewser("model", "prune", "fo*", "--keep-last", "1", "--dry-run", "--json").stdout)
    assert [(one["record"]["version"], one["deleted"]) for one in shown] == [(3, False), (2, True), (1, True)]
    assert len(models.find(all_versions=True)) == 6


def test_prune_asks(models: Storage, viewser: Viewser) -> None:
    """It shows what goes; there is no question if nothing does."""
    result = viewser("model", "prune", "--keep-last", "1", exit_code=1, input="n\n")
    assert "Deleting 2 versions frees" in result.stderr and "; 4 versions stay." in result.stderr
    assert "ridge" not in result.stderr and len(models.find(all_versions=True)) == 6
    said = viewser("model", "prune", "--keep-last", "1", "--why", "space", input="y\n").stderr
    assert "Deleted forest, version 2" in said and "2 versions deleted" in said
    assert "0 versions deleted" in viewser("model", "prune", "--keep-last", "1").stderr
    assert "pruned forest:2  (space)" in viewser("model", "log", "forest").stdout


def test_a_deletion_that_keeps_something(models: Storage, viewser: Viewser, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed while it was asked is kept and reported: to `delete` it is an error, to `prune` it is none."""
    from views_runs.rendering import console

    def give_alias(question: str) -> None:
        models.alias("forest", "best", 1)

    monkeypatch.setattr(console, "confirm", give_alias)
    said = viewser("model", "prune", "forest", "--keep-last", "2").stderr
    assert "Did not delete forest, version 1: it is protected now (has the alias best)." in said
    models.unalias("forest", "best")
    said = viewser("model", "delete", "forest:1", exit_code=1).stderr
    assert "Did not delete forest, version 1: it now has the alias best." in said


def test_what_becomes_current_is_said_if_something_does(models: Storage, viewser: Viewser) -> None:
    """Not if the current version is still the one that it was."""
    assert "current version" not in viewser("model", "delete", "forest:1", "--yes").stderr
    assert "The current version of forest is now 2." in viewser("model", "delete", "forest:3", "--yes").stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns, is_folded", [(60, True), (200, False)])
def test_reasons_on_a_narrow_terminal(models: Storage, columns: int, is_folded: bool) -> None:
    """They have lines of their own, where the terminal would break the lines of the table anywhere."""
    line = viewser_command("model", "prune", "forest", "--keep-last", "1", "-n")
    shown = on_a_terminal(line, {**environment(models), "COLUMNS": str(columns), "LINES": "30"}).splitlines()
    assert ("  no rule keeps it" in shown) == is_folded
    assert ("  current, among the last 1" in shown) == is_folded
    assert max(map(len, shown)) <= columns
    assert shown[0].endswith("why") != is_folded


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_long_name_on_a_narrow_terminal(store: Storage) -> None:
    """What is to be deleted is in a table, without columns in which nothing is, and without broken lines."""
    name = "fatalities_" * 5
    for number in range(2):
        store.store(name, number, {"run_id": "2026-11"}, overwrite=True)
    variables = {**environment(store), "COLUMNS": "82", "LINES": "30", "NO_COLOR": "1"}
    shown = on_a_terminal(viewser_command("model", "delete", name, "-n"), variables).splitlines()
    assert shown[0].split() == ["name", "version", "run", "size"] and max(map(len, shown)) <= 82
    assert shown[1].split() == [name, "2", "2026-11", "5", "bytes"] and shown[2] == f"  {store.find()[0].stored_by}"
