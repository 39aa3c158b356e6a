"""How long an entry is kept, and which goes when there are too many."""

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
"""Stands for an argument that was not given, where None has a meaning of its own."""

TTL: TypeAlias = float | timedelta | None
"""Seconds (or a timedelta) that an entry may be served for; None: for ever."""

GivenTTL: TypeAlias = TTL | Literal[_Unset.UNSET]

EVICTION: Mapping[str, str] = {
    "least-recently-used": "least_recently_used",
    "least-frequently-used": "least_frequently_used",
    "oldest": "oldest",
}
"""Eviction policies and the store's order in which entries go, the first of it first."""

_SLACK = 100
"""An eviction makes room for 1 / _SLACK of the quota more than is needed, so that a full cache
does not evict at every record."""

Limit: TypeAlias = int | Mapping[str, int] | None
"""A quota of each namespace: one for all of them, or by name; None: none."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The most entries, and bytes of their texts and vectors, there may be; None: no limit."""

    entries: int | None = None
    size: int | None = None

    def excess(self, entries: int, size: int) -> int:
        """How many entries to evict now, when there are `entries` with `size` bytes."""
        over = 0
        if self.entries is not None and entries > self.entries:
            over = entries - self.entries + self.entries // _SLACK
        if self.size is not None and size > self.size:
            mean = max(size // max(entries, 1), 1)
            wanted = size - self.size + self.size // _SLACK
            over = max(over, math.ceil(wanted / mean))
        return min(over, entries - 1)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Until when an entry is good: see `Entry`."""

    expires_at: float | None = None
    stale_at: float | None = None
    sliding: float | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long entries are kept, and which go when there are too many.

    Attributes:
        ttl: seconds (or a timedelta) for which an entry may be served; None for no limit.
        namespace_ttl: TTLs by namespace. A TTL given with a call comes first, then these, then
            `ttl`.
        sliding: a TTL starts again whenever its entry is served. Hits are written within a
            second, so this is of no use for shorter TTLs.
        stale_while_revalidate: seconds (or a timedelta) after its TTL for which an entry is still
            served, while one caller renews it in the background.
        max_entries: the most entries to keep; None for no limit.
        max_bytes: the most bytes to keep, counted over the texts and vectors of entries, not over
            files; None for no limit.
        namespace_max_entries: the most entries of each namespace: a number for every namespace,
            or a mapping by name; None for no limit.
        namespace_max_bytes: the same for bytes.
        eviction: which entries go first: "least-recently-used", "least-frequently-used" or
            "oldest".

    Raises:
        ConfigError: a TTL or a quota is below zero, or the eviction policy is unknown.
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
            given = getattr(self, name)
            for quota in given.values() if isinstance(given, Mapping) else (given,):
                whole = isinstance(quota, int) and not isinstance(quota, bool)
                if quota is not None and (not whole or quota < 1):
                    raise ConfigError(f"{name} is {quota!r}; give a whole number above 0, or None.")
            if isinstance(given, Mapping) and not all(isinstance(n, str) for n in given):
                raise ConfigError(f"{name} has a namespace that is no text: {list(given)!r}.")
        if self.eviction not in EVICTION:
            known = ", ".join(map(repr, EVICTION))
            raise ConfigError(f"eviction is {self.eviction!r}; it is one of {known}.")

    def lifetime(self, now: float, namespace: str, ttl: GivenTTL = UNSET) -> Lifetime:
        """Until when an entry stored at `now` (seconds since the epoch) is good."""
        if ttl is UNSET:
            ttl = self.namespace_ttl.get(namespace, self.ttl)
        good = seconds(ttl)
        if good is None:
            return Lifetime()
        sliding = good if self.sliding else None
        extra = seconds(self.stale_while_revalidate)
        if not extra:
            return Lifetime(now + good, None, sliding)
        return Lifetime(now + good + extra, now + good, sliding)

    @property
    def quota(self) -> Quota | None:
        """For all namespaces together; None: there is none."""
        if self.max_entries is None and self.max_bytes is None:
            return None
        return Quota(self.max_entries, self.max_bytes)

    @property
    def by_namespace(self) -> bool:
        """Whether namespaces have quotas of their own."""
        return self.namespace_max_entries is not None or self.namespace_max_bytes is not None

    def quota_of(self, namespace: str) -> Quota | None:
        """For one namespace; None: it has none."""
        entries = _limit(self.namespace_max_entries, namespace)
        size = _limit(self.namespace_max_bytes, namespace)
        return None if entries is None and size is None else Quota(entries, size)


def _limit(given: Limit, namespace: str) -> int | None:
    return given.get(namespace) if isinstance(given, Mapping) else given


def seconds(ttl: TTL, name: str = "ttl") -> float | None:
    """A TTL in seconds; `name` is what the error calls it.

    Raises:
        ConfigError: it is negative or no number.
    """
    if ttl is None:
        return None
    value = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(
            f"{name} is {ttl!r}; it is a number of seconds, 0 or more (or a timedelta), or None."
        )
    return None if math.isinf(value) else float(value)
