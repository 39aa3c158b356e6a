"""Backs up a cache while it is in use, and restores a backup.

Both use SQLite's online backup, which copies page by page in one transaction of the target
(https://sqlite.org/backup.html). A backup is a consistent snapshot, even if others write meanwhile;
a process that has the target open sees either the old content or the new, never a mixture.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from semcache.backends.base import Progress
from semcache.backends.local.opening import DATABASE, open_store
from semcache.backends.local.sqlite.database import read_only
from semcache.backends.local.sqlite.known_schema import unknown_parts
from semcache.backends.local.sqlite.migrations import SCHEMA_VERSION
from semcache.backends.local.sqlite.recovery import damaged
from semcache.errors import ConfigError, StoreError, StoreVersionError
from semcache.private_files import create, make_directory, mode_of

_PAGES = 1000
"""Pages copied per step."""


def backup(directory: Path, to: Path, progress: Progress) -> int:
    """Copy the cache in `directory` to the directory `to`; return the number of entries.

    The index is not copied, since it can be rebuilt from the database.

    Raises:
        ConfigError: there is no cache, or `to` holds a cache already or is inside `directory`.
        StoreError: the cache is damaged, or cannot be read, or the copy cannot be written; `to`
            then holds no cache.
    """
    source, target = directory / DATABASE, to / DATABASE
    open_store(directory, create=False).close()
    if directory.resolve() in (to.resolve(), *to.resolve().parents):
        raise ConfigError(f"{to} is inside the cache {directory}. Give a directory outside it.")
    if target.exists():
        raise ConfigError(f"{to} holds a cache already. Give a directory without one.")
    created = not to.exists()
    try:
        make_directory(to, mode_of(source))
    except OSError as error:
        raise StoreError(f"Cannot create {to}: {error.strerror}.") from error
    try:
        _copy(source, target, progress)
        if (problem := damaged(target)) is not None:
            raise StoreError(
                f"{source} is damaged ({problem}) and was not backed up. Repair it first: "
                f"semcache check --fix --cache {directory}"
            )
        return verified_entry_count(target)
    except BaseException:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        if created:
            with suppress(OSError):
                to.rmdir()
        raise


def restore(source: Path, directory: Path, progress: Progress) -> int:
    """Replace the cache in `directory` with the backup in `source`; return the number of entries.

    Processes that have `directory` open continue with the new content.

    Raises:
        ConfigError: there is no cache in `source`, or `source` is `directory` itself.
        StoreError: the backup is damaged, or the cache cannot be written; `directory` is then
            unchanged.
        StoreVersionError: a newer semcache wrote the backup; `directory` is then unchanged.
    """
    database = database_of(source)
    if (problem := damaged(database)) is not None:
        raise StoreError(
            f"{database} is damaged ({problem}) and was not restored. Repair it first: "
            f"semcache check --fix --cache {source}"
        )
    verified_entry_count(database)
    if unknown := unknown_parts(database):
        raise StoreError(
            f"{database} was not restored: it has {', '.join(unknown[:3])}, which semcache did not "
            "create and which could change what is served. Nothing was changed."
        )
    if source.resolve() == directory.resolve():
        raise ConfigError(f"{source} is the cache itself. Give the directory of a backup.")
    open_store(directory).close()
    _copy(database, directory / DATABASE, progress)
    store = open_store(directory)  # migrates an older schema
    try:
        store.renew_id()
        return store.totals()[0]
    finally:
        store.close()


def database_of(source: Path) -> Path:
    """The path of a backup's database.

    Raises:
        ConfigError: there is no database.
    """
    if source.is_file():
        raise ConfigError(f"{source} is a file; give the directory that contains it.")
    database = source / DATABASE
    if not database.exists():
        raise ConfigError(f"There is no cache in {source} (no {DATABASE}).")
    if not database.is_file():
        raise ConfigError(f"{database} is not a file.")
    return database


def verified_entry_count(database: Path) -> int:
    """Check that a file is the database of a cache; return its number of entries.

    Raises:
        StoreError: the file is not the database of a cache.
        StoreVersionError: a newer semcache wrote it.
    """
    try:
        connection = read_only(database)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreVersionError(
                    f"{database} has schema {version}, but this semcache supports schemas up to "
                    f"{SCHEMA_VERSION}. Upgrade semcache. Nothing was changed."
                )
            connection.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()[0]
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        raise StoreError(
            f"{database} is not the database of a cache ({error}). Nothing was changed."
        ) from error


def _copy(source: Path, target: Path, progress: Progress) -> None:
    def on_step(_status: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)

    try:
        create(target, mode_of(source))
        reader, writer = sqlite3.connect(source), sqlite3.connect(target, timeout=30)
        try:
            reader.backup(writer, pages=_PAGES, progress=on_step)
        finally:
            reader.close()
            writer.close()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"Cannot copy {source} to {target}: {error}.") from error
