"""What stands before one provider: its breaker, its places, its rate limits, its budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from semcache.core.limits import Limit
from semcache.core.resilience import (
    Breaker,
    BreakerRules,
    BreakerState,
    Permit,
    Retry,
    RetryBudget,
    Verdict,
)
from semcache.errors import BreakerOpenError, RateLimitedError, UnavailableError
from semcache.protocols import Named
from semcache.router.lines import Booking, Lines, Places
from semcache.router.steps import Sleep, WaitFor


@dataclass(frozen=True, slots=True)
class GateState:
    """What `Router.state` tells of a provider.

    Attributes:
        breaker: its state; faults: in a row; retry_after: seconds until an open breaker is tried.
        under_way: calls now, where their number is limited; places: how many there may be.
        limits: (limit, what could go at once, how many wait).
    """

    breaker: BreakerState
    faults: int
    retry_after: float
    under_way: int
    places: int | None
    limits: tuple[tuple[Limit, float, int], ...]


class Pass:
    """Leave to make one call. Must be handed back once, with `leave`."""

    def __init__(self, gate: Gate, permit: Permit, booking: Booking | None, waited: float) -> None:
        self._gate = gate
        self._permit: Permit | None = permit
        self._booking = booking
        self.waited = waited

    def leave(self, verdict: Verdict, tokens: int | None = None) -> None:
        """Hand it back. tokens: what the call really took, if that is known."""
        if self._permit is not None:
            permit, self._permit = self._permit, None
            self._gate.left(permit, verdict, self._booking, tokens)


class Gate:
    """See the head of the module.

    Args:
        turned: told (provider, state) when the breaker changes its state.
        clock: seconds, on a clock that does not step.
    """

    def __init__(
        self,
        provider: Named,
        *,
        limits: Sequence[Limit],
        places: int | None,
        breaker: BreakerRules,
        retry: Retry,
        lines: Lines,
        turned: Callable[[str, BreakerState], None],
        clock: Callable[[], float],
    ) -> None:
        self._name = provider.name
        self._all = lines
        self._lines = lines.of(limits, provider=provider.name, key=provider.key_id)
        self._places = Places(places)
        self._breaker = Breaker(breaker)
        self._budget = RetryBudget.of(retry)
        self._turned = turned
        self._clock = clock
        self._lock = threading.Lock()

    def enter(
        self, *, retry: bool, tokens: int, deadline: float | None
    ) -> Generator[Sleep | WaitFor, Any, Pass]:
        """Wait until a call may be made.

        Raises:
            BreakerOpenError: the provider is left alone.
            RateLimitedError: its turn would come too late.
            UnavailableError: the retry cannot be paid for, or there was no place in time.
        """
        start = self._clock()
        self._refuse_if_open(start)
        self._pay(retry)
        yield from self._place(deadline)
        booking: Booking | None = None
        try:
            if self._lines:
                sizes = {"requests": 1.0, "tokens": float(tokens)}
                booking, seconds = self._all.book(self._lines, sizes, deadline, self._name)  # type: ignore[arg-type]
                while True:
                    if seconds > 0:
                        yield Sleep(seconds)
                    seconds = self._all.depart(booking, self._name)
                    if seconds <= 0:
                        break
            return Pass(self, self._permit(), booking, self._clock() - start)
        except BaseException:
            if booking is not None:
                self._all.leave(booking)
            self._places.leave()
            raise

    def left(
        self, permit: Permit, verdict: Verdict, booking: Booking | None, tokens: int | None
    ) -> None:
        """A call has ended."""
        self._places.leave()
        if booking is not None and tokens is not None:
            self._all.correct(booking, "tokens", float(tokens))
        self._swap(lambda breaker: breaker.report(permit, verdict, self._clock()))

    def state(self) -> GateState:
        breaker = self._breaker
        return GateState(
            breaker.state,
            breaker.faults,
            breaker.retry_after(self._clock()),
            self._places.taken,
            self._places.count,
            tuple(self._all.free(self._lines)),
        )

    def after_fork(self) -> None:
        """In a child process: the parent's calls are not here."""
        self._lock = threading.Lock()
        self._places.after_fork()

    def _pay(self, retry: bool) -> None:
        with self._lock:
            paid = self._budget.spent() if retry else self._budget.earned()
            if paid is None:
                raise UnavailableError(
                    "it fails so often that retries are held back (the retry budget is used up)",
                    provider=self._name,
                    retry_after=float("inf"),
                )
            self._budget = paid

    def _place(self, deadline: float | None) -> Generator[WaitFor, Any, None]:
        place = self._places.enter()
        if place is None:
            return
        left = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            got = yield WaitFor(place, left)
        except BaseException:
            self._places.give_up(place)
            raise
        if not got:
            self._places.give_up(place)
            raise RateLimitedError(
                f"all its {self._places.count} places are taken, and none came free in time",
                provider=self._name,
            )

    def _refuse_if_open(self, now: float) -> None:
        breaker = self._breaker
        if breaker.state == "open" and (left := breaker.retry_after(now)) > 0:
            raise BreakerOpenError(provider=self._name, retry_after=left)

    def _permit(self) -> Permit:
        now = self._clock()
        permit: Permit | None = None

        def admitted(breaker: Breaker) -> Breaker:
            nonlocal permit
            breaker, permit = breaker.admit(now)
            return breaker

        self._swap(admitted)
        if permit is None:
            raise BreakerOpenError(provider=self._name, retry_after=self._breaker.retry_after(now))
        return permit

    def _swap(self, change: Callable[[Breaker], Breaker]) -> None:
        with self._lock:
            before = self._breaker
            self._breaker = after = change(before)
        if after.state != before.state:
            self._turned(self._name, after.state)
