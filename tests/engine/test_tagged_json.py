"""A value comes back from tagged JSON as it was: in type, fields, set fields and attributes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import threading
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import openai.types.chat as openai_chat
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type

from semcache.engine import tagged_json

T = TypeVar("T")


def back(value: Any) -> Any:
    """The value after it was stored and loaded."""
    return tagged_json.decode(json.loads(json.dumps(tagged_json.encode(value), allow_nan=False)))


def alike(one: Any, two: Any) -> bool:
    """Equal with all that a reader of the object can see of it."""
    if type(one) is not type(two):
        return False
    if isinstance(one, pydantic.BaseModel):
        return (
            one.model_fields_set == two.model_fields_set
            and alike(one.__dict__, two.__dict__)
            and alike(one.__pydantic_extra__, two.__pydantic_extra__)
            and alike(one.__pydantic_private__, two.__pydantic_private__)
        )
    if isinstance(one, dict):
        return list(one) == list(two) and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(alike, one, two))
    if isinstance(one, float) and one != one:
        return two != two
    return bool(one == two)


# --------------------------------------------------------------------------- plain values

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.one_of(st.none(), st.just(dt.UTC), st.just(ZoneInfo("Asia/Tokyo")))),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.fractions(),
)
hashable = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(hashable, inner),
        st.dictionaries(st.sampled_from(["$", "v", "a"]), inner),
        st.tuples(inner, inner),
        st.sets(hashable),
        st.frozensets(hashable),
    ),
    max_leaves=20,
)


@given(values)
def test_any_value_comes_back(value: Any) -> None:
    assert alike(back(value), value)


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(0), np.array(True), np.array([1j])],
    ids=str,
)
def test_an_array_comes_back(array: Any) -> None:
    restored = back(array)
    assert (restored.dtype, restored.shape) == (array.dtype, array.shape)
    assert np.array_equal(restored, array)
    restored.fill(1)  # it belongs to the caller


def test_a_number_of_an_array_comes_back() -> None:
    assert alike(back(np.float32(0.1)), np.float32(0.1))


# -------------------------------------------------------------------------------- objects


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    a: int
    b: str


@dataclasses.dataclass
class Point:
    x: float
    tags: list[str] = dataclasses.field(default_factory=list)
    seen: bool = dataclasses.field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.length = abs(self.x)

    @cached_property
    def slow(self) -> float:
        return self.x


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    point: Point
    colour: Colour = Colour.RED


class Secretive(pydantic.BaseModel):
    """A model whose dump is not what it holds."""

    name: str = "n"
    hidden: str = pydantic.Field("h", exclude=True)
    price: float = 0.0
    made: dt.datetime = pydantic.Field(default_factory=dt.datetime.now)
    _note: str | None = pydantic.PrivateAttr(default=None)
    _lock: Any = pydantic.PrivateAttr(default_factory=threading.Lock)

    @pydantic.field_serializer("price")
    def round(self, price: float) -> float:
        return round(price)

    @pydantic.field_validator("name")
    @classmethod
    def grow(cls, name: str) -> str:
        return name + "!"


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Box(pydantic.BaseModel, Generic[T]):
    content: T


def noted() -> Secretive:
    value = Secretive(name="x", price=1.25, hidden="secret")
    value._note = "mine"
    return value


OBJECTS = {
    "an enumeration": Colour.RED,
    "a named tuple": Pair(1, "x"),
    "a dataclass": Point(-1.0, ["a"], seen=True),
    "a frozen dataclass": Frozen(Point(2.0)),
    "a model with extra fields": Open(a=1, b=[{"c": 2}]),  # type: ignore[call-arg]
    "a model without validation": Open.model_construct(a="not a number"),
    "a generic model": Box[Open](content=Open(a=1)),
    "a nested generic model": Box[Box[int]](content=Box[int](content=1)),
    "models in containers": {"a": (Open(a=1), [Box[str](content="x")])},
    "a path": Path("a/b"),
    "a decimal": decimal.Decimal("1.10"),
    "a fraction": fractions.Fraction(1, 3),
    "a uuid": uuid.UUID(int=1),
}


@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
def test_an_object_comes_back(value: Any) -> None:
    assert alike(back(value), value)


def test_what_a_dump_would_lose_comes_back() -> None:
    """Excluded and rounded fields, private attributes, and which fields were set."""
    value = noted()
    restored = back(value)
    assert restored.__dict__ == value.__dict__
    assert restored.model_fields_set == {"name", "price", "hidden"}
    assert restored._note == "mine"
    assert restored._lock.acquire(blocking=False)  # made anew: it cannot be stored


def test_attributes_that_a_dataclass_computes_are_restored_or_computed_again() -> None:
    point = Point(-3.0)
    assert point.slow == -3.0
    restored = back(point)
    assert (restored.length, restored.slow) == (3.0, -3.0)
    assert "slow" not in tagged_json.encode(point)["v"]


# --------------------------------------------------------------------- objects of the SDKs

reasons = st.sampled_from(["stop", "length", "eos", None, 3])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=5), inner)),
    max_leaves=5,
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 3),
        "finish_reason": reasons,
        "message": st.one_of(
            json_values,
            st.fixed_dictionaries(
                {"content": st.one_of(st.text(), json_values)},
                optional={"role": st.just("assistant"), "tool_calls": json_values},
            ),
        ),
        "logprobs": json_values,
        "content_filter_results": json_values,
    },
)
completions = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(),
        "object": st.sampled_from(["chat.completion", ""]),
        "created": st.one_of(st.integers(), st.floats(allow_nan=False), st.text()),
        "choices": st.one_of(st.lists(choices), json_values),
        "service_tier": st.sampled_from(["on_demand", "default", None]),
        "usage": json_values,
        "x_groq": json_values,
        "timings": json_values,
    },
)


@given(completions, st.sampled_from([openai_chat.ChatCompletion, openai_chat.ChatCompletionChunk]))
def test_what_an_sdk_built_comes_back_as_it_built_it(body: dict[str, Any], cls: Any) -> None:
    """Whatever a server sent, and however little of it the SDK's schema allows."""
    value = construct_type(value=body, type_=cls)
    restored = back(value)
    assert alike(restored, value)
    assert restored.to_json(warnings=False) == value.to_json(warnings=False)  # type: ignore[attr-defined]


def test_the_request_id_of_an_sdk_comes_back() -> None:
    value = openai_chat.ChatCompletion.construct(id="1")
    value._request_id = "req_1"
    assert back(value)._request_id == "req_1"


# ------------------------------------------------------------------------------- refusals


def local_class() -> Any:
    @dataclasses.dataclass
    class Local:
        a: int = 1

    return Local()


class Response:
    status_code = 200
    headers = ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [object()]}, r"answer\['a'\]\[0\] has the type object"),
        (Point(1.0, [threading.Lock()]), r"answer\.tags\[0\] has the type _thread\.lock"),  # type: ignore[list-item]
        (local_class(), "top level of its module"),
        (Response(), r"response\.json\(\)"),
        (np.array(["a"]), "an array of numbers"),
    ],
    ids=["deep in JSON", "a field", "a local class", "an HTTP response", "texts in an array"],
)
def test_a_value_without_a_form_is_refused_with_advice(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tagged_json.encode(value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"$": "model", "c": "os:system", "v": {}}, "has not imported"),
        ({"$": "model", "c": "subprocess:Popen", "v": {}}, "has not imported"),
        ({"$": "dataclass", "c": "no.such.module:X", "v": {}}, "has not imported"),
        ({"$": "enum", "c": f"{__name__}:Point", "v": 1}, "not an enumeration"),
        ({"$": "pickle", "v": "gASVAAA="}, "not a kind"),
        ({"$": "binary", "c": "os:system", "v": [200, [], ""]}, "has not imported"),
        ({"$": "namedtuple", "c": f"{__name__}:Pair", "v": [1]}, "have changed"),
        ({"$": "model", "c": f"{__name__}:Open", "s": 1, "v": {"a": 1}}, "have changed"),
    ],
)
def test_stored_data_makes_no_call_and_no_import(tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tagged_json.decode(tree)


@pytest.mark.parametrize(
    "value", [noted(), OBJECTS["a dataclass"], OBJECTS["models in containers"]]
)
def test_the_fields_of_an_object_can_be_read_without_its_class(value: Any) -> None:
    """As the command line does."""
    found = tagged_json.plain(tagged_json.encode(value))
    assert "$" not in json.dumps(found)
