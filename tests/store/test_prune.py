"""Pruning: compared with a plain specification, together with other programs, and with bad input."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stores import leftovers
from views_runs import Disposition, ModelNotFoundError, QueryError, Storage

NAMES = ("forest", "ridge", "f*t")
NOW = datetime.now(UTC)


class Version(NamedTuple):
    """A version as the specification sees it."""

    name: str
    stage: str | None
    days: int
    aliased: bool
    used: bool
    complete: bool


class Rule(NamedTuple):
    """The arguments of `prune`; None means that they are not given."""

    keep_last: int | None
    keep_within: str | None
    keep_runs: int | None
    keep: tuple[str, ...]
    group_by: str | None
    where: str | None
    name: str | None


versions = st.lists(
    st.builds(
        Version,
        st.sampled_from(NAMES),
        st.sampled_from(["prod", "test", None]),
        st.sampled_from([0, 5, 20, 100]),
        *[st.integers(0, 7).map(lambda number: number == 0)] * 3,
    ),
    min_size=1,
    max_size=10,
)
counts = st.none() | st.integers(1, 3)
rules = st.builds(
    Rule,
    counts,
    st.sampled_from([None, "2d", "1w", "720h"]),
    st.sampled_from([None, None, 1]),
    st.sampled_from([(), (), ("stage = prod",), ("stage = prod", "!stage")]),
    st.sampled_from([None, None, "stage", "name"]),
    st.sampled_from([None, None, "not stage = prod", "version > 1"]),
    st.sampled_from([None, None, "f*", "f*t", "forest"]),
)


def build(path: Path, wanted: list[Version], restored: bool) -> Storage:
    """Store the versions; a run that is complete used some, and a last one others. If need be, restore the first."""
    store = Storage(path)
    for number, one in enumerate(wanted):
        record = store.store(one.name, number, {"stage": one.stage, "number": number}, overwrite=True)
        if one.aliased:
            store.alias(one.name, f"a{number}", record.version)
    # A field that no model has is refused, and that is not what is tested here.
    store.store("other", 0, {"stage": "prod"})
    if restored:
        store.restore(f"{wanted[0].name}:1")
    connection = sqlite3.connect(path)
    insert = "INSERT INTO runs (id, started_at, started_by, succeeded) VALUES (?, ?, 'a@b', 1)"
    connection.executemany(insert, [("complete", "2020-01-01"), ("last", "2021-01-01")])
    for id, one in enumerate(wanted, 1):
        connection.execute(
            "UPDATE models SET stored_at = ? WHERE id = ?",
            ((NOW - timedelta(days=one.days)).isoformat(timespec="microseconds"), id),
        )
        for run, is_in in (("complete", one.complete), ("last", one.used)):
            if is_in:
                # A later version of a name replaces the earlier in a run.
                insert = "INSERT OR REPLACE INTO run_models SELECT ?, id, ?, 1, 1, ? FROM names WHERE name = ?"
                connection.execute(insert, (run, id, run == "complete", one.name))
    connection.commit()
    connection.close()
    return store


def specify(wanted: list[Version], rule: Rule, restored: bool) -> set[int]:
    """Return the numbers of the versions that must be deleted."""
    numbers: dict[str, list[int]] = {}
    for number, one in enumerate(wanted):
        numbers.setdefault(one.name, []).append(number)
    current = {name: own[-1] for name, own in numbers.items()}
    if restored:
        current[wanted[0].name] = 0
    # A name that exists comes before a glob: `f*t` is that model if there is one.
    is_glob = rule.name is not None and "*" in rule.name and rule.name not in numbers

    def is_looked_at(number: int) -> bool:
        one = wanted[number]
        fits = rule.name is None or (one.name.startswith("f") if is_glob else one.name == rule.name)
        if is_glob and rule.name == "f*t":
            fits = one.name in ("forest", "f*t")
        conditions = {
            None: True,
            "not stage = prod": one.stage != "prod",
            "version > 1": numbers[one.name].index(number) > 0,
        }
        return fits and conditions[rule.where]

    looked_at = [number for number in range(len(wanted)) if is_looked_at(number)]
    gone = set()
    for number in looked_at:
        one = wanted[number]
        groups = {None: lambda other: other.name, "name": lambda other: other.name, "stage": lambda other: other.stage}
        group = groups[rule.group_by]
        later = [other for other in looked_at if other > number and group(wanted[other]) == group(one)]
        # The store has one more model, which no name here chooses.
        if rule.group_by == "stage" and one.stage == "prod" and rule.name is None and rule.where is None:
            later.append(-1)
        last = {
            run: max((other for other in numbers[one.name] if getattr(wanted[other], run)), default=None)
            for run in ("used", "complete")
        }
        kept = (
            number == current[one.name],
            one.aliased,
            last["complete"] == number,
            rule.keep_runs is not None and last["used"] == number,
            rule.keep_last is not None and len(later) < rule.keep_last,
            rule.keep_within is not None and one.days <= {"2d": 2, "1w": 7, "720h": 30}[rule.keep_within],
            "stage = prod" in rule.keep and one.stage == "prod",
            "!stage" in rule.keep and one.stage is None,
        )
        gone |= set() if any(kept) else {number}
    return gone


def prune(store: Storage, rule: Rule, **options: Any) -> list[Disposition]:
    """Prune with a rule."""
    name, where, *_ = rule.name, rule.where
    given = {key: value for key, value in rule._asdict().items() if value is not None and key not in ("name", "where")}
    return store.prune(*([name] if name else []), **given, **({"where": where} if where else {}), **options)


def numbered(found: list[Disposition]) -> set[int]:
    """Return the numbers in the metadata of the versions that are deleted."""
    return {(one.record.metadata or {})["number"] for one in found if one.deleted}


@given(versions, rules, st.booleans())
def test_the_specification(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[Version], rule: Rule, restored: bool
) -> None:
    """What the dry run lists is deleted, a second time nothing is; the current versions stay the same."""
    store = build(tmp_path_factory.mktemp("prune") / "models.db", wanted, restored)
    if not (rule.keep_last or rule.keep_within or rule.keep_runs or rule.keep):
        with pytest.raises(QueryError, match="there is no rule"):
            prune(store, rule)
        return
    expected = specify(wanted, rule, restored)
    before, current = store.find(all_versions=True), store.find()
    try:
        planned = prune(store, rule, dry_run=True)
    except ModelNotFoundError:
        assert expected == set()
        return
    assert numbered(planned) == expected and store.find(all_versions=True) == before
    assert prune(store, rule, why="to test") == planned
    assert {(one.metadata or {}).get("number") for one in before} - expected == {
        (one.metadata or {}).get("number") for one in store.find(all_versions=True)
    }
    assert store.find() == current
    events = [event for event in store.log() if event.action == "pruned"]
    assert len(events) == len(expected) and {event.why for event in events} <= {"to test"}
    with suppress(ModelNotFoundError):
        assert numbered(prune(store, rule)) == set()
    assert store.verify().damaged == () and leftovers(store) == {"parts": 0, "uploads": 0}


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "there is no rule for what to keep"),
        ({"keep": ()}, "there is no rule for what to keep"),
        ({"group_by": "stage"}, "there is no rule for what to keep"),
        ({"keep_last": 0}, "keep_last must be a positive integer, not 0"),
        ({"keep_last": -1}, "keep_last must be a positive integer, not -1"),
        ({"keep_last": True}, "keep_last must be a positive integer, not True"),
        ({"keep_runs": 0}, "keep_runs must be a positive integer, not 0"),
        ({"keep_within": "0d"}, "'0d' is not an age"),
        ({"keep_within": "90"}, "'90' is not an age"),
        ({"keep_within": "999999999w"}, "is not an age"),
        ({"keep_within": "999999w"}, "is not an age"),
        ({"keep_within": timedelta()}, "is not an age"),
        ({"keep_within": 90}, "90 is not an age"),
        ({"keep": "stagee = prod"}, "nothing was changed: no model has a field 'stagee'; did you mean 'stage'"),
        ({"keep": "stage > 3"}, "stage is text in every model, but 3 is a number"),
        ({"keep": "stage = "}, "invalid condition"),
        ({"keep_last": 1, "where": "stagee = prod"}, "no model has a field 'stagee'"),
        ({"keep_last": 1, "group_by": "stagee"}, "no model has a field 'stagee'"),
        ({"keep_last": 1, "group_by": ""}, "invalid field"),
        ({"keep_last": 1, "group_by": "alias"}, "a version can have more than one alias"),
        ({"keep_last": 1, "group_by": "run"}, "a version can have more than one run"),
    ],
)
def test_invalid_rules(store: Storage, options: dict[str, Any], said: str) -> None:
    """It is refused, and nothing is deleted."""
    for number in range(3):
        store.store("forest", number, {"stage": "test"}, overwrite=True)
    with pytest.raises(QueryError, match=said):
        store.prune(**options)
    assert len(store.find(all_versions=True)) == 3


def test_more_runs_than_sqlite_can_count(store: Storage) -> None:
    """All runs are among the last of so many."""
    for number in range(2):
        store.store("forest", number, {"run_id": f"2026-0{number + 1}"}, overwrite=True)
    assert [one.deleted for one in store.prune(keep_runs=1 << 70)] == [False, False]


@pytest.mark.parametrize("field", ["-train_end", "trainend"])
def test_a_group_that_no_model_has(store: Storage, field: str) -> None:
    """All versions would be one group; a minus sign is for sorting."""
    for number in range(3):
        store.store("forest", number, {"train_end": 480 + number}, overwrite=True)
    with pytest.raises(QueryError, match=f"no model has a field '{field}'"):
        store.prune(keep_last=1, group_by=field)


def test_an_empty_store_and_names_that_nothing_has(store: Storage) -> None:
    """There is nothing to prune, or a mistake in the name."""
    store.store("forest", 1)
    store.delete("forest")
    assert store.prune(keep_last=1) == []
    for name in ("forest", "f*"):
        with pytest.raises(ModelNotFoundError):
            store.prune(name, keep_last=1)


def test_reasons_for_keeping(store: Storage) -> None:
    """Each reason is given; the rule and the reason are in the log."""
    for number in range(4):
        store.store("forest", number, {"stage": "prod" if number == 2 else "test"}, overwrite=True)
    store.alias("forest", "best", 1)
    found = store.prune(keep_last=1, keep=["stage = prod"], why="the disk is full")
    assert [(one.record.version, one.deleted, one.reason) for one in found] == [
        (4, False, "current, among the last 1"),
        (3, False, "meets stage = prod"),
        (2, True, "no rule keeps it"),
        (1, False, "has the alias best"),
    ]
    event = store.log("forest")[0]
    assert (event.action, event.version, event.why) == ("pruned", 2, "the disk is full")
    assert event.changes["rule"] == "--keep-last 1 --keep 'stage = prod'"
    assert [one.is_deleted for one in store.history("forest")] == [False, False, True, False]


def test_pruning_everything(store: Storage) -> None:
    """What is left is current, or has an alias, even if the rule keeps nothing else."""
    for name in ("forest", "ridge"):
        for number in range(3):
            store.store(name, number, {"stage": "test"}, overwrite=True)
    store.restore("ridge:2")
    store.alias("forest", "best", 1)
    assert len([one for one in store.prune(keep="name = nobody") if one.deleted]) == 3
    assert sorted(store.list(all_versions=True)) == ["forest:1", "forest:3", "ridge:2"]


def test_values_of_different_types_are_different_groups(store: Storage) -> None:
    """Lists, dicts and what is missing are groups too."""
    for value in (1, "1", True, None, [1], {"a": 1}, [1], 1):
        store.store("forest", 0, {"group": value}, overwrite=True)
    gone = [one.record.version for one in store.prune(keep_last=1, group_by="group", dry_run=True) if one.deleted]
    assert gone == [5, 1]
    for field, count in (("stored_at", 0), ("current", 6), ("type", 7), ("size", 7), ("metadata.group", 2)):
        found = store.prune(keep_last=1, group_by=field, dry_run=True)
        assert len([one for one in found if one.deleted]) == count


def work(path: Path, start: Any, kind: str) -> None:
    """Prune again and again, or store."""
    store = Storage(path)
    start.wait()
    for number in range(8):
        if kind == "prune":
            store.prune(keep_last=2)
        else:
            store.store(f"m{number % 2}", number, {"number": number}, overwrite=True)


def test_two_prunes_at_once_beside_a_store(store: Storage) -> None:
    """None fails, what is current stays, and each deletion is one event."""
    for number in range(20):
        store.store(f"m{number % 2}", bytes(1_500_000 if number < 4 else 5), overwrite=True)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=work, args=(store.path, start, kind)) for kind in ("prune", "prune", "store")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    store.prune(keep_last=2)
    assert sorted(store.list(all_versions=True)) == ["m0:13", "m0:14", "m1:13", "m1:14"]
    pruned = [(event.name, event.version) for event in store.log() if event.action == "pruned"]
    assert len(pruned) == len(set(pruned)) == 24
    assert store.verify().damaged == () and leftovers(store) == {"parts": 0, "uploads": 0}


@pytest.fixture
def old_clock(store: Storage) -> Iterator[None]:
    """A store in which the later version is older, by the clock of who stored it."""
    for number in range(3):
        store.store("forest", number, overwrite=True)
    connection = sqlite3.connect(store.path)
    for version, year in ((1, 2099), (2, 2020), (3, 2000)):
        stored_at = f"{year}-01-01T00:00:00.000000+00:00"
        connection.execute("UPDATE models SET stored_at = ? WHERE version = ?", (stored_at, version))
    connection.commit()
    connection.close()
    yield


@pytest.mark.usefixtures("old_clock")
def test_a_clock_that_goes_backwards(store: Storage) -> None:
    """The last are those that were stored last; what is from the future is recent."""
    assert [one.deleted for one in store.prune(keep_last=2, dry_run=True)] == [False, False, True]
    assert [one.deleted for one in store.prune(keep_within="90d", dry_run=True)] == [False, True, False]


def test_a_run_that_is_complete_meanwhile(store: Storage) -> None:
    """What it used is kept, also if it is recorded between two deletions."""
    for number in range(4):
        store.store("forest", number, overwrite=True)

    def use(plan: object) -> None:
        with store.run("2026-11") as run:
            run.expect(["forest"])
            run.add("forest:2")

    found = store.prune(keep_last=1, confirm=use)
    assert [(one.record.version, one.deleted) for one in found] == [(4, False), (3, True), (2, False), (1, True)]
    assert found[2].reason == "it is protected now (a complete run used it)" and found[2].changed
