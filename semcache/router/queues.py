"""Queues for rate limits and concurrency limits, first come, first served.

A call reserves its turn in the queues of all its rate limits. It learns at once how long it
would wait behind the calls ahead of it, and fails if that is too long. At its turn it is
checked again against what has really been sent, so that a limit holds however late a waiting
caller wakes up. A call that gives up releases its reservation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from semcache.errors import RateLimitedError, RejectedError
from semcache.router.rate_limits import Limit, RateState, Unit, rate_state


@dataclass(slots=True)
class LimitQueue:
    """One rate limit and the calls that wait for it.

    Attributes:
        waiting: amounts by reservation number, in order of arrival.
        queued: the sum of the waiting amounts.
        last_turn: the turn promised to the last call in the queue. Later calls go no earlier,
            even if a call between them has given up.
    """

    limit: Limit
    state: RateState
    waiting: dict[int, float] = field(default_factory=dict)
    queued: float = 0.0
    last_turn: float = 0.0


@dataclass(slots=True)
class Reservation:
    """The turn of one call in the queues of all its rate limits.

    Attributes:
        amounts: what the call takes of each limit.
        expires: when the call stops waiting (seconds).
        sent_at: when the call was let through; None while it waits.
    """

    number: int
    queues: tuple[LimitQueue, ...]
    amounts: tuple[float, ...]
    expires: float
    sent_at: float | None = None


class RateLimiter:
    """The rate limits of all providers of a router, under one lock.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, Limit], LimitQueue] = {}
        self._last_number = 0

    def queues_for(
        self, limits: Sequence[Limit], *, provider: str, key: str | None
    ) -> tuple[LimitQueue, ...]:
        """The queues of a provider's limits; limits per key are shared by all who use the key."""
        queues = []
        for limit in limits:
            owner = f"key {key}" if limit.per == "key" and key is not None else provider
            state = rate_state(limit, self._clock())
            queues.append(self._queues.setdefault((owner, limit), LimitQueue(limit, state)))
        return tuple(queues)

    def reserve(
        self,
        queues: Sequence[LimitQueue],
        sizes: Mapping[Unit, float],
        deadline: float | None,
        provider: str,
    ) -> tuple[Reservation, float]:
        """Reserve a turn in all the queues; returns it and the seconds until it comes.

        Raises:
            RateLimitedError: the call would have to wait too long.
            RejectedError: the call is larger than a limit ever allows.
        """
        amounts = tuple(sizes[queue.limit.unit] for queue in queues)
        with self._lock:
            now = self._clock()
            turns: list[float] = []
            for queue, amount in zip(queues, amounts, strict=True):
                if amount > queue.limit.capacity:
                    raise RejectedError(
                        f"the call takes {amount:,.0f} {queue.limit.unit}, more than the limit of "
                        f"{queue.limit} allows at once",
                        provider=provider,
                        held_back=True,
                    )
                ready = queue.state.ready_at(now, amount, queue.queued)
                if queue.waiting:
                    ready = max(ready, queue.last_turn)
                if ready - now > queue.limit.wait or (deadline is not None and ready > deadline):
                    raise _too_late(queue, provider, ready - now)
                turns.append(ready)
            self._last_number += 1
            expires = now + min((queue.limit.wait for queue in queues), default=0.0)
            if deadline is not None:
                expires = min(expires, deadline)
            reservation = Reservation(self._last_number, tuple(queues), amounts, expires)
            for queue, amount, turn in zip(queues, amounts, turns, strict=True):
                queue.waiting[reservation.number] = amount
                queue.queued += amount
                queue.last_turn = turn
            return reservation, max(turns, default=now) - now

    def try_send(self, reservation: Reservation, provider: str) -> float:
        """Let the call through if all limits allow it now.

        Returns:
            0.0 if it may be sent, otherwise the seconds until it should try again.

        Raises:
            RateLimitedError: its turn does not come in time; the reservation is released.
        """
        with self._lock:
            now = self._clock()
            pairs = tuple(zip(reservation.queues, reservation.amounts, strict=True))
            states = [queue.state.take(now, amount) for queue, amount in pairs]
            if None not in states:
                for (queue, _), state in zip(pairs, states, strict=True):
                    assert state is not None
                    queue.state = state
                self._remove(reservation)
                reservation.sent_at = now
                return 0.0
            turn, slowest = now, reservation.queues[0]
            for (queue, amount), state in zip(pairs, states, strict=True):
                ready = queue.state.ready_at(now, amount, _ahead_of(reservation.number, queue))
                if state is None and ready > turn:
                    turn, slowest = ready, queue
            if turn > reservation.expires + _SLEEP_ERROR:
                self._remove(reservation)
                raise _too_late(slowest, provider, turn - now)
            return max(turn - now, _SLEEP_ERROR)

    def release(self, reservation: Reservation) -> None:
        """Give up a turn that has not come yet."""
        with self._lock:
            self._remove(reservation)

    def correct(self, reservation: Reservation, unit: Unit, actual: float) -> None:
        """Replace the estimate of a sent call with what it really took."""
        if reservation.sent_at is None:
            return
        with self._lock:
            now = self._clock()
            for queue, amount in zip(reservation.queues, reservation.amounts, strict=True):
                if queue.limit.unit == unit and actual != amount:
                    queue.state = queue.state.correct(reservation.sent_at, now, actual - amount)

    def available(self, queues: Sequence[LimitQueue]) -> list[tuple[Limit, float, int]]:
        """(limit, amount that could be sent now, callers waiting) for each queue."""
        with self._lock:
            now = self._clock()
            return [
                (queue.limit, queue.state.available(now), len(queue.waiting)) for queue in queues
            ]

    def after_fork(self) -> None:
        """Forget the parent's waiting callers in a child process."""
        self._lock = threading.Lock()
        for queue in self._queues.values():
            queue.waiting.clear()
            queue.queued = 0.0

    def _remove(self, reservation: Reservation) -> None:
        for queue in reservation.queues:
            amount = queue.waiting.pop(reservation.number, None)
            if amount is not None:
                queue.queued = queue.queued - amount if queue.waiting else 0.0


_SLEEP_ERROR = 0.001
"""Seconds by which a sleep may end early or late."""


def _ahead_of(number: int, queue: LimitQueue) -> float:
    """The sum of the amounts that wait ahead of this reservation."""
    total = 0.0
    for other, amount in queue.waiting.items():
        if other >= number:
            break
        total += amount
    return total


def _too_late(queue: LimitQueue, provider: str, seconds: float) -> RateLimitedError:
    return RateLimitedError(
        f"the configured limit of {queue.limit} is used up; the call's turn would come in "
        f"{seconds:.1f} s, which is too late",
        provider=provider,
        retry_after=seconds,
        held_back=True,
    )


class ConcurrencyLimiter:
    """Limits the calls in flight; further calls wait in a queue.

    Args:
        count: the most calls in flight at once; None means unlimited.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self._free = count or 0
        self._lock = threading.Lock()
        self._waiters: deque[Future[None]] = deque()

    @property
    def in_use(self) -> int:
        """Calls in flight; always 0 if their number is not limited."""
        return 0 if self.count is None else self.count - self._free

    def enter(self) -> Future[None] | None:
        """Take a slot, or join the queue.

        Returns:
            None if a slot was free; otherwise a future that completes when one is assigned.
        """
        if self.count is None:
            return None
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            return waiter

    def give_up(self, waiter: Future[None]) -> None:
        """Stop waiting; a slot that was assigned in the meantime goes to the next waiter."""
        if not waiter.cancel():
            self.leave()

    def leave(self) -> None:
        """Give a slot back."""
        if self.count is None:
            return
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._free += 1

    def after_fork(self) -> None:
        """Forget the parent's calls in a child process."""
        self._lock = threading.Lock()
        self._waiters.clear()
        self._free = self.count or 0
