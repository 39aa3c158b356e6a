"""Leases in a separate SQLite file: which process is calling the model for which request.

A lease is a row with its owner and a heartbeat, which the holder increments while it lives. A
waiting process watches the heartbeat by its own clock. If the heartbeat has not changed for several
seconds, the holder is dead and the lease may be taken over. So no clocks are compared to decide
whether a holder is alive. Only `_VOID_FOR` and `_MAX_AGE` compare this process's clock with times
that another process wrote; if the clocks differ, the model is called one time too many at worst.

Leases are not part of the main database, so that taking one neither changes its revision nor waits
for a large write. The file can be lost without harm: without leases, every process calls the model
itself.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache.backends.local.files import mode_beside
from semcache.backends.local.sqlite.database import ForkLock, abandon
from semcache.errors import StoreError
from semcache.private_files import create
from semcache.types import LeaseHolder

if TYPE_CHECKING:
    from semcache.backends.base import Lease
    from semcache.types import Vector

BEAT = 1.0
"""Seconds between two heartbeats."""

_BUSY_TIMEOUT = 3.0
"""Seconds to wait for another process's write. Writes are short, but where many processes share a
few cores, getting a turn may take a while; even so, waiting is cheaper than a call to a model."""
_RETRY_AFTER = 5.0
"""Seconds after a failure for which the file is not used."""
_VOID_FOR = 5.0
"""Seconds for which a lease that was released without storing an answer cannot be taken."""
_MAX_AGE = 3600.0
"""Seconds without a heartbeat after which a row is deleted."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS leases (key BLOB PRIMARY KEY, owner TEXT NOT NULL,"
    " beat INTEGER NOT NULL, at REAL NOT NULL, scope BLOB NOT NULL, vector BLOB) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS leases_scope ON leases(scope) WHERE vector IS NOT NULL",
)


class SQLiteLease:
    """A `Lease` that is a row of the table."""

    def __init__(self, table: SQLiteLeases, key: bytes) -> None:
        self._table = table
        self._key = key

    def release(self, *, kept: bool) -> None:
        self._table._release(self._key, kept=kept)


class SQLiteLeases:
    """The `Leases` of all processes that use a cache directory.

    Args:
        path: the file; created when it is first used.
        fault: called with an error that no caller is waiting for.
    """

    def __init__(self, path: Path, fault: Callable[[BaseException], None]) -> None:
        self._path = path
        self._fault = fault
        self._reset()

    def _reset(self) -> None:
        self._token = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._lock = ForkLock()
        self._connection: sqlite3.Connection | None = None
        self._held: set[bytes] = set()
        self._releases: deque[tuple[bytes, bool]] = deque()
        self._releasing = threading.Lock()
        self._heartbeat_thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._unusable_until = 0.0
        self._opened_inode = 0
        self._closed = False

    def take(self, key: bytes, scope: bytes, vector: Vector | None) -> Lease | LeaseHolder:
        self._release_all()  # this process may have just released the same lease
        blob = None if vector is None else vector.tobytes()
        row = (key, self._token, 0, time.time(), scope, blob)
        while True:
            taken = self._write(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", row
            ) or self._write(
                "UPDATE leases SET owner = ?, beat = 0, at = ? WHERE key = ? AND owner = ''"
                " AND abs(at - ?) > ?",
                (self._token, row[3], key, row[3], _VOID_FOR),
            )
            if taken:
                return self._own(key)
            if (holder := self.look(key)) is not None:
                return holder

    def look(self, key: bytes) -> LeaseHolder | None:
        rows = self._read("SELECT owner, beat FROM leases WHERE key = ?", (key,))
        return LeaseHolder(*rows[0]) if rows else None

    def take_over(self, key: bytes, dead: LeaseHolder) -> Lease | None:
        taken = self._write(
            "UPDATE leases SET owner = ?, beat = 0, at = ?"
            " WHERE key = ? AND owner = ? AND beat = ?",
            (self._token, time.time(), key, dead.owner, dead.heartbeat),
        )
        return self._own(key) if taken else None

    def near(self, scope: bytes, vector: Vector, floor: float) -> bytes | None:
        import numpy as np

        best = floor
        nearest_key: bytes | None = None
        sql = (
            "SELECT key, vector FROM leases WHERE scope = ? AND vector IS NOT NULL AND owner != ''"
        )
        for key, blob in self._read(sql, (scope,)):
            other = np.frombuffer(blob, np.float32)
            if other.shape == vector.shape and (cosine := float(other @ vector)) >= best:
                best, nearest_key = cosine, key
        return nearest_key

    def close(self) -> None:
        self._release_all()
        self._closed = True
        self._wake.set()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def hold(self) -> None:
        self._lock.hold()

    def let_go(self) -> None:
        self._lock.let_go()

    def after_fork(self) -> None:
        """After a fork, in the child: the parent keeps its leases."""
        if self._lock.broken:
            abandon(self._connection)
        self._reset()

    # ----------------------------------------------------------------------- internals

    def _own(self, key: bytes) -> Lease:
        """Start the heartbeat of a lease that was just taken."""
        self._held.add(key)
        if self._heartbeat_thread is None:
            thread = threading.Thread(target=self._beat, name="semcache-lease", daemon=True)
            try:
                thread.start()
                self._heartbeat_thread = thread
            except RuntimeError as error:  # without heartbeats it lapses, which costs a call
                self._fault(error)
        self._wake.set()
        return SQLiteLease(self, key)

    def _release(self, key: bytes, *, kept: bool) -> None:
        """Queue a lease for release: the caller may be an event loop, which must not wait."""
        self._held.discard(key)
        self._releases.append((key, kept))
        if self._heartbeat_thread is None or self._closed:
            self._release_all()
        self._wake.set()

    def _release_all(self) -> None:
        """Release what is pending. A lease that cannot be released lapses without its heartbeat."""
        with self._releasing:
            while self._releases:
                try:
                    self._release_one(*self._releases.popleft())
                except StoreError as error:
                    self._fault(error)

    def _release_one(self, key: bytes, kept: bool) -> None:
        if kept:
            self._write("DELETE FROM leases WHERE key = ? AND owner = ?", (key, self._token))
        else:
            self._write(
                "UPDATE leases SET owner = '', at = ?, vector = NULL WHERE key = ? AND owner = ?",
                (time.time(), key, self._token),
            )

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._closed:
            self._wake.wait(BEAT if self._held else None)
            self._wake.clear()
            self._release_all()
            if time.monotonic() - last >= BEAT and (held := list(self._held)):
                last = time.monotonic()
                placeholders = ",".join("?" * len(held))
                sql = "UPDATE leases SET beat = beat + 1, at = ? WHERE owner = ? AND key IN"
                try:
                    self._write(f"{sql} ({placeholders})", (time.time(), self._token, *held))
                except StoreError as error:
                    self._fault(error)

    def _write(self, sql: str, values: tuple[object, ...]) -> bool:
        """Execute a statement; return whether it changed a row."""
        with self._lock:
            try:
                return self._connect().execute(sql, values).rowcount > 0
            except sqlite3.Error as error:
                raise self._mark_unusable(error) from error

    def _read(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connect().execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._mark_unusable(error) from error

    def _connect(self) -> sqlite3.Connection:
        """The connection, opened if necessary. Must be called with the lock held."""
        if self._closed:
            raise StoreError(f"The leases in {self._path} are closed.")
        if time.monotonic() < self._unusable_until:
            raise StoreError(f"{self._path} could not be used a moment ago; trying again soon.")
        if self._connection is not None and self._inode() != self._opened_inode:
            self._connection.close()  # the file was deleted, and others may use a new one by now
            self._connection = None
        if self._connection is None:
            with suppress(OSError):
                create(Path(self._path), mode_beside(Path(self._path)))
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=OFF")  # leases need not survive a crash
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("DELETE FROM leases WHERE at < ?", (time.time() - _MAX_AGE,))
            except BaseException:
                connection.close()
                raise
            self._connection, self._opened_inode = connection, self._inode()
        return self._connection

    def _inode(self) -> int:
        try:
            return os.stat(self._path).st_ino
        except OSError:
            return 0

    def _mark_unusable(self, error: sqlite3.Error) -> StoreError:
        self._unusable_until = time.monotonic() + _RETRY_AFTER
        if "locked" not in str(error) and self._connection is not None:
            self._connection.close()
            self._connection = None
        return StoreError(
            f"Cannot use {self._path}: {error}. Until it can be used, several processes may call "
            "the model for the same request. You can safely delete the file."
        )
