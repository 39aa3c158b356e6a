"""Records entries within the quotas: evicts when a cache is full, and deletes expired entries.

Shared by every backend that has no eviction of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semcache.backends.base import Evictable, Fault, TooLargeError
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


def _nothing_to_add(entry_id: int) -> None:
    """The default of `added`: there is no index."""


class Eviction:
    """Records entries in a store, and keeps it within its quotas.

    Args:
        store: where entries are added and deleted.
        retention: quotas and the eviction policy.
        clock: returns the time in seconds since the epoch.
        fault: called if anything fails after an entry was stored.
        forget: called with the ids of deleted entries.
        before_eviction: called before entries are evicted.
    """

    def __init__(
        self,
        store: Evictable,
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        *,
        forget: Callable[[Sequence[int]], None],
        before_eviction: Callable[[], None] = nothing,
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._fault = fault
        self._forget = forget
        self._before_eviction = before_eviction
        self._swept_at = 0.0

    def record(
        self,
        entry: NewEntry,
        vector: Vector | None,
        fingerprint: Callable[[], str],
        added: Callable[[int], None] = _nothing_to_add,
    ) -> int:
        """See `Entries.record`.

        Args:
            fingerprint: returns the embedder's fingerprint; called only if there is a vector.
            added: called with the id of the stored entry, to add it to an index.
        """
        self._check_size(entry, vector)
        entry_id = self._store.add(entry, vector, None if vector is None else fingerprint())
        try:  # the entry is stored, so the caller must get its id even if this fails
            added(entry_id)
            self._enforce_quotas(entry_id, entry.namespace)
            self._sweep()
        except Exception as error:
            self._fault("record", error)
        return entry_id

    def _check_size(self, entry: NewEntry, vector: Vector | None) -> None:
        """Raise `TooLargeError` for an entry that no eviction could make room for."""
        for _, quota in self._quotas(entry.namespace):
            limit = quota.size
            if limit is not None and (size := self._store.size_of(entry, vector)) > limit:
                raise TooLargeError(
                    f"the entry has {size:,} bytes, but the quota is {limit:,} bytes"
                )

    def _quotas(self, namespace: str) -> list[tuple[str | None, Quota]]:
        """(namespace, quota) of all quotas that apply; a namespace of None is the whole cache."""
        quotas = (None, self._retention.quota), (namespace, self._retention.quota_of(namespace))
        return [(name, quota) for name, quota in quotas if quota is not None]

    def _enforce_quotas(self, newest: int, namespace: str) -> None:
        """Evict entries if a quota is exceeded, but never the one just recorded."""
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
