"""The `Store` in a SQLite file.

Migrations use sqlite-utils; statements here use plain `sqlite3`, which caches prepared ones.
One module, so that all statements about entries can be read side by side.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from semcache.backends.base import EntryDetails, GroupSize, Order, Totals
from semcache.backends.local.sqlite.database import dimension_of, text_of
from semcache.backends.local.sqlite.ledger import LedgerTables
from semcache.backends.local.sqlite.orders import ORDER_BY, eviction_index
from semcache.backends.local.sqlite.rows import (
    ENTRY_COLUMNS,
    condition,
    entries_from_rows,
    entry_from_row,
    row_from_entry,
    summary_of,
)
from semcache.backends.local.sqlite.store_maintenance import StoreMaintenance
from semcache.backends.vectors import Form, batched, decode_rows, decoded, encoded, is_vector
from semcache.errors import IndexMismatchError, StoreError
from semcache.types import ChangeCursor, Entry, NewEntry, Selection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.local.sqlite.database import Opening
    from semcache.types import Vector

_GET_EXACT = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE exact_key = ?"
_POSITION = (
    "SELECT (SELECT value FROM meta WHERE name = 'store_id'),"
    " (SELECT value FROM meta WHERE name = 'fingerprint'),"
    " (SELECT value FROM meta WHERE name = 'dimension'),"
    " (SELECT seq FROM sqlite_sequence WHERE name = 'entries'),"
    " (SELECT seq FROM sqlite_sequence WHERE name = 'deletions')"
)
_GET_SOME = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id IN ({{}})"
_GET_VECTORS = "SELECT entry_id, vector FROM embeddings WHERE entry_id IN ({})"
_GET_WITH_VECTORS = (
    f"SELECT {ENTRY_COLUMNS}, (SELECT vector FROM embeddings WHERE entry_id = entries.id)"
    " FROM entries WHERE id IN ({})"
)
_GET_TAGS = (
    "SELECT tag, entry_id FROM tags WHERE entry_id IN ({}) AND typeof(tag) = 'text' ORDER BY tag"
)
_TOTALS = "SELECT ifnull(CAST(entries AS INTEGER), 0), ifnull(CAST(bytes AS INTEGER), 0)"
_COUNTERS = (
    "SELECT name, value FROM counters WHERE typeof(name) = 'text'"
    " AND typeof(value) IN ('integer', 'real') AND abs(value) < 1e300"
)
_GET_DETAILS = (
    "SELECT id, summary, key_version,"
    " (SELECT vector FROM embeddings WHERE entry_id = entries.id) FROM entries WHERE id IN ({})"
)
_BATCH = 500
_ADD_HITS = (
    "UPDATE entries SET hits = hits + :count, last_hit_at = max(coalesce(last_hit_at, 0), :last),"
    # A hit restarts a sliding TTL, unless the entry was stale or had expired by then.
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
_OLD_VECTOR = (
    "SELECT vector FROM embeddings WHERE entry_id ="
    " (SELECT id FROM entries WHERE exact_key = ? AND question IS ?)"
)
_MAX_DELETIONS, _TRIM_EVERY = 100_000, 1000


@cache
def _for_ids(sql: str, count: int) -> str:
    """The statement with one placeholder for each of `count` ids."""
    return sql.format(",".join("?" * count))


class SQLiteStore(LedgerTables, StoreMaintenance):
    """A `Store` in one file, together with its `Ledger`, `CounterStore` and `Metadata`.

    Args:
        vectors: how new vectors are encoded; see `semcache.backends.vectors`.
        opening: options of `Database`.

    Raises:
        StoreError: the file cannot be created, opened or read, or is not the database of a cache.
        StoreVersionError: a newer semcache wrote the file.
    """

    def __init__(
        self, path: str | Path, *, vectors: Form = "float32", **opening: Unpack[Opening]
    ) -> None:
        self._form = vectors
        self._known_indexes: set[str] = set()
        super().__init__(path, **opening)

    # ----------------------------------------------------------------------- reading

    def get_exact(self, exact_key: bytes) -> Entry | None:
        rows = self._read(_GET_EXACT, (exact_key,))
        return entry_from_row(rows[0]) if rows else None

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        rows = self._read(_for_ids(_GET_SOME, len(ids)), tuple(ids))
        return {entry.id: entry for entry, _ in entries_from_rows(rows)}

    def get_with_vectors(self, ids: Sequence[int]) -> dict[int, tuple[Entry, bytes | None]]:
        rows = self._read(_for_ids(_GET_WITH_VECTORS, len(ids)), tuple(ids))
        return {entry.id: (entry, row[-1]) for entry, row in entries_from_rows(rows)}

    def revision(self) -> int:
        revision: int = self._read("PRAGMA data_version")[0][0]
        return revision

    def acked_revision(self) -> int | None:
        """See `Store.acked_revision`."""
        return getattr(self._local, "revision", None)

    def ack_revision(self, revision: int) -> None:
        """Note a revision for this thread; `data_version` is comparable only in one connection."""
        self._local.revision = revision

    def vectors_after(self, entry_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        sql = (
            "SELECT entry_id, scope, vector FROM embeddings WHERE entry_id > ? ORDER BY entry_id"
            " LIMIT 4096"
        )
        while True:
            rows = self._read(sql, (entry_id,))
            if not rows:
                return
            yield from rows
            entry_id = rows[-1][0]

    def vectors_of(self, ids: Sequence[int]) -> dict[int, bytes]:
        return dict(self._read(_for_ids(_GET_VECTORS, len(ids)), tuple(ids)))

    def deletions_after(
        self, sequence: int, up_to: int | None = None
    ) -> tuple[list[int], int] | None:
        with self._store_errors("read"):
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

    def position(self) -> ChangeCursor:
        """See `Store.position`."""
        store_id, fingerprint, dimension, last_id, last_deletion = self._one(_POSITION) or (
            (None,) * 5
        )
        named = text_of(store_id) or "", text_of(fingerprint), dimension_of(dimension)
        return ChangeCursor(*named, last_id or 0, last_deletion or 0)

    def embedded_ids(self) -> NDArray[np.int64]:
        """int64[n]: the ids of all entries that have a vector, in ascending order."""
        import numpy as np

        sql = "SELECT entry_id FROM embeddings ORDER BY entry_id"
        with self._store_errors("read"):
            rows = self._reader().execute(sql)
            return np.fromiter((row[0] for row in rows), np.int64)

    def totals(self, namespace: str | None = None) -> Totals:
        if namespace is None:
            row = self._one(f"{_TOTALS} FROM totals")
        else:
            sql = f"{_TOTALS} FROM namespaces WHERE namespace = ?"
            row = self._one(sql, (namespace,))
        return Totals(0, 0) if row is None else Totals(row[0], row[1])

    def ids(self, selection: Selection) -> list[int]:
        """The ids of the selected entries."""
        where, values = condition(selection)
        with self._store_errors("read"):
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
        """The selected entries in this order."""
        where, values = condition(selection)
        sql = (
            f"SELECT {ENTRY_COLUMNS} FROM entries WHERE {where} ORDER BY {ORDER_BY[order]}"
            " LIMIT ? OFFSET ?"
        )
        limit = -1 if limit is None else limit
        rows = self._read(sql, (*values, limit, offset))
        return [entry for entry, _ in entries_from_rows(rows)]

    def page_after(self, last: int, selection: Selection, limit: int) -> list[Entry]:
        """Selected entries with an id above `last`, smallest id first."""
        where, values = condition(selection)
        sql = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id > ? AND {where} ORDER BY id LIMIT ?"
        while rows := self._read(sql, (last, *values, limit)):
            if page := [entry for entry, _ in entries_from_rows(rows)]:
                return page
            last = rows[-1][0]
        return []

    def count(self, selection: Selection = Selection()) -> int:
        where, values = condition(selection)
        row = self._one(f"SELECT count(*) FROM entries WHERE {where}", tuple(values))
        return int(row[0]) if row else 0

    def groups(self) -> list[GroupSize]:
        sql = (
            "SELECT namespace, model, count(*), sum(hits) FROM entries"
            " GROUP BY namespace, model ORDER BY count(*) DESC, namespace, model"
        )
        rows = self._read(sql)
        return [GroupSize(*row) for row in rows if type(row[0]) is type(row[1]) is str]

    def details(self, ids: Sequence[int]) -> dict[int, EntryDetails]:
        tags: dict[int, list[str]] = {}
        for tag, entry_id in self._read(_for_ids(_GET_TAGS, len(ids)), tuple(ids)):
            tags.setdefault(entry_id, []).append(tag)
        dimension = self.dimension()
        rows = self._read(_for_ids(_GET_DETAILS, len(ids)), tuple(ids))
        return {
            entry_id: EntryDetails(
                tuple(tags.get(entry_id, ())),
                summary_of(summary),
                key_version if isinstance(key_version, int) else 0,
                decoded([blob], dimension)[0] if blob and is_vector(blob, dimension) else None,
            )
            for entry_id, summary, key_version, blob in rows
        }

    def vectors(self) -> Iterator[tuple[int, Vector]]:
        dimension = self.dimension()
        for rows in batched(self.vectors_after(0), 1024):
            ids, _, vectors = decode_rows(rows, dimension)
            yield from zip(ids, vectors, strict=True)

    def key_versions(self) -> dict[int, int]:
        """The number of entries by version of the canonical form."""
        sql = "SELECT key_version, count(*) FROM entries GROUP BY key_version"
        return dict(self._read(sql))

    def counters(self) -> dict[str, float]:
        return dict(self._read(_COUNTERS))

    def stored_bytes(self) -> int:
        """The size of the database on disk in bytes, including its write-ahead log."""
        names = (self.path, Path(f"{self.path}-wal"))
        return sum(p.stat().st_size for p in names if p.exists())

    # ----------------------------------------------------------------------- writing

    def blob(self, vector: Vector) -> bytes:
        """float32[d] encoded as this store writes vectors."""
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
            elif old := db.execute(_OLD_VECTOR, (entry.exact_key, entry.question)).fetchone():
                (blob,) = old  # the question is the same, so its vector is still right
                row["bytes"] += len(blob)
            cursor = db.execute(_insert(tuple(row)), tuple(row.values()))
            entry_id = int(cursor.lastrowid or 0)
            if blob is not None:
                db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (entry_id, entry.scope, blob))
            if entry.tags:
                db.executemany(
                    "INSERT INTO tags VALUES (?, ?)", [(tag, entry_id) for tag in entry.tags]
                )
            if entry_id % _TRIM_EVERY == 0:  # a replacement logs a deletion, too
                db.execute(_FORGET_DELETIONS, (_MAX_DELETIONS,))
        return entry_id

    def _claim(self, db: sqlite3.Connection, fingerprint: str, dimension: int) -> None:
        """The first vector fixes the embedder; vectors of any other are refused."""
        known = dict(
            db.execute(
                "SELECT name, value FROM meta WHERE name IN ('fingerprint', 'dimension')"
            ).fetchall()
        )
        if not known:
            rows = [("fingerprint", fingerprint), ("dimension", str(dimension))]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        elif known["fingerprint"] != fingerprint:
            raise IndexMismatchError(
                stored=known["fingerprint"], given=fingerprint, where=self.name
            )
        elif known["dimension"] != str(dimension):
            raise StoreError(
                f"A vector of {dimension} numbers cannot be written to {self.name}, whose vectors "
                f"have {known['dimension']}: {fingerprint!r} returns vectors of two lengths."
            )

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        where, values = condition(selection)
        return self._delete(f"SELECT id FROM entries WHERE {where} LIMIT ?", values, limit)

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """See `Evictable.evict`."""
        self.keep_order(order, by_namespace=namespace is not None)
        where, values = (
            ("id != ?", [spare])
            if namespace is None
            else ("id != ? AND namespace = ?", [spare, namespace])
        )
        select = f"SELECT id FROM entries WHERE {where} ORDER BY {ORDER_BY[order]} LIMIT ?"
        return self._delete(select, values, count)

    def keep_order(self, order: str, *, by_namespace: bool) -> None:
        """Create the index for an eviction order, so that evicting reads only what it deletes."""
        index = eviction_index(order, by_namespace=by_namespace)
        if index is None or index.name in self._known_indexes:
            return
        exists = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"
        if self._one(exists, (index.name,)) is None:
            with self._transaction("write to") as db:
                db.execute(index.statement)
        self._known_indexes.add(index.name)

    def _delete(self, select: str, values: list[Any], limit: int | None) -> list[int]:
        with self._transaction("delete from") as db:
            rows = db.execute(select, (*values, -1 if limit is None else limit)).fetchall()
            ids = [row[0] for row in rows]
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                db.execute(f"DELETE FROM entries WHERE id IN ({','.join('?' * len(batch))})", batch)
            if ids:
                db.execute(_FORGET_DELETIONS, (_MAX_DELETIONS,))
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


def _insert(columns: tuple[str, ...]) -> str:
    marks = ",".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO entries ({', '.join(columns)}) VALUES ({marks})"
