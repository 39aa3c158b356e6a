"""`SQLiteLeases` fulfils the contract of `Leases`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcache.backends.local.sqlite import leases as module
from semcache.backends.local.sqlite.leases import SQLiteLeases
from semcache.errors import StoreError
from semcache.types import LeaseHolder

KEY, SCOPE = b"k" * 32, b"s" * 32
VECTOR = np.array([0.6, 0.8], np.float32)


class Pair:
    """The leases of two processes, in one file."""

    def __init__(self, path: Path) -> None:
        self.faults: list[BaseException] = []
        self.a = SQLiteLeases(path, self.faults.append)
        self.b = SQLiteLeases(path, self.faults.append)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(module, "BEAT", 0.02)
    made = Pair(tmp_path / "leases.db")
    yield made
    made.a.close()
    made.b.close()


def taken(found: Any) -> Any:
    assert not isinstance(found, LeaseHolder)
    return found


def soon(true: Callable[[], bool]) -> None:
    """Wait until this is true: leases are released in the background."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_holder_at_a_time(pair: Pair) -> None:
    """A second process gets the holder, until the lease is released."""
    lease = taken(pair.a.take(KEY, SCOPE, None))
    held = pair.b.take(KEY, SCOPE, None)
    assert isinstance(held, LeaseHolder)
    assert not held.void
    assert isinstance(pair.b.take(b"o" * 32, SCOPE, None), object), "another key is free"
    lease.release(kept=True)
    soon(lambda: pair.b.look(KEY) is None)
    taken(pair.b.take(KEY, SCOPE, None)).release(kept=True)


def test_a_released_lease_can_be_taken_again_at_once(pair: Pair) -> None:
    """The process that released a lease can take it again immediately."""
    for _ in range(50):
        taken(pair.a.take(KEY, SCOPE, None)).release(kept=True)


def test_a_living_holder_keeps_its_lease(pair: Pair) -> None:
    """Its heartbeat increases, and nobody can take over its lease."""
    taken(pair.a.take(KEY, SCOPE, None))
    first = pair.b.look(KEY)
    assert first is not None
    end = time.monotonic() + 10
    while pair.b.look(KEY) == first and time.monotonic() < end:
        time.sleep(0.01)
    assert pair.b.look(KEY) != first
    assert pair.b.take_over(KEY, first) is None


def test_a_dead_holder_is_taken_over_by_one(pair: Pair) -> None:
    """One of two waiting processes gets the lease, and the old holder can no longer release it."""
    lease = taken(pair.a.take(KEY, SCOPE, None))
    pair.a._held.clear()  # no more heartbeats
    time.sleep(0.1)
    dead = pair.b.look(KEY)
    assert dead is not None
    assert pair.b.take_over(KEY, dead) is not None
    assert pair.b.take_over(KEY, dead) is None
    lease.release(kept=True)
    time.sleep(0.1)
    assert pair.b.look(KEY) is not None


def test_an_answer_that_is_not_stored_lets_the_others_call_the_model(pair: Pair) -> None:
    """The lease cannot be taken for a while, so that everybody calls the model; later it can."""
    taken(pair.a.take(KEY, SCOPE, VECTOR)).release(kept=False)
    soon(lambda: (seen := pair.b.look(KEY)) is not None and seen.void)
    held = pair.b.take(KEY, SCOPE, None)
    assert isinstance(held, LeaseHolder)
    assert held.void
    assert pair.b.near(SCOPE, VECTOR, 0.5) is None
    pair.b._write("UPDATE leases SET at = at - 60", ())
    taken(pair.b.take(KEY, SCOPE, None))


def test_near_questions_find_each_other_in_their_scope(pair: Pair) -> None:
    """The nearest question at or above the floor is found, and none of another scope."""
    taken(pair.a.take(KEY, SCOPE, VECTOR))
    taken(pair.a.take(b"2" * 32, SCOPE, np.array([1.0, 0.0], np.float32)))
    taken(pair.a.take(b"3" * 32, b"t" * 32, VECTOR))
    assert pair.b.near(SCOPE, VECTOR, 0.9) == KEY
    assert pair.b.near(SCOPE, -VECTOR, 0.0) is None


def test_a_file_that_was_deleted_is_created_again(pair: Pair, tmp_path: Path) -> None:
    """A process that had the old file open uses the new one, like all others."""
    taken(pair.a.take(KEY, SCOPE, None))
    for path in tmp_path.glob("leases.db*"):
        path.unlink()
    taken(pair.b.take(b"2" * 32, SCOPE, None))
    assert isinstance(pair.a.take(b"2" * 32, SCOPE, None), LeaseHolder)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Methods raise a StoreError; `release` raises nothing and reports a fault."""
    path = tmp_path / "leases.db"
    faults: list[BaseException] = []
    leases = SQLiteLeases(path, faults.append)
    lease = taken(leases.take(KEY, SCOPE, None))
    leases.close()
    with pytest.raises(StoreError, match="leases"):
        leases.take(KEY, SCOPE, None)
    lease.release(kept=True)
    assert len(faults) == 1
    path.write_bytes(b"no database" * 100)
    Path(f"{path}-wal").unlink(missing_ok=True)
    with pytest.raises(StoreError, match="safely delete"):
        SQLiteLeases(path, faults.append).take(KEY, SCOPE, None)
