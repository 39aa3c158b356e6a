"""The file: connections, transactions, faults in words, and facts about itself.

Reading: each thread has a connection of its own, so lookups wait neither for each
other nor for a writer. Writing: one connection behind a lock, one `BEGIN IMMEDIATE`
transaction for each call. `synchronous=NORMAL` in WAL mode: a committed
transaction survives the death of the process; the loss of power may take the last
ones, and never damages the file (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from semcache.backends.local.sqlite.migrations import migrate
from semcache.errors import StoreError

_NOTICEABLE = 0.01
_HOLD = 1.0
"""Seconds that a fork waits for a statement under way in another thread."""
_abandoned: list[sqlite3.Connection | None] = []


def abandon(connection: sqlite3.Connection | None) -> None:
    """In a child process: never close what a thread of the parent was in the middle of.

    SQLite's lock on it is held for ever, and closing it would wait for that.
    """
    _abandoned.append(connection)


class ForkLock:
    """A lock around a connection, which a fork takes too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def hold(self) -> None:
        """Before a fork: wait for whoever has it, a second at most."""
        self._held = self._lock.acquire(timeout=_HOLD)

    def let_go(self) -> None:
        """After the fork, in the parent."""
        if self._held:
            self._held = False
            self._lock.release()

    @property
    def broken(self) -> bool:
        """In a child process: whether a thread that is not here has it."""
        return self._lock.locked() and not self._held


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, to a file of whatever state and schema."""
    return sqlite3.connect(f"{_uri(path)}?mode=ro", uri=True)


def _uri(path: Path) -> str:
    return f"file:{quote(str(path.absolute()))}"


class Database:
    """One SQLite file in WAL mode, of the newest schema.

    Args:
        path: the file; it is made, with its directory, where it is missing.
        busy_timeout: how long to wait for another process's write, in seconds.

    Raises:
        StoreError: the file cannot be made, opened or read, or is no such database.
        StoreVersionError: a newer semcache wrote it.
    """

    def __init__(self, path: str | Path, *, busy_timeout: float = 5.0) -> None:
        self.path = Path(path)
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._write_lock = ForkLock()
        self._hurried = False
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Cannot make the cache directory {self.path.parent}: {error.strerror}. "
                "Give a directory that this user may write to."
            ) from error
        with self._faults("open"):
            self._writer = self._connect()
            try:
                migrate(self._writer, str(self.path), patience=max(busy_timeout, 5.0))
            except BaseException:
                self._writer.close()
                raise
        self._writer_pid = os.getpid()

    @property
    def name(self) -> str:
        """The cache directory, for messages."""
        return str(self.path.parent)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            _uri(self.path),
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-4000")  # kB
        connection.execute("PRAGMA recursive_triggers=ON")  # REPLACE must log its deletion
        return connection

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection; never one that was opened before a fork."""
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
        local.revision = None  # revisions compare within one connection
        return local.connection  # type: ignore[no-any-return]

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._explain(error, doing)) from error

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        try:
            return self._reader().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(self._explain(error, "read")) from error

    def _explain(self, error: sqlite3.Error, doing: str) -> str:
        message = str(error)
        if "locked" in message or "busy" in message:
            advice = "Another program holds the database; end its transaction and try again."
        elif "unable to open" in message or "readonly" in message:
            advice = "Check that the file and its directory may be written to by this user."
        elif "full" in message:
            advice = "Free some space on the disk, or give the cache a size limit (max_bytes)."
        elif "not a database" in message or "malformed" in message:
            advice = "The file is damaged or no database: run `semcache check`, or move it away."
        else:
            advice = "Run `semcache check` on the directory."
        return f"Cannot {doing} {self.path}: {message}. {advice}"

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        """Hold the writing connection. Waiting for it counts against the time limit too."""
        start = time.monotonic()
        if not self._write_lock.acquire(timeout=self._busy_timeout):
            raise StoreError(
                f"Cannot {doing} {self.path}: it was locked for {self._busy_timeout} s. "
                "Another program holds the database; end its transaction and try again."
            )
        try:
            with self._faults(doing):
                if self._closed:
                    raise StoreError(f"The cache {self.path} is closed. Open it again to use it.")
                if self._writer_pid != os.getpid():
                    self._writer = self._connect()
                    self._writer_pid = os.getpid()
                waited = time.monotonic() - start
                if waited > _NOTICEABLE or self._hurried:
                    self._hurried = waited > _NOTICEABLE
                    left = max(self._busy_timeout - waited, 0.0)
                    self._writer.execute(f"PRAGMA busy_timeout={int(left * 1000)}")
            yield
        finally:
            self._write_lock.release()

    def hold(self) -> None:
        self._write_lock.hold()

    def let_go(self) -> None:
        self._write_lock.let_go()

    def after_fork(self) -> None:
        # Inherited connections must be gone before the first of our own: SQLite counts its
        # locks by process, and would take the parent's for ours.
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
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._writing(doing), self._faults(doing):
            writer = self._writer
            try:  # an interrupt may come when it has just begun
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
        """Close this thread's and the writing connection. Others end with their threads."""
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
        with self._faults("read"):
            row: tuple[Any, ...] | None = self._reader().execute(sql, values).fetchone()
        return row

    def meta(self, name: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else row[0]

    def metas(self, prefix: str) -> dict[str, str]:
        """The facts whose names begin like this, by the rest of the name."""
        with self._faults("reading"):
            rows = self._reader().execute(
                "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            )
            return {name[len(prefix) :]: value for name, value in rows}

    def set_meta(self, name: str, value: str) -> None:
        """Note a fact about the store."""
        with self._transaction("noting a fact") as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
