"""Admission to one provider: its breaker, retry budget, concurrency limit and rate limits."""

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
    """What `Router.state` reports about a provider.

    Attributes:
        breaker: the state of its breaker.
        faults: consecutive faults so far.
        retry_after: seconds until an open breaker lets a probe through.
        in_flight: calls in flight; always 0 if concurrency is not limited.
        places: the most calls that may be in flight at once; None means unlimited.
        limits: (limit, amount that could be sent now, callers waiting) for each rate limit.
    """

    breaker: BreakerState
    faults: int
    retry_after: float
    in_flight: int
    places: int | None
    limits: tuple[tuple[Limit, float, int], ...]


_CLOCK_ROUNDING = 1e-6
"""Waits shorter than this (seconds) are rounding errors of the clock."""
_RECHECK_INTERVAL = 1.0
"""Seconds between two checks of the breaker while a call waits."""


class AdmissionToken:
    """Permission to make one call. Must be given back once, with `release`.

    Attributes:
        waited: seconds that the call waited for admission.
    """

    def __init__(
        self,
        admission: Admission,
        permit: Permit,
        reservation: Reservation | None,
        waited: float,
    ) -> None:
        self._admission = admission
        self._permit: Permit | None = permit
        self._reservation = reservation
        self._released = False
        self.waited = waited

    def on_first_text(self) -> None:
        """Report a probe as good once the answer begins, however slowly it is then read."""
        if self._permit is not None and self._permit.probe:
            permit, self._permit = self._permit, None
            self._admission.report(permit, "good")

    def release(self, verdict: Verdict, tokens: int | None = None) -> None:
        """Give the token back; further calls do nothing.

        Args:
            verdict: how the call went.
            tokens: the tokens that the call really used; None if they are not known.
        """
        if not self._released:
            self._released = True
            permit, self._permit = self._permit, None
            self._admission.release(permit, verdict, self._reservation, tokens)


class Admission:
    """Decides when a call to one provider may be made.

    Args:
        max_concurrent: the most calls in flight at once; None means unlimited.
        on_state_change: called with (provider, state) when the breaker changes its state.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        provider: Named,
        *,
        limits: Sequence[Limit],
        max_concurrent: int | None,
        breaker: BreakerRules,
        retry: Retry,
        rate_limiter: RateLimiter,
        on_state_change: Callable[[str, BreakerState], None],
        clock: Callable[[], float],
    ) -> None:
        self._name = provider.name
        self._rate_limiter = rate_limiter
        self._queues = rate_limiter.queues_for(limits, provider=provider.name, key=provider.key_id)
        self._concurrency = ConcurrencyLimiter(max_concurrent)
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
            BreakerOpenError: the breaker is open.
            RateLimitedError: a rate limit or the concurrency limit would make it wait too long.
            RejectedError: the call is larger than a rate limit ever allows.
            UnavailableError: the retry budget is used up.
        """
        start = self._clock()
        permit = self._acquire_permit()
        reservation: Reservation | None = None
        entered = False
        try:
            self._charge_budget(retry)
            yield from self._enter_concurrency(permit, deadline)
            entered = True
            if self._queues:
                sizes: dict[Unit, float] = {"requests": 1.0, "tokens": float(tokens)}
                reservation, seconds = self._rate_limiter.reserve(
                    self._queues, sizes, deadline, self._name
                )
                yield from self._await_turn(permit, reservation, seconds)
            return AdmissionToken(self, permit, reservation, self._clock() - start)
        except BaseException:
            if reservation is not None:
                self._rate_limiter.release(reservation)
            if entered:
                self._concurrency.leave()
            self.report(permit, "neutral")
            raise

    def release(
        self,
        permit: Permit | None,
        verdict: Verdict,
        reservation: Reservation | None,
        tokens: int | None,
    ) -> None:
        """End a call. Without a permit, the breaker already knows how the call went."""
        self._concurrency.leave()
        if reservation is not None and tokens is not None:
            self._rate_limiter.correct(reservation, "tokens", float(tokens))
        if permit is not None:
            self.report(permit, verdict)

    def report(self, permit: Permit, verdict: Verdict) -> None:
        """Tell the breaker how a call went."""
        self._update_breaker(lambda breaker: breaker.report(permit, verdict, self._clock()))

    def state(self) -> AdmissionState:
        breaker = self._breaker
        return AdmissionState(
            breaker.state,
            breaker.faults,
            breaker.retry_after(self._clock()),
            self._concurrency.in_use,
            self._concurrency.count,
            tuple(self._rate_limiter.available(self._queues)),
        )

    def after_fork(self) -> None:
        """Forget the parent's calls in a child process."""
        self._lock = threading.Lock()
        self._breaker = self._breaker.after_fork()
        self._concurrency.after_fork()

    def _charge_budget(self, retry: bool) -> None:
        with self._lock:
            budget = self._budget.withdraw() if retry else self._budget.deposit()
            if budget is None:
                raise UnavailableError(
                    "retries are suspended because too many calls fail (the retry budget is "
                    "used up)",
                    provider=self._name,
                    held_back=True,
                )
            self._budget = budget

    def _enter_concurrency(
        self, permit: Permit, deadline: float | None
    ) -> Generator[WaitFor, Any, None]:
        waiter = self._concurrency.enter()
        if waiter is None:
            return
        try:
            while True:
                left = _RECHECK_INTERVAL if deadline is None else deadline - self._clock()
                if (yield WaitFor(waiter, max(0.0, min(left, _RECHECK_INTERVAL)))):
                    return
                self._check_breaker(permit)
                if deadline is not None and self._clock() >= deadline:
                    raise RateLimitedError(
                        f"the limit of {self._concurrency.count} concurrent calls was reached, "
                        "and none of them finished in time",
                        provider=self._name,
                        held_back=True,
                    )
        except BaseException:
            self._concurrency.give_up(waiter)
            raise

    def _await_turn(
        self, permit: Permit, reservation: Reservation, seconds: float
    ) -> Generator[Sleep, Any, None]:
        """Wait until the rate limits let the call go, unless the breaker opens first."""
        while True:
            turn = self._clock() + seconds
            while seconds > _CLOCK_ROUNDING:
                yield Sleep(min(seconds, _RECHECK_INTERVAL))
                self._check_breaker(permit)
                seconds = turn - self._clock()
            seconds = self._rate_limiter.try_send(reservation, self._name)
            if seconds <= 0:
                return

    def _check_breaker(self, permit: Permit) -> None:
        """Stop waiting if the breaker has opened since the permit was issued.

        Raises:
            BreakerOpenError: the breaker has opened.
        """
        breaker = self._breaker
        if breaker.generation != permit.generation and breaker.state != "closed":
            raise BreakerOpenError(
                provider=self._name, retry_after=breaker.retry_after(self._clock())
            )

    def _acquire_permit(self) -> Permit:
        now = self._clock()
        permit: Permit | None = None

        def admit(breaker: Breaker) -> Breaker:
            nonlocal permit
            breaker, permit = breaker.admit(now)
            return breaker

        self._update_breaker(admit)
        if permit is None:
            raise BreakerOpenError(provider=self._name, retry_after=self._breaker.retry_after(now))
        return permit

    def _update_breaker(self, change: Callable[[Breaker], Breaker]) -> None:
        with self._lock:
            before = self._breaker
            self._breaker = after = change(before)
        if after.state != before.state:
            self._on_state_change(self._name, after.state)
