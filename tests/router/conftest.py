from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import FaultServer
from tests.router.doors import MADE


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Every router is closed when its test has ended."""
    yield
    while MADE:
        MADE.pop().close()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """A model server that misbehaves as it is told."""
    started = FaultServer()
    yield started
    started.close()
