"""Waiting in line: rate limits and places at a provider, first come, first served.

A call books its turn: it is told when it may go, counting those who wait before it, and
is refused at once if that is too late. When its time has come it departs, which is checked
again against what has really departed, so that a limit holds however late anybody wakes.
Whoever leaves the line gives its booking back.
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
    """One limit, and who waits for it: amounts by booking, the first to come first.

    Attributes:
        booked: all that is waiting. promised: the turn of the last who waits; whoever comes
            later goes no earlier, even if somebody between them has left.
    """

    limit: Limit
    state: RateState
    waiting: dict[int, float] = field(default_factory=dict)
    booked: float = 0.0
    promised: float = 0.0


@dataclass(slots=True)
class Reservation:
    """A call's place in all its lines.

    Attributes:
        amounts: what it takes of each line.
        latest: when it gives up (seconds).
        departed: when it went, or None.
    """

    number: int
    lines: tuple[LimitQueue, ...]
    amounts: tuple[float, ...]
    latest: float
    departed: float | None = None


class RateLimiter:
    """The rate limits of a router's providers, under one lock.

    Args:
        clock: seconds, on a clock that does not step.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, Limit], LimitQueue] = {}
        self._numbers = 0

    def of(
        self, limits: Sequence[Limit], *, provider: str, key: str | None
    ) -> tuple[LimitQueue, ...]:
        """The lines for a provider's limits; those for a key are shared by all who use it."""
        found = []
        for limit in limits:
            owner = f"key {key}" if limit.per == "key" and key is not None else provider
            state = rate_state(limit, self._clock())
            found.append(self._lines.setdefault((owner, limit), LimitQueue(limit, state)))
        return tuple(found)

    def book(
        self,
        lines: Sequence[LimitQueue],
        sizes: Mapping[Unit, float],
        deadline: float | None,
        who: str,
    ) -> tuple[Reservation, float]:
        """Take a place in all the lines; return it and the seconds until its turn.

        Raises:
            RateLimitedError: it would wait too long. RejectedError: it never has its turn.
        """
        amounts = tuple(sizes[line.limit.unit] for line in lines)
        with self._lock:
            now = self._clock()
            turns: list[float] = []
            for line, amount in zip(lines, amounts, strict=True):
                if amount > line.limit.most:
                    raise RejectedError(
                        f"the call takes {amount:,.0f} {line.limit.unit}, more than the limit of "
                        f"{line.limit} lets go at once",
                        provider=who,
                        held_back=True,
                    )
                ready = line.state.ready_at(now, amount, line.booked)
                if line.waiting:
                    ready = max(ready, line.promised)
                if ready - now > line.limit.wait or (deadline is not None and ready > deadline):
                    raise _too_late(line, who, ready - now)
                turns.append(ready)
            self._numbers += 1
            latest = now + min((line.limit.wait for line in lines), default=0.0)
            if deadline is not None:
                latest = min(latest, deadline)
            booking = Reservation(self._numbers, tuple(lines), amounts, latest)
            for line, amount, turn in zip(lines, amounts, turns, strict=True):
                line.waiting[booking.number] = amount
                line.booked += amount
                line.promised = turn
            return booking, max(turns, default=now) - now

    def depart(self, booking: Reservation, who: str) -> float:
        """Go, if all the lines let it: 0.0. Otherwise the seconds until the next try.

        Raises:
            RateLimitedError: its turn does not come in time. The booking is given back.
        """
        with self._lock:
            now = self._clock()
            pairs = tuple(zip(booking.lines, booking.amounts, strict=True))
            taken = [line.state.take(now, amount) for line, amount in pairs]
            if None not in taken:
                for (line, _), state in zip(pairs, taken, strict=True):
                    assert state is not None
                    line.state = state
                self._unbook(booking)
                booking.departed = now
                return 0.0
            turn, slowest = now, booking.lines[0]
            for (line, amount), state in zip(pairs, taken, strict=True):
                ready = line.state.ready_at(now, amount, _ahead(line, booking.number))
                if state is None and ready > turn:
                    turn, slowest = ready, line
            if turn > booking.latest + _SLACK:
                self._unbook(booking)
                raise _too_late(slowest, who, turn - now)
            return max(turn - now, _SLACK)

    def leave(self, booking: Reservation) -> None:
        """Give up a place before its turn."""
        with self._lock:
            self._unbook(booking)

    def correct(self, booking: Reservation, unit: Unit, actual: float) -> None:
        """What the call really took, now that it is known."""
        if booking.departed is None:
            return
        with self._lock:
            now = self._clock()
            for line, amount in zip(booking.lines, booking.amounts, strict=True):
                if line.limit.unit == unit and actual != amount:
                    line.state = line.state.correct(booking.departed, now, actual - amount)

    def free(self, lines: Sequence[LimitQueue]) -> list[tuple[Limit, float, int]]:
        """(limit, what could go at once, how many wait) of each line."""
        with self._lock:
            now = self._clock()
            return [(line.limit, line.state.free(now), len(line.waiting)) for line in lines]

    def after_fork(self) -> None:
        """In a child process: the parent's callers are not here."""
        self._lock = threading.Lock()
        for line in self._lines.values():
            line.waiting.clear()
            line.booked = 0.0

    def _unbook(self, booking: Reservation) -> None:
        for line in booking.lines:
            amount = line.waiting.pop(booking.number, None)
            if amount is not None:
                line.booked = line.booked - amount if line.waiting else 0.0


_SLACK = 0.001
"""Seconds: what a sleep may be off."""


def _ahead(line: LimitQueue, number: int) -> float:
    """What those who came before this booking still wait to take."""
    total = 0.0
    for other, amount in line.waiting.items():
        if other >= number:
            break
        total += amount
    return total


def _too_late(line: LimitQueue, who: str, seconds: float) -> RateLimitedError:
    return RateLimitedError(
        f"its limit here of {line.limit} is used up; the call's turn would come in "
        f"{seconds:.1f} s, which is too late",
        provider=who,
        retry_after=seconds,
        held_back=True,
    )


class ConcurrencyLimiter:
    """At most so many calls at once; the others wait in line.

    Args:
        count: how many; None: as many as come.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self._free = count or 0
        self._lock = threading.Lock()
        self._line: deque[Future[None]] = deque()

    @property
    def taken(self) -> int:
        return 0 if self.count is None else self.count - self._free

    def enter(self) -> Future[None] | None:
        """Take a place: None. If there is none, what becomes done when there is."""
        if self.count is None:
            return None
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            place: Future[None] = Future()
            self._line.append(place)
            return place

    def give_up(self, place: Future[None]) -> None:
        """Leave the line; a place that was given meanwhile goes to the next."""
        if not place.cancel():
            self.leave()

    def leave(self) -> None:
        """Give a place back."""
        if self.count is None:
            return
        with self._lock:
            while self._line:
                place = self._line.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._free += 1

    def after_fork(self) -> None:
        """In a child process: the parent's calls are not here."""
        self._lock = threading.Lock()
        self._line.clear()
        self._free = self.count or 0
