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


@dataclass(frozen=True, slots=True)
class Retention:
    """The cache's rules for keeping entries.

    Attributes:
        ttl: for entries that no other rule covers.
        namespace_ttl: by namespace; goes before `ttl`, after a TTL given with the call.
        max_entries, max_bytes: quota; None: no limit. Bytes are those of an entry's texts
            and vector, not of the file.
        eviction: one of `EVICTION`.

    Raises:
        ConfigError: a TTL or a quota is below zero, or the eviction policy is unknown.
    """

    ttl: TTL = None
    namespace_ttl: Mapping[str, TTL] = field(default_factory=dict)
    max_entries: int | None = None
    max_bytes: int | None = None
    eviction: str = "least-recently-used"

    def __post_init__(self) -> None:
        seconds(self.ttl)
        for ttl in self.namespace_ttl.values():
            seconds(ttl)
        for name in ("max_entries", "max_bytes"):
            quota = getattr(self, name)
            if quota is not None and (not isinstance(quota, int) or quota < 1):
                raise ConfigError(f"{name} is {quota!r}; give a whole number above 0, or None.")
        if self.eviction not in EVICTION:
            known = ", ".join(map(repr, EVICTION))
            raise ConfigError(f"eviction is {self.eviction!r}; it is one of {known}.")

    def expires_at(self, now: float, namespace: str, ttl: GivenTTL = UNSET) -> float | None:
        """When an entry stored at `now` expires (seconds since the epoch); None: never."""
        if ttl is UNSET:
            ttl = self.namespace_ttl.get(namespace, self.ttl)
        lifetime = seconds(ttl)
        return None if lifetime is None else now + lifetime

    def excess(self, entries: int, size: int) -> int:
        """How many entries to evict now, when there are `entries` with `size` bytes."""
        over = 0
        if self.max_entries is not None and entries > self.max_entries:
            over = entries - self.max_entries + self.max_entries // _SLACK
        if self.max_bytes is not None and size > self.max_bytes:
            mean = max(size // max(entries, 1), 1)
            wanted = size - self.max_bytes + self.max_bytes // _SLACK
            over = max(over, math.ceil(wanted / mean))
        return min(over, entries - 1)


def seconds(ttl: TTL) -> float | None:
    """A TTL in seconds.

    Raises:
        ConfigError: it is negative or no number.
    """
    if ttl is None:
        return None
    value = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(
            f"ttl is {ttl!r}; it is a number of seconds, 0 or more (or a timedelta), or None "
            "for an entry that never expires."
        )
    return None if math.isinf(value) else float(value)
