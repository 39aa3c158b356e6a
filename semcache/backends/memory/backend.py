"""A cache in the memory of one process: a `Backend` for tests and short-lived programs.

A search compares the question with every vector of its scope, so it is exact. The cache ends with
the process, and no other process can use it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semcache.backends.base import (
    Fault,
)
from semcache.backends.eviction import Eviction, nothing
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
    from pathlib import Path

    from semcache.backends.base import Progress
    from semcache.types import Vector

_FORK_WAIT = 1.0
"""Seconds that a fork waits for a thread that uses the store."""


def _forget_nothing(ids: Sequence[int]) -> None:
    """There is no index from which deleted entries must be removed."""


class MemoryEntries:
    """The `Entries` of a `MemoryBackend`, for one embedder."""

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
        self._eviction = Eviction(
            store, retention, clock, fault, forget=_forget_nothing, before_eviction=before_eviction
        )
        self.exact = store.exact

    def revision(self) -> int | None:
        """Always None: every lookup sees everything recorded so far."""
        return None

    def nearest(
        self,
        scope: bytes,
        vector: Vector,
        k: int,
        floor: float,
        revision: int | None = None,  # noqa: ARG002 - every lookup sees everything
    ) -> Neighbours:
        stored, current = self._store.meta("fingerprint"), self._fingerprint()
        if stored is not None and stored != current:
            raise IndexMismatchError(stored=stored, given=current, where="memory")
        return self._store.nearest(scope, vector, k, floor, self._clock())

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        return self._eviction.record(entry, vector, self._fingerprint)

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        return len(self._store.delete(selection, limit))

    def wait(self) -> None:
        """There is no index to wait for."""


class MemoryBackend:
    """A `Backend` in the memory of one process."""

    name = "memory"
    maintenance = None

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.catalogue = self.ledger = self.counters = self.metadata = self.store
        self._held = False
        """Whether `hold` acquired the store's lock in time."""

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
        """Always None: no other process can use this backend."""

    def hold(self) -> None:
        self._held = self.store.lock.acquire(timeout=_FORK_WAIT)

    def let_go(self) -> None:
        if self._held:
            self._held = False
            self.store.lock.release()

    def after_fork(self) -> None:
        """The child continues with its own copy of the entries."""
        self._held = False
        self.store.lock = threading.RLock()

    def close(self) -> None:
        self.store.close()


class MemoryKind(BackendKind):
    """The `BackendKind` of `":memory:"`. Each `open` creates a new, empty cache."""

    label = "A cache in memory"

    def open(
        self,
        location: str,
        *,
        create: bool = True,
        options: object = None,
    ) -> MemoryBackend:
        if options is not None:
            raise ConfigError("A cache in memory has no options of its own; leave them out.")
        if not create:
            raise self.cannot(f"opened from another process ({location})")
        return MemoryBackend()

    def backup(self, location: str, to: Path, progress: Progress) -> int:  # noqa: ARG002
        raise self.cannot("backed up: it ends with its process")

    def check_backup(self, source: Path) -> None:  # noqa: ARG002
        raise self.cannot("restored: it ends with its process")

    def exists(self, location: str) -> bool:  # noqa: ARG002 - there is never one to find
        return False
