"""A cache in the memory of one process: a `Backend` for tests and for programs that end.

A search compares the question with every vector of its scope, so it is exact. Nothing survives
the process, and no other process sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semcache.backends.base import (
    Fault,
)
from semcache.backends.eviction import STEP, Eviction, nothing
from semcache.backends.kinds import BackendKind
from semcache.backends.memory.store import MemoryStore
from semcache.backends.retention import Retention
from semcache.errors import ConfigError, IndexMismatchError
from semcache.types import (
    Neighbours,
    NewEntry,
    Selection,
)

if TYPE_CHECKING:
    from semcache.types import Vector


def _forget_nothing(ids: Sequence[int]) -> None:
    """There is no index that would have to forget deleted entries."""


class MemoryEntries:
    """The `Entries` of a memory backend, for one embedder."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = nothing,
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._clock = clock
        self._fault = fault
        self._eviction = Eviction(
            store, retention, clock, forget=_forget_nothing, before_eviction=before_eviction
        )
        self.exact = store.exact

    def revision(self) -> int | None:
        """Every lookup sees all that was recorded: there is nothing to compare."""
        return None

    def nearest(
        self,
        scope: bytes,
        vector: Vector,
        k: int,
        floor: float,
        revision: int | None = None,  # noqa: ARG002 - every lookup sees everything
    ) -> Neighbours:
        stored, given = self._store.meta("fingerprint"), self._fingerprint()
        if stored is not None and stored != given:
            raise IndexMismatchError(stored=stored, given=given, where="memory")
        return self._store.nearest(scope, vector, k, floor, self._clock())

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        self._eviction.check_size(entry, vector)
        fingerprint = None if vector is None else self._fingerprint()
        entry_id = self._store.add(entry, vector, fingerprint)
        try:  # it is stored: the caller must be told so, whatever fails from here on
            self._eviction.after_record(entry_id, entry.namespace)
        except Exception as error:
            self._fault("record", error)
        return entry_id

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        deleted = 0
        while limit is None or deleted < limit:
            step = STEP if limit is None else min(STEP, limit - deleted)
            gone = len(self._store.delete(selection, step))
            deleted += gone
            if gone < step:
                break
        return deleted

    def wait(self) -> None:
        """There is no index to wait for."""


class MemoryBackend:
    """The `Backend` of one process's memory."""

    name = "memory"
    maintenance = None

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.catalogue = self.ledger = self.counters = self.metadata = self.store

    @property
    def embedder(self) -> str | None:
        return self.store.meta("fingerprint")

    def entries(
        self,
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = nothing,
    ) -> MemoryEntries:
        return MemoryEntries(
            self.store,
            fingerprint=fingerprint,
            retention=retention,
            clock=clock,
            fault=fault,
            before_eviction=before_eviction,
        )

    def leases(self, fault: Fault) -> None:
        """No other process can see this backend."""

    def hold(self) -> None:
        self.store.lock.acquire()

    def let_go(self) -> None:
        self.store.lock.release()

    def after_fork(self) -> None:
        """The child goes on with a copy of its own."""
        self.store.lock = threading.RLock()

    def close(self) -> None:
        self.store.close()


class MemoryKind(BackendKind):
    """The memory of this process: `":memory:"`. Every opening makes a new, empty cache."""

    label = "A cache in memory"

    def open(
        self,
        location: str,
        *,
        create: bool = True,
        options: object = None,
    ) -> MemoryBackend:
        if options is not None:
            raise ConfigError("A cache in memory takes no options of its own; leave them out.")
        if not create:
            raise self.cannot(f"looked into from another process ({location})")
        return MemoryBackend()

    def exists(self, location: str) -> bool:  # noqa: ARG002 - it never does
        return False
