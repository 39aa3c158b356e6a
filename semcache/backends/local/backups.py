"""Copies of a cache while it is in use, and putting one back.

Both use SQLite's online backup, page by page, in one transaction of the target: a copy is of
one moment, whoever writes meanwhile, and whoever has the target open sees all of the new
content or all of the old (https://sqlite.org/backup.html).
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from semcache.backends.base import Progress
from semcache.backends.local.opening import DATABASE, open_store
from semcache.backends.local.sqlite.database import read_only
from semcache.backends.local.sqlite.migrations import SCHEMA_VERSION
from semcache.backends.local.sqlite.recovery import damaged
from semcache.errors import ConfigError, StoreError, StoreVersionError

_PAGES = 1000


def backup(directory: Path, to: Path, progress: Progress) -> int:
    """Copy the cache in `directory` to a new directory `to`; return how many entries there are.

    The index is not copied: it is made from the database.

    Raises:
        ConfigError: there is no cache, or `to` holds one, or lies in `directory`.
        StoreError: it is damaged, or could not be read or written; `to` then holds none.
    """
    source, target = directory / DATABASE, to / DATABASE
    open_store(directory, create=False).close()
    if directory.resolve() in (to.resolve(), *to.resolve().parents):
        raise ConfigError(f"{to} lies in the cache {directory}. Give a directory outside of it.")
    if target.exists():
        raise ConfigError(f"{to} holds a cache already. Give a directory that holds none.")
    made = not to.exists()
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {to}: {error.strerror}.") from error
    try:
        _copy(source, target, progress)
        if (problem := damaged(target)) is not None:
            raise StoreError(
                f"{source} is damaged ({problem}), and so was the copy. Mend it first: "
                f"semcache check --fix --cache {directory}"
            )
        return checked(target)
    except BaseException:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                to.rmdir()
        raise


def restore(source: Path, directory: Path, progress: Progress) -> int:
    """Put the cache in `source` in place of what is in `directory`; return how many entries.

    Processes that have `directory` open go on with the new content.

    Raises:
        ConfigError: there is no cache in `source`, or it is `directory` itself.
        StoreError: it is damaged, or could not be written; `directory` is then as it was.
        StoreVersionError: a newer semcache wrote it; the same.
    """
    database = database_of(source)
    if (problem := damaged(database)) is not None:
        raise StoreError(
            f"{database} is damaged ({problem}) and was not restored. Mend it first: "
            f"semcache check --fix --cache {source}"
        )
    checked(database)
    if source.resolve() == directory.resolve():
        raise ConfigError(f"{source} is the cache itself. Give the directory of a backup.")
    open_store(directory).close()
    _copy(database, directory / DATABASE, progress)
    store = open_store(directory)  # an older schema is brought up to date
    try:
        store.renew_id()
        return store.totals()[0]
    finally:
        store.close()


def database_of(source: Path) -> Path:
    """The database of a backup.

    Raises:
        ConfigError: there is none.
    """
    if source.is_file():
        raise ConfigError(f"{source} is a file; give the directory that it lies in.")
    database = source / DATABASE
    if not database.exists():
        raise ConfigError(f"There is no cache in {source} (no {DATABASE}).")
    return database


def checked(database: Path) -> int:
    """How many entries a sound file holds.

    Raises:
        StoreError: it is no cache's. StoreVersionError: a newer semcache wrote it.
    """
    try:
        connection = read_only(database)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreVersionError(
                    f"{database} has schema {version}, but this semcache knows schemas up to "
                    f"{SCHEMA_VERSION}. Upgrade semcache. Nothing was changed."
                )
            connection.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()[0]
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        raise StoreError(
            f"{database} is no database of a cache ({error}). Nothing was changed."
        ) from error


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
