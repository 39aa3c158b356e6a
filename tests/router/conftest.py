from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import FaultServer


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """A model server that misbehaves as it is told."""
    started = FaultServer()
    yield started
    started.close()
