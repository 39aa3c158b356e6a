"""Whether a stored answer may be served. Everything that decides is an argument.

`decide` holds for every policy: nothing expired is served, nothing below the
policy's floor is looked at, no candidates is a miss. What is left is the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence

from semcache.types import Candidate, Decision, Miss
from semcache.verification.base import Policy
from semcache.verification.policies import below


def decide(
    nearest: float | None,
    candidates: Sequence[Candidate],
    policy: Policy,
    *,
    now: float,
    draw: float,
) -> Decision:
    """Decide on the neighbours of a question within its scope.

    Args:
        nearest: cosine similarity of the nearest neighbour; None: the scope has none.
        candidates: neighbours that still exist, the nearest first.
        now: seconds since the epoch.
        draw: uniform in [0, 1); all the chance that a policy may use.
    """
    if nearest is None:
        return Miss("empty_scope", "nothing is stored in this scope yet")
    fresh = servable(candidates, policy.floor, now)
    if fresh:
        return policy.decide(fresh, draw)
    if any(c.similarity >= policy.floor for c in candidates):
        return Miss("expired", "what was near enough has expired")
    return below(nearest, policy.floor)


def servable(candidates: Sequence[Candidate], floor: float, now: float) -> list[Candidate]:
    """Those that are near enough and have not expired."""
    return [c for c in candidates if c.entry.fresh(now) and c.similarity >= floor]
