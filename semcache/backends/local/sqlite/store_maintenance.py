"""Checks, repairs, vacuums and re-embeds a database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from semcache.backends.local.sqlite.database import Database
from semcache.backends.local.sqlite.rows import COLUMNS, completion_from_columns
from semcache.backends.vectors import lengths
from semcache.keys.keys import KEY_VERSION, exact_key
from semcache.types import EXACT_ONLY

NEW_ID = "UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'store_id'"


class StoreMaintenance(Database):
    """Operations on a whole database, for tools."""

    def problems(self) -> list[str]:
        """What is wrong with the file, according to SQLite and to our own consistency checks."""
        with self._store_errors("check"):
            reader = self._reader()
            problems = [r[0] for r in reader.execute("PRAGMA integrity_check(20)") if r[0] != "ok"]
            for table in ("embeddings", "tags"):
                (orphans,) = reader.execute(
                    f"SELECT count(*) FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)"
                ).fetchone()
                if orphans:
                    problems.append(f"{orphans} rows of {table} belong to no entry")
            (entries, size) = reader.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM entries"
            ).fetchone()
            (namespaces,) = reader.execute(
                "SELECT count(*) FROM (SELECT namespace, count(*), sum(bytes) FROM entries"
                " GROUP BY namespace EXCEPT SELECT namespace, entries, bytes FROM namespaces)"
            ).fetchone()
        totals = self._one("SELECT entries, bytes FROM totals") or (0, 0)
        if (entries, size) != totals:
            problems.append(
                f"totals are {totals} (entries, bytes), but should be {(entries, size)}"
            )
        if namespaces:
            problems.append(f"the totals of {namespaces} namespaces are wrong")
        if not self.dimension() and self._one("SELECT 1 FROM embeddings LIMIT 1"):
            problems.append("the embedder of the vectors is unknown: run semcache reembed")
        if malformed := len(self._malformed_vectors()):
            problems.append(f"{malformed} vectors have a length that does not fit the dimension")
        if damaged := len(self._damaged_entries()):
            problems.append(f"{damaged} entries hold values that no version of semcache has stored")
        return problems

    def _damaged_entries(self) -> list[int]:
        """The ids of entries that cannot be read."""
        wrong = " OR ".join(
            f"typeof({name}) NOT IN ({', '.join(repr(kind) for kind in _kinds(types))})"
            for name, types in COLUMNS
        )
        sql = (
            f"SELECT id FROM entries WHERE {wrong} OR length(exact_key) != 32"
            " OR length(scope) != 32 OR (extra IS NOT NULL AND NOT is_answer(extra))"
            " OR typeof(summary) != 'text' OR NOT json_valid(summary)"
            " OR abs(coalesce(expires_at, 0)) > 1e300"
        )
        connection = self._reader()
        connection.create_function("is_answer", 1, _is_answer, deterministic=True)
        with self._store_errors("check"):
            return [row[0] for row in connection.execute(sql)]

    def planted(self) -> list[str]:
        """Signs that something other than semcache wrote entries."""
        found = []
        connection = self._reader()
        connection.create_function("key_of", 2, _key_of, deterministic=True)
        with self._store_errors("check"):
            keys = connection.execute(f"SELECT count(*) {_WRONG_KEY}").fetchone()[0]
            mixed = connection.execute(_MIXED).fetchone()[0]
        if keys:
            found.append(f"the exact keys of {keys} entries do not match their questions")
        if mixed:
            found.append(
                f"{mixed} scopes hold entries of several namespaces: clear these namespaces, or "
                "restore a backup"
            )
        return found

    def delete_planted(self) -> None:
        """Delete the entries whose exact key does not match their scope and question."""
        with self._transaction("repair") as db:
            db.create_function("key_of", 2, _key_of, deterministic=True)
            db.execute(f"DELETE {_WRONG_KEY}")

    def _malformed_vectors(self) -> list[int]:
        """The ids of entries with a malformed vector."""
        dimension = self.dimension()
        if not dimension:
            return []  # the length of a vector is unknown
        sql = (
            "SELECT entry_id FROM embeddings WHERE length(vector) NOT IN (?, ?, ?)"
            " OR typeof(vector) != 'blob' OR typeof(scope) != 'blob'"
        )
        return [row[0] for row in self._read(sql, lengths(dimension))]

    def mend(self) -> None:
        """Delete what cannot be served: orphaned rows, malformed vectors, damaged entries.

        Then correct the totals.
        """
        damaged = [(entry_id,) for entry_id in self._damaged_entries()]
        malformed = [(entry_id,) for entry_id in self._malformed_vectors()]
        with self._transaction("repair") as db:
            for table in ("embeddings", "tags"):
                db.execute(f"DELETE FROM {table} WHERE entry_id NOT IN (SELECT id FROM entries)")
            db.executemany("DELETE FROM embeddings WHERE entry_id = ?", malformed)
            db.executemany("DELETE FROM entries WHERE id = ?", damaged)
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
        """Return free pages to the file system."""
        with self._writing("vacuum"), self._store_errors("vacuum"):
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def begin_reembedding(self, fingerprint: str, dimension: int) -> None:
        """Prepare to replace all vectors; resumes an interrupted run for the same embedder."""
        if self.meta("next_fingerprint") == fingerprint:
            return
        with self._transaction("write to") as db:
            db.execute("DROP TABLE IF EXISTS embeddings_next")
            db.execute(
                "CREATE TABLE embeddings_next"
                " (entry_id INTEGER PRIMARY KEY, scope BLOB, vector BLOB)"
            )
            rows = [("next_fingerprint", fingerprint), ("next_dimension", str(dimension))]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def questions_to_embed(self, limit: int) -> list[tuple[int, bytes, str, int]]:
        """(entry id, scope, question, whether the entry is exact only) of up to `limit` entries
        without a new vector."""
        sql = (
            "SELECT id, scope, question, json_valid(summary)"
            f"  AND ifnull(json_extract(summary, '$.{EXACT_ONLY}'), 0)"
            " FROM entries WHERE question IS NOT NULL"
            " AND id NOT IN (SELECT entry_id FROM embeddings_next) ORDER BY id LIMIT ?"
        )
        return self._read(sql, (limit,))

    def count_to_embed(self) -> int:
        """How many entries still lack a new vector."""
        row = self._one(
            "SELECT count(*) FROM entries WHERE question IS NOT NULL"
            " AND id NOT IN (SELECT entry_id FROM embeddings_next)"
        )
        return row[0] if row else 0

    def keep_reembedded(self, rows: Iterable[tuple[int, bytes, bytes | None]]) -> None:
        """Store (entry id, scope, new vector) until `finish_reembedding`.

        A vector of None means that the question cannot be embedded.
        """
        with self._transaction("write to") as db:
            db.executemany("INSERT OR REPLACE INTO embeddings_next VALUES (?, ?, ?)", list(rows))

    def finish_reembedding(self) -> bool:
        """Replace all vectors in one transaction; False if entries were added meanwhile."""
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
            # A new id invalidates every index and snapshot of the old vectors.
            db.execute(NEW_ID)
            db.execute("DROP TABLE embeddings_next")
        return True

    def renew_id(self) -> None:
        """Give the store a new id, which invalidates all existing indexes and snapshots."""
        with self._transaction("write to") as db:
            db.execute(NEW_ID)


_WRONG_KEY = (
    f"FROM entries WHERE key_version = {KEY_VERSION} AND question IS NOT NULL"
    " AND exact_key IS NOT key_of(scope, question)"
)
_MIXED = (
    "SELECT count(*) FROM"
    " (SELECT scope FROM entries GROUP BY scope HAVING count(DISTINCT namespace) > 1)"
)
_SQL_TYPES = {str: "text", bytes: "blob", int: "integer", float: "real", type(None): "null"}


def _kinds(types: frozenset[type]) -> list[str]:
    """SQLite's names of types."""
    return [_SQL_TYPES[kind] for kind in types]


def _is_answer(extra: Any) -> bool:
    """Whether the fields of an answer can be read."""
    try:
        completion_from_columns("", extra, None, None, None)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False
    return True


def _key_of(scope: Any, question: Any) -> bytes | None:
    if not isinstance(scope, bytes) or not isinstance(question, str):
        return None
    return exact_key(scope, question)
