"""Recovers the readable rows of a damaged database.

The damaged file is moved aside unchanged, with its write-ahead log, and kept. Rows are read through
SQLite as far as possible; entries, vectors and metadata that SQLite can no longer find are read
directly from the pages (see `pages`), except for entries that the log of deletions lists. The rows
are written to a new database, which then replaces the old one. Ids stay the same.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from semcache.backends.local.sqlite.database import read_only
from semcache.backends.local.sqlite.pages import Value, leaf_rows
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.local.sqlite.store_maintenance import NEW_ID
from semcache.errors import StoreError
from semcache.private_files import create, mode_of

_TABLES = {
    "entries": "id",
    "embeddings": "entry_id",
    "tags": "rowid",
    "counters": "rowid",
    "meta": "rowid",
    "observations": "id",
}
"""The tables to copy, each with its key column.

Served hits, pending comparisons and the log of deletions are not recovered.
"""
_SUFFIXES = ("", "-wal", "-shm")
_EMBEDDER_NAMES = ("fingerprint", "dimension")
_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """The result of a recovery.

    Attributes:
        kept_at: the new path of the damaged file.
        rows: the number of rows recovered, by table.
        lost: the number of entries that could not be read, according to the totals; None means
            that the totals are unreadable too.
        incomplete: tables from which rows may be missing.
    """

    kept_at: Path
    rows: dict[str, int]
    lost: int | None
    incomplete: tuple[str, ...]


def damaged(path: Path) -> str | None:
    """What is damaged in a file, by a check of every page; None if it is sound or locked."""
    try:
        connection = read_only(path)
        try:
            row = connection.execute("PRAGMA integrity_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return None if _locked(error) else str(error)
    return None if row is None or row[0] == "ok" else " ".join(str(row[0]).split())


def _locked(error: sqlite3.Error) -> bool:
    return any(words in str(error) for words in ("locked", "unable to open", "readonly"))


def recover(
    path: Path,
    progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005 - ignored
    *,
    known: tuple[str, int] | None = None,
) -> RecoveryReport:
    """Replace a damaged database with a sound one. No other process may have it open.

    Args:
        progress: called with the number of rows recovered so far.
        known: (fingerprint, dimension) of the vectors from another source, in case the file has
            lost them. Vectors of an unknown embedder are dropped.

    Raises:
        StoreError: the new database cannot be written, or a file cannot be moved.
    """
    kept_at = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    copy, new = (path.with_name(f"{path.name}.{name}") for name in ("reading", "salvaged"))
    try:
        _remove(copy, new)
        for suffix in _SUFFIXES[:2]:
            if Path(f"{path}{suffix}").exists():
                create(Path(f"{copy}{suffix}"), mode_of(path))
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        SQLiteStore(new, file_mode=mode_of(path)).close()
        recovery = _Recovery(copy, new, progress, known)
        recovery.run()
        for suffix in _SUFFIXES:
            if Path(f"{path}{suffix}").exists():
                os.replace(f"{path}{suffix}", f"{kept_at}{suffix}")
        os.replace(new, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"Cannot repair {path}: {error}. The damaged file is unchanged, at {path} or {kept_at}."
        ) from error
    finally:
        with suppress(OSError):
            _remove(copy, new)
    return RecoveryReport(kept_at, recovery.rows, recovery.lost, tuple(recovery.incomplete))


def _remove(*paths: Path) -> None:
    for path in paths:
        for suffix in _SUFFIXES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)


class _Recovery:
    """Copies rows from a copy of the damaged file to a new database."""

    def __init__(
        self,
        old: Path,
        new: Path,
        progress: Callable[[int], None],
        known: tuple[str, int] | None,
    ) -> None:
        self._old, self._progress, self._done, self._known = old, progress, 0, known
        self._target = sqlite3.connect(new, isolation_level=None)
        self._source = sqlite3.connect(old)
        self.rows = dict.fromkeys(_TABLES, 0)
        self.lost: int | None = None
        self.incomplete: list[str] = []
        self._columns = {
            table: [row[1] for row in self._target.execute(f"PRAGMA table_info({table})")]
            for table in _TABLES
        }

    def run(self) -> None:
        try:
            with suppress(sqlite3.DatabaseError):  # so that the pages include the WAL, if possible
                self._source.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            for table, key in _TABLES.items():
                self._target.execute("BEGIN")
                self._copy(table, key)
                self._target.execute("COMMIT")
            self._finish()
        finally:
            self._source.close()
            self._target.close()

    def _copy(self, table: str, key: str) -> None:
        seen: set[int] = set()
        try:
            for row_key, names, row in self._readable_rows(table, key):
                seen.add(row_key)
                self._write(table, names, row)
        except sqlite3.DatabaseError:
            self.incomplete.append(table)
            if table in ("entries", "embeddings", "meta"):
                self._from_pages(table, seen)

    def _readable_rows(
        self, table: str, key: str
    ) -> Iterator[tuple[int, Sequence[str], tuple[Value, ...]]]:
        """(key, column names, columns) of a table, until SQLite fails."""
        cursor = self._source.execute(f"SELECT {key}, * FROM {table} ORDER BY {key}")
        names = [column[0] for column in cursor.description][1:]
        for row in cursor:
            yield row[0], names, row[1:]

    def _from_pages(self, table: str, seen: set[int]) -> None:
        """Copy rows that SQLite did not reach, in order of id, so that newer entries win."""
        deleted = self._deleted_ids()
        rows = [
            (rowid, values)
            for rowid, values in leaf_rows(self._old)
            if rowid not in seen and rowid not in deleted and _is_row(table, values)
        ]
        for rowid, values in sorted(rows, key=lambda row: row[0]):
            names = self._columns[table][: len(values)]
            self._write(table, names, values if table == "meta" else (rowid, *values[1:]))

    def _deleted_ids(self) -> set[int]:
        try:
            return {row[0] for row in self._source.execute("SELECT entry_id FROM deletions")}
        except sqlite3.DatabaseError:
            return {
                values[1]
                for _, values in leaf_rows(self._old)
                if len(values) == 2 and values[0] is None and isinstance(values[1], int)
            }

    def _write(self, table: str, names: Sequence[str], row: tuple[Value, ...]) -> None:
        known = self._columns[table]
        pairs = [(n, v) for n, v in zip(names, row, strict=True) if n in known]
        columns, marks = ", ".join(n for n, _ in pairs), ",".join("?" * len(pairs))
        sql = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})"
        try:
            self._target.execute(sql, [value for _, value in pairs])
        except sqlite3.Error:
            if table not in self.incomplete:
                self.incomplete.append(table)
            return
        self.rows[table] += 1
        self._done += 1
        self._progress(self._done)

    def _finish(self) -> None:
        target = self._target
        self._restore_embedder()
        for table in ("embeddings", "tags"):
            orphans = target.execute(
                f"DELETE FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)"
            ).rowcount
            self.rows[table] -= orphans
        (self.rows["entries"],) = target.execute("SELECT count(*) FROM entries").fetchone()
        with suppress(sqlite3.DatabaseError):
            row = self._source.execute("SELECT entries FROM totals").fetchone()
            self.lost = None if row is None else max(0, row[0] - self.rows["entries"])
        with suppress(sqlite3.DatabaseError):  # ids are never reused
            row = self._source.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'entries'"
            ).fetchone()
            if row is not None:
                target.execute(
                    "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'entries'", row
                )
        # A new id invalidates whatever was derived from the damaged file.
        target.execute(NEW_ID)
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _restore_embedder(self) -> None:
        """Restore the embedder's fingerprint, or drop the vectors, which are useless without it."""
        target = self._target
        sql = "SELECT count(*) FROM meta WHERE name IN ('fingerprint', 'dimension')"
        if target.execute(sql).fetchone()[0] == 2:
            return
        if self._known is None:
            self.rows["embeddings"] -= target.execute("DELETE FROM embeddings").rowcount
            return
        fingerprint, dimension = self._known
        rows = [("fingerprint", fingerprint), ("dimension", str(dimension))]
        target.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _is_row(table: str, values: tuple[Value, ...]) -> bool:
    """Whether these columns, read from a page, look like a row of this table."""
    if table == "meta":
        return len(values) == 2 and values[0] in _EMBEDDER_NAMES and isinstance(values[1], str)
    if table == "embeddings":
        return (
            len(values) == 3
            and values[0] is None
            and _is_key(values[1])
            and isinstance(values[2], bytes)
        )
    return (
        len(values) >= 18
        and values[0] is None
        and _is_key(values[1])
        and _is_key(values[2])
        and all(isinstance(values[column], str) for column in (3, 4, 6, 7))
    )


def _is_key(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) == _KEY_LENGTH
