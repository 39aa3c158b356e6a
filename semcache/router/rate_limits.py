"""Rate limits as immutable values: how much may be sent in any window of time.

The guarantee is strict: in every window of `seconds`, wherever it begins, no more than
`amount` is sent. There are two ways to keep it:

- The token bucket sends evenly. It holds at most `burst` and refills so slowly that a full
  bucket plus the refill of one window equals `amount`: rate = (amount - burst) / seconds.
- The sliding window remembers what was sent and allows whatever still fits. Sends close
  together are remembered as one, which expires with the last of them. That errs on the side
  of caution and bounds the memory.

Calls reach the provider a little after they are sent, and not all with the same delay, so
each window is taken to be longer than it is, by a factor of 1 + `DELAY_ALLOWANCE`.

Times (seconds, on any monotonic clock) are arguments; a change returns a new value. `take`
decides, from what has been sent, whether an amount may be sent now. `ready_at` only predicts, for
callers that wait, when `amount` could be sent if `ahead` is sent first.

Sources: J. Turner, "New directions in communications", 1986 (leaky and token bucket).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from semcache.errors import ConfigError

Unit: TypeAlias = Literal["requests", "tokens"]
Shape: TypeAlias = Literal["token_bucket", "sliding_window"]

DELAY_ALLOWANCE = 0.005
"""The delay that is allowed for, as a fraction of the window: 0.3 s for a minute."""
_SLOTS = 128
"""How many sends within one window are remembered separately."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` requests or tokens in any `seconds`.

    Attributes:
        shape: "token_bucket" sends evenly, "sliding_window" as fast as possible; None means a
            bucket for requests and a window for tokens.
        burst: the amount that a full bucket sends at once; None means a hundredth of `amount`,
            at least 1.
        per: "provider" for a limit of its own, "key" for one that is shared by all providers
            that use the same API key.
        wait: the longest that a call waits for its turn (seconds); 0 means that it fails at
            once.

    Raises:
        ConfigError: a value is out of range.
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
            raise ConfigError(
                f"{self}: unit must be 'requests' or 'tokens', and per 'provider' or 'key'."
            )
        if self.shape not in (None, "token_bucket", "sliding_window"):
            raise ConfigError(f"{self}: shape must be 'token_bucket' or 'sliding_window'.")
        if not (self.amount >= 1 and self.seconds > 0 and self.wait >= 0):
            raise ConfigError(
                f"{self}: amount must be at least 1, seconds above 0, and wait not below 0."
            )
        if self.is_bucket and not 1 <= self.capacity <= max(self.amount - _ROUNDING, 1):
            raise ConfigError(f"{self}: burst must be at least 1 and less than amount.")

    @property
    def is_bucket(self) -> bool:
        """Whether a token bucket keeps the limit; an amount of 1 always uses a window."""
        shape = self.shape or ("token_bucket" if self.unit == "requests" else "sliding_window")
        return shape == "token_bucket" and self.amount > 1

    @property
    def capacity(self) -> float:
        """The largest amount that can be sent at once."""
        if not self.is_bucket:
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
        rate = (limit.amount - limit.capacity) / (limit.seconds * (1 + DELAY_ALLOWANCE))
        return cls(rate, limit.capacity, limit.capacity, now)

    def ready_at(self, now: float, amount: float, ahead: float = 0.0) -> float:
        missing = amount + ahead - self._level(now)
        return now if missing <= 0 else now + missing / self.rate

    def take(self, now: float, amount: float) -> TokenBucket | None:
        """The state after sending `amount`; None if it may not be sent yet."""
        level = self._level(now)
        if level + _ROUNDING < amount:
            return None
        return replace(self, level=level - amount, at=max(now, self.at))

    def correct(self, sent_at: float, now: float, delta: float) -> TokenBucket:  # noqa: ARG002 - a bucket does not know when
        """The state after what was sent turned out `delta` larger than estimated."""
        level = min(self.burst, self._level(now) - delta)
        return replace(self, level=level, at=max(now, self.at))

    def available(self, now: float) -> float:
        """The amount that could be sent now."""
        return max(0.0, self._level(now))

    def _level(self, now: float) -> float:
        return min(self.burst, self.level + self.rate * max(0.0, now - self.at))


@dataclass(frozen=True, slots=True)
class _Slot:
    """What was sent between `first` and `last` (seconds), `amount` in total."""

    first: float
    last: float
    amount: float


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Remembers what was sent in the last `seconds`, oldest first."""

    amount: float
    seconds: float
    slots: tuple[_Slot, ...] = ()

    @classmethod
    def of(cls, limit: Limit, now: float) -> SlidingWindow:  # noqa: ARG003 - as TokenBucket.of
        return cls(limit.amount, limit.seconds * (1 + DELAY_ALLOWANCE))

    def ready_at(self, now: float, amount: float, ahead: float = 0.0) -> float:
        slots = self._within(now)
        missing = amount + ahead + sum(s.amount for s in slots) - self.amount
        if missing <= 0:
            return now
        # The amounts ahead are sent first and expire one window later, so the pattern of the
        # slots repeats with every full window's worth of waiting amounts.
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
        """The state after sending `amount`; None if it may not be sent yet."""
        slots = self._within(now)
        if sum(s.amount for s in slots) + amount > self.amount * (1 + _ROUNDING):
            return None
        newest = slots[-1] if slots else None
        if newest is not None and now - newest.first < self.seconds / _SLOTS:
            merged = _Slot(newest.first, max(now, newest.last), newest.amount + amount)
            return replace(self, slots=(*slots[:-1], merged))
        return replace(self, slots=(*slots, _Slot(now, now, amount)))

    def correct(self, sent_at: float, now: float, delta: float) -> SlidingWindow:
        """The state after what was sent at `sent_at` turned out `delta` larger than estimated."""
        changed = tuple(
            replace(s, amount=max(0.0, s.amount + delta)) if s.first <= sent_at <= s.last else s
            for s in self._within(now)
        )
        return replace(self, slots=changed)

    def available(self, now: float) -> float:
        """The amount that could be sent now."""
        return max(0.0, self.amount - sum(s.amount for s in self._within(now)))

    def _within(self, now: float) -> tuple[_Slot, ...]:
        # A window is half-open: what was sent exactly `seconds` ago is outside.
        return tuple(s for s in self.slots if s.last > now - self.seconds)


RateState: TypeAlias = TokenBucket | SlidingWindow


def rate_state(limit: Limit, now: float) -> RateState:
    """The state of a limit of which nothing is used yet."""
    return TokenBucket.of(limit, now) if limit.is_bucket else SlidingWindow.of(limit, now)
