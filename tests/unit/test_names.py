"""Names of models, and of the files of their pickles."""

import enum

import pytest

from views_runs import InvalidNameError
from views_runs.names import MAX_INTEGER, check_name, check_new_name, file_name, reference, suggest


class Name(str, enum.Enum):
    FOREST = "forest"


def test_a_name_is_a_plain_string() -> None:
    """The member of an enum is the text that it is."""
    name = check_name(Name.FOREST)
    assert (name, type(name)) == ("forest", str)


@pytest.mark.parametrize(
    "given, expected",
    [
        (("forest", None), ("forest", None)),
        (("forest", 2), ("forest", 2)),
        (("forest:2", None), ("forest", 2)),
        (("forest:2", 2), ("forest", 2)),
        (("forest:02", None), ("forest", 2)),
        (("a:b", None), ("a:b", None)),
        (("a:b:3", None), ("a:b", 3)),
        (("forest:x", None), ("forest:x", None)),
        (("forest", -1), ("forest", 0)),
        (("forest:" + "9" * 5000, None), ("forest", MAX_INTEGER)),
        (("forest", 1 << 70), ("forest", MAX_INTEGER)),
    ],
)
def test_references(given: tuple[str, int | None], expected: tuple[str, int | None]) -> None:
    """A version is a number after the last colon, or given beside the name; beyond SQLite's integers it is the last."""
    assert reference(*given) == expected


@pytest.mark.parametrize(
    "given, said",
    [
        (("forest:2", 3), "'forest:2' and version=3 give different versions. Give one of them"),
        (("forest", "two"), "the version of 'forest' must be an integer, not 'two'"),
        ((":2", None), "'' cannot be the name of a model: it is empty"),
        ((7, None), "the name of a model must be a string, not 7"),
    ],
)
def test_impossible_references(given: tuple[str, int | None], said: str) -> None:
    """The message says what is wrong."""
    with pytest.raises(InvalidNameError) as caught:
        reference(*given)
    assert str(caught.value) == said


def test_new_names_have_no_version() -> None:
    """The store numbers the versions."""
    assert check_new_name("forest:x") == "forest:x"
    with pytest.raises(InvalidNameError, match="NAME:NUMBER refers to a version of NAME"):
        check_new_name("forest:2")


@pytest.mark.parametrize(
    "name, names, advice",
    [
        ("forst", ["forest", "boosted"], "Did you mean 'forest'?"),
        ("FOREST", ["forest", "Forest"], "Did you mean 'forest'?"),
        ("forest", ["forest_1", "forest_2"], "Did you mean 'forest_2' or 'forest_1'?"),
        ("forest", ["x"], "Run `views-runs model list` to see the existing models"),
        ("forest", [], "The store has no models"),
    ],
)
def test_suggestions(name: str, names: list[str], advice: str) -> None:
    """The newest of several names that differ in case alone is suggested."""
    assert suggest(name, names) == advice


@pytest.mark.parametrize(
    "reference, name",
    [
        ("forest", "forest.pickle"),
        ("forest:2", "forest_2.pickle"),
        ("a/b\\c", "a_b_c.pickle"),
        (".hidden", "_hidden.pickle"),
        ("-rf", "_rf.pickle"),
        ("ž" * 255, "ž" * 100 + ".pickle"),
    ],
)
def test_file_names(reference: str, name: str) -> None:
    """They stay in their folder, are visible, look like no option, and fit on every file system."""
    assert file_name(reference) == name
