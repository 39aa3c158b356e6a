"""Keeping quotas: which entries go when a cache is full, and when expired ones are deleted.

The same for every backend that has no eviction of its own.
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
"""Entries that are deleted in one transaction, so that no writer waits for long."""
_EVICTIONS = 8
"""Steps of eviction that one record makes; what is still too much is left to the next record."""
_SWEEP_SECONDS = 10.0


def nothing() -> None:
    """Nothing is to be done first."""


class Eviction:
    """Keeps a store within its quotas.

    Args:
        store: deletes entries.
        retention: quotas and the order of eviction.
        clock: seconds since the epoch.
        forget: told the ids of deleted entries.
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
        """Raises `TooLargeError` for an entry that no eviction could make room for."""
        for _, quota in self._quotas(entry.namespace):
            most = quota.size
            if most is not None and (size := self._store.size_of(entry, vector)) > most:
                raise TooLargeError(f"an entry of {size:,} bytes, the quota is {most:,}")

    def after_record(self, newest: int, namespace: str) -> None:
        """Make room if a quota is exceeded, and now and then delete expired entries.

        Args:
            newest: the id of the entry that was just recorded; it is never evicted.
        """
        self._keep_quotas(newest, namespace)
        self._sweep()

    def _quotas(self, namespace: str) -> list[tuple[str | None, Quota]]:
        """The quotas that an entry of this namespace counts for: (namespace or None, quota)."""
        quotas = (None, self._retention.quota), (namespace, self._retention.quota_of(namespace))
        return [(name, quota) for name, quota in quotas if quota is not None]

    def _keep_quotas(self, newest: int, namespace: str) -> None:
        for name, quota in self._quotas(namespace):
            if quota.excess(*self._store.totals(name)) > 0:
                self._before_eviction()
                self._forget(self._store.delete(Selection(expired_at=self._clock()), STEP))
                self._evict(quota, name, newest)

    def _evict(self, quota: Quota, namespace: str | None, spare: int) -> None:
        order = EVICTION[self._retention.eviction]
        for _ in range(_EVICTIONS):  # sizes differ, so one step may not be enough
            excess = quota.excess(*self._store.totals(namespace))
            if excess <= 0:
                return
            count = min(excess, STEP)
            self._forget(self._store.evict(order, count, spare=spare, namespace=namespace))

    def _sweep(self) -> None:
        """Now and then delete expired entries; they are never served in the meantime."""
        now = self._clock()
        if not 0 <= now - self._swept_at < _SWEEP_SECONDS:  # a clock may also step back
            gone = self._store.delete(Selection(expired_at=now), STEP)
            self._forget(gone)
            if len(gone) < STEP:  # otherwise there are more: go on with the next record
                self._swept_at = now
