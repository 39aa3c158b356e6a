"""Store and index as one thing; the only writer of entries while a cache serves.

The store is the truth. A write is committed first, then the index takes it, so that
what a caller was told is stored can be found at once and after any crash.

Every neighbour that the index names is read from the store before anyone sees it. An
index that lags behind can therefore overlook an entry for a moment, but never bring
back one that was deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic

from semcache.backends.local.base import Store
from semcache.backends.local.index_follower import Following, IndexFiles, IndexT
from semcache.backends.retention import EVICTION, Quota, Retention
from semcache.backends.vectors import cosine
from semcache.types import Candidate, Entry, Neighbour, NewEntry, Selection

if TYPE_CHECKING:
    from semcache.types import Vector

logger = logging.getLogger("semcache")

_WIDEST = 256
"""The most neighbours that are asked for when nearer ones have been deleted or have expired."""
_STEP = 256
"""Entries that are deleted in one transaction, so that no writer waits for long."""
_EVICTIONS = 8
"""Steps of eviction that one record makes; what is still too much then waits for the next."""
_SWEEP_SECONDS = 10.0


class TooLargeError(Exception):
    """One entry is larger than the whole quota in bytes."""


class Repository(Generic[IndexT]):
    """Entries that can be found by key and by nearness.

    Args:
        store: the truth.
        files: makes and keeps the index.
        fingerprint: names the embedder whose vectors are written and looked up; called
            when a vector is first written or looked up.
        retention: quota and eviction order.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        files: IndexFiles[IndexT],
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self._index = Following(store, files, fingerprint, lambda error: self.fault("index", error))
        self._fingerprint = fingerprint
        self._retention = retention
        self._clock = clock
        self._swept_at = 0.0
        self.before_eviction: Callable[[], None] = _nothing
        self.fault: Callable[[str, BaseException], None] = _logged

    # ----------------------------------------------------------------------- reading

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not."""
        return self.store.get_exact(exact_key)

    def glance(self) -> int | None:
        """What has been committed so far, for `nearest`; None if that cannot be read."""
        return self._index.glance()

    def nearest(
        self,
        scope: bytes,
        vector: Vector,
        k: int,
        floor: float,
        seen: int | None = None,
    ) -> tuple[list[Neighbour], list[Candidate]]:
        """Neighbours in the scope, and candidates: those of at least `floor` that exist.

        Args:
            seen: what `glance` gave this thread a while ago: neighbours that were recorded
                since may be missed.

        Deleted and expired ones do not crowd out others: further neighbours are asked for
        until there are k fresh candidates or no more that are near enough.
        """
        index = self._index.current(seen)
        now = self._clock()
        while True:
            tolerance = index.tolerance(scope)
            spare = k + 2 if tolerance else 0
            neighbours = index.search(scope, vector, k, spare)
            if index.tolerance(scope) > tolerance:
                continue  # a merge has ended meanwhile, and these may be rounded
            all_of_them = len(neighbours) < k + spare
            if tolerance:
                neighbours, entries = self._measured(neighbours, vector, k, floor, tolerance)
            else:
                entries = self._entries(neighbours, floor)
            # The scope is held against the store's, whatever the index believes.
            candidates = [
                Candidate(entry, n.similarity)
                for n in neighbours
                if n.similarity >= floor
                and (entry := entries.get(n.id)) is not None
                and entry.scope == scope
            ]
            dead = sum(n.similarity >= floor for n in neighbours) - sum(
                c.entry.fresh(now) for c in candidates
            )
            if not dead or all_of_them or neighbours[-1].similarity < floor:
                return neighbours, candidates
            if k >= _WIDEST:
                return neighbours, candidates
            k = min(4 * k, _WIDEST)

    def _measured(
        self,
        neighbours: Sequence[Neighbour],
        vector: Vector,
        k: int,
        floor: float,
        tolerance: float,
    ) -> tuple[list[Neighbour], dict[int, Entry]]:
        """(the first k by their stored vectors, entries of those that are near enough)"""
        # What cannot come among the first k is not measured: of two that are off, each by chance,
        # the difference is off by sqrt(2) times as much.
        last = neighbours[k - 1].similarity if len(neighbours) > k else -1.0
        least = max(floor - tolerance, last - 1.5 * tolerance)
        near = [n.id for n in neighbours if n.similarity >= least]
        if not near:
            return list(neighbours[:k]), {}
        found = self.store.get_with_vectors(near)
        exact = {
            i: similarity
            for i, (_, blob) in found.items()
            if blob and (similarity := cosine(blob, vector)) is not None
        }
        measured = [Neighbour(n.id, min(exact.get(n.id, n.similarity), 1.0)) for n in neighbours]
        measured.sort(key=lambda n: -n.similarity)
        return measured[:k], {i: entry for i, (entry, _) in found.items()}

    def _entries(self, neighbours: Sequence[Neighbour], floor: float) -> dict[int, Entry]:
        near = [n.id for n in neighbours if n.similarity >= floor]
        return self.store.get_many(near) if near else {}

    # ----------------------------------------------------------------------- writing

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        """Store an entry durably and make it findable; return its id."""
        for quota in self._quotas(entry.namespace):
            most = quota[1].size
            if most is not None and (size := self.store.size_of(entry, vector)) > most:
                raise TooLargeError(f"an entry of {size:,} bytes, the quota is {most:,}")
        fingerprint = None if vector is None else self._fingerprint()
        entry_id = self.store.add(entry, vector, fingerprint)
        try:  # it is stored: whatever fails from here on, the caller must be told so
            if vector is not None:
                self._index.added(entry_id, entry.scope, vector)
            self._keep_quotas(entry_id, entry.namespace)
            self._sweep()
        except Exception as error:
            self.fault("record", error)
        return entry_id

    def accepts(self, fingerprint: str | None) -> bool:
        """Whether vectors of this embedder may be written."""
        return fingerprint is not None and fingerprint == self._fingerprint()

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """Delete what is selected; return how many entries that were.

        In steps, so that writers get their turn: a fault in the middle leaves the rest.
        """
        ids = self.store.ids(selection)[:limit]
        deleted = 0
        for start in range(0, len(ids), _STEP):
            step = tuple(ids[start : start + _STEP])
            gone = self.store.delete(replace(selection, ids=step))
            self._index.forget(gone)
            deleted += len(gone)
        return deleted

    def _quotas(self, namespace: str) -> list[tuple[str | None, Quota]]:
        """Those that an entry of this namespace counts for: (whose, quota)."""
        quotas = (None, self._retention.quota), (namespace, self._retention.quota_of(namespace))
        return [(whose, quota) for whose, quota in quotas if quota is not None]

    def _keep_quotas(self, newest: int, namespace: str) -> None:
        for whose, quota in self._quotas(namespace):
            if quota.excess(*self.store.totals(whose)) > 0:
                self.before_eviction()
                self._index.forget(self.store.delete(Selection(expired_at=self._clock()), _STEP))
                self._evict(quota, whose, newest)

    def _evict(self, quota: Quota, namespace: str | None, spare: int) -> None:
        order = EVICTION[self._retention.eviction]
        for _ in range(_EVICTIONS):  # sizes differ: what was to be enough may not be
            excess = quota.excess(*self.store.totals(namespace))
            if excess <= 0:
                return
            count = min(excess, _STEP)
            self._index.forget(self.store.evict(order, count, spare=spare, namespace=namespace))

    def _sweep(self) -> None:
        """Now and then delete some of what has expired; it is never served in the meantime."""
        now = self._clock()
        if not 0 <= now - self._swept_at < _SWEEP_SECONDS:  # clocks step back, too
            gone = self.store.delete(Selection(expired_at=now), _STEP)
            self._index.forget(gone)
            if len(gone) < _STEP:  # else there is more: go on with the next record
                self._swept_at = now

    # --------------------------------------------------------------------- the index

    def refresh_index(self) -> IndexT:
        """The index, opened and up to date, however long it takes; for tools."""
        return self._index.refreshed()

    def rebuild_index(self) -> IndexT:
        """Throw the index away and make it from the store."""
        return self._index.rebuilt()

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        self._index.wait()

    def save_snapshot(self) -> None:
        """Keep the index on disk if much has changed since it was kept there."""
        self._index.save()

    def after_fork(self) -> None:
        """In a child process: locks may be held by threads that are not here."""
        self._index.after_fork()
        self.store.after_fork()

    def close(self) -> None:
        """Save the index and close the store. A snapshot that cannot be written is no loss."""
        try:
            self.save_snapshot()
        except Exception as error:
            logger.warning("the index could not be saved, it will be rebuilt: %s", error)
        self.store.close()


def _nothing() -> None:
    """Nothing is to be done first."""


def _logged(where: str, error: BaseException) -> None:
    logger.warning("fault in %s: %s", where, error)
