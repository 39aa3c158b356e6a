"""Getting out of a damaged database what can still be read, without touching what cannot.

The damaged file is moved aside whole, with its log, and stays there. Rows are read through
SQLite as far as it goes; entries and vectors that it cannot find any more are read straight
off the pages (`stores.pages`), unless the log of deletions names them. What was read is
written to a new database, which then takes the old one's place. Ids stay as they were.
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
_FACTS = ("fingerprint", "dimension")
_KEY = 32


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was saved.

    Attributes:
        kept_at: where the damaged file lies now.
        rows: rows saved, by table.
        lost: entries that could not be read, as far as the totals tell; None: these are lost too.
        incomplete: tables of which something may be missing.
    """

    kept_at: Path
    rows: dict[str, int]
    lost: int | None
    incomplete: tuple[str, ...]


def damaged(path: Path) -> str | None:
    """What SQLite says of a file that it cannot read; None: it can. Looks at every page."""
    try:
        connection = read_only(path)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return None if _locked(error) else str(error)
    return None if found is None or found[0] == "ok" else " ".join(str(found[0]).split())


def _locked(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "unable to open" in str(error)


def recover(
    path: Path,
    progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005 - says nothing
    *,
    known: tuple[str, int] | None = None,
) -> Salvaged:
    """Put a sound database in place of a damaged one. Nobody else may have it open.

    Args:
        known: (fingerprint, dimension) of its vectors from elsewhere, should the file have lost
            them. Vectors of an unknown embedder are not saved.

    Raises:
        StoreError: it cannot be moved aside or written; then it is where it was.
    """
    kept_at = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    copy, new = (path.with_name(f"{path.name}.{name}") for name in ("reading", "salvaged"))
    try:
        _removed(copy, new)
        for suffix in _BESIDE[:2]:
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        SQLiteStore(new).close()
        found = _Copying(copy, new, progress, known).run()
        for suffix in _BESIDE:
            if Path(f"{path}{suffix}").exists():
                os.replace(f"{path}{suffix}", f"{kept_at}{suffix}")
        os.replace(new, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"Cannot mend {path}: {error}. It was left as it was.") from error
    finally:
        with suppress(OSError):
            _removed(copy, new)
    return Salvaged(kept_at, found.rows, found.lost, tuple(found.incomplete))


def _removed(*paths: Path) -> None:
    for path in paths:
        for suffix in _BESIDE:
            Path(f"{path}{suffix}").unlink(missing_ok=True)


class _Copying:
    """From a damaged file, which is a copy, to a new database."""

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

    def run(self) -> _Copying:
        try:
            with suppress(sqlite3.DatabaseError):  # the log goes into the file, if it can
                self._source.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            for table, key in _TABLES.items():
                self._target.execute("BEGIN")
                self._copy(table, key)
                self._target.execute("COMMIT")
            self._finish()
        finally:
            self._source.close()
            self._target.close()
        return self

    def _copy(self, table: str, key: str) -> None:
        seen: set[int] = set()
        try:
            for number, names, row in self._walk(table, key):
                seen.add(number)
                self._write(table, names, row)
        except sqlite3.DatabaseError:
            self.incomplete.append(table)
            if table in ("entries", "embeddings", "meta"):
                self._from_pages(table, seen)

    def _walk(self, table: str, key: str) -> Iterator[tuple[int, Sequence[str], tuple[Value, ...]]]:
        cursor = self._source.execute(f"SELECT {key}, * FROM {table} ORDER BY {key}")
        names = [column[0] for column in cursor.description][1:]
        for row in cursor:
            yield row[0], names, row[1:]

    def _from_pages(self, table: str, seen: set[int]) -> None:
        """What the walk did not come to, smallest ids first, so that newer entries win."""
        gone = self._deleted()
        found = [
            (number, values)
            for number, values in leaf_rows(self._old)
            if number not in seen and number not in gone and _is_row(table, values)
        ]
        for number, values in sorted(found, key=lambda row: row[0]):
            names = self._columns[table][: len(values)]
            self._write(table, names, values if table == "meta" else (number, *values[1:]))

    def _deleted(self) -> set[int]:
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
        chosen = [(n, v) for n, v in zip(names, row, strict=True) if n in known]
        marks = ",".join("?" * len(chosen))
        sql = f"INSERT OR REPLACE INTO {table} ({', '.join(n for n, _ in chosen)}) VALUES ({marks})"
        try:
            self._target.execute(sql, [value for _, value in chosen])
        except sqlite3.Error:
            if table not in self.incomplete:
                self.incomplete.append(table)
            return
        self.rows[table] += 1
        self._done += 1
        self._progress(self._done)

    def _finish(self) -> None:
        target = self._target
        self._know_embedder()
        for table in ("embeddings", "tags"):
            orphans = target.execute(
                f"DELETE FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)"
            ).rowcount
            self.rows[table] -= orphans
        (self.rows["entries"],) = target.execute("SELECT count(*) FROM entries").fetchone()
        with suppress(sqlite3.DatabaseError):
            row = self._source.execute("SELECT entries FROM totals").fetchone()
            self.lost = None if row is None else max(0, row[0] - self.rows["entries"])
        with suppress(sqlite3.DatabaseError):  # ids are never given twice
            row = self._source.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'entries'"
            ).fetchone()
            if row is not None:
                target.execute(
                    "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'entries'", row
                )
        # A new id: whatever was derived from the damaged file is void.
        target.execute(NEW_ID)
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _know_embedder(self) -> None:
        """Vectors are of no use without the embedder that made them."""
        target = self._target
        sql = "SELECT count(*) FROM meta WHERE name IN ('fingerprint', 'dimension')"
        if target.execute(sql).fetchone()[0] == 2:
            return
        if self._known is None:
            self.rows["embeddings"] -= target.execute("DELETE FROM embeddings").rowcount
            return
        fingerprint, dimension = self._known
        facts = [("fingerprint", fingerprint), ("dimension", str(dimension))]
        target.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts)


def _is_row(table: str, values: tuple[Value, ...]) -> bool:
    """Whether columns read off a page are of this table."""
    if table == "meta":
        return len(values) == 2 and values[0] in _FACTS and isinstance(values[1], str)
    if table == "embeddings":
        return (
            len(values) == 3
            and values[0] is None
            and _key(values[1])
            and isinstance(values[2], bytes)
        )
    return (
        len(values) >= 18
        and values[0] is None
        and _key(values[1])
        and _key(values[2])
        and all(isinstance(values[place], str) for place in (3, 4, 6, 7))
    )


def _key(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) == _KEY
