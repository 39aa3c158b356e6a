"""Combines the store and its index. While a cache is serving, all entries are written here.

The store is the source of truth. A write is committed to the store first and then added to the
index, so an acknowledged entry can be found at once, and after any crash.

Every neighbour that the index returns is read from the store before it is used. An index that lags
behind may therefore miss an entry for a moment, but never brings back a deleted one.
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

_MAX_K = 256
"""The most neighbours to search for when nearer ones have been deleted or have expired."""


class Repository(Generic[IndexT]):
    """The `Entries` of a `LocalBackend`, for one embedder.

    Args:
        store: the source of truth.
        files: builds and merges indexes, and reads and writes snapshots.
        fingerprint: returns the embedder's fingerprint; first called when a vector is written or
            looked up.
        retention: quotas and the eviction policy.
        clock: returns the time in seconds since the epoch.
        fault: called when something fails that no caller is waiting for.
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
        self._eviction = Eviction(
            store,
            retention,
            clock,
            fault,
            forget=self._index.forget,
            before_eviction=before_eviction,
        )

    # ----------------------------------------------------------------------- reading

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        return self.store.get_exact(exact_key)

    def revision(self) -> int | None:
        """The current revision, for `nearest`; None if it cannot be read."""
        return self._index.peek_revision()

    def nearest(
        self, scope: bytes, vector: Vector, k: int, floor: float, revision: int | None = None
    ) -> Neighbours:
        """See `Entries.nearest`.

        Widens the search until there are k fresh candidates, or no more that are similar enough.
        """
        index = self._index.current(revision)
        now = self._clock()
        while True:
            tolerance = index.tolerance(scope)
            spare = k + 2 if tolerance else 0
            neighbours = index.search(scope, vector, k, spare)
            if index.tolerance(scope) > tolerance:
                continue  # a merge ended meanwhile, so these similarities may be rounded
            exhausted = len(neighbours) < k + spare
            if tolerance:
                neighbours, entries = self._rescored(neighbours, vector, k, floor, tolerance)
            else:
                entries = self._entries(neighbours, floor)
            nearest = neighbours[0].similarity if neighbours else None
            # The scope is checked against the store, whatever the index says.
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
            if not dead or exhausted or neighbours[-1].similarity < floor:
                return Neighbours(nearest, candidates)
            if k >= _MAX_K:
                return Neighbours(nearest, candidates)
            k = min(4 * k, _MAX_K)

    def _rescored(
        self,
        neighbours: Sequence[Neighbour],
        vector: Vector,
        k: int,
        floor: float,
        tolerance: float,
    ) -> tuple[list[Neighbour], dict[int, Entry]]:
        """(the k nearest by their stored vectors, entries of those that are near enough)"""
        # Neighbours that cannot be among the first k are not rescored. The errors of two
        # similarities are independent, so their difference has sqrt(2) times the error.
        last = neighbours[k - 1].similarity if len(neighbours) > k else -1.0
        least = max(floor - tolerance, last - 1.5 * tolerance)
        near = [n.id for n in neighbours if n.similarity >= least]
        if not near:
            return list(neighbours[:k]), {}
        rows = self.store.get_with_vectors(near)
        exact = {
            i: similarity
            for i, (_, blob) in rows.items()
            if blob and (similarity := cosine(blob, vector)) is not None
        }
        rescored = [Neighbour(n.id, min(exact.get(n.id, n.similarity), 1.0)) for n in neighbours]
        rescored.sort(key=lambda n: -n.similarity)
        return rescored[:k], {i: entry for i, (entry, _) in rows.items()}

    def _entries(self, neighbours: Sequence[Neighbour], floor: float) -> dict[int, Entry]:
        near = [n.id for n in neighbours if n.similarity >= floor]
        return self.store.get_many(near) if near else {}

    # ----------------------------------------------------------------------- writing

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        """See `Entries.record`."""

        def add_to_index(entry_id: int) -> None:
            if vector is not None:
                self._index.added(entry_id, entry.scope, vector)

        return self._eviction.record(entry, vector, self._fingerprint, add_to_index)

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """See `Entries.delete`.

        Deletes in steps, so that other writers get a turn; after an error, the rest remains.
        """
        ids = self.store.ids(selection)[:limit]
        deleted = 0
        for start in range(0, len(ids), STEP):
            step = tuple(ids[start : start + STEP])
            deleted_ids = self.store.delete(replace(selection, ids=step))
            self._index.forget(deleted_ids)
            deleted += len(deleted_ids)
        return deleted

    # --------------------------------------------------------------------- the index

    def refresh_index(self) -> IndexT:
        """The index, opened and up to date; waits until it is built. For tools."""
        return self._index.refreshed()

    def rebuild_index(self) -> IndexT:
        """Discard the index and build it from the store."""
        return self._index.rebuilt()

    def wait(self) -> None:
        """Wait until nothing is being built in the background."""
        self._index.wait()

    def save_snapshot(self) -> None:
        """Write a snapshot of the index if much has changed since the last one."""
        self._index.save()

    def after_fork(self) -> None:
        """After a fork, in the child: locks may be held by threads that do not exist here."""
        self._index.after_fork()

    def close(self) -> None:
        """Save the index. It can be rebuilt, so a failure is only logged."""
        try:
            self.save_snapshot()
        except Exception as error:
            logger.warning("the index could not be saved and will be rebuilt: %s", error)
