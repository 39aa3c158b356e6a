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

from semcache.backends.base import Fault
from semcache.backends.eviction import STEP, Eviction, nothing
from semcache.backends.local.base import Store
from semcache.backends.local.index_follower import IndexFiles, IndexFollower, IndexT
from semcache.backends.retention import Retention
from semcache.backends.vectors import cosine
from semcache.types import Candidate, Entry, Neighbour, Neighbours, NewEntry, Selection

if TYPE_CHECKING:
    from semcache.types import Vector

logger = logging.getLogger("semcache")

_WIDEST = 256
"""The most neighbours that are asked for when nearer ones have been deleted or have expired."""


class Repository(Generic[IndexT]):
    """Entries that can be found by key and by nearness.

    Args:
        store: the truth.
        files: makes and keeps the index.
        fingerprint: names the embedder whose vectors are written and looked up; called
            when a vector is first written or looked up.
        retention: quotas and the order of eviction.
        clock: seconds since the epoch.
        fault: told where something fails that no caller waits for.
        before_eviction: called before entries are evicted.
    """

    def __init__(
        self,
        store: Store,
        files: IndexFiles[IndexT],
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = nothing,
    ) -> None:
        self.store = store
        self._index = IndexFollower(store, files, fingerprint, lambda error: fault("index", error))
        self._fingerprint = fingerprint
        self._clock = clock
        self._fault = fault
        self._eviction = Eviction(
            store,
            retention,
            clock,
            forget=self._index.forget,
            before_eviction=before_eviction,
        )

    # ----------------------------------------------------------------------- reading

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not."""
        return self.store.get_exact(exact_key)

    def revision(self) -> int | None:
        """What has been committed so far, for `nearest`; None if that cannot be read."""
        return self._index.peek_revision()

    def nearest(
        self, scope: bytes, vector: Vector, k: int, floor: float, revision: int | None = None
    ) -> Neighbours:
        """See `Entries.nearest`. Further neighbours are asked for until there are k fresh
        candidates, or no more that are similar enough.
        """
        index = self._index.current(revision)
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
            nearest = neighbours[0].similarity if neighbours else None
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
                return Neighbours(nearest, candidates)
            if k >= _WIDEST:
                return Neighbours(nearest, candidates)
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
        self._eviction.check_size(entry, vector)
        fingerprint = None if vector is None else self._fingerprint()
        entry_id = self.store.add(entry, vector, fingerprint)
        try:  # it is stored: whatever fails from here on, the caller must be told so
            if vector is not None:
                self._index.added(entry_id, entry.scope, vector)
            self._eviction.after_record(entry_id, entry.namespace)
        except Exception as error:
            self._fault("record", error)
        return entry_id

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """Delete what is selected; return how many entries that were.

        In steps, so that writers get their turn: a fault in the middle leaves the rest.
        """
        ids = self.store.ids(selection)[:limit]
        deleted = 0
        for start in range(0, len(ids), STEP):
            step = tuple(ids[start : start + STEP])
            gone = self.store.delete(replace(selection, ids=step))
            self._index.forget(gone)
            deleted += len(gone)
        return deleted

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

    def close(self) -> None:
        """Save the index. A snapshot that cannot be written is no loss."""
        try:
            self.save_snapshot()
        except Exception as error:
            logger.warning("the index could not be saved, it will be rebuilt: %s", error)
