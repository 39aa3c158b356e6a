"""What stands before one provider: its breaker, its places, its rate limits, its budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from semcache.errors import BreakerOpenError, RateLimitedError, UnavailableError
from semcache.providers.protocols import Named
from semcache.router.queues import ConcurrencyLimiter, RateLimiter, Reservation
from semcache.router.rate_limits import Limit, Unit
from semcache.router.resilience import (
    Breaker,
    BreakerRules,
    BreakerState,
    Permit,
    Retry,
    RetryBudget,
    Verdict,
)
from semcache.router.steps import Sleep, WaitFor


@dataclass(frozen=True, slots=True)
class AdmissionState:
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


_MOMENT = 1e-6
"""Seconds that are none: a clock's rounding."""
_GLANCE = 1.0
"""Seconds after which those who wait look at the breaker again."""


class AdmissionToken:
    """Leave to make one call. Must be handed back once, with `leave`."""

    def __init__(
        self, gate: Admission, permit: Permit, booking: Reservation | None, waited: float
    ) -> None:
        self._gate = gate
        self._permit: Permit | None = permit
        self._booking = booking
        self._left = False
        self.waited = waited

    def answering(self) -> None:
        """The first words have come. A probe need not wait for a slow reader to be good."""
        if self._permit is not None and self._permit.probe:
            permit, self._permit = self._permit, None
            self._gate._report(permit, "good")

    def leave(self, verdict: Verdict, tokens: int | None = None) -> None:
        """Hand it back. tokens: what the call really took, if that is known."""
        if not self._left:
            self._left = True
            permit, self._permit = self._permit, None
            self._gate.left(permit, verdict, self._booking, tokens)


class Admission:
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
        lines: RateLimiter,
        on_state_change: Callable[[str, BreakerState], None],
        clock: Callable[[], float],
    ) -> None:
        self._name = provider.name
        self._all = lines
        self._lines = lines.of(limits, provider=provider.name, key=provider.key_id)
        self._places = ConcurrencyLimiter(places)
        self._breaker = Breaker(breaker)
        self._budget = RetryBudget.of(retry)
        self._on_state_change = on_state_change
        self._clock = clock
        self._lock = threading.Lock()

    def enter(
        self, *, retry: bool, tokens: int, deadline: float | None
    ) -> Generator[Sleep | WaitFor, Any, AdmissionToken]:
        """Wait until a call may be made.

        Raises:
            BreakerOpenError: the provider is left alone.
            RateLimitedError: its turn would come too late.
            UnavailableError: the retry cannot be paid for, or there was no place in time.
        """
        start = self._clock()
        permit = self._permit()
        booking: Reservation | None = None
        placed = False
        try:
            self._pay(retry)
            yield from self._place(permit, deadline)
            placed = True
            if self._lines:
                sizes: dict[Unit, float] = {"requests": 1.0, "tokens": float(tokens)}
                booking, seconds = self._all.book(self._lines, sizes, deadline, self._name)
                yield from self._turn(permit, booking, seconds)
            return AdmissionToken(self, permit, booking, self._clock() - start)
        except BaseException:
            if booking is not None:
                self._all.leave(booking)
            if placed:
                self._places.leave()
            self._report(permit, "neutral")
            raise

    def _turn(
        self, permit: Permit, booking: Reservation, seconds: float
    ) -> Generator[Sleep, Any, None]:
        """Wait for the call's turn, unless the breaker opens meanwhile."""
        while True:
            turn = self._clock() + seconds
            while seconds > _MOMENT:
                yield Sleep(min(seconds, _GLANCE))
                self._refuse_if_turned(permit)
                seconds = turn - self._clock()
            seconds = self._all.depart(booking, self._name)
            if seconds <= 0:
                return

    def left(
        self,
        permit: Permit | None,
        verdict: Verdict,
        booking: Reservation | None,
        tokens: int | None,
    ) -> None:
        """A call has ended. No permit: the breaker knows already how it went."""
        self._places.leave()
        if booking is not None and tokens is not None:
            self._all.correct(booking, "tokens", float(tokens))
        if permit is not None:
            self._report(permit, verdict)

    def _report(self, permit: Permit, verdict: Verdict) -> None:
        self._swap(lambda breaker: breaker.report(permit, verdict, self._clock()))

    def state(self) -> AdmissionState:
        breaker = self._breaker
        return AdmissionState(
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
        self._breaker = self._breaker.anew()
        self._places.after_fork()

    def _pay(self, retry: bool) -> None:
        with self._lock:
            paid = self._budget.spent() if retry else self._budget.earned()
            if paid is None:
                raise UnavailableError(
                    "it fails so often that retries are held back (the retry budget is used up)",
                    provider=self._name,
                    held_back=True,
                )
            self._budget = paid

    def _place(self, permit: Permit, deadline: float | None) -> Generator[WaitFor, Any, None]:
        place = self._places.enter()
        if place is None:
            return
        try:
            while True:
                left = _GLANCE if deadline is None else deadline - self._clock()
                if (yield WaitFor(place, max(0.0, min(left, _GLANCE)))):
                    return
                self._refuse_if_turned(permit)
                if deadline is not None and self._clock() >= deadline:
                    raise RateLimitedError(
                        f"all its {self._places.count} places are taken, and none came free",
                        provider=self._name,
                        held_back=True,
                    )
        except BaseException:
            self._places.give_up(place)
            raise

    def _refuse_if_turned(self, permit: Permit) -> None:
        """Whoever waits for a provider that is left alone by now need not wait any longer."""
        breaker = self._breaker
        if breaker.generation != permit.generation and breaker.state != "closed":
            raise BreakerOpenError(
                provider=self._name, retry_after=breaker.retry_after(self._clock())
            )

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
            self._on_state_change(self._name, after.state)
