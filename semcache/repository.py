"""Store and index as one thing; the only writer of entries while a cache serves.

The store is the truth. A write is committed first, then the index takes it, so that
what a caller was told is stored can be found at once and after any crash. The index
is opened when a vector is first looked up, from a snapshot or from the store, and
follows the store: at each lookup a cheap check tells whether anybody, in this process
or another, has committed since; only then is it read what is new, by row id.

Every neighbour that the index names is read from the store before anyone sees it. An
index that lags behind can therefore overlook an entry for a moment, but never bring
back one that was deleted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from semcache.core.retention import EVICTION, Retention
from semcache.errors import IndexMismatchError
from semcache.protocols import Index, Store
from semcache.types import Candidate, Entry, Neighbour, NewEntry, Position, Selection

if TYPE_CHECKING:
    from semcache.types import Vector

logger = logging.getLogger("semcache")

IndexT = TypeVar("IndexT", bound=Index)

_BATCH = 4096
_WIDEST = 256
"""The most neighbours that are asked for when nearer ones have been deleted or have expired."""
_EVICTIONS = 20
_SWEEP_SECONDS = 60.0
_SWEEP_ENTRIES = 256


class TooLargeError(Exception):
    """One entry is larger than the whole quota in bytes."""


class IndexFiles(Protocol[IndexT]):
    """Makes indexes, and keeps a copy of one on disk."""

    def new(self, dimension: int) -> IndexT:
        """An empty index."""
        ...

    def load(
        self, store: Store, fingerprint: str, dimension: int
    ) -> tuple[IndexT, int, int] | None:
        """(index, last id, last deletion) from the snapshot; None if it cannot be used."""
        ...

    def save(self, index: IndexT, store: Store, fingerprint: str, at: tuple[int, int]) -> None:
        """Keep a snapshot of an index that has followed the store up to `at`."""
        ...


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
        self._files = files
        self._fingerprint = fingerprint
        self._retention = retention
        self._clock = clock
        self._lock = threading.Lock()
        self._index: IndexT | None = None
        self._last_id = 0
        self._last_deletion = 0
        self._saved_at = (0, 0)
        self._swept_at = 0.0
        self._store_id: str | None = None
        self.before_eviction: Callable[[], None] = _nothing
        self.fault: Callable[[str, BaseException], None] = _logged

    # ----------------------------------------------------------------------- reading

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not."""
        return self.store.get_exact(exact_key)

    def nearest(
        self, scope: bytes, vector: Vector, k: int, floor: float
    ) -> tuple[list[Neighbour], list[Candidate]]:
        """Neighbours in the scope, and candidates: those of at least `floor` that exist.

        Deleted and expired ones do not crowd out others: further neighbours are asked for
        until there are k fresh candidates or no more that are near enough.
        """
        index = self._followed()
        now = self._clock()
        while True:
            neighbours = index.search(scope, vector, k)
            candidates = self._candidates(scope, neighbours, floor)
            dead = sum(n.similarity >= floor for n in neighbours) - sum(
                c.entry.fresh(now) for c in candidates
            )
            if not dead or len(neighbours) < k or neighbours[-1].similarity < floor:
                return neighbours, candidates
            if k >= _WIDEST:
                return neighbours, candidates
            k = min(4 * k, _WIDEST)

    def _candidates(
        self, scope: bytes, neighbours: Sequence[Neighbour], floor: float
    ) -> list[Candidate]:
        near = [n for n in neighbours if n.similarity >= floor]
        if not near:
            return []
        entries = self.store.get_many([n.id for n in near])
        # The scope is held against the store's, whatever the index believes.
        return [
            Candidate(entry, n.similarity)
            for n in near
            if (entry := entries.get(n.id)) is not None and entry.scope == scope
        ]

    # ----------------------------------------------------------------------- writing

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        """Store an entry durably and make it findable; return its id."""
        quota = self._retention.max_bytes
        if quota is not None and (size := self.store.size_of(entry, vector)) > quota:
            raise TooLargeError(f"an entry of {size:,} bytes, the quota is {quota:,}")
        fingerprint = None if vector is None else self._fingerprint()
        entry_id = self.store.add(entry, vector, fingerprint)
        try:  # it is stored: whatever fails from here on, the caller must be told so
            if vector is not None:
                self._add_to_index(entry_id, entry.scope, vector)
            self._keep_quota(entry_id)
            self._sweep()
        except Exception as error:
            self.fault("record", error)
        return entry_id

    def _add_to_index(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        with self._lock:
            if self._index is not None:
                self._index.add(entry_id, scope, vector)
                if entry_id == self._last_id + 1:  # nobody else wrote in between
                    self._last_id = entry_id

    def accepts(self, fingerprint: str | None) -> bool:
        """Whether vectors of this embedder may be written."""
        return fingerprint is not None and fingerprint == self._fingerprint()

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """Delete what is selected; return how many entries that were."""
        ids = self.store.delete(selection, limit)
        self._forget(ids)
        return len(ids)

    def _keep_quota(self, newest: int) -> None:
        retention = self._retention
        if retention.max_entries is None and retention.max_bytes is None:
            return
        if retention.excess(*self.store.totals()) <= 0:
            return
        self.before_eviction()
        self._forget(self.store.delete(Selection(expired_at=self._clock())))
        for _ in range(_EVICTIONS):  # sizes differ: what was to be enough may not be
            excess = retention.excess(*self.store.totals())
            if excess <= 0:
                return
            self._forget(self.store.evict(EVICTION[retention.eviction], excess, spare=newest))

    def _sweep(self) -> None:
        """Now and then delete some of what has expired; it is never served in the meantime."""
        now = self._clock()
        if now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self._forget(self.store.delete(Selection(expired_at=now), _SWEEP_ENTRIES))

    def _forget(self, ids: Sequence[int]) -> None:
        if ids:
            with self._lock:
                if self._index is not None:
                    self._index.remove(ids)

    # --------------------------------------------------------------------- the index

    def _followed(self) -> IndexT:
        """The index, up to date with every commit there has been before this call.

        Raises:
            IndexMismatchError: the store's vectors come from another embedder.
        """
        revision = self.store.revision()
        index = self._index
        if index is not None and revision == self.store.revision_seen():
            return index
        with self._lock:
            position = self.store.position()
            self._check_fingerprint(position)
            if self._index is None or position.store_id != self._store_id:
                self._index = self._open(position)  # new, or everything was embedded anew
            self._catch_up(self._index, position)
            self.store.mark_revision(revision)
            return self._index

    def _check_fingerprint(self, position: Position) -> None:
        stored, given = position.fingerprint, self._fingerprint()
        if stored is not None and stored != given:
            raise IndexMismatchError(stored=stored, given=given, where=self.store.name)

    def _open(self, position: Position) -> IndexT:
        self._store_id = position.store_id
        self._last_id, self._last_deletion = 0, position.last_deletion
        if position.dimension:
            found = self._files.load(self.store, self._fingerprint(), position.dimension)
            if found is not None:
                index, self._last_id, self._last_deletion = found
                self._saved_at = (self._last_id, self._last_deletion)
                return index
        return self._files.new(position.dimension)

    def _catch_up(self, index: IndexT, position: Position) -> None:
        """Take over what was committed since the last time."""
        if position.last_deletion != self._last_deletion:
            deleted = self.store.deletions_after(self._last_deletion)
            if deleted is None:  # too long ago: compare all ids
                self._last_deletion = position.last_deletion
                index.remove(index.ids() - self.store.embedded_ids())
            else:
                ids, self._last_deletion = deleted
                index.remove(ids)
        if position.last_id != self._last_id:
            for rows in _chunks(self.store.vectors_after(self._last_id)):
                _add_rows(index, rows)
            self._last_id = position.last_id

    def refresh_index(self) -> IndexT:
        """The index, opened and up to date; for tools."""
        return self._followed()

    def rebuild_index(self) -> IndexT:
        """Throw the index away and make it from the store."""
        with self._lock:
            position = self.store.position()
            self._check_fingerprint(position)
            self._store_id = position.store_id
            self._last_id, self._last_deletion = 0, position.last_deletion
            self._index = self._files.new(position.dimension)
            self._catch_up(self._index, position)
            self._saved_at = (0, 0)
            return self._index

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        if self._index is not None:
            self._index.wait()

    def save_snapshot(self) -> None:
        """Keep the index on disk if it has changed since it was kept there."""
        with self._lock:
            at = (self._last_id, self._last_deletion)
            if self._index is None or not len(self._index) or at == self._saved_at:
                return
            self._files.save(self._index, self.store, self._fingerprint(), at)
            self._saved_at = at

    def after_fork(self) -> None:
        """In a child process: locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._index, self._last_id, self._last_deletion = None, 0, 0
        self.store.after_fork()

    def close(self) -> None:
        """Save the index and close the store. A snapshot that cannot be written is no loss."""
        try:
            self.save_snapshot()
        except Exception as error:
            logger.warning("the index could not be saved, it will be rebuilt: %s", error)
        self.store.close()


def _add_rows(index: Index, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
    import numpy as np

    vectors = np.frombuffer(b"".join(row[2] for row in rows), np.float32)
    index.add_many(
        [row[0] for row in rows], [row[1] for row in rows], vectors.reshape(len(rows), -1)
    )


def _chunks(
    rows: Iterator[tuple[int, bytes, bytes]],
) -> Iterator[list[tuple[int, bytes, bytes]]]:
    chunk: list[tuple[int, bytes, bytes]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _nothing() -> None:
    """Nothing is to be done first."""


def _logged(where: str, error: BaseException) -> None:
    logger.warning("fault in %s: %s", where, error)
