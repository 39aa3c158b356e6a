"""Rows of `observations` and `serves`."""

from __future__ import annotations

import json
from typing import Any

from semcache.types import Observation, ServedHit

SERVES_KEPT = 10_000
"""Serves that are remembered for whoever reports on one later."""

OBSERVE = (
    "INSERT INTO observations (at, writer, kind, namespace, entry_id, other_id, right, expected,"
    " features) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
OBSERVATIONS_AFTER = (
    "SELECT id, at, writer, kind, namespace, entry_id, other_id, right, expected, features"
    " FROM observations WHERE id > ? ORDER BY id LIMIT ?"
)
SERVE = (
    "INSERT OR IGNORE INTO serves (id, at, namespace, entry_id, question, similarity, chance,"
    " features) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
SERVES = (
    "SELECT id, at, namespace, entry_id, question, similarity, chance, features, verdict"
    " FROM serves"
)
FORGET_SERVES = (
    # What was called wrong is remembered: it is not to be served to that question again.
    "DELETE FROM serves WHERE verdict IS NOT 0"
    " AND at < (SELECT at FROM serves ORDER BY at DESC LIMIT 1 OFFSET ?)"
)
OBSERVATIONS_KEPT = 200_000
FORGET_OBSERVATIONS = "DELETE FROM observations WHERE id <= (SELECT max(id) FROM observations) - ?"


def observation_row(found: Observation) -> tuple[Any, ...]:
    return (
        found.at,
        found.writer,
        found.kind,
        found.namespace,
        found.entry_id,
        found.other_id,
        int(found.right),
        found.expected,
        json.dumps(found.features),
    )


def as_observation(row: tuple[Any, ...]) -> Observation:
    at, writer, kind, namespace, entry_id, other_id, right, expected, features = row
    return Observation(
        at,
        writer,
        kind,
        namespace,
        entry_id,
        other_id,
        bool(right),
        expected,
        tuple(json.loads(features)),
    )


def serve_row(found: ServedHit) -> tuple[Any, ...]:
    return (
        found.id,
        found.at,
        found.namespace,
        found.entry_id,
        found.question,
        found.similarity,
        found.chance,
        json.dumps(found.features),
    )


def as_serve(row: tuple[Any, ...]) -> ServedHit:
    lookup_id, at, namespace, entry_id, question, similarity, chance, features, said = row
    known, verdict = tuple(json.loads(features)), None if said is None else bool(said)
    return ServedHit(
        lookup_id, at, namespace, entry_id, question, similarity, chance, known, verdict
    )
