"""Single flight: of equal requests under way, one calls the model.

Within a process waiters wait for a future; among processes, for a lease.

The first to miss leads; the others wait for its answer. If the leader fails with an
error, its followers get that error, as if the model had given it to each; if it leaves
without an answer (cancelled, or a stream was not read to its end), the followers try
for themselves, one of them leading. A call that asks its own question again, from
inside, is let through and does not wait for itself.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semcache.types import Completion, Lookup

if TYPE_CHECKING:
    from semcache.backends.base import Lease

_inside: ContextVar[frozenset[bytes]] = ContextVar("semcache_inside", default=frozenset())


@dataclass(frozen=True, slots=True)
class Completed:
    """The leader has an answer; None: one that cannot be stored, nor therefore shared.

    kept: it was stored, so that other processes find it.
    """

    completion: Completion | None
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The model's call failed for the leader."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The leader is gone, or took too long; nothing is known."""


Outcome = Completed | Failed | Abandoned


class InFlight:
    """One call under way. Whoever leads must end it, with `InFlightCalls.end`."""

    def __init__(self, key: bytes, lookup: Lookup | None = None) -> None:
        self.key = key
        self.lookup = lookup
        self._lease: Lease | None = None
        self.leader = _caller()
        self._future: Future[Outcome] = Future()

    @property
    def mine(self) -> bool:
        """Whether the caller leads it, and would wait for itself."""
        return self.leader == _caller()

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self._future.done()

    def settle(self, outcome: Outcome) -> None:
        self._future.set_result(outcome)

    def hold(self, lease: Lease) -> None:
        """Hold a lease until the flight ends, which it may have done already."""
        self._lease = lease
        if self.ended:
            self.let_go(kept=True)

    def let_go(self, *, kept: bool) -> None:
        """Release the lease, if there is one."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(kept=kept)

    def wait(self, patience: float | None) -> Outcome:
        """Block until it has ended; `Abandoned` after `patience` seconds."""
        with suppress(FutureTimeoutError):
            return self._future.result(patience)
        return Abandoned()

    async def await_(self, patience: float | None) -> Outcome:
        """`wait` without blocking; a waiter that is cancelled disturbs nobody."""
        import asyncio  # here, so that programs without tasks do not load it

        waiting = asyncio.shield(asyncio.wrap_future(self._future))
        with suppress(TimeoutError):
            return await asyncio.wait_for(waiting, patience)
        return Abandoned()


class InFlightCalls:
    """The calls under way in this process, by exact key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, InFlight] = {}
        self.ended = 0
        """How many have ended: whoever sees it unchanged has missed none."""

    def join(self, key: bytes, lookup: Lookup | None = None) -> tuple[InFlight, bool]:
        """(flight, whether the caller leads it). `lookup` is what others may find it by."""
        if is_inside(key):
            return InFlight(key), True  # the leader itself asks again: it may not wait for itself
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = InFlight(key, lookup)
            return flight, True

    def near(self, lookup: Lookup, floor: float) -> InFlight | None:
        """The flight for the nearest other question of the same scope, if it is near enough."""
        vector, scope = lookup.vector, lookup.query.scope.digest
        if vector is None:
            return None
        best, nearest = floor, None
        with self._lock:
            under_way = list(self._flights.values())
        for flight in under_way:
            led = flight.lookup
            if led is None or led.vector is None or led.query.scope.digest != scope:
                continue
            if (
                flight.key != lookup.query.exact_key
                and (cosine := float(vector @ led.vector)) >= best
            ):
                best, nearest = cosine, flight
        return nearest

    def after_fork(self) -> None:
        """In a child process: the parent's callers are not here."""
        self._lock = threading.Lock()
        self._flights.clear()

    def end(self, flight: InFlight, outcome: Outcome) -> None:
        """Take the flight off the board and tell its followers."""
        if flight.ended:
            return
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            self.ended += 1
        flight.settle(outcome)
        flight.let_go(kept=not isinstance(outcome, Completed) or outcome.kept)

    def under_way(self, key: bytes) -> bool:
        """Whether somebody in this process is asking for this."""
        return key in self._flights


def _caller() -> tuple[int, int]:
    """The thread, and the task if there is one."""
    task = None
    if (asyncio := sys.modules.get("asyncio")) is not None:
        with suppress(RuntimeError):
            task = asyncio.current_task()
    return threading.get_ident(), id(task)


def is_inside(key: bytes) -> bool:
    """Whether the caller's context leads a flight for this already."""
    return key in _inside.get()


@contextmanager
def inside(key: bytes) -> Iterator[None]:
    """Mark the caller's context as leading this flight."""
    token = _inside.set(_inside.get() | {key})
    try:
        yield
    finally:
        with suppress(ValueError):  # closed from another context, which is not inside
            _inside.reset(token)
