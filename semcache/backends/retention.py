"""How long entries are kept, and which are evicted when there are too many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from semcache.errors import ConfigError


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET
"""The default of arguments for which None has a meaning of its own."""

TTL: TypeAlias = float | timedelta | None
"""Seconds (or a timedelta) for which an entry may be served; None means forever."""

GivenTTL: TypeAlias = TTL | Literal[_Unset.UNSET]

EVICTION: Mapping[str, str] = {
    "least-recently-used": "least_recently_used",
    "least-frequently-used": "least_frequently_used",
    "oldest": "oldest",
}
"""Eviction policies, and the `Order` in which each evicts entries."""

_SLACK = 100
"""An eviction frees an extra 1 / _SLACK of the quota, so that a full cache does not evict at every
record."""

Limit: TypeAlias = int | Mapping[str, int] | None
"""A quota of each namespace: a number for every namespace, or a mapping by name; None means
unlimited."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The most entries, and the most bytes of their texts and vectors; None means unlimited."""

    entries: int | None = None
    size: int | None = None

    def excess(self, entries: int, size: int) -> int:
        """How many of `entries` entries with `size` bytes in total must be evicted now."""
        over = 0
        if self.entries is not None and entries > self.entries:
            over = entries - self.entries + self.entries // _SLACK
        if self.size is not None and size > self.size:
            mean = max(size // max(entries, 1), 1)
            bytes_to_free = size - self.size + self.size // _SLACK
            over = max(over, math.ceil(bytes_to_free / mean))
        return min(over, entries - 1)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When an entry becomes stale and when it expires; see `Entry` for the fields."""

    expires_at: float | None = None
    stale_at: float | None = None
    sliding: float | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long entries are kept, and which are evicted when there are too many.

    Attributes:
        ttl: seconds (or a timedelta) for which an entry may be served; None means no limit.
        namespace_ttl: TTLs by namespace. They take precedence over `ttl`; a TTL given with a call
            takes precedence over both.
        sliding: whether the TTL of an entry restarts each time the entry is served. Hits are
            written up to a second late, so use this only with TTLs well above a second.
        stale_while_revalidate: seconds (or a timedelta) after its TTL for which an entry is still
            served, while one caller refreshes it in the background.
        max_entries: the most entries to keep; None means no limit.
        max_bytes: the most bytes to keep, counting the texts and vectors of entries rather than
            the size of files; None means no limit.
        namespace_max_entries: the most entries of each namespace: a number for every namespace,
            or a mapping by name; None means no limit.
        namespace_max_bytes: the most bytes of each namespace: a number for every namespace, or a
            mapping by name; None means no limit.
        eviction: which entries are evicted first: "least-recently-used", "least-frequently-used"
            or "oldest".

    Raises:
        ConfigError: a TTL is negative, a quota is below 1, or the eviction policy is unknown.
    """

    ttl: TTL = None
    namespace_ttl: Mapping[str, TTL] = field(default_factory=dict)
    max_entries: int | None = None
    max_bytes: int | None = None
    eviction: str = "least-recently-used"
    namespace_max_entries: Limit = None
    namespace_max_bytes: Limit = None
    sliding: bool = False
    stale_while_revalidate: TTL = None

    def __post_init__(self) -> None:
        seconds(self.ttl)
        seconds(self.stale_while_revalidate, "stale_while_revalidate")
        for ttl in self.namespace_ttl.values():
            seconds(ttl)
        for name in ("max_entries", "max_bytes", "namespace_max_entries", "namespace_max_bytes"):
            limit = getattr(self, name)
            for quota in limit.values() if isinstance(limit, Mapping) else (limit,):
                whole = isinstance(quota, int) and not isinstance(quota, bool)
                if quota is not None and (not whole or quota < 1):
                    raise ConfigError(f"{name} is {quota!r}; give a whole number above 0, or None.")
            if isinstance(limit, Mapping) and not all(isinstance(n, str) for n in limit):
                raise ConfigError(f"{name} has a namespace that is not a string: {list(limit)!r}.")
        if self.eviction not in EVICTION:
            known = ", ".join(map(repr, EVICTION))
            raise ConfigError(f"eviction is {self.eviction!r}; it must be one of {known}.")

    def lifetime(self, now: float, namespace: str, ttl: GivenTTL = UNSET) -> Lifetime:
        """The lifetime of an entry stored at `now` (seconds since the epoch)."""
        if ttl is UNSET:
            ttl = self.namespace_ttl.get(namespace, self.ttl)
        fresh_for = seconds(ttl)
        if fresh_for is None:
            return Lifetime()
        sliding = fresh_for if self.sliding else None
        stale_for = seconds(self.stale_while_revalidate)
        if not stale_for:
            return Lifetime(now + fresh_for, None, sliding)
        return Lifetime(now + fresh_for + stale_for, now + fresh_for, sliding)

    @property
    def quota(self) -> Quota | None:
        """The quota of all namespaces together; None means unlimited."""
        if self.max_entries is None and self.max_bytes is None:
            return None
        return Quota(self.max_entries, self.max_bytes)

    @property
    def by_namespace(self) -> bool:
        """Whether namespaces have quotas of their own."""
        return self.namespace_max_entries is not None or self.namespace_max_bytes is not None

    def quota_of(self, namespace: str) -> Quota | None:
        """The quota of one namespace; None means unlimited."""
        entries = _limit(self.namespace_max_entries, namespace)
        size = _limit(self.namespace_max_bytes, namespace)
        return None if entries is None and size is None else Quota(entries, size)


def _limit(limit: Limit, namespace: str) -> int | None:
    return limit.get(namespace) if isinstance(limit, Mapping) else limit


def seconds(ttl: TTL, name: str = "ttl") -> float | None:
    """The TTL in seconds; None means forever.

    Args:
        name: what the error message calls this TTL.

    Raises:
        ConfigError: the TTL is negative or not a number.
    """
    if ttl is None:
        return None
    value = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(
            f"{name} is {ttl!r}; give a number of seconds, 0 or more (or a timedelta), or None."
        )
    return None if math.isinf(value) else float(value)
