"""Fixtures that open each kind of backend, for the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcache.backends import Backend, LocalOptions, Retention, open_backend
from semcache.backends.base import Entries
from semcache.types import Completion, NewEntry
from tests.helpers import Clock

KINDS = ("local", "memory")
"""Kinds of backends; the whole suite runs for each of them."""

SCOPE = b"s" * 32
FINGERPRINT = "test/1"
DIMENSION = 8


def direction(*weights: float) -> Any:
    """float32[8] of length 1."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(weights)] = weights
    return vector / np.linalg.norm(vector)


def new(number: int, **changes: Any) -> NewEntry:
    """A new entry; entries with different numbers differ in key, texts and time."""
    entry = NewEntry(
        exact_key=number.to_bytes(32, "big"),
        scope=SCOPE,
        namespace="n",
        model="m",
        question=f"question {number}",
        summary={"prompt": f"question {number}"},
        completion=Completion(f"answer {number}"),
        key_version=1,
        created_at=100.0 + number,
        expires_at=None,
    )
    return replace(entry, **changes)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def backend(kind: str, tmp_path: Path) -> Iterator[Backend]:
    """An empty backend."""
    if kind == "memory":
        opened = open_backend(":memory:")
    else:
        options = LocalOptions(busy_timeout=0.5, index_in_background=False)
        opened = open_backend(tmp_path / "cache", options=options)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def faults() -> list[tuple[str, BaseException]]:
    """The faults that the backend has reported."""
    return []


@pytest.fixture
def serving(
    backend: Backend, clock: Clock, faults: list[tuple[str, BaseException]]
) -> Callable[..., Entries]:
    """Returns a function that opens the serving path with the given retention."""

    def make(fingerprint: str = FINGERPRINT, **retention: Any) -> Entries:
        return backend.entries(
            fingerprint=lambda: fingerprint,
            retention=Retention(**retention),
            clock=clock,
            fault=lambda where, error: faults.append((where, error)),
        )

    return make
