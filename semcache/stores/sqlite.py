"""Entries in one SQLite file in WAL mode.

Reading: each thread has a connection of its own, so lookups wait neither for each
other nor for a writer. Writing: one connection behind a lock, one `BEGIN IMMEDIATE`
transaction for each call. `synchronous=NORMAL` in WAL mode: a committed
transaction survives the death of the process; the loss of power may take the last
ones, and never damages the file (https://sqlite.org/pragma.html#pragma_synchronous).

Schema and migrations use sqlite-utils; the statements below are plain `sqlite3`,
whose statement cache keeps them prepared.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from semcache.errors import IndexMismatchError, StoreError
from semcache.stores.learned import (
    FORGET_OBSERVATIONS,
    FORGET_SERVES,
    OBSERVATIONS_AFTER,
    OBSERVATIONS_KEPT,
    OBSERVE,
    SERVE,
    SERVES,
    SERVES_KEPT,
    as_observation,
    as_serve,
    observation_row,
    serve_row,
)
from semcache.stores.migrations import migrate
from semcache.stores.rows import ENTRY_COLUMNS, entry_from_row, row_from_entry
from semcache.types import Entry, NewEntry, Observation, Position, Selection, Serve
from semcache.vectors import Form, encoded, is_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.types import Vector

_GET_EXACT = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE exact_key = ?"
_POSITION = (
    "SELECT (SELECT value FROM meta WHERE name = 'store_id'),"
    " (SELECT value FROM meta WHERE name = 'fingerprint'),"
    " (SELECT value FROM meta WHERE name = 'dimension'),"
    " (SELECT seq FROM sqlite_sequence WHERE name = 'entries'),"
    " (SELECT seq FROM sqlite_sequence WHERE name = 'deletions')"
)
_GET_ONE = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id = ?"
_GET_SOME = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id IN ({{}})"
_BATCH = 500
_ADD_HITS = (
    "UPDATE entries SET hits = hits + :count, last_hit_at = max(coalesce(last_hit_at, 0), :last),"
    # What slides is good for as long again as at first, if it was still good.
    " expires_at = iif(sliding IS NOT NULL AND :last < coalesce(stale_at, expires_at),"
    "  expires_at + max(0, :last + sliding - coalesce(stale_at, expires_at)), expires_at),"
    " stale_at = iif(sliding IS NOT NULL AND :last < stale_at,"
    "  max(stale_at, :last + sliding), stale_at)"
    " WHERE id = :id"
)
_LAST_DELETION = "SELECT seq FROM sqlite_sequence WHERE name = 'deletions'"
_FORGET_DELETIONS = (
    "DELETE FROM deletions WHERE sequence <= (SELECT max(sequence) FROM deletions) - ?"
)
_CARRIED = (
    "SELECT vector FROM embeddings WHERE entry_id ="
    " (SELECT id FROM entries WHERE exact_key = ? AND question IS ?)"
)
_NEW_ID = "UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'store_id'"
_NOTICEABLE = 0.01
_DELETIONS_KEPT, _DELETIONS_LOOKED_AT = 100_000, 1000

Order = Literal["newest", "oldest", "most_hits", "least_recently_used", "least_frequently_used"]

# What was never hit counts as used when it was stored.
_USED = "coalesce(last_hit_at, created_at)"
ORDERS: Mapping[str, str] = {
    "newest": "id DESC",
    "oldest": "id",
    "most_hits": "hits DESC, id DESC",
    "least_recently_used": f"{_USED}, id",
    "least_frequently_used": f"hits, {_USED}, id",
}


class SQLiteStore:
    """A `Store` in one file.

    Args:
        path: the file; it is made, with its directory, where it is missing.
        busy_timeout: how long to wait for another process's write, in seconds.
        vectors: the form in which new vectors are written, see `semcache.vectors`.

    Raises:
        StoreError: the file cannot be made, opened or read, or is no such database.
        StoreVersionError: a newer semcache wrote it.
    """

    def __init__(
        self, path: str | Path, *, busy_timeout: float = 5.0, vectors: Form = "float32"
    ) -> None:
        self.path = Path(path)
        self._form = vectors
        self._ordered: set[str] = set()
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._write_lock = threading.Lock()
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

    # ------------------------------------------------------------------- connections

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}",
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

    def after_fork(self) -> None:
        # Inherited connections must be gone before the first of our own: SQLite counts its
        # locks by process, and would take the parent's for ours.
        connection = getattr(self._local, "connection", None)
        self._local = threading.local()
        busy = self._write_lock.locked()  # by a thread that is not here: its mutex is held too
        for inherited in (connection, None if busy else self._writer):
            if inherited is not None:
                with suppress(sqlite3.Error):
                    inherited.close()
        self._write_lock = threading.Lock()

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

    # ----------------------------------------------------------------------- reading

    def get_exact(self, exact_key: bytes) -> Entry | None:
        try:
            row = self._reader().execute(_GET_EXACT, (exact_key,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(self._explain(error, "read")) from error
        return None if row is None else entry_from_row(row)

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        sql = _GET_ONE if len(ids) == 1 else _GET_SOME.format(",".join("?" * len(ids)))
        with self._faults("read"):
            rows = self._reader().execute(sql, tuple(ids)).fetchall()
        return {row[0]: entry_from_row(row) for row in rows}

    def revision(self) -> int:
        with self._faults("read"):
            return int(self._reader().execute("PRAGMA data_version").fetchone()[0])

    def revision_seen(self) -> int | None:
        """What `mark_revision` noted on this thread's connection."""
        return getattr(self._local, "revision", None)

    def mark_revision(self, revision: int) -> None:
        """Note a revision for this thread: `data_version` compares within one connection."""
        self._local.revision = revision

    def vectors_after(self, entry_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        sql = (
            "SELECT entry_id, scope, vector FROM embeddings WHERE entry_id > ? ORDER BY entry_id"
            " LIMIT 4096"
        )
        while True:
            with self._faults("read"):
                rows = self._reader().execute(sql, (entry_id,)).fetchall()
            if not rows:
                return
            yield from rows
            entry_id = rows[-1][0]

    def vector(self, entry_id: int) -> bytes | None:
        """The stored vector of one entry, in a form of `semcache.vectors`."""
        row = self._one("SELECT vector FROM embeddings WHERE entry_id = ?", (entry_id,))
        return None if row is None else row[0]

    def vectors(self, ids: Sequence[int]) -> dict[int, bytes]:
        marks = ",".join("?" * len(ids))
        sql = f"SELECT entry_id, vector FROM embeddings WHERE entry_id IN ({marks})"
        with self._faults("read"):
            return dict(self._reader().execute(sql, tuple(ids)).fetchall())

    def deletions_after(
        self, sequence: int, up_to: int | None = None
    ) -> tuple[list[int], int] | None:
        with self._faults("read"):
            reader = self._reader()
            if up_to is None:
                row = reader.execute(_LAST_DELETION).fetchone()
                up_to = row[0] if row else 0
            rows = reader.execute(
                "SELECT entry_id FROM deletions WHERE sequence > ? AND sequence <= ?"
                " ORDER BY sequence",
                (sequence, up_to),
            ).fetchall()
        if len(rows) != up_to - sequence:
            return None
        return [row[0] for row in rows], up_to

    def position(self) -> Position:
        """How far the store has come, and whose vectors it holds."""
        store_id, fingerprint, dimension, last_id, last_deletion = self._one(_POSITION) or (
            (None,) * 5
        )
        return Position(
            store_id or "", fingerprint, int(dimension or 0), last_id or 0, last_deletion or 0
        )

    def embedded_ids(self) -> NDArray[np.int64]:
        """int64[n]: ids of all entries that have a vector, in order."""
        import numpy as np

        sql = "SELECT entry_id FROM embeddings ORDER BY entry_id"
        with self._faults("read"):
            rows = self._reader().execute(sql)
            return np.fromiter((row[0] for row in rows), np.int64)

    def totals(self, namespace: str | None = None) -> tuple[int, int]:
        """(entries, bytes of their texts and vectors)."""
        if namespace is None:
            row = self._one("SELECT entries, bytes FROM totals")
        else:
            sql = "SELECT entries, bytes FROM namespaces WHERE namespace = ?"
            row = self._one(sql, (namespace,))
        return (0, 0) if row is None else (row[0], row[1])

    def ids(self, selection: Selection) -> list[int]:
        """Ids of the selected entries."""
        where, values = _where(selection)
        with self._faults("read"):
            rows = self._reader().execute(f"SELECT id FROM entries WHERE {where}", values)
            return [row[0] for row in rows]

    def select(
        self,
        selection: Selection = Selection(),
        *,
        order: Order = "newest",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Entry]:
        """The selected entries, in this order."""
        where, values = _where(selection)
        sql = (
            f"SELECT {ENTRY_COLUMNS} FROM entries WHERE {where} ORDER BY {ORDERS[order]}"
            " LIMIT ? OFFSET ?"
        )
        limit = -1 if limit is None else limit
        with self._faults("read"):
            rows = self._reader().execute(sql, (*values, limit, offset)).fetchall()
        return [entry_from_row(row) for row in rows]

    def page_after(self, last: int, selection: Selection, limit: int) -> list[Entry]:
        """The selected entries with a larger id than `last`, the smallest first."""
        where, values = _where(selection)
        sql = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id > ? AND {where} ORDER BY id LIMIT ?"
        with self._faults("read"):
            rows = self._reader().execute(sql, (last, *values, limit)).fetchall()
        return [entry_from_row(row) for row in rows]

    def key_version(self, entry_id: int) -> int:
        """The canonical form that an entry was keyed under."""
        row = self._one("SELECT key_version FROM entries WHERE id = ?", (entry_id,))
        return 0 if row is None else int(row[0])

    def count(self, selection: Selection = Selection()) -> int:
        where, values = _where(selection)
        row = self._one(f"SELECT count(*) FROM entries WHERE {where}", tuple(values))
        return int(row[0]) if row else 0

    def groups(self) -> list[tuple[str, str, int, int]]:
        """(namespace, model, entries, hits), the largest group first."""
        with self._faults("read"):
            return (
                self._reader()
                .execute(
                    "SELECT namespace, model, count(*), sum(hits) FROM entries"
                    " GROUP BY namespace, model ORDER BY count(*) DESC, namespace, model"
                )
                .fetchall()
            )

    def tags(self, entry_id: int) -> tuple[str, ...]:
        with self._faults("read"):
            rows = self._reader().execute(
                "SELECT tag FROM tags WHERE entry_id = ? ORDER BY tag", (entry_id,)
            )
            return tuple(row[0] for row in rows)

    def summary(self, entry_id: int) -> str:
        """The request of an entry in short, as JSON."""
        row = self._one("SELECT summary FROM entries WHERE id = ?", (entry_id,))
        return "{}" if row is None else str(row[0])

    def key_versions(self) -> dict[int, int]:
        """How many entries were keyed under which version of the canonical form."""
        with self._faults("read"):
            rows = self._reader().execute(
                "SELECT key_version, count(*) FROM entries GROUP BY key_version"
            )
            return dict(rows.fetchall())

    def counters(self) -> dict[str, float]:
        with self._faults("read"):
            return dict(self._reader().execute("SELECT name, value FROM counters").fetchall())

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

    def file_bytes(self) -> int:
        """What the database takes on disk, its write-ahead log included."""
        names = (self.path, Path(f"{self.path}-wal"))
        return sum(p.stat().st_size for p in names if p.exists())

    def problems(self) -> list[str]:
        """What SQLite and our own rules find wrong with the file; empty if nothing."""
        with self._faults("check"):
            reader = self._reader()
            found = [r[0] for r in reader.execute("PRAGMA integrity_check(20)") if r[0] != "ok"]
            for table in ("embeddings", "tags"):
                (orphans,) = reader.execute(
                    f"SELECT count(*) FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)"
                ).fetchone()
                if orphans:
                    found.append(f"{orphans} rows of {table} belong to no entry")
            (entries, size) = reader.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM entries"
            ).fetchone()
            (namespaces,) = reader.execute(
                "SELECT count(*) FROM (SELECT namespace, count(*), sum(bytes) FROM entries"
                " GROUP BY namespace EXCEPT SELECT namespace, entries, bytes FROM namespaces)"
            ).fetchone()
        if (entries, size) != self.totals():
            found.append(f"totals say {self.totals()}, the entries are {(entries, size)}")
        if namespaces:
            found.append(f"the totals of {namespaces} namespaces are wrong")
        if unreadable := len(self._unreadable()):
            found.append(f"{unreadable} vectors have a length that no vector has here")
        return found

    def _unreadable(self) -> list[int]:
        """Entries whose vector is none."""
        dimension = int(self.meta("dimension") or 0)
        lengths = [n for n in range(4 * dimension + 1) if is_vector(n, dimension)]
        marks = ",".join("?" * len(lengths))
        sql = f"SELECT entry_id FROM embeddings WHERE length(vector) NOT IN ({marks})"
        with self._faults("read"):
            return [row[0] for row in self._reader().execute(sql, lengths)]

    def _one(self, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        with self._faults("read"):
            row: tuple[Any, ...] | None = self._reader().execute(sql, values).fetchone()
        return row

    # ----------------------------------------------------------------------- writing

    def blob(self, vector: Vector) -> bytes:
        """float32[d] in the form in which this store writes vectors."""
        return encoded(vector, self._form)

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        size = 0 if vector is None else len(self.blob(vector))
        return int(row_from_entry(entry)["bytes"]) + size

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        row = row_from_entry(entry)
        blob = None if vector is None else self.blob(vector)
        row["bytes"] += len(blob or b"")
        with self._transaction("write to") as db:
            if vector is not None:
                self._claim(db, fingerprint or "", len(vector))
            elif old := db.execute(_CARRIED, (entry.exact_key, entry.question)).fetchone():
                (blob,) = old  # the same question: its vector stays, though none was made now
                row["bytes"] += len(blob)
            cursor = db.execute(_insert(tuple(row)), tuple(row.values()))
            entry_id = int(cursor.lastrowid or 0)
            if blob is not None:
                db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (entry_id, entry.scope, blob))
            if entry.tags:
                db.executemany(
                    "INSERT INTO tags VALUES (?, ?)", [(tag, entry_id) for tag in entry.tags]
                )
            if entry_id % _DELETIONS_LOOKED_AT == 0:  # replacing is deleting, too
                db.execute(_FORGET_DELETIONS, (_DELETIONS_KEPT,))
        return entry_id

    def _claim(self, db: sqlite3.Connection, fingerprint: str, dimension: int) -> None:
        """The first vector decides whose vectors these are; others are turned away."""
        known = dict(
            db.execute(
                "SELECT name, value FROM meta WHERE name IN ('fingerprint', 'dimension')"
            ).fetchall()
        )
        if not known:
            facts = [("fingerprint", fingerprint), ("dimension", str(dimension))]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts)
        elif known["fingerprint"] != fingerprint:
            raise IndexMismatchError(
                stored=known["fingerprint"], given=fingerprint, where=self.name
            )
        elif known["dimension"] != str(dimension):
            raise StoreError(
                f"A vector of {dimension} numbers cannot be written to {self.name}, whose vectors "
                f"have {known['dimension']}: {fingerprint!r} gives vectors of two lengths."
            )

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        where, values = _where(selection)
        return self._delete(f"SELECT id FROM entries WHERE {where} LIMIT ?", values, limit)

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """Delete the first `count` entries in one of `ORDERS`, but not the one with id `spare`."""
        self.keep_order(order, by_namespace=namespace is not None)
        where, values = (
            ("id != ?", [spare])
            if namespace is None
            else ("id != ? AND namespace = ?", [spare, namespace])
        )
        select = f"SELECT id FROM entries WHERE {where} ORDER BY {ORDERS[order]} LIMIT ?"
        return self._delete(select, values, count)

    def keep_order(self, order: str, *, by_namespace: bool) -> None:
        """From now on keep the entries in this order, so that an eviction looks at no others."""
        name = f"entries_{'namespace_' if by_namespace else ''}{order}"
        if name in self._ordered:
            return
        columns = ORDERS[order].removesuffix("id").removesuffix(", ")
        if by_namespace:
            columns = f"namespace, {columns}" if columns else "namespace"
        known = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"
        if columns and self._one(known, (name,)) is None:
            with self._transaction("write to") as db:
                db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON entries({columns})")
        self._ordered.add(name)

    def _delete(self, select: str, values: list[Any], limit: int | None) -> list[int]:
        with self._transaction("delete from") as db:
            rows = db.execute(select, (*values, -1 if limit is None else limit)).fetchall()
            ids = [row[0] for row in rows]
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                db.execute(f"DELETE FROM entries WHERE id IN ({','.join('?' * len(batch))})", batch)
            if ids:
                db.execute(_FORGET_DELETIONS, (_DELETIONS_KEPT,))
        return ids

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        with self._transaction("write to") as db:
            db.executemany(
                _ADD_HITS,
                [{"id": i, "count": count, "last": last} for i, (count, last) in hits.items()],
            )
            db.executemany(
                "INSERT INTO counters VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                list(counters.items()),
            )

    # ------------------------------------------------------------------ what was learned

    def observe(self, observations: Sequence[Observation], serves: Sequence[Serve]) -> None:
        """Append labels and serves in one transaction."""
        with self._transaction("write to") as db:
            db.executemany(OBSERVE, [observation_row(found) for found in observations])
            db.executemany(SERVE, [serve_row(found) for found in serves])
            if serves:
                db.execute(FORGET_SERVES, (SERVES_KEPT,))
            if observations:
                db.execute(FORGET_OBSERVATIONS, (OBSERVATIONS_KEPT,))

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        with self._faults("read"):
            rows = self._reader().execute(OBSERVATIONS_AFTER, (number, limit)).fetchall()
        return [(row[0], as_observation(row[1:])) for row in rows]

    def last_observation(self) -> int:
        row = self._one("SELECT coalesce(max(id), 0) FROM observations")
        return row[0] if row else 0

    def observation_counts(self) -> list[tuple[str, int, int]]:
        """(kind, how many, how many of them right)."""
        sql = "SELECT kind, count(*), sum(right) FROM observations GROUP BY kind ORDER BY kind"
        with self._faults("read"):
            return self._reader().execute(sql).fetchall()

    def served_labels(self, limit: int) -> list[bool]:
        """The newest labels of answers that were served, or good enough to be."""
        sql = (
            "SELECT right FROM observations WHERE kind IN ('explore', 'audit', 'review')"
            " ORDER BY id DESC LIMIT ?"
        )
        with self._faults("read"):
            return [bool(row[0]) for row in self._reader().execute(sql, (limit,))]

    def serve(self, lookup_id: str) -> Serve | None:
        row = self._one(f"{SERVES} WHERE id = ?", (lookup_id,))
        return None if row is None else as_serve(row)

    def unreviewed(self, limit: int) -> list[Serve]:
        sql = (
            f"{SERVES} WHERE verdict IS NULL AND entry_id IN (SELECT id FROM entries)"
            " ORDER BY random() LIMIT ?"
        )
        with self._faults("read"):
            return [as_serve(row) for row in self._reader().execute(sql, (limit,)).fetchall()]

    def refuted(self) -> set[tuple[int, str]]:
        """(entry id, question) of serves that somebody called wrong."""
        with self._faults("read"):
            return set(
                self._reader().execute("SELECT entry_id, question FROM serves WHERE verdict = 0")
            )

    def reviewed(self, lookup_id: str, right: bool) -> None:
        with self._transaction("write to") as db:
            db.execute("UPDATE serves SET verdict = ? WHERE id = ?", (int(right), lookup_id))

    # -------------------------------------------------------------- embedding it all anew

    def begin_reembedding(self, fingerprint: str, dimension: int) -> None:
        """Prepare to replace all vectors; goes on where an interrupted run stopped."""
        if self.meta("next_fingerprint") == fingerprint:
            return
        with self._transaction("write to") as db:
            db.execute("DROP TABLE IF EXISTS embeddings_next")
            db.execute(
                "CREATE TABLE embeddings_next"
                " (entry_id INTEGER PRIMARY KEY, scope BLOB, vector BLOB)"
            )
            facts = [("next_fingerprint", fingerprint), ("next_dimension", str(dimension))]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts)

    def questions_to_embed(self, limit: int) -> list[tuple[int, bytes, str]]:
        """(entry id, scope, question) of entries that have no new vector yet."""
        sql = (
            "SELECT id, scope, question FROM entries WHERE question IS NOT NULL"
            " AND id NOT IN (SELECT entry_id FROM embeddings_next) ORDER BY id LIMIT ?"
        )
        with self._faults("read"):
            return self._reader().execute(sql, (limit,)).fetchall()

    def count_to_embed(self) -> int:
        """How many entries have no new vector yet."""
        row = self._one(
            "SELECT count(*) FROM entries WHERE question IS NOT NULL"
            " AND id NOT IN (SELECT entry_id FROM embeddings_next)"
        )
        return row[0] if row else 0

    def keep_reembedded(self, rows: Iterable[tuple[int, bytes, bytes | None]]) -> None:
        """Keep new vectors (None: the question has none) until `finish_reembedding`."""
        with self._transaction("write to") as db:
            db.executemany("INSERT OR REPLACE INTO embeddings_next VALUES (?, ?, ?)", list(rows))

    def finish_reembedding(self) -> bool:
        """Put the new vectors in place, in one step; False if entries have come in meanwhile."""
        with self._transaction("write to") as db:
            (missing,) = db.execute(
                "SELECT count(*) FROM entries WHERE question IS NOT NULL"
                " AND id NOT IN (SELECT entry_id FROM embeddings_next)"
            ).fetchone()
            if missing:
                return False
            db.execute("DELETE FROM embeddings")
            db.execute(
                "INSERT INTO embeddings SELECT entry_id, scope, vector FROM embeddings_next"
                " WHERE vector IS NOT NULL AND entry_id IN (SELECT id FROM entries)"
            )
            for name in ("fingerprint", "dimension"):
                db.execute(
                    "INSERT OR REPLACE INTO meta"
                    " SELECT ?, value FROM meta WHERE name = 'next_' || ?",
                    (name, name),
                )
            db.execute("DELETE FROM meta WHERE name LIKE 'next_%'")
            # Under a new id, so that every index and snapshot of the old vectors is void.
            db.execute(_NEW_ID)
            db.execute("DROP TABLE embeddings_next")
        return True

    def renew_id(self) -> None:
        """Make every index and snapshot of what was here before void."""
        with self._transaction("write to") as db:
            db.execute(_NEW_ID)

    def mend(self) -> None:
        """Delete rows that belong to no entry, vectors that are none; set the totals right."""
        unreadable = [(entry_id,) for entry_id in self._unreadable()]
        with self._transaction("mend") as db:
            for table in ("embeddings", "tags"):
                db.execute(f"DELETE FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)")
            db.executemany("DELETE FROM embeddings WHERE entry_id = ?", unreadable)
            db.execute(
                "UPDATE totals SET entries = (SELECT count(*) FROM entries),"
                " bytes = (SELECT coalesce(sum(bytes), 0) FROM entries)"
            )
            db.execute("DELETE FROM namespaces")
            db.execute(
                "INSERT INTO namespaces SELECT namespace, count(*), sum(bytes) FROM entries"
                " GROUP BY namespace"
            )

    def vacuum(self) -> None:
        """Give free pages back to the file system."""
        with self._writing("vacuum"), self._faults("vacuum"):
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(columns: tuple[str, ...]) -> str:
    marks = ",".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO entries ({', '.join(columns)}) VALUES ({marks})"


def _where(selection: Selection) -> tuple[str, list[Any]]:
    """The conditions of a selection as SQL, with their values."""
    conditions: list[str] = ["1"]
    values: list[Any] = []
    for column in ("namespace", "model"):
        if (value := getattr(selection, column)) is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if selection.tag is not None:
        conditions.append("id IN (SELECT entry_id FROM tags WHERE tag = ?)")
        values.append(selection.tag)
    if selection.ids is not None:
        conditions.append(f"id IN ({','.join(str(int(i)) for i in selection.ids)})")
    if selection.created_before is not None:
        conditions.append("created_at < ?")
        values.append(selection.created_before)
    if selection.expired_at is not None:
        conditions.append("expires_at <= ?")
        values.append(selection.expired_at)
    return " AND ".join(conditions), values
