from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import FaultServer
from tests.router.methods import OPEN_ROUTERS


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close every router when its test has ended."""
    yield
    while OPEN_ROUTERS:
        OPEN_ROUTERS.pop().close()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """A model server that misbehaves on command."""
    started = FaultServer()
    yield started
    started.close()
