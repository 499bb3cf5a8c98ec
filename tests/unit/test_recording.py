"""What a pickle imports is recorded while it is made: the same that is read from its bytes."""

import builtins
import collections
import copyreg
import datetime
import decimal
import enum
import functools
import io
import marshal
import operator
import pickle
import types
import typing
from collections.abc import Callable
from typing import Any

import cloudpickle
import lightgbm
import numpy as np
import pandas as pd
import pytest
import scipy.special
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics._dist_metrics import DistanceMetric64
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support.budgets import budget
from views_runs.pickles.opcodes import NAME_BYTES, Reader, TroubleKind, imported, read
from views_runs.pickles.parts import PickleWriter
from views_runs.pickles.recording import RecordingPickler


class Outer:
    """A class with another one in it."""

    class Inner:
        """Has a dotted name."""

        def method(self) -> None:
            """Bound methods are pickled by `getattr`."""

        @classmethod
        def made(cls) -> "Outer.Inner":
            """Bound to the class."""
            return cls()

    @staticmethod
    def static() -> None:
        """A function with a dotted name."""


class Renamed:
    """Has another name than the one it is found under here."""


Renamed.__qualname__ = "Alias"
Alias = Renamed


class Meta(type):
    """A metaclass: its instances are classes whose type is not `type`."""


class WithMeta(metaclass=Meta):
    """One of those."""


class Registered(type):
    """A metaclass that is registered in copyreg."""


class Reduced(metaclass=Registered):
    """A class that is pickled by a function."""


class Singleton:
    """Reduces to a string."""

    def __reduce__(self) -> str:
        return "SINGLETON"


SINGLETON = Singleton()


class Unnamed:
    """Reduces to the name of something that does not say where it is."""

    __module__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return "UNNAMED"


UNNAMED = Unnamed()


class WithState:
    """Has an iterator of items, and a state with a setter."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return WithState, (1,), self.state, iter([len]), iter([("a", sum)]), set_state


def set_state(model: WithState, state: Any) -> None:
    """Set the state."""


class Slotted:
    """Its state is a tuple."""

    __slots__ = ("value",)


class Named(typing.NamedTuple):
    """A subclass of a basic type."""

    value: Any


class Colour(enum.Enum):
    """Members are made by calls."""

    RED = 1


class Flag(enum.IntFlag):
    """These too."""

    ONE = 1
    TWO = 2


class Dict(dict[Any, Any]):
    """A subclass of a basic type."""


def recreate(kind: Any) -> Any:
    """What copyreg has for a metaclass."""
    return recreate, ("reduced",)


@pytest.fixture(autouse=True, scope="module")
def registered() -> Any:
    """Register a metaclass, and a class by a string."""
    copyreg.pickle(Registered, recreate)  # type: ignore[arg-type]
    yield
    del copyreg.dispatch_table[Registered]


def slotted(value: Any) -> Slotted:
    """Return an object with slots."""
    made = Slotted()
    made.value = value
    return made


def found_in(module: types.ModuleType) -> list[Any]:
    """Return what a module has that can be pickled."""
    values = []
    for value in vars(module).values():
        try:
            pickle.dumps(value, 5)
        except Exception:
            continue
        values.append(value)
    return values


NAMED = [
    *found_in(builtins),
    *found_in(operator),
    *found_in(typing),
    *found_in(datetime),
    *found_in(np),
    *found_in(scipy.special),
    *(type(None), type(...), type(NotImplemented), None, ..., NotImplemented),
    *(Outer, Outer.Inner, Outer.Inner().method, Outer.Inner.made, Outer.static, Renamed, Renamed(), Meta, WithMeta),
    *(WithMeta(), Reduced, SINGLETON, UNNAMED, Colour.RED, Flag.ONE | Flag.TWO, slotted(len), Named(max)),
    *(dict.fromkeys, [].append, "".join, len, str.join, object.__new__, np.sum, np.add, np.random.rand, np.dtype("f4")),
    *(functools.partial(int, base=2), operator.attrgetter("a"), collections.OrderedDict(a=len), Dict(a=1)),
    *(collections.defaultdict(list), decimal.Decimal(1), 1j, slice(1), range(3), frozenset([len]), bytearray(b"x")),
    *(np.float64(1.0), np.arange(3), np.array([len, None]), np.random.default_rng(1), pd.Timestamp("2026-11-26")),
    *(datetime.datetime.now(datetime.timezone.utc), WithState([Colour]), DistanceMetric64.get_metric("euclidean")),
]

ODD: Any = st.recursive(
    st.sampled_from(NAMED) | st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.builds(WithState, inner)
    | st.builds(slotted, inner)
    | st.builds(lambda value: functools.partial(print, value), inner)
    | st.builds(Named, inner),
    max_leaves=20,
)


def agree(value: Any) -> None:
    """What is recorded is what is read, and the bytes are those of a plain pickler."""
    file = io.BytesIO()
    pickler = RecordingPickler(file, 5)
    pickler.dump(value)
    data = file.getvalue()
    reading = read([data])
    recorded = pickler.reading(len(data))
    assert imported(recorded) == imported(reading)
    assert (recorded.asked, recorded.protocol, recorded.size) == (reading.asked, reading.protocol, reading.size)
    # Sets have no order.
    assert len(data) == len(pickle.dumps(value, 5))


@pytest.mark.parametrize("value", NAMED, ids=lambda value: f"{type(value).__name__}-{getattr(value, '__name__', '')}")
def test_each(value: Any) -> None:
    """One thing alone."""
    agree(value)


@settings(max_examples=budget(2000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ODD)
def test_any(value: Any) -> None:
    """Things in things."""
    agree(value)


def fitted(model: Any) -> Any:
    """Return a model that was fitted to a little data."""
    random = np.random.default_rng(1)
    return model.fit(random.random((60, 3)), np.arange(60) % 2)


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: fitted(RandomForestClassifier(3)),
    "boosting": lambda: fitted(HistGradientBoostingRegressor(max_iter=3)),
    "pipeline": lambda: fitted(make_pipeline(StandardScaler(), Ridge())),
    "lightgbm": lambda: fitted(lightgbm.LGBMRegressor(n_estimators=2, verbose=-1)),
    "xgboost": lambda: fitted(xgboost.XGBRegressor(n_estimators=2)),
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])}),
    "dates": lambda: pd.date_range("2026-11-26", periods=3),
    "several of one kind": lambda: [Outer.Inner() for _ in range(100)],
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    """Models of libraries."""
    agree(MODELS[name]())


class Code:
    """Has code in it, by value."""

    def __reduce__(self) -> Any:
        return marshal.loads, (marshal.dumps((lambda: 0).__code__),)


class Wrapped:
    """Has a function of a script in it, as cloudpickle wraps it."""

    def __reduce__(self) -> Any:
        return cloudpickle.loads, (cloudpickle.dumps(lambda: 0),)


@pytest.mark.parametrize(("value", "has_code"), [(Code(), True), (Wrapped(), False)])
def test_code(value: Any, has_code: bool) -> None:
    """Whether there is code in it is seen in both; what is inside of bytes in neither."""
    pickler = RecordingPickler(io.BytesIO(), 5)
    pickler.dump(value)
    assert pickler.reading(0).has_code is has_code is read([pickle.dumps(value, 5)]).has_code
    agree(value)


def records_like_the_reader(value: Any) -> tuple[Any, ...]:
    """Return the kinds of trouble that are recorded; these, and the imports, are those that are read."""
    file = io.BytesIO()
    pickler = RecordingPickler(file, 5)
    pickler.dump(value)
    recorded, reading = pickler.reading(0), read([file.getvalue()])
    kinds = tuple(one.kind for one in recorded.troubles)
    assert (recorded.imports, kinds) == (reading.imports, tuple(one.kind for one in reading.troubles))
    return kinds


class Registers:
    """Registers a number for a name while it is pickled."""

    def __reduce__(self) -> Any:
        copyreg.add_extension(Outer.__module__, "Outer.Inner", 77)  # type: ignore[arg-type]
        return list, ([Outer.Inner, len],)


def test_extension_codes() -> None:
    """What the process has registered a number for is no import, but a trouble."""
    value = Registers()
    try:
        assert records_like_the_reader(value) == (TroubleKind.EXTENSION,)
        writer = PickleWriter(lambda part: None, Reader())
        writer.dump([Outer.Inner, len])
        environment = writer.finish().environment
    finally:
        copyreg.remove_extension(Outer.__module__, "Outer.Inner", 77)  # type: ignore[arg-type]
    assert '"extension code 77"' in environment and '"builtins.len"' in environment


class Text(str):
    """Is pickled as an object, also where a name is meant."""


class Elsewhere:
    """Its module is an instance of a subclass of `str`."""


Elsewhere.__module__ = Text(Elsewhere.__module__)


class Fickle(type):
    """Its classes have another name each time."""

    names = ["Unsteady", "Steady"]

    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            return Fickle.names[0] if Fickle.names.reverse() is None else ""
        return type.__getattribute__(cls, name)


class Unsteady(metaclass=Fickle):
    """One of those."""


Steady = Unsteady


class Hidden:
    """Hides the method that is asked first."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__reduce_ex__":
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def __reduce__(self) -> str:
        return Text("HIDDEN")


HIDDEN = Hidden()


def test_names_that_are_not_what_they_seem() -> None:
    """What is recorded is what is written."""
    assert records_like_the_reader(Elsewhere) == (TroubleKind.COMPUTED_NAME,)
    for value in Unsteady, HIDDEN:
        assert records_like_the_reader(value) == ()
    assert pickle.loads(pickle.dumps(HIDDEN)) is HIDDEN


def test_a_name_that_is_too_long() -> None:
    """The reader does not keep it, so that it is a trouble in both."""
    name = "x" * (NAME_BYTES + 1)
    made = type(name, (), {"__module__": __name__})
    globals()[name] = made
    try:
        assert records_like_the_reader(made) == (TroubleKind.COMPUTED_NAME,)
    finally:
        del globals()[name]
