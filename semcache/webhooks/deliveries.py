"""Deliveries that have come, remembered on disk: a repeat does nothing, after a restart too."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from semcache.errors import StoreError

KEPT = 30 * 86400.0
"""Seconds that a delivery is remembered."""


class Deliveries:
    """See the head of the module. Several processes may share the file.

    Raises:
        StoreError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=5.0, check_same_thread=False, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS deliveries ("
                " source TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL,"
                " PRIMARY KEY (source, name)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path} cannot be opened: {error}") from error

    def first(self, source: str, name: str, now: float) -> bool:
        """Note a delivery; False if it has come before. now: seconds since the epoch."""
        try:
            with self._lock:
                self._db.execute("DELETE FROM deliveries WHERE at < ?", (now - KEPT,))
                done = self._db.execute(
                    "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?)", (source, name, now)
                )
                return done.rowcount == 1
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def forget(self, source: str, name: str) -> None:
        """It could not be handled: let it be sent again."""
        with self._lock:
            self._db.execute("DELETE FROM deliveries WHERE source = ? AND name = ?", (source, name))

    def close(self) -> None:
        with self._lock:
            self._db.close()
