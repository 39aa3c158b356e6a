"""Whether a stored answer may be served. Everything that decides is an argument.

Whatever the policy: nothing expired is served, nothing below the policy's floor is looked at, and
no candidates is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence

from semcache.types import Candidate, Decision, Miss, Neighbours
from semcache.verification.base import Policy


def decide(neighbours: Neighbours, policy: Policy, *, now: float, draw: float) -> Decision:
    """Decide on the neighbours of a question within its scope.

    Args:
        now: seconds since the epoch.
        draw: uniform in [0, 1); all the chance that a policy may use.
    """
    fresh = servable(neighbours.candidates, policy.floor, now)
    if not fresh:
        return no_candidate(neighbours, policy.floor)
    return policy.decide(fresh, draw)


def no_candidate(neighbours: Neighbours, floor: float) -> Miss:
    """The miss where no neighbour is servable: why not."""
    if neighbours.nearest is None:
        return Miss("empty_scope", "nothing is stored in this scope yet")
    if any(c.similarity >= floor for c in neighbours.candidates):
        return Miss("expired", "what was similar enough has expired")
    return below(neighbours.nearest, floor)


def below(similarity: float, floor: float) -> Miss:
    """The miss for a nearest neighbour that is not similar enough."""
    return Miss("below_threshold", f"similarity {similarity:.4f} < threshold {floor}")


def servable(candidates: Sequence[Candidate], floor: float, now: float) -> list[Candidate]:
    """Those that are similar enough and have not expired."""
    return [c for c in candidates if c.entry.fresh(now) and c.similarity >= floor]
