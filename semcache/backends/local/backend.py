"""A cache in a directory: a `Backend` for the processes of one machine.

The SQLite database is the source of truth, the FAISS index is derived from it, and leases are kept
in a separate database.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.backends.base import Fault, Progress
from semcache.backends.eviction import nothing
from semcache.backends.kinds import BackendKind
from semcache.backends.local.faiss.lifecycle import IndexLifecycle
from semcache.backends.local.opening import DATABASE, LEASES, SNAPSHOT, LocalOptions, open_store
from semcache.backends.local.repository import Repository
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.retention import EVICTION, Retention
from semcache.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from semcache.backends.local.faiss.index import FaissIndex
    from semcache.backends.local.maintenance import LocalMaintenance
    from semcache.backends.local.sqlite.leases import SQLiteLeases


class LocalBackend:
    """A `Backend` in a directory.

    Args:
        directory: the directory of the cache's files; created if it is missing.
        create: create a cache if there is none.
        options: see `LocalOptions`.

    Raises:
        ConfigError: the path is a file, or there is no cache and `create` is False.
        StoreError: the database cannot be opened.
    """

    def __init__(
        self, directory: Path, *, create: bool = True, options: LocalOptions = LocalOptions()
    ) -> None:
        self.directory = directory
        self.store: SQLiteStore = open_store(directory, create=create, options=options)
        self.catalogue = self.ledger = self.counters = self.metadata = self.store
        self._options = options
        self._repositories: list[Repository[FaissIndex]] = []
        self._leases: list[SQLiteLeases] = []

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def embedder(self) -> str | None:
        return self.store.meta("fingerprint")

    @property
    def maintenance(self) -> LocalMaintenance:
        from semcache.backends.local.maintenance import LocalMaintenance

        return LocalMaintenance(self)

    def entries(
        self,
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = nothing,
    ) -> Repository[FaissIndex]:
        order = EVICTION[retention.eviction]
        with suppress(StoreError):  # if the database is locked, the first eviction does this
            if retention.quota is not None:
                self.store.keep_order(order, by_namespace=False)
            if retention.by_namespace:
                self.store.keep_order(order, by_namespace=True)
        repository = self.repository(
            fingerprint=fingerprint,
            retention=retention,
            clock=clock,
            fault=fault,
            before_eviction=before_eviction,
            index_in_background=self._options.index_in_background,
        )
        self._repositories.append(repository)
        return repository

    def repository(
        self,
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = nothing,
        index_in_background: bool = False,
    ) -> Repository[FaissIndex]:
        """Like `entries`, for tools: `close` does not save its index."""
        files = IndexLifecycle(
            self.directory / SNAPSHOT,
            exact_below=self._options.exact_below,
            background=index_in_background,
            read_only=self.store.read_only,
        )
        return Repository(
            self.store,
            files,
            fingerprint=fingerprint,
            retention=retention,
            clock=clock,
            fault=fault,
            before_eviction=before_eviction,
        )

    def leases(self, fault: Fault) -> SQLiteLeases | None:
        if self.store.read_only:
            return None
        from semcache.backends.local.sqlite.leases import SQLiteLeases

        leases = SQLiteLeases(self.directory / LEASES, lambda error: fault("lease", error))
        self._leases.append(leases)
        return leases

    def hold(self) -> None:
        for leases in self._leases:
            leases.hold()
        self.store.hold()

    def let_go(self) -> None:
        self.store.let_go()
        for leases in self._leases:
            leases.let_go()

    def after_fork(self) -> None:
        for leases in self._leases:
            leases.after_fork()
        for repository in self._repositories:
            repository.after_fork()
        self.store.after_fork()

    def close(self) -> None:
        for leases in self._leases:
            leases.close()
        for repository in self._repositories:
            repository.close()
        self.store.close()


class LocalKind(BackendKind):
    """The `BackendKind` of caches in directories. A location is a path."""

    label = "A directory"

    def open(self, location: str, *, create: bool = True, options: object = None) -> LocalBackend:
        if options is not None and not isinstance(options, LocalOptions):
            raise ConfigError(
                f"A cache in a directory takes LocalOptions, not {type(options).__name__}."
            )
        directory = Path(location).expanduser()
        return LocalBackend(directory, create=create, options=options or LocalOptions())

    def exists(self, location: str) -> bool:
        return (Path(location).expanduser() / DATABASE).exists()

    def recover(self, location: str, *, fix: bool, progress: Progress) -> list[str]:
        from semcache.backends.local.maintenance import recover_directory

        return recover_directory(Path(location).expanduser(), fix=fix, progress=progress)

    def backup(self, location: str, to: Path, progress: Progress) -> int:
        from semcache.backends.local.backups import backup

        return backup(Path(location).expanduser(), to, progress)

    def check_backup(self, source: Path) -> None:
        from semcache.backends.local.backups import database_of

        database_of(source)

    def restore(self, source: Path, location: str, progress: Progress) -> int:
        from semcache.backends.local.backups import restore

        return restore(source, Path(location).expanduser(), progress)
