"""Backoff, the retry budget and the circuit breaker, as immutable values.

Nothing here waits, reads a clock or draws a random number: times (seconds, on any monotonic
clock) and draws (uniform in [0, 1)) are arguments, and a change returns a new value. The
owner of a value replaces it under a lock.

- Backoff: exponential with full jitter (M. Brooker, "Exponential Backoff And Jitter",
  AWS Architecture Blog, 2015).
- Retry budget: each call earns a fraction of a retry, so that an outage cannot multiply the
  traffic (Google SRE Book, chapter 22; Finagle's RetryBudget).
- Breaker: closed, open, half-open (M. Nygard, "Release It!"). While it is half-open, no more
  than the allowed number of probes is in flight at once, however many callers there are.

::

    closed     --`failures` consecutive faults-->  open
    open       --`cooldown` has passed---------->  half-open
    half-open  --`successes` good probes-------->  closed
    half-open  --a probe fails------------------>  open
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from semcache.errors import ConfigError

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
Verdict: TypeAlias = Literal["good", "fault", "neutral"]
"""What a call says about its provider: it answered ("good"), it failed ("fault"), or nothing
("neutral": a mistake of the caller, a cancelled call, a rate limit)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a provider is retried, and how long to wait between attempts.

    Attributes:
        attempts: the most calls to one provider, including the first.
        base, cap: seconds; the nth pause is drawn from [0, min(cap, base * 2**(n-1))).
        patience: the longest `Retry-After` (seconds) to wait for; beyond it the next provider
            is tried.
        budget: the retries that each call adds to the retry budget.
        reserve: the retries that the budget starts with, and its maximum.

    Raises:
        ConfigError: a value is out of range.
    """

    attempts: int = 3
    base: float = 0.5
    cap: float = 8.0
    patience: float = 20.0
    budget: float = 0.2
    reserve: float = 10.0

    def __post_init__(self) -> None:
        values = (self.base, self.cap, self.patience, self.budget, self.reserve)
        if self.attempts < 1 or not all(value >= 0 for value in values):
            raise ConfigError(f"{self}: attempts must be at least 1, and no value below 0.")

    def pause(self, number: int, draw: float, retry_after: float | None = None) -> float:
        """Seconds to wait after the `number`th attempt (from 1) has failed."""
        jitter = draw * min(self.cap, self.base * 2.0 ** min(number - 1, 60))
        # Never earlier than the server asks for; the jitter spreads the callers out.
        return jitter if retry_after is None else retry_after + draw * self.base


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """The retries that may still be made.

    Attributes:
        tokens: the balance, in retries.
        most: the largest balance.
        ratio: what each first attempt adds.
    """

    tokens: float
    most: float
    ratio: float

    @classmethod
    def of(cls, retry: Retry) -> RetryBudget:
        return cls(retry.reserve, retry.reserve, retry.budget)

    def deposit(self) -> RetryBudget:
        """The budget after a first attempt."""
        return replace(self, tokens=min(max(self.most, 1.0), self.tokens + self.ratio))

    def withdraw(self) -> RetryBudget | None:
        """The budget after a retry; None if it does not cover one."""
        return replace(self, tokens=self.tokens - 1) if self.tokens >= 1 else None


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a provider's breaker opens and closes.

    Attributes:
        failures: consecutive faults that open the breaker.
        cooldown: seconds before an open breaker lets probes through.
        probes: the most probes in flight at once while it is half-open.
        successes: good probes that close it again.

    Raises:
        ConfigError: a value is out of range.
    """

    failures: int = 5
    cooldown: float = 30.0
    probes: int = 1
    successes: int = 1

    def __post_init__(self) -> None:
        if min(self.failures, self.probes, self.successes) < 1 or not self.cooldown >= 0:
            raise ConfigError(f"{self}: counts must be at least 1, and cooldown not below 0.")


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to make one call, to be given back with a verdict."""

    generation: int
    probe: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker of one provider.

    Attributes:
        faults: consecutive faults, while closed.
        good_probes: probes that succeeded, while half-open.
        probes_in_flight: probes without a verdict yet.
        opened_at: when it last opened (seconds).
        generation: the number of state changes; a verdict on a call that was permitted in an
            earlier generation does not count.
    """

    rules: BreakerRules = BreakerRules()
    state: BreakerState = "closed"
    faults: int = 0
    good_probes: int = 0
    probes_in_flight: int = 0
    opened_at: float = 0.0
    generation: int = 0

    def admit(self, now: float) -> tuple[Breaker, Permit | None]:
        """Ask for permission to make a call; without a permit, the provider must not be called."""
        if self.state == "closed":
            return self, Permit(self.generation, probe=False)
        breaker = self
        if self.state == "open":
            if self.retry_after(now) > 0:
                return self, None
            breaker = self._in_state("half_open")
        if breaker.probes_in_flight >= self.rules.probes:
            return breaker, None
        permit = Permit(breaker.generation, probe=True)
        return replace(breaker, probes_in_flight=breaker.probes_in_flight + 1), permit

    def report(self, permit: Permit, verdict: Verdict, now: float) -> Breaker:
        """Give a permit back, once, with how the call went."""
        if permit.generation != self.generation:
            return self
        if not permit.probe:
            return self._report_while_closed(verdict, now)
        breaker = replace(self, probes_in_flight=self.probes_in_flight - 1)
        if verdict == "fault":
            return breaker._opened(now)
        if verdict == "neutral":
            return breaker
        if breaker.good_probes + 1 >= self.rules.successes:
            return breaker._in_state("closed")
        return replace(breaker, good_probes=breaker.good_probes + 1)

    def after_fork(self) -> Breaker:
        """The breaker for a child process, which ignores the verdicts on the parent's calls."""
        return replace(self, probes_in_flight=0, generation=self.generation + 1)

    def retry_after(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0.0 if a call may be made now."""
        if self.state != "open":
            return 0.0
        left = self.opened_at + self.rules.cooldown - now
        return max(0.0, min(left, self.rules.cooldown))  # rounding must not make it longer

    def _report_while_closed(self, verdict: Verdict, now: float) -> Breaker:
        if verdict == "neutral":
            return self
        if verdict == "good":
            return replace(self, faults=0) if self.faults else self
        if self.faults + 1 >= self.rules.failures:
            return self._opened(now)
        return replace(self, faults=self.faults + 1)

    def _opened(self, now: float) -> Breaker:
        return replace(self._in_state("open"), opened_at=now)

    def _in_state(self, state: BreakerState) -> Breaker:
        return replace(
            self,
            state=state,
            faults=0,
            good_probes=0,
            probes_in_flight=0,
            generation=self.generation + 1,
        )
