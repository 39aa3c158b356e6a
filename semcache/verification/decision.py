"""Decides whether a stored answer may be served. Pure functions of their arguments.

Under every policy, expired entries are not served, candidates below the policy's floor are
ignored, and a lookup without candidates is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence

from semcache.types import Candidate, Decision, Miss, Neighbours
from semcache.verification.base import Policy


def decide(neighbours: Neighbours, policy: Policy, *, now: float, draw: float) -> Decision:
    """Decide whether one of the question's neighbours in its scope may be served.

    Args:
        now: seconds since the epoch.
        draw: uniform in [0, 1); the only randomness that a policy may use.
    """
    fresh = servable(neighbours.candidates, policy.floor, now)
    if not fresh:
        return no_candidate(neighbours, policy.floor)
    return policy.decide(fresh, draw)


def no_candidate(neighbours: Neighbours, floor: float) -> Miss:
    """The miss for a lookup without servable neighbours, with the reason."""
    if neighbours.nearest is None:
        return Miss("empty_scope", "nothing is stored in this scope yet")
    if any(c.similarity >= floor for c in neighbours.candidates):
        return Miss("expired", "the similar entries have expired")
    return below(neighbours.nearest, floor)


def below(similarity: float, floor: float) -> Miss:
    """The miss for a nearest neighbour that is not similar enough."""
    return Miss(
        "below_threshold",
        f"the nearest question has a similarity of {similarity:.4f}, below {floor}",
    )


def servable(candidates: Sequence[Candidate], floor: float, now: float) -> list[Candidate]:
    """The candidates that are similar enough and have not expired."""
    return [c for c in candidates if c.entry.fresh(now) and c.similarity >= floor]
