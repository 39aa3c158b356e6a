from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import RequestError
from semcache.keys.canonical import canonical_json, plain, valid_text

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner))


@given(values)
def test_canonical_form_is_json_and_stable(value: Any) -> None:
    """What is written can be read, and writing what was read gives the same text."""
    written = canonical_json(value)
    assert canonical_json(json.loads(written)) == written


@given(st.dictionaries(text, scalars))
def test_key_order_does_not_matter(value: dict[str, Any]) -> None:
    """Objects are equal whatever the order of their keys."""
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)


@given(st.integers(-(2**53), 2**53))
def test_a_number_has_one_spelling(number: int) -> None:
    """1 and 1.0 are one number; so are 0 and -0.0."""
    assert canonical_json(number) == canonical_json(float(number))
    assert canonical_json(-0.0) == canonical_json(0)


def test_two_keys_that_become_one_are_refused() -> None:
    """An object with two keys that are written alike has no canonical form."""
    with pytest.raises(RequestError, match="two keys"):
        canonical_json({1: 1, "$[1]": 2})


@given(text)
def test_text_stays_as_it_is(value: str) -> None:
    """Not even equivalent characters become one."""
    assert valid_text(value) == value
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_cannot_be_sent_are_refused(value: float) -> None:
    """NaN and infinities have no JSON."""
    with pytest.raises(RequestError, match="finite"):
        canonical_json({"temperature": value}, "params")


def test_true_is_not_one() -> None:
    """JSON tells true from 1, and so do keys."""
    assert canonical_json(True) != canonical_json(1)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (Point(1, 2), Point(2, 1)),
        (Colour.RED, "blue"),
        ({1, 2}, [1, 2]),
        (dt.date(2026, 1, 2), dt.date(2026, 2, 1)),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.date(2026, 1, 2), dt.datetime(2026, 1, 2)),
        (dt.datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        (dt.timedelta(1), 86400),
        (uuid.UUID(int=1), uuid.UUID(int=2)),
        (Path("/a"), Path("/b")),
        (Path("/a"), "/a"),
        ({1, 2}, {"$set": [1, 2]}),
        ([{"a": {1}}], [{"a": {"$set": [1]}}]),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (Decimal("1.10"), 1.1),
        (b"ab", "ab"),
        (np.float32(2), 3),
    ],
)
def test_values_that_json_lacks(value: Any, other: Any) -> None:
    """Types found among arguments have a canonical form that tells different values apart."""
    assert canonical_json(value) == canonical_json(value) == canonical_json(plain(value))
    assert canonical_json(value) != canonical_json(other)


def test_an_unknown_type_is_an_error_that_helps() -> None:
    """The message names the place, the type and the ways out."""
    with pytest.raises(RequestError, match=r"params\.client has the type object.*ignore="):
        canonical_json({"client": object()}, "params")
