"""What was learned, and what was served: the tables behind `protocols.Ledger`."""

from __future__ import annotations

from collections.abc import Sequence

from semcache.backends.local.sqlite.database import Database
from semcache.backends.local.sqlite.ledger_rows import (
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
from semcache.types import Observation, Serve


class LedgerTables(Database):
    """A `Ledger` in a database."""

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
        rows = self._read(OBSERVATIONS_AFTER, (number, limit))
        return [(row[0], as_observation(row[1:])) for row in rows]

    def last_observation(self) -> int:
        row = self._one("SELECT coalesce(max(id), 0) FROM observations")
        return row[0] if row else 0

    def observation_counts(self) -> list[tuple[str, int, int]]:
        """(kind, how many, how many of them right)."""
        sql = "SELECT kind, count(*), sum(right) FROM observations GROUP BY kind ORDER BY kind"
        return self._read(sql)

    def served_labels(self, limit: int) -> list[bool]:
        """The newest labels of answers that were served, or good enough to be."""
        sql = (
            "SELECT right FROM observations WHERE kind IN ('explore', 'audit', 'review')"
            " ORDER BY id DESC LIMIT ?"
        )
        return [bool(row[0]) for row in self._read(sql, (limit,))]

    def serve(self, lookup_id: str) -> Serve | None:
        row = self._one(f"{SERVES} WHERE id = ?", (lookup_id,))
        return None if row is None else as_serve(row)

    def unreviewed(self, limit: int) -> list[Serve]:
        sql = (
            f"{SERVES} WHERE verdict IS NULL AND entry_id IN (SELECT id FROM entries)"
            " ORDER BY random() LIMIT ?"
        )
        return [as_serve(row) for row in self._read(sql, (limit,))]

    def refuted(self) -> set[tuple[int, str]]:
        """(entry id, question) of serves that somebody called wrong."""
        return set(self._read("SELECT entry_id, question FROM serves WHERE verdict = 0"))

    def reviewed(self, lookup_id: str, right: bool) -> None:
        with self._transaction("write to") as db:
            db.execute("UPDATE serves SET verdict = ? WHERE id = ?", (int(right), lookup_id))
