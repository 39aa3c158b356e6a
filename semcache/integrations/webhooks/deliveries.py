"""Records deliveries on disk, so that a repeat has no effect, even after a restart."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Literal

from semcache.errors import StoreError
from semcache.private_files import create, make_directory

HANDLING = 60.0
"""Seconds after which a delivery that was begun but never finished may be handled again."""


class Deliveries:
    """The deliveries that were handled or are being handled. Processes may share the file.

    Raises:
        StoreError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            if str(path) != ":memory:":
                make_directory(path.parent)
                create(path)
            db = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS deliveries ("
                    " source TEXT NOT NULL, name TEXT NOT NULL, begun REAL NOT NULL,"
                    " until REAL NOT NULL, done INTEGER NOT NULL DEFAULT 0,"
                    " PRIMARY KEY (source, name)) WITHOUT ROWID"
                )
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path} cannot be opened: {error}") from error
        self._db = db

    def begin(
        self, source: str, name: str, now: float, kept: float
    ) -> Literal["new", "done", "under way"]:
        """Begin to handle a delivery, unless it was handled or is being handled.

        Args:
            source: the sender.
            name: the identity of the delivery.
            now: seconds since the epoch.
            kept: seconds for which the delivery is remembered.
        """
        try:
            with self._lock:
                self._db.execute("DELETE FROM deliveries WHERE until < ?", (now,))
                begun = self._db.execute(
                    "INSERT INTO deliveries(source, name, begun, until) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET begun = excluded.begun"
                    " WHERE done = 0 AND begun < ?",
                    (source, name, now, now + kept, now - HANDLING),
                )
                if begun.rowcount == 1:
                    return "new"
                row = self._db.execute(
                    "SELECT done FROM deliveries WHERE source = ? AND name = ?", (source, name)
                ).fetchone()
                return "done" if row is not None and row[0] else "under way"
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def done(self, source: str, name: str) -> None:
        """Record that a delivery was handled; a repeat does nothing from now on."""
        self._change("UPDATE deliveries SET done = 1 WHERE source = ? AND name = ?", source, name)

    def forget(self, source: str, name: str) -> None:
        """Forget a delivery that could not be handled, so that it may be sent again."""
        self._change("DELETE FROM deliveries WHERE source = ? AND name = ?", source, name)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _change(self, sql: str, source: str, name: str) -> None:
        try:
            with self._lock:
                self._db.execute(sql, (source, name))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error
