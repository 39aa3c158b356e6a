"""Candidates, the evidence about them, and the decision of a lookup."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from semcache.types.base import Tier
from semcache.types.completions import Completion
from semcache.types.entries import Entry
from semcache.types.requests import Query

if TYPE_CHECKING:
    from semcache.types.base import Vector


@dataclass(frozen=True, slots=True)
class Finding:
    """One visible difference between a stored question and a new one.

    Attributes:
        kind: "number", "unit", "date", "language", "place", "product", "name", "identifier",
            "negation", "opposite", "order", "script", "time", "case", "sign", "accent", "layout",
            "age" or "reported".
        stored: the words of the stored question; "" if it mentions nothing of this kind.
        asked: the words of the new question; likewise.
    """

    kind: str
    stored: str
    asked: str

    @property
    def decisive(self) -> bool:
        """Whether both questions mention something of this kind; one negation is enough."""
        return bool(self.stored and self.asked) or self.kind == "negation"

    def __str__(self) -> str:
        return f"{self.kind}: {self.stored or 'none'} / {self.asked or 'none'}"


@dataclass(frozen=True, slots=True)
class NeighbourAgreement:
    """How a candidate compares with the other neighbours, and how its past labels turned out.

    Attributes:
        agreement: share of the other neighbours that are known to have the same answer.
        margin: similarity of the nearest question with this answer, minus that of the nearest
            question with a different answer (0.5 if there is none); at most 0.3.
        residual: the sum of (right - expected) over the entry's labels, clipped to [-2, 2].
    """

    agreement: float = 0.0
    margin: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a candidate for a question.

    Attributes:
        similarity: cosine of the two questions.
        findings: visible differences between them.
        logit: log-odds from the pair model; None if it was not run.
        by: what the evidence rests on: "same words", "guards", "model", or "cosine" if the
            pair model did not run.
        neighbours: see `NeighbourAgreement`.
        features: the features that the learned weights apply to; () if a guard rejected the
            candidate or both questions have the same words.
        chance: probability that the stored answer is right; None if a guard rejected it.
    """

    similarity: float
    findings: tuple[Finding, ...] = ()
    logit: float | None = None
    by: str = "cosine"
    neighbours: NeighbourAgreement = NeighbourAgreement()
    features: tuple[float, ...] = ()
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored entry whose question is similar to a new one.

    Attributes:
        entry: the stored entry.
        similarity: cosine of its question and the new one, from -1 to 1.
        evidence: what else is known about the pair; None if the policy gathers no evidence.
    """

    entry: Entry
    similarity: float
    evidence: Evidence | None = None


class Neighbours(NamedTuple):
    """The result of a similarity search in one scope.

    Attributes:
        nearest: cosine similarity of the nearest neighbour, however low; None if the scope holds
            no vector.
        candidates: neighbours that are similar enough, nearest first; they may have expired.
    """

    nearest: float | None
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class Hit:
    """Serve this entry. `candidate` holds the evidence for it, for a policy that learns."""

    entry: Entry
    similarity: float
    reason: str
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """Ask the model. `reason` is one of `MissReason`; `detail` explains it.

    `candidate` is the best candidate; the model's answer will show whether it was right.
    """

    reason: MissReason
    detail: str = ""
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Explore:
    """Ask the model although this candidate looked good, to learn whether it was right."""

    candidate: Candidate
    reason: str


MissReason: TypeAlias = Literal[
    "empty_scope",
    "below_threshold",
    "refused",
    "doubtful",
    "expired",
    "no_question",
    "question_too_long",
    "semantic_off",
    "fault",
    "bypassed",
    "caching_off",
    "index_building",
    "personal_data",
]


Decision: TypeAlias = Hit | Miss | Explore


def _lookup_id() -> str:
    return os.urandom(8).hex()


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of a lookup, with everything that `record` needs to store an answer.

    Attributes:
        completion: the answer to serve; None on a miss.
        tier: "exact" or "semantic" for a hit; None for a miss.
        similarity: cosine similarity of the served question, or else of the nearest stored one;
            1.0 for an exact hit; None if no neighbour was compared.
        entry: the served entry; None on a miss.
        decision: Hit, Miss or Explore, with its reason.
        query: the request as the cache sees it.
        vector: the embedded question, float32[d]; None if nothing was embedded.
        id: identifies this lookup in `feedback`.
        stale: whether the served entry is due for a refresh (with `put` or `record`).
    """

    query: Query
    decision: Decision
    tier: Tier | None = None
    similarity: float | None = None
    entry: Entry | None = None
    vector: Vector | None = None
    id: str = field(default_factory=_lookup_id, compare=False)
    stale: bool = False

    @property
    def completion(self) -> Completion | None:
        return None if self.entry is None else self.entry.completion

    @property
    def hit(self) -> bool:
        return self.entry is not None

    @property
    def candidate(self) -> Candidate | None:
        """The candidate that was decided on, for a policy that learns."""
        return self.decision.candidate
