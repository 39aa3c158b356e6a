"""Opening a cache directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.backends.base import Leases
from semcache.backends.local.faiss.lifecycle import FaissFiles
from semcache.backends.local.repository import Repository
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.retention import EVICTION, Retention
from semcache.backends.vectors import FORMS, Form
from semcache.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from semcache.backends.local.faiss.index import FaissIndex

DATABASE = "semcache.db"


SNAPSHOT = "semcache.index"


LEASES = "semcache-leases.db"


def open_store(
    directory: Path, *, busy_timeout: float = 5.0, create: bool = True, vectors: Form = "float32"
) -> SQLiteStore:
    """The store of a cache directory.

    Args:
        vectors: the form in which new vectors are written.

    Raises:
        ConfigError: the path is a file, or there is no cache and none is to be made, or the
            form is none.
        StoreError: it cannot be opened.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; a cache is a directory. Give another path.")
    if vectors not in FORMS:
        raise ConfigError(f"vectors is {vectors!r}; it is one of {', '.join(map(repr, FORMS))}.")
    database = directory / DATABASE
    if not create and not database.exists():
        raise ConfigError(
            f"There is no cache in {directory} (no {DATABASE}). Give the directory of one with "
            "--cache PATH or SEMCACHE_PATH."
        )
    return SQLiteStore(database, busy_timeout=busy_timeout, vectors=vectors)


def open_repository(
    directory: Path,
    store: SQLiteStore,
    *,
    fingerprint: Callable[[], str],
    retention: Retention,
    clock: Callable[[], float],
    exact_below: int | None = None,
    background: bool = True,
) -> Repository[FaissIndex]:
    """The repository of a cache directory."""
    order = EVICTION[retention.eviction]
    with suppress(StoreError):  # locked, perhaps: the first eviction sees to it then
        if retention.quota is not None:
            store.keep_order(order, by_namespace=False)
        if retention.by_namespace:
            store.keep_order(order, by_namespace=True)
    files = FaissFiles(directory / SNAPSHOT, exact_below=exact_below, background=background)
    return Repository(store, files, fingerprint=fingerprint, retention=retention, clock=clock)


def leases_of(directory: Path) -> Callable[[Callable[[BaseException], None]], Leases]:
    """Makes the leases of a cache directory; nothing is opened before the first."""
    from semcache.backends.local.sqlite.leases import SQLiteLeases

    return lambda fault: SQLiteLeases(directory / LEASES, fault)
