"""Makes labels, served hits and pending comparisons from lookups."""

from __future__ import annotations

from semcache.types import (
    Candidate,
    Completion,
    Lookup,
    Observation,
    ObservationKind,
    PendingComparison,
    ServedHit,
)


def chance_of_candidate(candidate: Candidate | None) -> float | None:
    """The chance that a candidate is right; None without evidence or if a guard refused it."""
    if candidate is None or candidate.evidence is None:
        return None
    return candidate.evidence.chance


def served_hit(lookup: Lookup, now: float) -> ServedHit:
    """A semantic hit, as the ledger stores it. `now` is in seconds since the epoch."""
    candidate = lookup.candidate
    assert candidate is not None
    evidence = candidate.evidence
    return ServedHit(
        id=lookup.id,
        at=now,
        namespace=lookup.query.request.namespace,
        entry_id=candidate.entry.id,
        question=lookup.query.question or "",
        similarity=candidate.similarity,
        chance=chance_of_candidate(candidate) or 0.0,
        features=() if evidence is None else evidence.features,
    )


def label_of(
    hit: ServedHit, right: bool, kind: ObservationKind, now: float, writer: str
) -> Observation:
    """A report on a served hit, as a label."""
    return Observation(
        at=now,
        writer=writer,
        kind=kind,
        namespace=hit.namespace,
        entry_id=hit.entry_id,
        other_id=None,
        right=right,
        expected=hit.chance,
        features=hit.features,
    )


def pending_comparison(
    lookup: Lookup, fresh: Completion, other_id: int | None, kind: ObservationKind
) -> PendingComparison | None:
    """A comparison of a candidate's answer with a fresh one; None if nothing was evaluated."""
    candidate = lookup.candidate
    if candidate is None or candidate.evidence is None:
        return None
    return PendingComparison(
        kind=kind,
        namespace=lookup.query.request.namespace,
        question=lookup.query.question or "",
        entry_id=candidate.entry.id,
        stored=candidate.entry.completion,
        fresh=fresh,
        other_id=other_id,
        expected=candidate.evidence.chance or 0.0,
        features=candidate.evidence.features,
    )


def label_from(
    comparison: PendingComparison, right: bool | None, now: float, writer: str
) -> Observation:
    """The result of a comparison, as a label."""
    return Observation(
        at=now,
        writer=writer,
        kind=comparison.kind,
        namespace=comparison.namespace,
        entry_id=comparison.entry_id,
        other_id=comparison.other_id,
        right=right,
        expected=comparison.expected,
        features=comparison.features,
        equal=bool(right) and equal_answers(comparison.stored, comparison.fresh),
    )


def equal_answers(stored: Completion, fresh: Completion) -> bool:
    """Whether two answers are equal, word for word."""
    return stored.text.split() == fresh.text.split() and stored.payload == fresh.payload
