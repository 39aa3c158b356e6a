"""Statements and row conversions of the tables `observations`, `serves` and `comparisons`."""

from __future__ import annotations

import json
from typing import Any

from semcache.backends.local.sqlite.rows import completion_extra, completion_from_columns
from semcache.types import Observation, PendingComparison, ServedHit

SERVES_KEPT = 10_000
"""How many served hits are kept, so that they can still be judged later."""

OBSERVE = (
    "INSERT INTO observations (at, writer, kind, namespace, entry_id, other_id, right, expected,"
    " features, unsure, equal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
OBSERVATIONS_AFTER = (
    "SELECT id, at, writer, kind, namespace, entry_id, other_id, right, expected, features,"
    " unsure, equal FROM observations WHERE id > ? ORDER BY id LIMIT ?"
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
    # Hits judged wrong are kept, so that they are not served to that question again.
    "DELETE FROM serves WHERE verdict IS NOT 0"
    " AND at < (SELECT at FROM serves ORDER BY at DESC LIMIT 1 OFFSET ?)"
)
KEEP_COMPARISON = (
    "INSERT INTO comparisons (kind, namespace, question, entry_id, text, extra, other_id, expected,"
    " features) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
COMPARISONS = (
    "SELECT c.id, c.kind, c.namespace, c.question, c.entry_id, e.text, e.extra, c.text, c.extra,"
    " c.other_id, c.expected, c.features"
    " FROM comparisons c JOIN entries e ON e.id = c.entry_id ORDER BY c.id LIMIT ?"
)
COMPARISONS_KEPT = 1000
"""The most comparisons that are kept until a process can make them."""
FORGET_COMPARISONS = "DELETE FROM comparisons WHERE id <= (SELECT max(id) FROM comparisons) - ?"
OBSERVATIONS_KEPT = 200_000
"""How many labels are kept."""
FORGET_OBSERVATIONS = "DELETE FROM observations WHERE id <= (SELECT max(id) FROM observations) - ?"


def observation_row(observation: Observation) -> tuple[Any, ...]:
    return (
        observation.at,
        observation.writer,
        observation.kind,
        observation.namespace,
        observation.entry_id,
        observation.other_id,
        int(bool(observation.right)),
        observation.expected,
        json.dumps(observation.features),
        int(observation.right is None),
        int(observation.equal),
    )


def as_observation(row: tuple[Any, ...]) -> Observation:
    at, writer, kind, namespace, entry_id, other_id, right, expected, features, unsure, equal = row
    return Observation(
        at,
        writer,
        kind,
        namespace,
        entry_id,
        other_id,
        None if unsure else bool(right),
        expected,
        tuple(json.loads(features)),
        bool(equal),
    )


def serve_row(hit: ServedHit) -> tuple[Any, ...]:
    return (
        hit.id,
        hit.at,
        hit.namespace,
        hit.entry_id,
        hit.question,
        hit.similarity,
        hit.chance,
        json.dumps(hit.features),
    )


def as_serve(row: tuple[Any, ...]) -> ServedHit:
    lookup_id, at, namespace, entry_id, question, similarity, chance, features, verdict = row
    return ServedHit(
        lookup_id,
        at,
        namespace,
        entry_id,
        question,
        similarity,
        chance,
        tuple(json.loads(features)),
        None if verdict is None else bool(verdict),
    )


def comparison_row(comparison: PendingComparison) -> tuple[Any, ...]:
    return (
        comparison.kind,
        comparison.namespace,
        comparison.question,
        comparison.entry_id,
        comparison.fresh.text,
        completion_extra(comparison.fresh),
        comparison.other_id,
        comparison.expected,
        json.dumps(comparison.features),
    )


def as_comparison(row: tuple[Any, ...]) -> PendingComparison:
    """The comparison of a row of `COMPARISONS`, without its id."""
    kind, namespace, question, entry_id, *answers, other_id, expected, features = row
    stored, fresh = (
        completion_from_columns(text, extra, None, None, None)
        for text, extra in (answers[:2], answers[2:])
    )
    return PendingComparison(
        kind,
        namespace,
        question,
        entry_id,
        stored,
        fresh,
        other_id,
        expected,
        tuple(json.loads(features)),
    )
