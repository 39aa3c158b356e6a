"""Verification that learns nothing: a fixed threshold, a custom policy, or no semantic tier."""

from __future__ import annotations

from collections.abc import Sequence

from semcache.types import (
    Candidate,
    Completion,
    Decision,
    Lookup,
    Miss,
    Neighbours,
    ObservationKind,
    Query,
)
from semcache.verification.base import Policy
from semcache.verification.decision import decide


class PolicyVerification:
    """A `Verification` by one policy that never changes."""

    judges = False

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def k(self) -> int:
        return self._policy.k

    @property
    def floor(self) -> float:
        return self._policy.floor

    def describe(self) -> str:
        return repr(self._policy)

    def decide(
        self,
        query: Query,  # noqa: ARG002 - a policy sees similarities only
        neighbours: Neighbours,
        *,
        now: float,
        draw: float,
    ) -> Decision:
        return decide(neighbours, self._policy, now=now, draw=draw)

    def examine(
        self,
        query: Query,  # noqa: ARG002
        candidates: Sequence[Candidate],
        *,
        now: float,  # noqa: ARG002
    ) -> list[Candidate]:
        """Return the candidates unchanged: they already hold all that a policy looks at."""
        return list(candidates)

    def observe_lookup(self, lookup: Lookup) -> None:
        """Nothing is learned."""

    def observe_answer(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """Nothing is learned."""

    def observe_audit(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """Nothing is learned."""

    def report(
        self,
        lookup: Lookup | str,  # noqa: ARG002
        right: bool,  # noqa: ARG002
        *,
        kind: ObservationKind,  # noqa: ARG002
    ) -> bool:
        """Nothing is remembered."""
        return False

    def save(self) -> None:
        """Nothing is learned."""

    def wait(self) -> None:
        """Nothing is compared."""

    def forget(self, namespace: str) -> None:
        """Nothing is learned."""

    def after_fork(self) -> None:
        """There are no threads."""

    def close(self) -> None:
        """There is nothing to close."""


class _NeverServe:
    """The policy of a cache without a semantic tier: it never serves."""

    k = 0
    floor = 1.0

    def __repr__(self) -> str:
        return "the exact tier only"

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:  # noqa: ARG002
        return Miss("semantic_off", "the semantic tier is switched off")


EXACT_ONLY = PolicyVerification(_NeverServe())
"""For caches without a semantic tier."""
