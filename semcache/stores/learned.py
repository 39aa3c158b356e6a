"""Rows of `observations` and `serves`."""

from __future__ import annotations

import json
from typing import Any

from semcache.types import Observation, Serve

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
    "INSERT OR REPLACE INTO serves (id, at, namespace, entry_id, question, similarity, chance,"
    " features) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
SERVES = "SELECT id, at, namespace, entry_id, question, similarity, chance, features FROM serves"
FORGET_SERVES = (
    "DELETE FROM serves WHERE at < (SELECT at FROM serves ORDER BY at DESC LIMIT 1 OFFSET ?)"
)


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


def serve_row(found: Serve) -> tuple[Any, ...]:
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


def as_serve(row: tuple[Any, ...]) -> Serve:
    lookup_id, at, namespace, entry_id, question, similarity, chance, features = row
    known = tuple(json.loads(features))
    return Serve(lookup_id, at, namespace, entry_id, question, similarity, chance, known)
