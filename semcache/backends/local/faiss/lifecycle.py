"""Where a FAISS index comes from and goes to: a snapshot beside the database.

Several processes may share a snapshot. One at a time merges (a lock on a file beside it); the
others find that a newer one is there and take that, so that its pages lie in memory once.
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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.index import FaissIndex, Made
    from semcache.backends.local.faiss.merging import Fresh
    from semcache.backends.local.faiss.segment import Segment
    from semcache.backends.local.faiss.snapshot import Facts
    from semcache.types import ChangeCursor

logger = logging.getLogger("semcache")

_UNSAVED = 1 / 16
"""Changes, as a share of the snapshot's rows, below which it is not written anew."""
_BUILD_ROWS = 65_536
"""Rows that are read from the store at a time."""
_PATIENCE = 5.0
"""Seconds that closing waits for a merge under way: what is not saved is made anew."""
_NICE = 10
"""How far a merge steps back behind the traffic."""

Failed = Callable[[BaseException], None]


class FaissFiles:
    """Makes `FaissIndex`es; FAISS itself is not imported before the first.

    Args:
        path: the snapshot's file.
        exact_below: see `FaissIndex`; None: its default.
        background: see `FaissIndex`; merges follow it too.
    """

    def __init__(
        self, path: Path, *, exact_below: int | None = None, background: bool = True
    ) -> None:
        self.path = path
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
            segment, found = snapshot.load(self.path, _facts(store, fingerprint), dimension)
        except snapshot.SnapshotError as error:
            logger.warning("%s; the index is rebuilt from the database", error)
            return None
        return self._index(dimension, segment), found.last_id, found.last_deletion

    def build(
        self, store: Store, fingerprint: str, dimension: int, *, anew: bool = False
    ) -> tuple[FaissIndex, int, int]:
        with _alone(self.path), _stepped_back(self.background):
            if not anew and (found := self.load(store, fingerprint, dimension)) is not None:
                return found  # another process has made it
            facts = _facts(store, fingerprint)
            segment: Segment | None = None
            for last_id, fresh in _read(store, facts.last_id, dimension):
                # Deletions since the start are not in the rows, or are followed later.
                so_far = replace(facts, last_id=last_id)
                segment = self._made(segment, fresh, _no_ids(), dimension, so_far)
        return self._index(dimension, segment), facts.last_id, facts.last_deletion

    def merge(self, index: FaissIndex, store: Store, at: ChangeCursor, failed: Failed) -> None:
        if not index.set_aside():
            return

        def run() -> None:
            try:
                with _alone(self.path), _stepped_back(self.background):
                    self._merge(index, store, at)
            except Exception as error:
                index.give_up()
                failed(error)

        if not self.background:
            run()
            return
        thread = threading.Thread(target=run, name="semcache-merge", daemon=True)
        try:
            thread.start()
            self._merging = thread
        except RuntimeError as error:  # there are too many
            index.give_up()
            failed(error)

    def save(self, index: FaissIndex, store: Store, at: ChangeCursor) -> None:
        if (merging := self._merging) is not None:
            merging.join(_PATIENCE)
        with _alone(self.path, wait=False) as free:
            if free and index.unsaved > _UNSAVED and index.set_aside():
                self._merge(index, store, at)

    def wait(self) -> None:
        """Until no merge is under way."""
        if (merging := self._merging) is not None:
            merging.join()

    def after_fork(self) -> None:
        self._merging = None
        _here.clear()
        if (faiss := sys.modules.get("faiss")) is not None:
            faiss.omp_set_num_threads(1)  # the parent's pool of threads is not here

    # ------------------------------------------------------------------------- inside

    def _merge(self, index: FaissIndex, store: Store, at: ChangeCursor) -> None:
        """Called with what was set aside, and alone."""
        from semcache.backends.local.faiss.snapshot import Facts

        facts = Facts.of(at, at.fingerprint)

        def make(old: Segment | None, fresh: Fresh, dead: NDArray[np.int64]) -> Made:
            newer = self._newer(store, facts, at.dimension, old, fresh.ids)
            if newer is not None:
                return newer
            return self._made(old, fresh, dead, at.dimension, facts), _no_ids()

        index.merge(make)

    def _newer(
        self,
        store: Store,
        mine: Facts,
        dimension: int,
        old: Segment | None,
        fresh: NDArray[np.int64],
    ) -> Made | None:
        """What another process has kept, if it holds most of what is to be merged here."""
        import numpy as np

        from semcache.backends.local.faiss import snapshot

        kept = snapshot.peek(self.path)
        if kept is None or not len(fresh):
            return None
        there, _ = kept
        if there.last_id < np.median(fresh):
            return None
        if old is not None and old.count and there.last_id < old.arrays.sorted_ids[-1]:
            return None  # it lacks what is here already
        now = _facts(store, mine.fingerprint)
        if now.store_id != mine.store_id:
            return None  # another store's content has taken this one's place
        try:
            segment, found = snapshot.load(self.path, now, dimension)
        except snapshot.SnapshotError:
            return None
        deleted = store.deletions_after(found.last_deletion)
        return None if deleted is None else (segment, np.asarray(deleted[0], np.int64))

    def _made(
        self,
        old: Segment | None,
        fresh: Fresh,
        dead: NDArray[np.int64],
        dimension: int,
        facts: Facts,
    ) -> Segment:
        """The merged segment, mapped from its file; in memory where none can be written."""
        from semcache.backends.local.faiss import snapshot
        from semcache.backends.local.faiss.merging import merge

        plan = merge(old, fresh, dead, exact_below=self._least_lists(), dimension=dimension)
        try:
            snapshot.sweep(self.path)
            snapshot.write(self.path, facts, plan)
            segment, found = snapshot.load(self.path, facts, dimension)
            if found != facts:
                raise snapshot.SnapshotError("another process has put its own in its place")
            return segment
        except (OSError, snapshot.SnapshotError) as error:
            logger.warning("the index could not be saved, it stays in memory: %s", error)
            return plan.in_memory()

    def _index(self, dimension: int, segment: Segment | None) -> FaissIndex:
        from semcache.backends.local.faiss.index import FaissIndex

        return FaissIndex(
            dimension,
            segment=segment,
            exact_below=self._least_lists(),
            background=self.background,
        )

    def _least_lists(self) -> int:
        from semcache.backends.local.faiss.partition import EXACT_BELOW

        return EXACT_BELOW if self._exact_below is None else self._exact_below


def _facts(store: Store, fingerprint: str) -> Facts:
    from semcache.backends.local.faiss.snapshot import Facts

    return Facts.of(store.position(), fingerprint)


def _no_ids() -> NDArray[np.int64]:
    import numpy as np

    return np.empty(0, np.int64)


def _read(store: Store, last_id: int, dimension: int) -> Iterator[tuple[int, Fresh]]:
    """(last id so far, rows) of all vectors in the store up to `last_id`, piece by piece."""
    import numpy as np

    from semcache.backends.local.faiss.merging import Fresh
    from semcache.backends.vectors import batched, unpacked

    wanted = takewhile(lambda row: row[0] <= last_id, store.vectors_after(0))
    for rows in batched(wanted, _BUILD_ROWS):
        ids, scopes, vectors = unpacked(rows, dimension)
        yield rows[-1][0], Fresh(np.asarray(ids, np.int64), scopes, vectors)


@contextmanager
def _alone(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """One at a time; gives whether it is this one, which without `wait` it may not be.

    Where files cannot be locked, all processes go at once, which costs work and nothing else.
    The lock is of the kind that a forked child does not inherit; within a process it excludes
    nobody, so there is one for its threads too.
    """
    with _lock:
        mine = _here.setdefault(str(path), threading.Lock())
    if not mine.acquire(blocking=wait):
        yield False
        return
    try:
        with _alone_of_all(path, wait=wait) as free:
            yield free
    finally:
        mine.release()


_lock = threading.Lock()
_here: dict[str, threading.Lock] = {}


@contextmanager
def _alone_of_all(path: Path, *, wait: bool) -> Iterator[bool]:
    """Of all processes."""
    try:
        import fcntl

        file = open(f"{path}.lock", "ab")  # noqa: SIM115 - closed below, whatever happens
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
def _stepped_back(really: bool) -> Iterator[None]:
    """This thread computes on one core, behind others; threads can do that on Linux."""
    if not really:
        yield
        return
    import faiss

    faiss.omp_set_num_threads(1)  # of this thread alone
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    yield
