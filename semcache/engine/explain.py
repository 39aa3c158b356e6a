"""The explanation of a lookup: what it would see and decide."""

from __future__ import annotations

from dataclasses import dataclass

from semcache.types import Candidate, Decision, Entry, Query


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a lookup would see and decide, worked out without changing anything.

    Attributes:
        query: scope, question and exact key.
        exact: the entry with the same exact key, even if it has expired; None if there is none.
        neighbours: entries of the scope, nearest first, however low their similarity.
        decision: what a lookup would decide now.
        tier: the tier that would serve a hit; None for a miss.
        policy: a description of the policy that decides.
        notes: other things worth knowing, such as why there is no vector.
    """

    query: Query
    exact: Entry | None
    neighbours: tuple[Candidate, ...]
    decision: Decision
    tier: str | None
    policy: str = ""
    notes: tuple[str, ...] = ()
