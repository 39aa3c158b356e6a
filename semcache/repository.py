"""Store and index as one thing; the only writer of entries while a cache serves.

The store is the truth. A write is committed first, then the index takes it, so that
what a caller was told is stored can be found at once and after any crash. The index
is opened when a vector is first looked up, from a snapshot or from the store, and
follows the store: at each lookup a cheap check tells whether anybody, in this process
or another, has committed since; only then is it read what is new, by row id. Making the
index of a large store takes a while; until it is there, nothing can be found by nearness.

Every neighbour that the index names is read from the store before anyone sees it. An
index that lags behind can therefore overlook an entry for a moment, but never bring
back one that was deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from semcache.core.retention import EVICTION, Quota, Retention
from semcache.errors import IndexMismatchError
from semcache.protocols import Index, Store
from semcache.types import Candidate, Entry, Neighbour, NewEntry, Position, Selection
from semcache.vectors import decoded, readable

if TYPE_CHECKING:
    from semcache.types import Vector

logger = logging.getLogger("semcache")

IndexT = TypeVar("IndexT", bound=Index)

_BATCH = 4096
_WIDEST = 256
"""The most neighbours that are asked for when nearer ones have been deleted or have expired."""
_LARGE = 65_536
"""Entries from which on an index without a snapshot is made beside the traffic."""
_STEP = 256
"""Entries that are deleted in one transaction, so that no writer waits for long."""
_EVICTIONS = 8
"""Steps of eviction that one record makes; what is still too much then waits for the next."""
_SWEEP_SECONDS = 10.0
_REST = 30.0
"""Seconds after which an index that could not be made or merged is tried again."""


class TooLargeError(Exception):
    """One entry is larger than the whole quota in bytes."""


class NotReadyError(Exception):
    """The index of a large store is being made."""


class IndexFiles(Protocol[IndexT]):
    """Makes indexes, and keeps a copy of one on disk."""

    background: bool
    """What takes long goes on beside the traffic."""

    def new(self, dimension: int) -> IndexT:
        """An empty index."""
        ...

    def load(
        self, store: Store, fingerprint: str, dimension: int
    ) -> tuple[IndexT, int, int] | None:
        """(index, last id, last deletion) from the snapshot; None if it cannot be used."""
        ...

    def build(
        self, store: Store, fingerprint: str, dimension: int, *, anew: bool = False
    ) -> tuple[IndexT, int, int]:
        """The same from the store itself, however large; keeps it as a snapshot too.

        anew: even where another process has kept one meanwhile.
        """
        ...

    def merge(
        self,
        index: IndexT,
        store: Store,
        at: Position,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Put what has come in with what was there, and keep a snapshot, beside the traffic.

        The index is of the store, embedder and dimension that `at` names, and has followed
        the store that far. `failed` is told if it went wrong; the index then stays as it was.
        """
        ...

    def save(self, index: IndexT, store: Store, at: Position) -> None:
        """Keep a snapshot now, if much has changed since the last and nobody else keeps one."""
        ...

    def wait(self) -> None:
        """Until no merge is under way."""
        ...

    def after_fork(self) -> None:
        """In a child process: the parent's threads are not here."""
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
        self._swept_at = 0.0
        self._merges_rest_until = 0.0
        self._store_id: str | None = None
        self._building: _Building[IndexT] | None = None
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
            tolerance = index.tolerance(scope)
            wanted = 2 * k + 2 if tolerance else k
            neighbours = index.search(scope, vector, wanted)
            if index.tolerance(scope) > tolerance:
                continue  # a merge has ended meanwhile, and these may be rounded
            all_of_them = len(neighbours) < wanted
            if tolerance:
                # What cannot come among the first k is not measured.
                last = neighbours[k - 1].similarity if len(neighbours) > k else -1.0
                least = max(floor - tolerance, last - 2 * tolerance)
                neighbours = self._measured(neighbours, vector, least)[:k]
            candidates = self._candidates(scope, neighbours, floor)
            dead = sum(n.similarity >= floor for n in neighbours) - sum(
                c.entry.fresh(now) for c in candidates
            )
            if not dead or all_of_them or neighbours[-1].similarity < floor:
                return neighbours, candidates
            if k >= _WIDEST:
                return neighbours, candidates
            k = min(4 * k, _WIDEST)

    def _measured(
        self, neighbours: Sequence[Neighbour], vector: Vector, floor: float
    ) -> list[Neighbour]:
        """The same by their stored vectors, as far as they are near enough to matter."""
        near = [n.id for n in neighbours if n.similarity >= floor]
        if not near:
            return list(neighbours)
        blobs = self.store.vectors(near)
        similarities = decoded(list(blobs.values()), len(vector)) @ vector
        exact = dict(zip(blobs, similarities.tolist(), strict=True))
        measured = (Neighbour(n.id, min(exact.get(n.id, n.similarity), 1.0)) for n in neighbours)
        return sorted(measured, key=lambda n: -n.similarity)

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
        for quota in self._quotas(entry.namespace):
            most = quota[1].size
            if most is not None and (size := self.store.size_of(entry, vector)) > most:
                raise TooLargeError(f"an entry of {size:,} bytes, the quota is {most:,}")
        fingerprint = None if vector is None else self._fingerprint()
        entry_id = self.store.add(entry, vector, fingerprint)
        try:  # it is stored: whatever fails from here on, the caller must be told so
            if vector is not None:
                self._add_to_index(entry_id, entry.scope, vector)
            self._keep_quotas(entry_id, entry.namespace)
            self._sweep()
        except Exception as error:
            self.fault("record", error)
        return entry_id

    def _add_to_index(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        with self._lock:
            # Up to the last id it has caught up already: what is not in it has been deleted.
            if self._index is not None and entry_id > self._last_id:
                self._index.add(entry_id, scope, vector)
                if entry_id == self._last_id + 1:  # nobody else wrote in between
                    self._last_id = entry_id
                self._merge_if_due(self._index)

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
            self._forget(gone)
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
                self._forget(self.store.delete(Selection(expired_at=self._clock()), _STEP))
                self._evict(quota, whose, newest)

    def _evict(self, quota: Quota, namespace: str | None, spare: int) -> None:
        order = EVICTION[self._retention.eviction]
        for _ in range(_EVICTIONS):  # sizes differ: what was to be enough may not be
            excess = quota.excess(*self.store.totals(namespace))
            if excess <= 0:
                return
            count = min(excess, _STEP)
            self._forget(self.store.evict(order, count, spare=spare, namespace=namespace))

    def _sweep(self) -> None:
        """Now and then delete some of what has expired; it is never served in the meantime."""
        now = self._clock()
        if not 0 <= now - self._swept_at < _SWEEP_SECONDS:  # clocks step back, too
            gone = self.store.delete(Selection(expired_at=now), _STEP)
            self._forget(gone)
            if len(gone) < _STEP:  # else there is more: go on with the next record
                self._swept_at = now

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
                self._index = None  # new, embedded anew, or restored: the old one is of no use
                self._index = self._open(position)
            self._catch_up(self._index, position)
            self.store.mark_revision(revision)
            return self._index

    def _check_fingerprint(self, position: Position) -> None:
        stored, given = position.fingerprint, self._fingerprint()
        if stored is not None and stored != given:
            raise IndexMismatchError(stored=stored, given=given, where=self.store.name)

    def _open(self, position: Position) -> IndexT:
        """An index that is to catch up from `_last_id` and `_last_deletion` on.

        Raises:
            NotReadyError: it is being made.
        """
        self._store_id = position.store_id
        self._last_id, self._last_deletion = 0, position.last_deletion
        if not position.dimension:
            return self._files.new(0)
        building = self._building
        if building is None or building.store_id != position.store_id:
            found = self._files.load(self.store, self._fingerprint(), position.dimension)
            if found is None and self.store.totals()[0] < _LARGE:
                return self._files.new(position.dimension)
            if found is None:
                building = self._building = self._begin_building(position)
                found = building.found()
        else:
            found = building.found()
        self._building = None
        index, self._last_id, self._last_deletion = found
        return index

    def _begin_building(self, position: Position) -> _Building[IndexT]:
        fingerprint = self._fingerprint()
        logger.warning(
            "%s has no usable index of its %s entries: it is being made; until then only equal "
            "requests are found", self.store.name, f"{self.store.totals()[0]:,}",
        )  # fmt: skip
        return _Building(
            position.store_id,
            lambda: self._files.build(self.store, fingerprint, position.dimension),
            background=self._files.background,
        )

    def _catch_up(self, index: IndexT, position: Position) -> None:
        """Take over what was committed since the last time."""
        if position.last_deletion != self._last_deletion:
            # Not beyond the position: an entry above it may still be on its way into the index.
            deleted = self.store.deletions_after(self._last_deletion, position.last_deletion)
            if deleted is None:  # too long ago: compare all ids
                index.retain(self.store.embedded_ids(), position.last_id)
                self._last_deletion = position.last_deletion
            else:
                ids, self._last_deletion = deleted
                index.remove(ids)
        if position.last_id != self._last_id:
            for rows in _chunks(self.store.vectors_after(self._last_id)):
                _add_rows(index, rows, position.dimension)
                self._last_id = rows[-1][0]
                self._merge_if_due(index)
            self._last_id = max(self._last_id, position.last_id)

    def _merge_if_due(self, index: IndexT) -> None:
        """Called with the lock held."""
        if index.due and time.monotonic() >= self._merges_rest_until:
            self._files.merge(index, self.store, self._reached(index), self._merge_failed)

    def _merge_failed(self, error: BaseException) -> None:
        self._merges_rest_until = time.monotonic() + _REST
        self.fault("index", error)

    def _reached(self, index: IndexT) -> Position:
        """What the index is of, and how far it has followed it."""
        return Position(
            self._store_id or "",
            self._fingerprint(),
            index.dimension,
            self._last_id,
            self._last_deletion,
        )

    def refresh_index(self) -> IndexT:
        """The index, opened and up to date, however long it takes; for tools."""
        while True:
            try:
                return self._followed()
            except NotReadyError as error:
                self.wait()
                if error.__cause__ is not None:
                    raise error.__cause__ from None

    def rebuild_index(self) -> IndexT:
        """Throw the index away and make it from the store."""
        with self._lock:
            position = self.store.position()
            self._check_fingerprint(position)
            self._store_id = position.store_id
            self._last_id, self._last_deletion = 0, position.last_deletion
            if position.dimension:
                self._index, self._last_id, self._last_deletion = self._files.build(
                    self.store, self._fingerprint(), position.dimension, anew=True
                )
            else:
                self._index = self._files.new(0)
            self._catch_up(self._index, position)
            return self._index

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        if (building := self._building) is not None:
            building.wait()
        self._files.wait()
        if self._index is not None:
            self._index.wait()

    def save_snapshot(self) -> None:
        """Keep the index on disk if much has changed since it was kept there."""
        with self._lock:
            if self._index is None or not len(self._index):
                return
            self._files.save(self._index, self.store, self._reached(self._index))

    def after_fork(self) -> None:
        """In a child process: locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._index, self._last_id, self._last_deletion = None, 0, 0
        self._building = None
        self._files.after_fork()
        self.store.after_fork()

    def close(self) -> None:
        """Save the index and close the store. A snapshot that cannot be written is no loss."""
        try:
            self.save_snapshot()
        except Exception as error:
            logger.warning("the index could not be saved, it will be rebuilt: %s", error)
        self.store.close()


class _Building(Generic[IndexT]):
    """An index that is being made beside the traffic."""

    def __init__(
        self, store_id: str, build: Callable[[], tuple[IndexT, int, int]], *, background: bool
    ) -> None:
        self.store_id = store_id
        self._build = build
        self._made: tuple[IndexT, int, int] | None = None
        self._failed: BaseException | None = None
        self._failed_at = 0.0
        self._thread = threading.Thread(target=self._run, name="semcache-build", daemon=True)
        self._thread.start()
        if not background:
            self._thread.join()

    def found(self) -> tuple[IndexT, int, int]:
        """(index, last id, last deletion)

        Raises:
            NotReadyError: it is not there yet; or what it failed with, and then it begins anew.
        """
        if self._thread.is_alive():
            raise NotReadyError("the index is being made from the database")
        if self._made is None:
            if time.monotonic() - self._failed_at > _REST:
                self.store_id = ""  # no store's: the next lookup begins another
            raise NotReadyError(f"the index could not be made: {self._failed}") from self._failed
        return self._made

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._made = self._build()
        except BaseException as error:
            self._failed, self._failed_at = error, time.monotonic()
            logger.warning("the index could not be made from the database: %s", error)


def _add_rows(index: Index, rows: Sequence[tuple[int, bytes, bytes]], dimension: int) -> None:
    rows = readable(rows, dimension)
    vectors = decoded([row[2] for row in rows], dimension)
    index.add_many([row[0] for row in rows], [row[1] for row in rows], vectors)


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
