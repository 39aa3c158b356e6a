"""Opens, builds, merges and saves FAISS indexes, with a snapshot beside the database.

Processes that use the same database share the snapshot. Only one of them merges at a time, under a
file lock; the others notice the newer snapshot and map it, so its pages are in memory only once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.backends.local.base import Store
from semcache.backends.local.files import mode_beside
from semcache.backends.local.locks import InterruptibleLock
from semcache.private_files import opener

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.index import FaissIndex, MergeResult
    from semcache.backends.local.faiss.merging import NewRows
    from semcache.backends.local.faiss.segment import Segment
    from semcache.backends.local.faiss.snapshot import SnapshotInfo
    from semcache.types import ChangeCursor

logger = logging.getLogger("semcache")

_UNSAVED = 1 / 16
"""Changes, as a share of the snapshot's rows, above which closing writes a new one."""
_BUILD_ROWS = 65_536
"""Rows that are read from the store at a time."""
_CLOSE_TIMEOUT = 5.0
"""Seconds that closing waits for a running merge. Changes that were not saved by then are read from
the store when the index is next opened."""
_NICE = 10
"""Niceness of a merge thread, so that requests take precedence."""

OnFailure = Callable[[BaseException], None]


class IndexLifecycle:
    """Creates, loads and saves `FaissIndex`es; FAISS is only imported for the first one.

    Args:
        path: the snapshot's file.
        exact_below: see `FaissIndex`; None means its default.
        background: see `FaissIndex`; it applies to merges too.
        read_only: whether the index stays in memory, because its file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        exact_below: int | None = None,
        background: bool = True,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._read_only = read_only
        self._exact_below = exact_below
        self.background = background
        self._merging: threading.Thread | None = None

    def new(self, dimension: int) -> FaissIndex:
        return self._index(dimension, None)

    def load(
        self, store: Store, fingerprint: str, dimension: int
    ) -> tuple[FaissIndex, int, int] | None:
        from semcache.backends.local.faiss import snapshot

        if not self.path.exists():
            return None
        try:
            segment, facts = snapshot.load(self.path, _facts(store, fingerprint), dimension)
        except snapshot.SnapshotError as error:
            logger.warning("%s; the index is rebuilt from the database", error)
            return None
        return self._index(dimension, segment), facts.last_id, facts.last_deletion

    def build(
        self, store: Store, fingerprint: str, dimension: int, *, force: bool = False
    ) -> tuple[FaissIndex, int, int]:
        with _locked(self.path), _low_priority(self.background):
            if not force and (loaded := self.load(store, fingerprint, dimension)) is not None:
                return loaded  # another process has just built it
            facts = _facts(store, fingerprint)
            segment: Segment | None = None
            for last_id, fresh in _read(store, facts.last_id, dimension):
                # Entries deleted meanwhile are not read, or are removed when the index catches up.
                facts_so_far = replace(facts, last_id=last_id)
                segment = self._merged_segment(segment, fresh, _no_ids(), dimension, facts_so_far)
        return self._index(dimension, segment), facts.last_id, facts.last_deletion

    def merge(
        self, index: FaissIndex, store: Store, at: ChangeCursor, on_failure: OnFailure
    ) -> None:
        if not index.freeze():
            return

        def run() -> None:
            try:
                with _locked(self.path), _low_priority(self.background):
                    self._merge(index, store, at)
            except Exception as error:
                index.give_up()
                on_failure(error)

        if not self.background:
            run()
            return
        thread = threading.Thread(target=run, name="semcache-merge", daemon=True)
        try:
            thread.start()
            self._merging = thread
        except RuntimeError as error:  # too many threads
            index.give_up()
            on_failure(error)

    def save(self, index: FaissIndex, store: Store, at: ChangeCursor) -> None:
        if (merging := self._merging) is not None:
            merging.join(_CLOSE_TIMEOUT)
        if self._read_only:
            return
        with _locked(self.path, wait=False) as acquired:
            if acquired and index.changed_share > _UNSAVED and index.freeze():
                self._merge(index, store, at)

    def wait(self) -> None:
        """Wait until no merge is under way."""
        if (merging := self._merging) is not None:
            merging.join()

    def after_fork(self) -> None:
        self._merging = None
        _locks.clear()
        if (faiss := sys.modules.get("faiss")) is not None:
            faiss.omp_set_num_threads(1)  # the parent's thread pool does not survive a fork

    # ------------------------------------------------------------------------ internals

    def _merge(self, index: FaissIndex, store: Store, at: ChangeCursor) -> None:
        """The caller holds the lock and has called `freeze`."""
        from semcache.backends.local.faiss.snapshot import SnapshotInfo

        facts = SnapshotInfo.of(at, at.fingerprint)

        def make(old: Segment | None, fresh: NewRows, tombstones: NDArray[np.int64]) -> MergeResult:
            newer = self._newer(store, facts, at.dimension, old, fresh.ids)
            if newer is not None:
                return newer
            return self._merged_segment(old, fresh, tombstones, at.dimension, facts), _no_ids()

        index.merge(make)

    def _newer(
        self,
        store: Store,
        mine: SnapshotInfo,
        dimension: int,
        old: Segment | None,
        fresh: NDArray[np.int64],
    ) -> MergeResult | None:
        """Another process's snapshot, and ids of its rows that have been deleted since.

        None if no snapshot holds most of the rows that are to be merged here.
        """
        import numpy as np

        from semcache.backends.local.faiss import snapshot

        peeked = snapshot.peek(self.path)
        if peeked is None or not len(fresh):
            return None
        theirs, _ = peeked
        if theirs.last_id < np.median(fresh):
            return None
        if old is not None and old.count and theirs.last_id < old.arrays.sorted_ids[-1]:
            return None  # it lacks rows that are in the segment here
        now = _facts(store, mine.fingerprint)
        if now.store_id != mine.store_id:
            return None  # the store's content has been replaced by another store's
        try:
            segment, facts = snapshot.load(self.path, now, dimension)
        except snapshot.SnapshotError:
            return None
        deletions = store.deletions_after(facts.last_deletion)
        return None if deletions is None else (segment, np.asarray(deletions[0], np.int64))

    def _merged_segment(
        self,
        old: Segment | None,
        fresh: NewRows,
        tombstones: NDArray[np.int64],
        dimension: int,
        facts: SnapshotInfo,
    ) -> Segment:
        """The merged segment, mapped from its file, or in memory if the file cannot be written."""
        from semcache.backends.local.faiss import snapshot
        from semcache.backends.local.faiss.merging import merge

        plan = merge(
            old, fresh, tombstones, exact_below=self._effective_exact_below(), dimension=dimension
        )
        if self._read_only:
            return plan.in_memory()
        try:
            snapshot.sweep(self.path)
            snapshot.write(self.path, facts, plan)
            segment, loaded_facts = snapshot.load(self.path, facts, dimension)
            if loaded_facts != facts:
                raise snapshot.SnapshotError("another process has overwritten the snapshot")
            return segment
        except (OSError, snapshot.SnapshotError) as error:
            logger.warning("the index could not be saved and stays in memory: %s", error)
            return plan.in_memory()

    def _index(self, dimension: int, segment: Segment | None) -> FaissIndex:
        from semcache.backends.local.faiss.index import FaissIndex

        return FaissIndex(
            dimension,
            segment=segment,
            exact_below=self._effective_exact_below(),
            background=self.background,
        )

    def _effective_exact_below(self) -> int:
        from semcache.backends.local.faiss.partition import EXACT_BELOW

        return EXACT_BELOW if self._exact_below is None else self._exact_below


def _facts(store: Store, fingerprint: str) -> SnapshotInfo:
    from semcache.backends.local.faiss.snapshot import SnapshotInfo

    return SnapshotInfo.of(store.position(), fingerprint)


def _no_ids() -> NDArray[np.int64]:
    import numpy as np

    return np.empty(0, np.int64)


def _read(store: Store, last_id: int, dimension: int) -> Iterator[tuple[int, NewRows]]:
    """Yield (last id so far, rows) of all vectors in the store up to `last_id`, in batches."""
    import numpy as np

    from semcache.backends.local.faiss.merging import NewRows
    from semcache.backends.vectors import batched, decode_rows

    stored = takewhile(lambda row: row[0] <= last_id, store.vectors_after(0))
    for rows in batched(stored, _BUILD_ROWS):
        ids, scopes, vectors = decode_rows(rows, dimension)
        yield rows[-1][0], NewRows(np.asarray(ids, np.int64), scopes, vectors)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a snapshot; yields whether it was acquired, which it always is with `wait`.

    Where files cannot be locked, processes do not exclude each other, which costs duplicate work
    and nothing else. The file lock (`lockf`) is not inherited by a forked child and does not
    exclude threads of the same process, so a thread lock is held as well.
    """
    with _locks_guard:
        thread_lock = _locks.setdefault(str(path), InterruptibleLock())
    if not thread_lock.acquire(blocking=wait):
        yield False
        return
    try:
        with _file_lock(path, wait=wait) as acquired:
            yield acquired
    finally:
        thread_lock.release()


_locks_guard = threading.Lock()
_locks: dict[str, InterruptibleLock] = {}


@contextmanager
def _file_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Exclude other processes; yields whether the lock was acquired."""
    try:
        import fcntl

        own = opener(mode_beside(path))
        file = open(f"{path}.lock", "ab", opener=own)  # noqa: SIM115 - closed below in every case
    except (ImportError, OSError):
        yield True
        return
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks
        yield True


@contextmanager
def _low_priority(enabled: bool) -> Iterator[None]:
    """Limit FAISS to this thread; on Linux, where threads have priorities, lower this thread's."""
    if not enabled:
        yield
        return
    import faiss

    faiss.omp_set_num_threads(1)  # for this thread only
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    yield
