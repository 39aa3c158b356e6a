"""The index that follows the store: opened, caught up, merged, made anew.

It is opened when a vector is first looked up, from a snapshot or from the store. At each lookup
a cheap check tells whether anybody, in this process or another, has committed since; only then
is it read what is new: deletions by sequence, vectors by row id. Making the index of a large
store takes a while; until it is there, nothing can be found by nearness.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from semcache.backends.base import NotReadyError
from semcache.backends.local.base import Index, Store
from semcache.backends.vectors import batched, decode_rows
from semcache.errors import IndexMismatchError, StoreError
from semcache.types import ChangeCursor

if TYPE_CHECKING:
    from semcache.types import Vector

logger = logging.getLogger("semcache")

IndexT = TypeVar("IndexT", bound=Index)

_BATCH = 4096
LARGE = 65_536
"""Entries from which on an index without a snapshot is made beside the traffic."""
_REST = 30.0
"""Seconds after which an index that could not be made or merged is tried again."""


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
        self, store: Store, fingerprint: str, dimension: int, *, force: bool = False
    ) -> tuple[IndexT, int, int]:
        """The same from the store itself, however large; keeps it as a snapshot too.

        anew: even where another process has kept one meanwhile.
        """
        ...

    def merge(
        self,
        index: IndexT,
        store: Store,
        at: ChangeCursor,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Put what has come in with what was there, and keep a snapshot, beside the traffic.

        The index is of the store, embedder and dimension that `at` names, and has followed
        the store that far. `on_failure` is told if it went wrong; the index then stays as it was.
        """
        ...

    def save(self, index: IndexT, store: Store, at: ChangeCursor) -> None:
        """Keep a snapshot now, if much has changed since the last and nobody else keeps one."""
        ...

    def wait(self) -> None:
        """Until no merge is under way."""
        ...

    def after_fork(self) -> None:
        """In a child process: the parent's threads are not here."""
        ...


class IndexFollower(Generic[IndexT]):
    """An index and how far it has followed its store.

    Args:
        store: the truth.
        files: makes and keeps the index.
        fingerprint: names the embedder whose vectors it holds.
        fault: told where something fails that nobody waits for.
    """

    def __init__(
        self,
        store: Store,
        files: IndexFiles[IndexT],
        fingerprint: Callable[[], str],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._files = files
        self._fingerprint = fingerprint
        self._fault = fault
        self._lock = threading.Lock()
        self._index: IndexT | None = None
        self._last_id = 0
        self._last_deletion = 0
        self._merges_rest_until = 0.0
        self._store_id: str | None = None
        self._building: _Building[IndexT] | None = None

    def added(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        """Take an entry that was committed just now."""
        with self._lock:
            # Up to the last id it has caught up already: what is not in it has been deleted.
            if self._index is not None and entry_id > self._last_id:
                self._index.add(entry_id, scope, vector)
                if entry_id == self._last_id + 1:  # nobody else wrote in between
                    self._last_id = entry_id
                self._merge_if_due(self._index)

    def forget(self, ids: Sequence[int]) -> None:
        """Take deletions that were committed just now."""
        if ids:
            with self._lock:
                if self._index is not None:
                    self._index.remove(ids)

    def peek_revision(self) -> int | None:
        """The store's revision now, for `current`; None if it cannot be read."""
        try:
            return self._store.revision()
        except StoreError:
            return None

    def current(self, revision: int | None = None) -> IndexT:
        """The index, up to date with every commit there has been before this call.

        Args:
            revision: what `peek_revision` returned on this thread a while ago: commits after it
                may be missed.

        Raises:
            IndexMismatchError: the store's vectors come from another embedder.
        """
        if revision is None:
            revision = self._store.revision()
        index = self._index
        if index is not None and revision == self._store.acked_revision():
            return index
        with self._lock:
            position = self._store.position()
            self._check_fingerprint(position)
            if self._index is None or position.store_id != self._store_id:
                self._index = None  # new, embedded anew, or restored: the old one is of no use
                self._index = self._open(position)
            self._catch_up(self._index, position)
            self._store.ack_revision(revision)
            return self._index

    def _check_fingerprint(self, position: ChangeCursor) -> None:
        stored, given = position.fingerprint, self._fingerprint()
        if stored is not None and stored != given:
            raise IndexMismatchError(stored=stored, given=given, where=self._store.name)

    def _open(self, position: ChangeCursor) -> IndexT:
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
            found = self._files.load(self._store, self._fingerprint(), position.dimension)
            if found is None and self._store.totals()[0] < LARGE:
                return self._files.new(position.dimension)
            if found is None:
                building = self._building = self._begin_building(position)
                found = building.found()
        else:
            found = building.found()
        self._building = None
        index, self._last_id, self._last_deletion = found
        return index

    def _begin_building(self, position: ChangeCursor) -> _Building[IndexT]:
        fingerprint = self._fingerprint()
        logger.warning(
            "%s has no usable index of its %s entries: it is being made; until then only equal "
            "requests are found", self._store.name, f"{self._store.totals()[0]:,}",
        )  # fmt: skip
        return _Building(
            position.store_id,
            lambda: self._files.build(self._store, fingerprint, position.dimension),
            background=self._files.background,
        )

    def _catch_up(self, index: IndexT, position: ChangeCursor) -> None:
        """Take over what was committed since the last time."""
        if position.last_deletion != self._last_deletion:
            # Not beyond the position: an entry above it may still be on its way into the index.
            deleted = self._store.deletions_after(self._last_deletion, position.last_deletion)
            if deleted is None:  # too long ago: compare all ids
                index.retain(self._store.embedded_ids(), position.last_id)
                self._last_deletion = position.last_deletion
            else:
                ids, self._last_deletion = deleted
                index.remove(ids)
        if position.last_id != self._last_id:
            for rows in batched(self._store.vectors_after(self._last_id), _BATCH):
                index.add_many(*decode_rows(rows, position.dimension))
                self._last_id = rows[-1][0]
                self._merge_if_due(index)
            self._last_id = max(self._last_id, position.last_id)

    def _merge_if_due(self, index: IndexT) -> None:
        """Called with the lock held."""
        if index.due and time.monotonic() >= self._merges_rest_until:
            self._files.merge(index, self._store, self._reached(index), self._merge_failed)

    def _merge_failed(self, error: BaseException) -> None:
        self._merges_rest_until = time.monotonic() + _REST
        self._fault(error)

    def _reached(self, index: IndexT) -> ChangeCursor:
        """What the index is of, and how far it has followed it."""
        return ChangeCursor(
            self._store_id or "",
            self._fingerprint(),
            index.dimension,
            self._last_id,
            self._last_deletion,
        )

    def refreshed(self) -> IndexT:
        """The index, opened and up to date, however long it takes; for tools."""
        while True:
            try:
                return self.current()
            except NotReadyError as error:
                self.wait()
                if error.__cause__ is not None:
                    raise error.__cause__ from None

    def rebuilt(self) -> IndexT:
        """Throw the index away and make it from the store."""
        with self._lock:
            position = self._store.position()
            self._check_fingerprint(position)
            self._store_id = position.store_id
            self._last_id, self._last_deletion = 0, position.last_deletion
            if position.dimension:
                self._index, self._last_id, self._last_deletion = self._files.build(
                    self._store, self._fingerprint(), position.dimension, force=True
                )
            else:
                self._index = self._files.new(0)
            self._catch_up(self._index, position)
            return self._index

    def save(self) -> None:
        """Keep the index on disk if much has changed since it was kept there."""
        with self._lock:
            if self._index is None or not len(self._index):
                return
            self._files.save(self._index, self._store, self._reached(self._index))

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        if (building := self._building) is not None:
            building.wait()
        self._files.wait()
        if self._index is not None:
            self._index.wait()

    def after_fork(self) -> None:
        """In a child process: locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._index, self._last_id, self._last_deletion = None, 0, 0
        self._building = None
        self._files.after_fork()


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
