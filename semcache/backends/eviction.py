"""Enforces quotas: evicts entries when a cache is full, and deletes expired ones.

Shared by every backend that has no eviction of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semcache.backends.base import Evictable, TooLargeError
from semcache.backends.retention import EVICTION, Quota, Retention
from semcache.types import NewEntry, Selection

if TYPE_CHECKING:
    from semcache.types import Vector

STEP = 256
"""The most entries deleted in one transaction, so that other writers never wait for long."""
_MAX_STEPS = 8
"""Eviction steps per record; any remaining excess is left to the next record."""
_SWEEP_SECONDS = 10.0


def nothing() -> None:
    """The default of `before_eviction`: do nothing."""


class Eviction:
    """Keeps a store within its quotas.

    Args:
        store: where entries are deleted.
        retention: quotas and the eviction policy.
        clock: returns the time in seconds since the epoch.
        forget: called with the ids of deleted entries.
        before_eviction: called before entries are evicted.
    """

    def __init__(
        self,
        store: Evictable,
        retention: Retention,
        clock: Callable[[], float],
        *,
        forget: Callable[[Sequence[int]], None],
        before_eviction: Callable[[], None] = nothing,
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._forget = forget
        self._before_eviction = before_eviction
        self._swept_at = 0.0

    def check_size(self, entry: NewEntry, vector: Vector | None) -> None:
        """Raise `TooLargeError` for an entry that no eviction could make room for."""
        for _, quota in self._quotas(entry.namespace):
            limit = quota.size
            if limit is not None and (size := self._store.size_of(entry, vector)) > limit:
                raise TooLargeError(
                    f"the entry has {size:,} bytes, but the quota is {limit:,} bytes"
                )

    def after_record(self, newest: int, namespace: str) -> None:
        """Evict entries if a quota is exceeded; from time to time, delete expired ones.

        Args:
            newest: the id of the entry just recorded, which is never evicted.
        """
        self._enforce_quotas(newest, namespace)
        self._sweep()

    def _quotas(self, namespace: str) -> list[tuple[str | None, Quota]]:
        """(namespace, quota) of all quotas that apply; a namespace of None is the whole cache."""
        quotas = (None, self._retention.quota), (namespace, self._retention.quota_of(namespace))
        return [(name, quota) for name, quota in quotas if quota is not None]

    def _enforce_quotas(self, newest: int, namespace: str) -> None:
        for name, quota in self._quotas(namespace):
            if quota.excess(*self._store.totals(name)) > 0:
                self._before_eviction()
                self._forget(self._store.delete(Selection(expired_at=self._clock()), STEP))
                self._evict(quota, name, newest)

    def _evict(self, quota: Quota, namespace: str | None, spare: int) -> None:
        order = EVICTION[self._retention.eviction]
        for _ in range(_MAX_STEPS):  # sizes differ, so one step may not be enough
            excess = quota.excess(*self._store.totals(namespace))
            if excess <= 0:
                return
            count = min(excess, STEP)
            self._forget(self._store.evict(order, count, spare=spare, namespace=namespace))

    def _sweep(self) -> None:
        """Delete expired entries from time to time. (Lookups ignore them anyway.)"""
        now = self._clock()
        if not 0 <= now - self._swept_at < _SWEEP_SECONDS:  # the clock may have stepped back
            deleted = self._store.delete(Selection(expired_at=now), STEP)
            self._forget(deleted)
            if len(deleted) < STEP:  # otherwise there may be more: continue at the next record
                self._swept_at = now
