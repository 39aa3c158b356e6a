"""A SQLite file: connections, transactions, error messages, and the `meta` table.

Each thread reads on a connection of its own, so lookups wait neither for each other nor for a
writer. All writes go through one connection, guarded by a lock, and each call is one
`BEGIN IMMEDIATE` transaction. With `synchronous=NORMAL` in WAL mode, a committed transaction
survives a crash of the process. A loss of power may lose the last ones but never damages the file
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

from semcache.backends.local.locks import InterruptibleLock
from semcache.backends.local.sqlite.migrations import SCHEMA_VERSION, migrate
from semcache.errors import ReadOnlyError, StoreError
from semcache.private_files import FILE_MODE, create, make_directory

logger = logging.getLogger("semcache")

_NEGLIGIBLE_WAIT = 0.01
"""Seconds of waiting for the lock that are not deducted from the busy timeout."""
_FORK_WAIT = 1.0
"""Seconds that a fork waits for a statement running in another thread."""
_abandoned: list[sqlite3.Connection | None] = []


def abandon(connection: sqlite3.Connection | None) -> None:
    """In a forked child, keep open a connection that a thread of the parent was using.

    SQLite's lock on the connection is held forever, and closing it would wait for that lock.
    """
    _abandoned.append(connection)


def text_of(stored: object) -> str | None:
    """A stored text; None for a damaged one."""
    return stored if isinstance(stored, str) else None


def dimension_of(stored: object) -> int:
    """The dimension of vectors, from what is stored; 0 if there is none, or it is damaged."""
    if isinstance(stored, str) and stored.isascii() and stored.isdigit() and len(stored) < 7:
        return int(stored)
    return 0


class _Connection(sqlite3.Connection):
    """A connection that is closed when it is garbage-collected.

    The connections of other threads end with their threads; from Python 3.13 on, a connection that
    ends without being closed causes a ResourceWarning.
    """

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self.close()


class ForkLock(InterruptibleLock):
    """A lock for a connection, which is also held during a fork."""

    def __init__(self) -> None:
        super().__init__()
        self._held = False

    def hold(self) -> None:
        """Before a fork: acquire the lock, waiting at most a second."""
        self._held = self.acquire(timeout=_FORK_WAIT)

    def let_go(self) -> None:
        """After a fork, in the parent: release the lock if `hold` acquired it."""
        if self._held:
            self._held = False
            self.release()

    @property
    def broken(self) -> bool:
        """After a fork, in the child: whether a thread that does not exist here holds the lock."""
        if self._held:
            return False
        if self.acquire(blocking=False):
            self.release()
            return False
        return True


def read_only(path: Path) -> sqlite3.Connection:
    """A read-only connection to a file, even if it is damaged or has another schema."""
    return sqlite3.connect(f"{_uri(path)}?mode=ro", uri=True)


def _uri(path: Path) -> str:
    return f"file:{quote(str(path.absolute()))}"


class Opening(TypedDict, total=False):
    """Options for opening a file; see `Database`."""

    busy_timeout: float
    file_mode: int


class Database:
    """A SQLite file in WAL mode, migrated to the current schema.

    Args:
        path: the file; created, with its directory, if it is missing.
        busy_timeout: how many seconds to wait for another process's write.
        file_mode: permissions of a file that is created.

    Raises:
        StoreError: the file cannot be created, opened or read, or is not the database of a cache.
        StoreVersionError: a newer semcache wrote the file.
    """

    def __init__(
        self, path: str | Path, *, busy_timeout: float = 5.0, file_mode: int = FILE_MODE
    ) -> None:
        self.path = Path(path)
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._write_lock = ForkLock()
        self._timeout_reduced = False
        self._closed = False
        try:
            make_directory(self.path.parent, file_mode)
        except OSError as error:
            raise StoreError(
                f"Cannot create the cache directory {self.path.parent}: {error.strerror}. "
                "Give a directory that this user can write to."
            ) from error
        try:
            create(self.path, file_mode)
        except PermissionError:
            pass  # SQLite reports it below, when the file is opened
        except OSError as error:
            raise StoreError(
                f"Cannot create {self.path}: {error.strerror}. A cache's files are not created "
                "through symbolic links."
            ) from error
        self._mode: str | None = None
        with self._store_errors("open"):
            reader = None if self._is_writable() else self._opened_for_reading()
            try:
                self._writer = reader or self._opened(busy_timeout)
            except sqlite3.OperationalError as error:
                reading = any(words in str(error) for words in ("readonly", "unable to open"))
                reader = self._opened_for_reading() if reading else None
                if reader is None:
                    raise
                self._writer = reader
        self._writer_pid = os.getpid()

    @property
    def read_only(self) -> bool:
        """Whether this user can read the file but not write to it."""
        return self._mode is not None

    def _opened(self, busy_timeout: float) -> sqlite3.Connection:
        """A connection for writing, to a file of the current schema."""
        connection = self._connect()
        try:
            migrate(connection, str(self.path), patience=max(busy_timeout, 5.0))
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_writable(self) -> bool:
        """Whether the file and its directory are writable, according to their permissions."""
        effective = os.access in os.supports_effective_ids
        existing = [path for path in (self.path, self.path.parent) if path.exists()]
        return all(os.access(path, os.W_OK, effective_ids=effective) for path in existing)

    def _opened_for_reading(self) -> sqlite3.Connection | None:
        """A connection to a file of the current schema that cannot be written to; else None.

        First tries mode=ro, since a leftover write-ahead log holds data. If there is no log and
        the directory is not writable, SQLite can only open the file as immutable.
        """
        if not self.path.is_file():
            return None
        for mode in ("mode=ro", "mode=ro&immutable=1"):
            self._mode = mode
            with suppress(sqlite3.Error):
                connection = self._connect()
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute("SELECT 1 FROM meta LIMIT 1").fetchall()
                if version == SCHEMA_VERSION:
                    logger.warning(
                        "the cache %s is read-only: hits are served, nothing is stored", self.name
                    )
                    return connection
                connection.close()
        self._mode = None
        return None

    @property
    def name(self) -> str:
        """The cache directory, for messages."""
        return str(self.path.parent)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            _uri(self.path) if self._mode is None else f"{_uri(self.path)}?{self._mode}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cache_size=-4000")  # kB
        # Without this, REPLACE would not fire the triggers that log deletions.
        connection.execute("PRAGMA recursive_triggers=ON")
        return connection

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection, never one opened before a fork."""
        local = self._local
        try:
            if local.pid == os.getpid() and not self._closed:
                return local.connection  # type: ignore[no-any-return]
        except AttributeError:
            pass
        if self._closed:
            raise StoreError(f"The cache {self.path} is closed. Open it again to use it.")
        local.connection = self._connect()
        local.pid = os.getpid()
        local.revision = None  # revisions are comparable only within one connection
        return local.connection  # type: ignore[no-any-return]

    @contextmanager
    def _store_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._explain(error, action)) from error

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows that a statement returns."""
        try:
            return self._reader().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(self._explain(error, "read")) from error

    def _explain(self, error: sqlite3.Error, action: str) -> str:
        message = str(error)
        if "locked" in message or "busy" in message:
            advice = "Another program has locked the database; end its transaction and try again."
        elif "unable to open" in message or "readonly" in message:
            advice = "Check that this user can write to the file and its directory."
        elif "full" in message:
            advice = "Free some space on the disk, or give the cache a size limit (max_bytes)."
        elif "not a database" in message or "malformed" in message:
            advice = "The file is damaged or not a database: run `semcache check`, or move it away."
        else:
            advice = "Run `semcache check` on the directory."
        return f"Cannot {action} {self.path}: {message}. {advice}"

    @contextmanager
    def _writing(self, action: str) -> Iterator[None]:
        """Hold the write connection. Waiting for its lock counts against the busy timeout."""
        if self.read_only:
            raise ReadOnlyError(f"Cannot {action} {self.path}: this user can only read it.")
        start = time.monotonic()
        if not self._write_lock.acquire(timeout=self._busy_timeout):
            raise StoreError(
                f"Cannot {action} {self.path}: another thread of this program was writing for "
                f"{self._busy_timeout} s. Try again, or raise busy_timeout."
            )
        try:
            with self._store_errors(action):
                if self._closed:
                    raise StoreError(f"The cache {self.path} is closed. Open it again to use it.")
                if self._writer_pid != os.getpid():
                    self._writer = self._connect()
                    self._writer_pid = os.getpid()
                waited = time.monotonic() - start
                if waited > _NEGLIGIBLE_WAIT or self._timeout_reduced:
                    self._timeout_reduced = waited > _NEGLIGIBLE_WAIT
                    remaining = max(self._busy_timeout - waited, 0.0)
                    self._writer.execute(f"PRAGMA busy_timeout={int(remaining * 1000)}")
            yield
        finally:
            self._write_lock.release()

    def hold(self) -> None:
        self._write_lock.hold()

    def let_go(self) -> None:
        self._write_lock.let_go()

    def after_fork(self) -> None:
        # Inherited connections must be closed before the first new one is opened: SQLite tracks
        # file locks by process, and would take the parent's for this process's own.
        connection = getattr(self._local, "connection", None)
        self._local = threading.local()
        writer: sqlite3.Connection | None = self._writer
        if self._write_lock.broken:
            abandon(writer)
            writer = None
        for inherited in (connection, writer):
            if inherited is not None:
                with suppress(sqlite3.Error):
                    inherited.close()
        self._write_lock = ForkLock()

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._writing(action), self._store_errors(action):
            writer = self._writer
            try:  # KeyboardInterrupt may come right after BEGIN
                writer.execute("BEGIN IMMEDIATE")
                yield writer
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
            try:
                writer.execute("COMMIT")
            except sqlite3.Error:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the writer and this thread's reader; the other readers end with their threads."""
        with self._write_lock:
            if self._closed:
                return
            self._closed = True
            if self._writer_pid == os.getpid():
                self._writer.close()
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            del self._local.connection, self._local.pid
            connection.close()

    def _one(self, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        with self._store_errors("read"):
            row: tuple[Any, ...] | None = self._reader().execute(sql, values).fetchone()
        return row

    def meta(self, name: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else text_of(row[0])

    def dimension(self) -> int:
        """The dimension of the stored vectors; 0 if there are none, or it is damaged."""
        return dimension_of(self.meta("dimension"))

    def metas(self, prefix: str) -> dict[str, str]:
        """All values whose names begin with `prefix`, by the rest of the name."""
        with self._store_errors("read"):
            rows = self._reader().execute(
                "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            )
            return {name[len(prefix) :]: value for name, value in rows if isinstance(value, str)}

    def set_meta(self, name: str, value: str) -> None:
        """Store a value, replacing any of the same name."""
        with self._transaction("write to") as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
