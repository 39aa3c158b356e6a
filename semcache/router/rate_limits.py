"""Rate limits as values: how much may go out in any stretch of time.

The promise is strict: in every window of `seconds`, wherever it begins, no more than
`amount` departs. Two ways to keep it:

- The token bucket departs evenly. It holds `burst` at the most and refills so slowly that
  a full bucket and a window's refill together make `amount`:
  rate = (amount - burst) / seconds.
- The sliding window remembers what departed and lets go whatever still fits. Departures
  close together are remembered as one, which expires with the last of them: a little too
  cautious, never too bold, and bounded in memory.

A call reaches its provider a little after it departed, and not all of them equally late; so
each window is taken for `LATENESS` longer than it is.

Times (seconds, on any clock that does not step) are arguments; a change gives a new value.
`take` decides, on what has departed. `ready_at` only foretells, for those who wait: when
`amount` could depart if `ahead` departs before it.

Sources: J. Turner, "New directions in communications", 1986 (leaky and token bucket).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from semcache.errors import ConfigError

Unit: TypeAlias = Literal["requests", "tokens"]
Shape: TypeAlias = Literal["token_bucket", "sliding_window"]

LATENESS = 0.005
"""Share of a window by which a departure may reach the provider late: 0.3 s of a minute."""
_SLOTS = 128
"""Departures remembered apart within one window."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` requests or tokens in any `seconds`.

    Attributes:
        shape: "token_bucket" departs evenly, "sliding_window" as fast as it may; None: a
            bucket for requests, a window for tokens.
        burst: what a full bucket lets go at once; None: a hundredth of `amount`, at least 1.
        per: "provider": one limit for the provider; "key": shared by all providers that use
            one API key.
        wait: the longest that a call waits for its turn (seconds); 0: it fails at once.

    Raises:
        ConfigError: a value makes no sense.
    """

    amount: float
    seconds: float = 60.0
    unit: Unit = "requests"
    shape: Shape | None = None
    burst: float | None = None
    per: Literal["provider", "key"] = "provider"
    wait: float = 30.0

    def __post_init__(self) -> None:
        if self.unit not in ("requests", "tokens") or self.per not in ("provider", "key"):
            raise ConfigError(f"{self}: unit is 'requests' or 'tokens', per 'provider' or 'key'.")
        if self.shape not in (None, "token_bucket", "sliding_window"):
            raise ConfigError(f"{self}: shape is 'token_bucket' or 'sliding_window'.")
        if not (self.amount >= 1 and self.seconds > 0 and self.wait >= 0):
            raise ConfigError(f"{self}: amount is at least 1, seconds above 0, wait not below 0.")
        if self.bucket and not 1 <= self.most <= max(self.amount - _ROUNDING, 1):
            raise ConfigError(f"{self}: burst is at least 1 and less than amount.")

    @property
    def bucket(self) -> bool:
        """Whether it is kept by a token bucket (one departure in all needs none)."""
        chosen = self.shape or ("token_bucket" if self.unit == "requests" else "sliding_window")
        return chosen == "token_bucket" and self.amount > 1

    @property
    def most(self) -> float:
        """The largest single departure."""
        if not self.bucket:
            return self.amount
        return max(1.0, self.amount / 100) if self.burst is None else self.burst

    def __str__(self) -> str:
        return f"{self.amount:,.10g} {self.unit} in {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """Refills by `rate` a second up to `burst`; `level` may be below 0 after a correction."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def of(cls, limit: Limit, now: float) -> TokenBucket:
        rate = (limit.amount - limit.most) / (limit.seconds * (1 + LATENESS))
        return cls(rate, limit.most, limit.most, now)

    def ready_at(self, now: float, amount: float, ahead: float = 0.0) -> float:
        missing = amount + ahead - self._level(now)
        return now if missing <= 0 else now + missing / self.rate

    def take(self, now: float, amount: float) -> TokenBucket | None:
        """After `amount` has departed; None: it may not yet."""
        level = self._level(now)
        if level + _ROUNDING < amount:
            return None
        return replace(self, level=level - amount, at=max(now, self.at))

    def correct(self, departed: float, now: float, delta: float) -> TokenBucket:  # noqa: ARG002 - a bucket forgets when
        """What departed turned out to be larger by `delta` than was said."""
        level = min(self.burst, self._level(now) - delta)
        return replace(self, level=level, at=max(now, self.at))

    def free(self, now: float) -> float:
        """What could depart at once."""
        return max(0.0, self._level(now))

    def _level(self, now: float) -> float:
        return min(self.burst, self.level + self.rate * max(0.0, now - self.at))


@dataclass(frozen=True, slots=True)
class _Slot:
    """Departures between `first` and `last` (seconds), `amount` in all."""

    first: float
    last: float
    amount: float


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Remembers the departures of the last `seconds`, the oldest first."""

    amount: float
    seconds: float
    slots: tuple[_Slot, ...] = ()

    @classmethod
    def of(cls, limit: Limit, now: float) -> SlidingWindow:  # noqa: ARG003 - as TokenBucket.of
        return cls(limit.amount, limit.seconds * (1 + LATENESS))

    def ready_at(self, now: float, amount: float, ahead: float = 0.0) -> float:
        slots = self._within(now)
        missing = amount + ahead + sum(s.amount for s in slots) - self.amount
        if missing <= 0:
            return now
        # What is ahead departs in its turn and comes back a window later; so does the pattern.
        rounds, missing = divmod(missing, self.amount) if slots else (0.0, missing)
        at = now
        for slot in slots:
            if missing <= 0:
                break
            missing, at = missing - slot.amount, slot.last + self.seconds
        if missing > 0:
            at += math.ceil(missing / self.amount) * self.seconds
        return at + rounds * self.seconds

    def take(self, now: float, amount: float) -> SlidingWindow | None:
        """After `amount` has departed; None: it may not yet."""
        slots = self._within(now)
        if sum(s.amount for s in slots) + amount > self.amount * (1 + _ROUNDING):
            return None
        newest = slots[-1] if slots else None
        if newest is not None and now - newest.first < self.seconds / _SLOTS:
            merged = _Slot(newest.first, max(now, newest.last), newest.amount + amount)
            return replace(self, slots=(*slots[:-1], merged))
        return replace(self, slots=(*slots, _Slot(now, now, amount)))

    def correct(self, departed: float, now: float, delta: float) -> SlidingWindow:
        """What departed at `departed` turned out to be larger by `delta` than was said."""
        changed = tuple(
            replace(s, amount=max(0.0, s.amount + delta)) if s.first <= departed <= s.last else s
            for s in self._within(now)
        )
        return replace(self, slots=changed)

    def free(self, now: float) -> float:
        """What could depart at once."""
        return max(0.0, self.amount - sum(s.amount for s in self._within(now)))

    def _within(self, now: float) -> tuple[_Slot, ...]:
        # A window is half-open: what departed exactly `seconds` ago is out of it.
        return tuple(s for s in self.slots if s.last > now - self.seconds)


RateState: TypeAlias = TokenBucket | SlidingWindow


def rate_state(limit: Limit, now: float) -> RateState:
    """A limit of which nothing is used."""
    return TokenBucket.of(limit, now) if limit.bucket else SlidingWindow.of(limit, now)
