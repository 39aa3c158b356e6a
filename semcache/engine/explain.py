"""What a lookup saw and decided, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from semcache.types import Candidate, Decision, Entry, Query


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that a lookup would see and decide, found out without changing anything.

    Attributes:
        query: scope, question and exact key.
        exact: the entry with the same exact key, expired or not.
        neighbours: entries of the scope, the nearest first, whatever their similarity.
        decision: what a lookup would decide now.
        tier: which tier decided.
        policy: what decides, in words.
        notes: what else a person should know, such as why there is no vector.
    """

    query: Query
    exact: Entry | None
    neighbours: tuple[Candidate, ...]
    decision: Decision
    tier: str | None
    policy: str = ""
    notes: tuple[str, ...] = ()
