"""Single flight: of concurrent equal requests, only one calls the model.

Within a process, callers wait for a future; across processes, for a lease.

The first caller to miss is the leader; the others are followers and wait for its answer. If the
model raises an error, the followers get that error too. If the leader is abandoned (cancelled, or
its stream not read to the end), one of the followers becomes the leader. A call that makes the
same request again, from within its own call to the model, does not wait for itself.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semcache.engine.deadlocks import waits_for_this_thread
from semcache.types import Completion, Lookup

if TYPE_CHECKING:
    from semcache.backends.base import Lease

_FIRST_LOOK, _LATER_LOOKS = 0.05, 0.5
"""Seconds before a waiting caller first checks for a deadlock, and between later checks."""

_inside: ContextVar[frozenset[bytes]] = ContextVar("semcache_inside", default=frozenset())


@dataclass(frozen=True, slots=True)
class Completed:
    """The leader has an answer.

    Attributes:
        completion: the answer; None if it cannot be stored, and so cannot be shared either.
        kept: whether the answer was stored, so that other processes find it.
    """

    completion: Completion | None
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The leader's call to the model raised this error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The leader gave up or took too long; whether there will be an answer is unknown."""


Outcome = Completed | Failed | Abandoned


class InFlight:
    """One call in flight. Its leader must end it, with `InFlightCalls.end`."""

    def __init__(self, key: bytes, lookup: Lookup | None = None, stream: Any = None) -> None:
        self.key = key
        self.lookup = lookup
        self.stream = stream
        """The stream that followers can read while it arrives; see `shared_streams`."""
        self._lease: Lease | None = None
        self.leader = _caller()
        self._future: Future[Outcome] = Future()

    @property
    def mine(self) -> bool:
        """Whether the current thread or task leads this call, and so must not wait for it."""
        return self.leader == _caller()

    @property
    def led_by_this_thread(self) -> bool:
        """Whether the current thread, or a task of its event loop, leads this call."""
        return self.leader[0] == threading.get_ident()

    @property
    def cannot_end(self) -> bool:
        """Whether it is useless to wait for the call.

        It waits for work of the current thread, its event loop has stopped, or its stream stalls.
        """
        task = self.leader[1]
        if task is not None and not task.get_loop().is_running():
            return True
        if self.stream is not None and self.stream.stalled:
            return True
        running = self.leader if self.stream is None else self.stream.runner(self.leader)
        return running is not None and waits_for_this_thread(*running)

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self._future.done()

    def settle(self, outcome: Outcome) -> None:
        """Pass the outcome to the followers."""
        self._future.set_result(outcome)

    def hold(self, lease: Lease) -> None:
        """Hold a lease until the call ends; release it right away if it has ended already."""
        self._lease = lease
        if self.ended:
            self.let_go(kept=True)

    def let_go(self, *, kept: bool) -> None:
        """Release the lease, if there is one."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(kept=kept)

    def wait(self, patience: float | None) -> Outcome:
        """Block until the call has ended.

        Returns `Abandoned` after `patience` seconds, or as soon as a check finds that the call
        cannot end.
        """
        deadline = math.inf if patience is None else time.monotonic() + patience
        pause = _FIRST_LOOK
        while (rest := deadline - time.monotonic()) > 0:
            with suppress(FutureTimeoutError):
                return self._future.result(min(rest, pause))
            if self.cannot_end:
                break
            pause = _LATER_LOOKS
        return Abandoned()

    async def await_(self, patience: float | None) -> Outcome:
        """`wait` without blocking; cancelling one waiter does not affect the others."""
        import asyncio  # here, so that programs without async code do not load it

        deadline = math.inf if patience is None else time.monotonic() + patience
        pause = _FIRST_LOOK
        while (rest := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                waiting = asyncio.shield(asyncio.wrap_future(self._future))
                return await asyncio.wait_for(waiting, min(rest, pause))
            if self.cannot_end:
                break
            pause = _LATER_LOOKS
        return Abandoned()


class InFlightCalls:
    """The calls in flight in this process, by exact key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: garbage collection may end a call
        self._calls: dict[bytes, InFlight] = {}
        self.ended = 0
        """How many calls have ended. Two equal readings mean that none ended in between."""

    def join(
        self, key: bytes, lookup: Lookup | None = None, stream: Any = None
    ) -> tuple[InFlight, bool]:
        """Return (call, whether the caller leads it).

        Args:
            lookup: the lookup that `near` compares others with.
            stream: the stream of the call, if the caller will lead it.
        """
        if is_inside(key):
            # a nested call of the leader must not wait for itself
            return InFlight(key, stream=stream), True
        with self._lock:
            call = self._calls.get(key)
            if call is not None:
                return call, False
            call = self._calls[key] = InFlight(key, lookup, stream)
            return call, True

    def near(self, lookup: Lookup, floor: float) -> InFlight | None:
        """The call for the most similar other question of the scope, if it reaches `floor`."""
        vector, scope = lookup.vector, lookup.query.scope.digest
        if vector is None:
            return None
        best, nearest = floor, None
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            other = call.lookup
            if other is None or other.vector is None or other.query.scope.digest != scope:
                continue
            if (
                call.key != lookup.query.exact_key
                and (cosine := float(vector @ other.vector)) >= best
            ):
                best, nearest = cosine, call
        return nearest

    def after_fork(self) -> None:
        """In a child process: forget the calls, which belong to the parent."""
        self._lock = threading.RLock()
        self._calls.clear()

    def end(self, call: InFlight, outcome: Outcome) -> None:
        """Remove a call, pass its outcome to the followers and release its lease."""
        if call.ended:
            return
        with self._lock:
            if self._calls.get(call.key) is call:
                del self._calls[call.key]
            self.ended += 1
        if call.stream is not None:
            call.stream.cancel()
        call.settle(outcome)
        call.let_go(kept=not isinstance(outcome, Completed) or outcome.kept)


def _caller() -> tuple[int, Any]:
    """The current thread, and the current task if there is one."""
    task = None
    if (asyncio := sys.modules.get("asyncio")) is not None:
        with suppress(RuntimeError):
            task = asyncio.current_task()
    return threading.get_ident(), task


def is_inside(key: bytes) -> bool:
    """Whether the current context is inside the call to the model for this key."""
    return key in _inside.get()


def mark_inside(key: bytes) -> None:
    """Mark the current context, for good, as inside the call to the model for this key."""
    _inside.set(_inside.get() | {key})


@contextmanager
def inside(key: bytes) -> Iterator[None]:
    """Mark the current context as inside the call to the model for this key."""
    token = _inside.set(_inside.get() | {key})
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be closed from another context
            _inside.reset(token)
