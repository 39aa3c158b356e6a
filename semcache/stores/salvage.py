"""Getting out of a damaged database what can still be read, without touching what cannot.

The damaged file is moved aside whole, with its log, and stays there. Every row that can be
read, found by walking the table and, past a damaged page, by asking for each id, is written
to a new database, which then takes its place. Ids stay as they were.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semcache.errors import StoreError
from semcache.stores.sqlite import SQLiteStore

_TABLES = {
    "entries": "id",
    "embeddings": "entry_id",
    "tags": "rowid",
    "counters": "rowid",
    "meta": "rowid",
    "observations": "id",
}
"""What is carried over, and what each row is found by. Serves and deletions can be spared."""
_BESIDE = ("", "-wal", "-shm")
_AHEAD = 100_000
"""Ids that are asked for beyond the last that was seen; then the table is taken to have ended."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was saved.

    Attributes:
        kept_at: where the damaged file lies now.
        rows: rows saved, by table. lost: rows that could not be read or written, as far as can
            be told.
    """

    kept_at: Path
    rows: dict[str, int]
    lost: int


def damaged(path: Path) -> str | None:
    """What SQLite says of a file that it cannot read; None: it can. Looks at every page."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return None if _locked(error) else str(error)
    return None if found is None or found[0] == "ok" else str(found[0])


def _locked(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "unable to open" in str(error)


def salvage(path: Path, progress: Callable[[int], None] = lambda done: None) -> Salvaged:  # noqa: ARG005 - says nothing
    """Put a sound database in place of a damaged one. Nobody else may have it open.

    Raises:
        StoreError: it cannot be moved aside or written; then it is where it was.
    """
    kept_at = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    new = path.with_name(f"{path.name}.salvaged")
    for suffix in _BESIDE:
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    try:
        SQLiteStore(new).close()
        rows, lost = _copied(path, new, progress)
        for suffix in _BESIDE:
            if Path(f"{path}{suffix}").exists():
                os.replace(f"{path}{suffix}", f"{kept_at}{suffix}")
        os.replace(new, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"Cannot mend {path}: {error}. It was left as it was.") from error
    return Salvaged(kept_at, rows, lost)


def _copied(old: Path, new: Path, progress: Callable[[int], None]) -> tuple[dict[str, int], int]:
    source = sqlite3.connect(f"file:{old}?mode=ro", uri=True)
    target = sqlite3.connect(new, isolation_level=None)
    counts: dict[str, int] = {}
    lost = done = 0
    try:
        for table, key in _TABLES.items():
            target.execute("BEGIN")
            counts[table] = 0
            known = {row[1] for row in target.execute(f"PRAGMA table_info({table})")}
            for columns, row in _rows(source, table, key):
                if row is None:
                    lost += 1
                elif _written(target, table, columns, row, known):
                    counts[table] += 1
                    progress(done := done + 1)
                else:
                    lost += 1
            target.execute("COMMIT")
        orphans = "entry_id NOT IN (SELECT id FROM entries)"
        for table in ("embeddings", "tags"):
            target.execute(f"DELETE FROM {table} WHERE {orphans}")
        # A new id: whatever was derived from the damaged file is void.
        target.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'store_id'")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        source.close()
        target.close()
    return counts, lost


def _written(
    target: sqlite3.Connection,
    table: str,
    columns: list[str],
    row: tuple[Any, ...],
    known: set[str],
) -> bool:
    chosen = [(c, v) for c, v in zip(columns, row, strict=True) if c in known]
    names, marks = ", ".join(c for c, _ in chosen), ",".join("?" * len(chosen))
    try:
        target.execute(
            f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", [v for _, v in chosen]
        )
    except sqlite3.Error:
        return False
    return True


def _rows(
    source: sqlite3.Connection, table: str, key: str
) -> Iterator[tuple[list[str], tuple[Any, ...] | None]]:
    """(columns, row) of all that can be read; a row of None for one that is known to be lost."""
    last = -1
    try:
        cursor = source.execute(f"SELECT {key}, * FROM {table} ORDER BY {key}")
        columns = [column[0] for column in cursor.description][1:]
        for row in cursor:
            last = row[0]
            yield columns, row[1:]
        return
    except sqlite3.DatabaseError:
        pass
    end = _last_id(source, table, key, last)
    for number in range(last + 1, end + 1):
        try:
            cursor = source.execute(f"SELECT * FROM {table} WHERE {key} = ?", (number,))
            columns = [column[0] for column in cursor.description]
            row = cursor.fetchone()
        except sqlite3.DatabaseError:
            yield [], None
            continue
        if row is not None:
            yield columns, row


def _last_id(source: sqlite3.Connection, table: str, key: str, last: int) -> int:
    """The largest id that the table may hold."""
    for sql, values in (
        (f"SELECT max({key}) FROM {table}", ()),
        ("SELECT seq FROM sqlite_sequence WHERE name = 'entries'", ()),
    ):
        try:
            row = source.execute(sql, values).fetchone()
        except sqlite3.DatabaseError:
            continue
        if row and row[0] is not None and row[0] >= last:
            return int(row[0])
    return last + _AHEAD
