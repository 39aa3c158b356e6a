"""Keeps an index up to date with its store: opens it, catches up, merges, rebuilds.

The index is opened when a vector is first looked up, from a snapshot or from the store. Each lookup
checks cheaply whether this process or another has committed since the last one. Only then are the
changes read: deletions by sequence number, vectors by row id. Building the index of a large store
takes a while; until it is built, there are no semantic hits.
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
"""From this many entries on, an index without a snapshot is built in the background."""
_RETRY_AFTER = 30.0
"""Seconds after which a failed build or merge is tried again."""


class IndexFiles(Protocol[IndexT]):
    """Builds and merges indexes, and keeps a snapshot of one on disk."""

    background: bool
    """Whether long operations run in the background."""

    def new(self, dimension: int) -> IndexT:
        """An empty index."""
        ...

    def load(
        self, store: Store, fingerprint: str, dimension: int
    ) -> tuple[IndexT, int, int] | None:
        """(index, last id, last deletion) from the snapshot; None if it is missing or unusable."""
        ...

    def build(
        self, store: Store, fingerprint: str, dimension: int, *, force: bool = False
    ) -> tuple[IndexT, int, int]:
        """Build (index, last id, last deletion) from the store, and write a snapshot.

        Args:
            force: build even if another process has written a usable snapshot meanwhile.
        """
        ...

    def merge(
        self,
        index: IndexT,
        store: Store,
        at: ChangeCursor,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Merge new vectors into the sealed segment and write a snapshot, in the background.

        Args:
            at: the store and embedder of the index, and how far the index has followed the store.
            on_failure: called with the error if the merge fails; the index is then unchanged.
        """
        ...

    def save(self, index: IndexT, store: Store, at: ChangeCursor) -> None:
        """Write a snapshot now, if much has changed and no other process is writing one."""
        ...

    def wait(self) -> None:
        """Wait until no merge is running."""
        ...

    def after_fork(self) -> None:
        """After a fork, in the child: the parent's threads do not exist here."""
        ...


class IndexFollower(Generic[IndexT]):
    """An index, and how far it has followed its store.

    Args:
        store: the source of truth.
        files: builds and merges indexes, and reads and writes snapshots.
        fingerprint: returns the fingerprint of the embedder of its vectors.
        fault: called with an error that no caller is waiting for.
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
        self._next_merge_at = 0.0
        self._store_id: str | None = None
        self._build: _Build[IndexT] | None = None

    def added(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        """Add an entry that was just committed."""
        with self._lock:
            # The index is complete up to the last id: if it lacks this entry, others deleted it.
            if self._index is not None and entry_id > self._last_id:
                self._index.add(entry_id, scope, vector)
                if entry_id == self._last_id + 1:  # nobody else has written in between
                    self._last_id = entry_id
                self._merge_if_due(self._index)

    def forget(self, ids: Sequence[int]) -> None:
        """Remove entries whose deletion was just committed."""
        if ids:
            with self._lock:
                if self._index is not None:
                    self._index.remove(ids)

    def peek_revision(self) -> int | None:
        """The current revision of the store, for `current`; None if it cannot be read."""
        try:
            return self._store.revision()
        except StoreError:
            return None

    def current(self, revision: int | None = None) -> IndexT:
        """The index, up to date with every commit before this call.

        Args:
            revision: the result of an earlier call of `peek_revision` on this thread; commits
                after it may be missed.

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
                self._index = None  # re-embedded or restored: the old index is useless
                self._index = self._open(position)
            self._catch_up(self._index, position)
            self._store.ack_revision(revision)
            return self._index

    def _check_fingerprint(self, position: ChangeCursor) -> None:
        stored, current = position.fingerprint, self._fingerprint()
        if stored is not None and stored != current:
            raise IndexMismatchError(stored=stored, given=current, where=self._store.name)

    def _open(self, position: ChangeCursor) -> IndexT:
        """Open an index, which must then catch up from `_last_id` and `_last_deletion`.

        Raises:
            NotReadyError: the index is still being built.
        """
        self._store_id = position.store_id
        self._last_id, self._last_deletion = 0, position.last_deletion
        if not position.dimension:
            return self._files.new(0)
        build = self._build
        if build is None or build.store_id != position.store_id:
            opened = self._files.load(self._store, self._fingerprint(), position.dimension)
            if opened is None and self._store.totals()[0] < LARGE:
                return self._files.new(position.dimension)
            if opened is None:
                build = self._build = self._start_build(position)
                opened = build.result()
        else:
            opened = build.result()
        self._build = None
        index, self._last_id, self._last_deletion = opened
        return index

    def _start_build(self, position: ChangeCursor) -> _Build[IndexT]:
        fingerprint = self._fingerprint()
        logger.warning(
            "%s has no usable index of its %s entries; it is being built, and until it is ready "
            "only exact hits are served", self._store.name, f"{self._store.totals()[0]:,}",
        )  # fmt: skip
        return _Build(
            position.store_id,
            lambda: self._files.build(self._store, fingerprint, position.dimension),
            background=self._files.background,
        )

    def _catch_up(self, index: IndexT, position: ChangeCursor) -> None:
        """Apply what was committed since the last time."""
        if position.last_deletion != self._last_deletion:
            # Not beyond the position: an entry deleted after it may yet be added (see `added`).
            deleted = self._store.deletions_after(self._last_deletion, position.last_deletion)
            if deleted is None:  # the log does not reach back that far: compare all ids
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
        """Start a merge if one is due. Must be called with the lock held."""
        if index.due and time.monotonic() >= self._next_merge_at:
            self._files.merge(index, self._store, self._cursor(index), self._merge_failed)

    def _merge_failed(self, error: BaseException) -> None:
        self._next_merge_at = time.monotonic() + _RETRY_AFTER
        self._fault(error)

    def _cursor(self, index: IndexT) -> ChangeCursor:
        """The store and embedder of the index, and how far it has followed the store."""
        return ChangeCursor(
            self._store_id or "",
            self._fingerprint(),
            index.dimension,
            self._last_id,
            self._last_deletion,
        )

    def refreshed(self) -> IndexT:
        """The index, opened and up to date; waits until it is built. For tools."""
        while True:
            try:
                return self.current()
            except NotReadyError as error:
                self.wait()
                if error.__cause__ is not None:
                    raise error.__cause__ from None

    def rebuilt(self) -> IndexT:
        """Discard the index and build it from the store."""
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
        """Write a snapshot of the index if much has changed since the last one."""
        with self._lock:
            if self._index is None or not len(self._index):
                return
            self._files.save(self._index, self._store, self._cursor(self._index))

    def wait(self) -> None:
        """Wait until nothing is being built in the background."""
        if (build := self._build) is not None:
            build.wait()
        self._files.wait()
        if self._index is not None:
            self._index.wait()

    def after_fork(self) -> None:
        """After a fork, in the child: locks may be held by threads that do not exist here."""
        self._lock = threading.Lock()
        self._index, self._last_id, self._last_deletion = None, 0, 0
        self._build = None
        self._files.after_fork()


class _Build(Generic[IndexT]):
    """An index that is being built, usually in the background."""

    def __init__(
        self, store_id: str, build: Callable[[], tuple[IndexT, int, int]], *, background: bool
    ) -> None:
        self.store_id = store_id
        self._build = build
        self._result: tuple[IndexT, int, int] | None = None
        self._error: BaseException | None = None
        self._failed_at = 0.0
        self._thread = threading.Thread(target=self._run, name="semcache-build", daemon=True)
        self._thread.start()
        if not background:
            self._thread.join()

    def result(self) -> tuple[IndexT, int, int]:
        """(index, last id, last deletion) of the finished build.

        Raises:
            NotReadyError: the index is still being built; or the build failed and will be tried
                again later, and `__cause__` is its error.
        """
        if self._thread.is_alive():
            raise NotReadyError("the index is being built from the database")
        if self._result is None:
            if time.monotonic() - self._failed_at > _RETRY_AFTER:
                self.store_id = ""  # matches no store, so that the next lookup starts another build
            raise NotReadyError(f"the index could not be built: {self._error}") from self._error
        return self._result

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._result = self._build()
        except BaseException as error:
            self._error, self._failed_at = error, time.monotonic()
            logger.warning("the index could not be built from the database: %s", error)
