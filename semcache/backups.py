"""Copies of a cache while it is in use, and putting one back.

Both use SQLite's online backup, page by page, in one transaction of the target: a copy is of
one moment, whoever writes meanwhile, and whoever has the target open sees all of the new
content or all of the old (https://sqlite.org/backup.html).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from semcache import build
from semcache.errors import ConfigError, StoreError
from semcache.stores.salvage import damaged
from semcache.stores.sqlite import SQLiteStore

Progress = Callable[[int, int], None]
"""Told (pages done, all pages)."""

_PAGES = 1000


def backup(directory: Path, to: Path, progress: Progress) -> int:
    """Copy the cache in `directory` to a new directory `to`; return how many entries there are.

    The index is not copied: it is made from the database.

    Raises:
        ConfigError: there is no cache, or `to` holds one.
        StoreError: it could not be read or written; `to` then holds none.
    """
    source = build.open_store(directory, create=False)
    source.close()
    target = to / build.DATABASE
    if target.exists():
        raise ConfigError(f"{to} holds a cache already. Give a directory that holds none.")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {to}: {error.strerror}.") from error
    try:
        _copy(directory / build.DATABASE, target, progress)
        return _count(target)
    except BaseException:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        raise


def restore(source: Path, directory: Path, progress: Progress) -> int:
    """Put the cache in `source` in place of what is in `directory`; return how many entries.

    Processes that have `directory` open go on with the new content.

    Raises:
        ConfigError: there is no cache in `source`.
        StoreError: it is damaged, or could not be written; `directory` is then as it was.
    """
    from_file = source / build.DATABASE
    if not from_file.exists():
        raise ConfigError(f"There is no cache in {source} (no {build.DATABASE}).")
    if (problem := damaged(from_file)) is not None:
        raise StoreError(
            f"{from_file} is damaged ({problem}) and was not restored. Mend it first: "
            f"semcache check --fix --cache {source}"
        )
    build.open_store(directory).close()
    _copy(from_file, directory / build.DATABASE, progress)
    store = build.open_store(directory)  # an older schema is brought up to date
    try:
        store.renew_id()
        return store.totals()[0]
    finally:
        store.close()


def _copy(source: Path, target: Path, progress: Progress) -> None:
    def told(_status: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)

    try:
        reading, writing = sqlite3.connect(source), sqlite3.connect(target, timeout=30)
        try:
            reading.backup(writing, pages=_PAGES, progress=told)
        finally:
            reading.close()
            writing.close()
    except sqlite3.Error as error:
        raise StoreError(f"Cannot copy {source} to {target}: {error}.") from error


def _count(database: Path) -> int:
    if (problem := damaged(database)) is not None:
        raise StoreError(f"The copy {database} is damaged ({problem}).")
    store = SQLiteStore(database)
    try:
        return store.totals()[0]
    finally:
        store.close()
