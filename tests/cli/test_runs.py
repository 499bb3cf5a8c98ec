"""The commands of ``views-runs run``."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.lines import environment, on_a_terminal, viewser_command
from views_runs import Storage
from views_runs.cli import RUN_FAMILIES

Viewser = Callable[..., Result]


@pytest.fixture
def runs(store: Storage) -> Storage:
    """A store with two runs: the second reuses, trains, fails, lacks one, and lost one."""
    with store.run("2026-10") as first:
        for name, end in ("test", 480), ("future", 552), ("old", 480):
            first.store(name, [1], {"train_start": 121, "train_end": end, "outcome": "ged_sb"})
    with pytest.raises(ZeroDivisionError), store.run("2026-11", why="a month later") as second:
        second.expect(["test", "future", "lost", "[b]new[/b]"])
        second.add("test")
        metadata = {"train_start": 121, "train_end": 553}
        second.store("future", [2], metadata, overwrite=True)
        second.store("lost", [3])
        store.delete("lost")
        raise ZeroDivisionError("no data")
    store.store("own", [4], {"run_id": "2026-09"})
    return store


def test_list(runs: Storage, viewser: Viewser) -> None:
    """Each run has a line, and says whether it is complete."""
    header, *lines = viewser("run", "list").stdout.splitlines()
    assert header.split() == ["run", "began", "by", "state", "models", "size", "complete"]
    rows = {line.split()[0]: line for line in lines}
    assert [*rows] == ["2026-09", "2026-11", "2026-10"]
    assert " failed " in rows["2026-11"] and rows["2026-11"].endswith("no, 2 of 4 missing")
    assert " succeeded " in rows["2026-10"] and " failed " not in rows["2026-09"]
    assert viewser("run", "list", "-q").stdout.split() == [*rows]
    found = {run["id"]: run for run in json.loads(viewser("run", "list", "--json").stdout)}
    assert found["2026-11"]["complete"] is False and found["2026-10"]["complete"] is None
    assert (found["2026-11"]["models"], found["2026-11"]["expected"], found["2026-11"]["missing"]) == (2, 4, 2)


def test_show(runs: Storage, viewser: Viewser) -> None:
    """The models are grouped by the training period, and by what happened to them."""
    _, *groups = viewser("run", "show", "2026-11", "--like", "2026-10").stdout.strip().split("\n\n")
    assert [group.splitlines() for group in groups] == [
        ["training period 121-480", "  test:1  reused from 2026-10"],
        ["training period 121-553", "  future:2  trained"],
        ["deleted since", "  lost:1"],
        ["missing", "  [b]new[/b]"],
        ["used by 2026-10 and not by this run", "  old"],
    ]
    about, *groups = viewser("run", "show", "2026-11", "--group-by", "outcome").stdout.strip().split("\n\n")
    assert [group.splitlines()[0] for group in groups[:2]] == ["outcome (none)", "outcome ged_sb"]
    assert about.splitlines()[1] == "state     failed" and about.splitlines()[-1] == "complete  no, 2 of 4 missing"
    shown = json.loads(viewser("run", "show", "2026-11", "--like", "2026-10", "--json").stdout)
    assert shown["run"]["id"] == "2026-11" and shown["lacking"] == ["old"] and shown["like"] == "2026-10"
    assert [(one["name"], one["version"], one["state"]) for one in shown["models"]] == [
        ("[b]new[/b]", None, "missing"),
        ("future", 2, "trained"),
        ("lost", 1, "deleted"),
        ("test", 1, "reused"),
    ]
    assert shown["models"][1]["record"]["metadata"]["run_id"] == "2026-11"
    assert "\nstate     not recorded\n" in viewser("run", "show", "2026-09").stdout


def test_group_by_what_the_store_records(runs: Storage, viewser: Viewser) -> None:
    """A column of the list and a field of a dict work too; a field that cannot be one is an error."""
    runs.annotate("own", tuned={"depth": 3})
    assert "\ntuned.depth 3\n  own:1" in viewser("run", "show", "2026-09", "--group-by", "tuned.depth").stdout
    assert "\ntype list\n  own:1" in viewser("run", "show", "2026-09", "--group-by", "type").stdout
    assert "invalid field" in viewser("run", "show", "2026-09", "--group-by", "a..b", exit_code=1).stderr


def test_check(runs: Storage, viewser: Viewser) -> None:
    """It exits with 1 if one will not load, was deleted or is missing."""
    assert viewser("run", "check", "2026-10").stdout.split() == "loads future:1 loads old:1 loads test:1".split()
    result = viewser("run", "check", "2026-11", exit_code=1)
    assert "will not load  [b]new[/b]  the run does not have it\n" in result.stdout
    assert "will not load  lost:1      it was deleted after the run used it\n" in result.stdout
    verdicts = json.loads(viewser("run", "check", "2026-11", "--json", exit_code=1).stdout)
    assert {(one["name"], one["version"], one["verdict"]) for one in verdicts} == {
        ("future", 2, "loads"),
        ("test", 1, "loads"),
        ("[b]new[/b]", None, "will not load"),
        ("lost", 1, "will not load"),
    }


def test_download(runs: Storage, viewser: Viewser) -> None:
    """The versions that the run used, also those that are not current."""
    result = viewser("run", "download", "2026-10", "--to", "pickles")
    assert sorted(os.listdir("pickles")) == ["future_1.pickle", "old.pickle", "test.pickle"]
    assert "Wrote " in result.stderr and runs.fetch("future:1") == [1]
    assert "exist" in viewser("run", "download", "2026-10", "--to", "pickles", exit_code=1).stderr
    again = json.loads(viewser("run", "download", "2026-10", "--to", "pickles", "--force", "--json").stdout)
    assert {one["name"]: Path(one["file"]).name for one in again}["future"] == "future_1.pickle"
    assert "Missing option '--to'" in viewser("run", "download", "2026-10", exit_code=2).stderr


def test_list_by_run(runs: Storage, viewser: Viewser) -> None:
    """Versions that a run used are listed whether they are current or not; --run-id asks the metadata."""
    assert viewser("model", "list", "--run", "2026-10", "-q").stdout.split() == ["old", "future:1", "test"]
    several = viewser("model", "list", "--run", "2026-09", "--run", "2026-11", "-q").stdout.split()
    assert several == ["own", "future", "test"]
    assert viewser("model", "list", "--run-id", "2026-10", "-q").stdout.split() == ["old", "test"]
    assert viewser("model", "list", "-w", "run = 2026-10", "-q").stdout.split() == ["old", "test"]
    assert "meets these conditions: run 2027-01" in viewser("model", "list", "--run", "2027-01").stderr


def test_log(runs: Storage, viewser: Viewser) -> None:
    """What happened in a run is told in words."""
    lines = [line.split("  ", 2)[2] for line in viewser("model", "log").stdout.splitlines()]
    assert lines[1:9] == [
        "left the run 2026-11 with an error: ZeroDivisionError: no data",
        "deleted lost:1",
        "stored lost:1 in the run 2026-11",
        "stored future:2 in the run 2026-11",
        "reused test:1 in the run 2026-11",
        "set the run 2026-11 to use 4 models",
        "entered the run 2026-11  (a month later)",
        "left the run 2026-10",
    ]


def test_unknown_run(runs: Storage, viewser: Viewser) -> None:
    """Each verb says so, with similar ids."""
    for verb in ("show", "check"):
        assert "there is no run '2026-12'. Did you mean" in viewser("run", verb, "2026-12", exit_code=1).stderr
    assert "there is no run" in viewser("run", "download", "x", "--to", "d", exit_code=1).stderr
    assert "there is no run '2025'" in viewser("run", "show", "2026-11", "--like", "2025", exit_code=1).stderr
    assert not Path("d").exists()


def test_no_runs(store: Storage, viewser: Viewser) -> None:
    """An empty list says how to begin; a store that is not there is an error."""
    assert "exist" in viewser("run", "list", exit_code=1).stderr
    store.store("a", 1)
    assert "No runs yet in " in viewser("run", "list").stderr
    assert json.loads(viewser("run", "list", "--json").stdout) == []


def test_ids_are_text(store: Storage, viewser: Viewser) -> None:
    """An id is shown as it is, and what would do something to a terminal is escaped."""
    store.store("a", 1, {"run_id": "[b]\x1b[31m"})
    assert "[b]\\x1b[31m" in viewser("run", "list").stdout
    assert "[b]\\x1b[31m" in viewser("run", "show", "[b]\x1b[31m").stdout


@pytest.mark.parametrize("verb", [verb for verbs in RUN_FAMILIES.values() for verb in verbs])
def test_help(viewser: Viewser, verb: str) -> None:
    """Each verb explains itself with an example."""
    assert f"views-runs run {verb}" in viewser("run", verb, "--help").stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_narrow_terminal(runs: Storage) -> None:
    """A date, a state and a number are in one piece."""
    variables = {**environment(runs), "COLUMNS": "60", "LINES": "50", "NO_COLOR": "1"}
    shown = on_a_terminal(viewser_command("run", "list"), variables).splitlines()
    assert shown[0].split() == ["run", "began", "state", "complete"] and max(map(len, shown)) <= 70
    assert re.fullmatch(r"2026-11  \d{4}-\d\d-\d\d \d\d:\d\d\S+  failed     no, 2 of 4 missing", shown[2])
    assert shown[4] == "Some columns are hidden; use a wider terminal or --json."


def test_nothing_is_lacking(runs: Storage, viewser: Viewser) -> None:
    """It is said: silence could mean that nothing was compared."""
    said = viewser("run", "show", "2026-10", "--like", "2026-10").stderr
    assert said == "This run has all models that 2026-10 used.\n"
    assert viewser("run", "show", "2026-11", "--like", "2026-10").stderr == ""


def test_group_by_a_field_that_no_model_has(runs: Storage, viewser: Viewser) -> None:
    """The groups are shown, and a line says what is wrong."""
    result = viewser("run", "show", "2026-10", "--group-by", "outcom")
    assert "outcom (none)" in result.stdout and result.stderr == "No model of this run has a field 'outcom'.\n"
    assert viewser("run", "show", "2026-10", "--group-by", "outcome").stderr == ""
