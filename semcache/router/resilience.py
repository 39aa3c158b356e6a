"""Backoff, the retry budget and the circuit breaker, as values.

Nothing here waits, looks at a clock or draws a number: times (seconds, on any clock that
does not step) and draws (uniform in [0, 1)) are arguments, and a change gives a new value.
Whoever holds the value swaps it under a lock.

- Backoff: exponential with full jitter (M. Brooker, "Exponential Backoff And Jitter",
  AWS Architecture Blog, 2015).
- Retry budget: retries are paid from a share of the calls, so that an outage cannot
  multiply the traffic (Google SRE Book, chapter 22; Finagle's RetryBudget).
- Breaker: closed, open, half-open (M. Nygard, "Release It!"). In half-open no more than
  the allowed number of probes is under way at once, however many callers there are.

::

    closed     --`failures` faults in a row-->  open
    open       --`cooldown` has passed------->  half-open
    half-open  --`successes` good probes----->  closed
    half-open  --a probe is a fault---------->  open
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from semcache.errors import ConfigError

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
Verdict: TypeAlias = Literal["good", "fault", "neutral"]
"""Of a call: the provider's answer; its fault; or nothing that tells (a caller's mistake, a
cancelled call, a rate limit)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast one provider is asked again.

    Attributes:
        attempts: calls to one provider, the first included.
        base, cap: seconds; the nth pause is drawn from [0, min(cap, base * 2**(n-1))).
        patience: the longest `Retry-After` (seconds) that is waited for; beyond it the next
            provider is asked.
        budget: retries allowed for each call made; reserve: retries allowed before any call.

    Raises:
        ConfigError: a value makes no sense.
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
            raise ConfigError(f"{self}: attempts is at least 1, and nothing is below 0.")

    def pause(self, number: int, draw: float, retry_after: float | None = None) -> float:
        """Seconds to wait after the `number`th attempt (from 1) has failed."""
        jitter = draw * min(self.cap, self.base * 2.0 ** min(number - 1, 60))
        # A server that says when is not asked earlier; the jitter keeps callers apart.
        return jitter if retry_after is None else retry_after + draw * self.base


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """What retries are paid from."""

    tokens: float
    most: float
    share: float

    @classmethod
    def of(cls, retry: Retry) -> RetryBudget:
        return cls(retry.reserve, retry.reserve, retry.budget)

    def earned(self) -> RetryBudget:
        """After a first attempt."""
        return replace(self, tokens=min(max(self.most, 1.0), self.tokens + self.share))

    def spent(self) -> RetryBudget | None:
        """After paying for a retry; None: it cannot be paid for."""
        return replace(self, tokens=self.tokens - 1) if self.tokens >= 1 else None


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a provider is left alone.

    Attributes:
        failures: faults in a row that open the breaker.
        cooldown: seconds before it is tried again.
        probes: calls let through at once to try it.
        successes: good probes that close the breaker.

    Raises:
        ConfigError: a value makes no sense.
    """

    failures: int = 5
    cooldown: float = 30.0
    probes: int = 1
    successes: int = 1

    def __post_init__(self) -> None:
        if min(self.failures, self.probes, self.successes) < 1 or not self.cooldown >= 0:
            raise ConfigError(f"{self}: counts are at least 1, and the cooldown is not below 0.")


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call, to be handed back with a verdict."""

    generation: int
    probe: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker of one provider.

    Attributes:
        faults: in a row, while closed. good: probes that succeeded, while half-open.
        out: probes under way. opened_at: when it last opened (seconds).
        generation: counts the changes of state; verdicts on calls from before do not count.
    """

    rules: BreakerRules = BreakerRules()
    state: BreakerState = "closed"
    faults: int = 0
    good: int = 0
    out: int = 0
    opened_at: float = 0.0
    generation: int = 0

    def admit(self, now: float) -> tuple[Breaker, Permit | None]:
        """Ask to make a call; no permit: the provider is left alone."""
        if self.state == "closed":
            return self, Permit(self.generation, probe=False)
        breaker = self
        if self.state == "open":
            if self.retry_after(now) > 0:
                return self, None
            breaker = self._on_state_change("half_open")
        if breaker.out >= self.rules.probes:
            return breaker, None
        return replace(breaker, out=breaker.out + 1), Permit(breaker.generation, probe=True)

    def report(self, permit: Permit, verdict: Verdict, now: float) -> Breaker:
        """Hand a permit back, once, with how the call went."""
        if permit.generation != self.generation:
            return self
        if not permit.probe:
            return self._closed_report(verdict, now)
        breaker = replace(self, out=self.out - 1)
        if verdict == "fault":
            return breaker._opened(now)
        if verdict == "neutral":
            return breaker
        if breaker.good + 1 >= self.rules.successes:
            return breaker._on_state_change("closed")
        return replace(breaker, good=breaker.good + 1)

    def anew(self) -> Breaker:
        """In another process: the calls under way are not ours."""
        return replace(self, out=0, generation=self.generation + 1)

    def retry_after(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0.0: it may now."""
        if self.state != "open":
            return 0.0
        left = self.opened_at + self.rules.cooldown - now
        return max(0.0, min(left, self.rules.cooldown))  # rounding must not make it longer

    def _closed_report(self, verdict: Verdict, now: float) -> Breaker:
        if verdict == "neutral":
            return self
        if verdict == "good":
            return replace(self, faults=0) if self.faults else self
        if self.faults + 1 >= self.rules.failures:
            return self._opened(now)
        return replace(self, faults=self.faults + 1)

    def _opened(self, now: float) -> Breaker:
        return replace(self._on_state_change("open"), opened_at=now)

    def _on_state_change(self, state: BreakerState) -> Breaker:
        return replace(self, state=state, faults=0, good=0, out=0, generation=self.generation + 1)
