"""The tables of labels, served hits and pending comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from semcache.backends.base import LabelCount
from semcache.backends.local.sqlite.database import Database
from semcache.backends.local.sqlite.ledger_rows import (
    COMPARISONS,
    COMPARISONS_KEPT,
    FORGET_COMPARISONS,
    FORGET_OBSERVATIONS,
    FORGET_SERVES,
    KEEP_COMPARISON,
    OBSERVATIONS_AFTER,
    OBSERVATIONS_KEPT,
    OBSERVE,
    SERVE,
    SERVES,
    SERVES_KEPT,
    as_comparison,
    as_observation,
    as_serve,
    comparison_row,
    observation_row,
    serve_row,
)
from semcache.backends.local.sqlite.rows import condition
from semcache.types import Observation, PendingComparison, Selection, ServedHit


class LedgerTables(Database):
    """A `Ledger` in a database."""

    def observe(self, observations: Sequence[Observation], served: Sequence[ServedHit]) -> None:
        """See `Ledger.observe`."""
        with self._transaction("write to") as db:
            db.executemany(OBSERVE, [observation_row(observation) for observation in observations])
            db.executemany(SERVE, [serve_row(hit) for hit in served])
            if served:
                db.execute(FORGET_SERVES, (SERVES_KEPT,))
            if observations:
                db.execute(FORGET_OBSERVATIONS, (OBSERVATIONS_KEPT,))

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        rows = self._read(OBSERVATIONS_AFTER, (number, limit))
        return [(row[0], as_observation(row[1:])) for row in rows]

    def last_observation(self) -> int:
        row = self._one("SELECT coalesce(max(id), 0) FROM observations")
        return row[0] if row else 0

    def observation_counts(self) -> list[LabelCount]:
        sql = (
            "SELECT kind, count(*), sum(right) FROM observations WHERE unsure = 0"
            " GROUP BY kind ORDER BY kind"
        )
        return [LabelCount(*row) for row in self._read(sql)]

    def served_labels(self, limit: int) -> list[bool]:
        """See `Ledger.served_labels`."""
        sql = (
            "SELECT right FROM observations WHERE kind IN ('explore', 'audit', 'review')"
            " AND unsure = 0"
            " ORDER BY id DESC LIMIT ?"
        )
        return [bool(row[0]) for row in self._read(sql, (limit,))]

    def forget(self, selection: Selection) -> int:
        """See `Ledger.forget`."""
        where, values = condition(selection)
        of_entries = f"entry_id IN (SELECT id FROM entries WHERE {where})"
        whole_namespace = selection == Selection(selection.namespace)
        with self._transaction("delete from") as db:
            deleted = db.execute(f"DELETE FROM observations WHERE {of_entries}", values).rowcount
            if whole_namespace and selection.namespace is not None:
                own = (selection.namespace,)
                deleted += db.execute("DELETE FROM observations WHERE namespace = ?", own).rowcount
                db.execute("DELETE FROM serves WHERE namespace = ?", own)
                db.execute("DELETE FROM comparisons WHERE namespace = ?", own)
        return deleted

    def served_hit(self, lookup_id: str) -> ServedHit | None:
        row = self._one(f"{SERVES} WHERE id = ?", (lookup_id,))
        return None if row is None else as_serve(row)

    def unreviewed(self, limit: int) -> list[ServedHit]:
        sql = (
            f"{SERVES} WHERE verdict IS NULL AND entry_id IN (SELECT id FROM entries)"
            " ORDER BY random() LIMIT ?"
        )
        return [as_serve(row) for row in self._read(sql, (limit,))]

    def rejected_pairs(self) -> set[tuple[int, str]]:
        """See `Ledger.rejected_pairs`."""
        return set(self._read("SELECT entry_id, question FROM serves WHERE verdict = 0"))

    def set_verdict(self, lookup_id: str, right: bool) -> None:
        with self._transaction("write to") as db:
            db.execute("UPDATE serves SET verdict = ? WHERE id = ?", (int(right), lookup_id))

    def keep_comparisons(self, comparisons: Sequence[PendingComparison]) -> None:
        """See `Ledger.keep_comparisons`."""
        with self._transaction("write to") as db:
            db.executemany(KEEP_COMPARISON, map(comparison_row, comparisons))
            db.execute(FORGET_COMPARISONS, (COMPARISONS_KEPT,))

    def take_comparisons(self, limit: int) -> list[PendingComparison]:
        """See `Ledger.take_comparisons`."""
        if self._one("SELECT 1 FROM comparisons LIMIT 1") is None:
            return []  # without a transaction: opening a cache must not write to it
        with self._transaction("write to") as db:
            rows = db.execute(COMPARISONS, (limit,)).fetchall()
            db.executemany("DELETE FROM comparisons WHERE id = ?", [row[:1] for row in rows])
        return [as_comparison(row[1:]) for row in rows]
