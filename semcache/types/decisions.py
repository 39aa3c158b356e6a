"""What is known of a candidate, and what was decided about it."""

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
    """One thing that a stored question and a new one visibly differ in.

    Attributes:
        kind: "number", "unit", "date", "language", "place", "product", "name", "identifier",
            "negation", "opposite", "order", "script", "time", "age" or "reported".
        stored: the words on the stored question's side; "" where it says nothing of the kind.
        asked: the same of the new question.
    """

    kind: str
    stored: str
    asked: str

    @property
    def decisive(self) -> bool:
        """Both say something, and not the same. A "not" on one side counts as said."""
        return bool(self.stored and self.asked) or self.kind == "negation"

    def __str__(self) -> str:
        return f"{self.kind}: {self.stored or 'none'} / {self.asked or 'none'}"


@dataclass(frozen=True, slots=True)
class NeighbourAgreement:
    """How a candidate compares with the other neighbours, and how its own labels turned out.

    Attributes:
        agreement: share of the other neighbours that are known to have the same answer.
        margin: similarity of the nearest question with this answer, minus that of the nearest
            question with another answer.
        residual: the sum of (right - expected) over the entry's labels, clipped to [-2, 2].
    """

    agreement: float = 0.0
    margin: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a candidate for a question.

    Attributes:
        similarity: cosine of the two questions.
        findings: what they visibly differ in.
        logit: log-odds of the pair model; None: it was not asked.
        by: who looked: "same words", "guards", "model", or "cosine" where there is no model.
        neighbours: see `NeighbourAgreement`.
        features: the numbers that the weights go with; () where a guard refused, or where
            the words are the same.
        chance: probability that the stored answer is right; None where a guard refused.
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
    """A stored neighbour within the scope, with how alike its question is (cosine, -1..1).

    Attributes:
        evidence: what else is known of it, where the policy wants to know.
    """

    entry: Entry
    similarity: float
    evidence: Evidence | None = None


class Neighbours(NamedTuple):
    """What a search in one scope found.

    Attributes:
        nearest: cosine similarity of the nearest neighbour, whatever it is; None where the scope
            holds no vector.
        candidates: those that are similar enough and exist, the nearest first.
    """

    nearest: float | None
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class Hit:
    """Serve this entry. `candidate`: what it was as a candidate, for a policy that learns."""

    entry: Entry
    similarity: float
    reason: str
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """Ask the model. `reason` is one of `MissReason`; `detail` says it in words.

    `candidate` was the best there was; the model's answer will tell what it was worth.
    """

    reason: MissReason
    detail: str = ""
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Explore:
    """Ask the model although this candidate looked good, to learn whether it was."""

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
]


Decision: TypeAlias = Hit | Miss | Explore


def _lookup_id() -> str:
    return os.urandom(8).hex()


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a lookup found, and all that `record` needs to store the answer afterwards.

    Attributes:
        completion: the answer to serve, or None on a miss.
        tier: "exact", "semantic" or None.
        similarity: cosine similarity of the served or of the nearest stored question;
            1.0 for an exact hit; None where no neighbour was looked at.
        entry: the entry served, or None.
        decision: Hit, Miss or Explore, with its reason.
        query: the request as the cache sees it.
        vector: float32[d], the embedded question, or None where nothing was embedded.
        id: names this lookup, for `feedback`.
        stale: the entry is past its time and should be made anew (`put`, `record`).
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
        """What the decision was about, for a policy that learns."""
        return self.decision.candidate
