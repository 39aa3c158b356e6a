"""Looking after a database: what is wrong with it, setting it right, embedding it all anew."""

from __future__ import annotations

from collections.abc import Iterable

from semcache.backends.local.sqlite.database import Database
from semcache.backends.vectors import lengths

NEW_ID = "UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'store_id'"


class StoreMaintenance(Database):
    """What tools do to a database."""

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
        totals = self._one("SELECT entries, bytes FROM totals") or (0, 0)
        if (entries, size) != totals:
            found.append(f"totals say {totals}, the entries are {(entries, size)}")
        if namespaces:
            found.append(f"the totals of {namespaces} namespaces are wrong")
        if self.meta("dimension") is None and self._one("SELECT 1 FROM embeddings LIMIT 1"):
            found.append("there are vectors, but not whose: semcache reembed makes them anew")
        if unreadable := len(self._unreadable()):
            found.append(f"{unreadable} vectors have a length that no vector has here")
        return found

    def _unreadable(self) -> list[int]:
        """Entries whose vector is none."""
        dimension = int(self.meta("dimension") or 0)
        if not dimension:
            return []  # nothing is known of what a vector is
        sql = "SELECT entry_id FROM embeddings WHERE length(vector) NOT IN (?, ?, ?)"
        return [row[0] for row in self._read(sql, lengths(dimension))]

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
        return self._read(sql, (limit,))

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
            db.execute(NEW_ID)
            db.execute("DROP TABLE embeddings_next")
        return True

    def renew_id(self) -> None:
        """Make every index and snapshot of what was here before void."""
        with self._transaction("write to") as db:
            db.execute(NEW_ID)
