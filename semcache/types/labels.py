"""Labels, which say whether a stored answer was right, and the hits they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from semcache.types.completions import Completion

ObservationKind: TypeAlias = Literal["miss", "explore", "audit", "review", "feedback"]
"""How a label came about. All but "feedback" are random samples of the traffic they label."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A label: whether a stored answer was right for a question.

    Attributes:
        at: when the label was made, in seconds since the epoch.
        writer: id of the process that recorded the label.
        kind: how the label came about.
        namespace: the namespace of the lookup.
        entry_id: the entry whose answer is labelled.
        other_id: the entry that holds the fresh answer; None if it was not stored.
        right: the label; None if the judge was not sure.
        expected: the chance of being right that was estimated before.
        features: the features of the pair; see `verification.features.FEATURES`.
        equal: whether the two answers were equal, word for word.
    """

    at: float
    writer: str
    kind: ObservationKind
    namespace: str
    entry_id: int
    other_id: int | None
    right: bool | None
    expected: float
    features: tuple[float, ...]
    equal: bool = False


@dataclass(frozen=True, slots=True)
class ServedHit:
    """A semantic hit, remembered so that it can be reported right or wrong later.

    Attributes:
        id: the id of the lookup.
        at: when the hit was served, in seconds since the epoch.
        question: the new question, as it was asked.
        chance: the chance of being right that was estimated.
        features: the features of the pair; see `verification.features.FEATURES`.
        verdict: the latest report: right, wrong, or None if there was none.
    """

    id: str
    at: float
    namespace: str
    entry_id: int
    question: str
    similarity: float
    chance: float
    features: tuple[float, ...]
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class PendingComparison:
    """A stored answer and the fresh answer to a similar question, not compared by the judge yet.

    Attributes:
        kind: how the comparison came about.
        namespace, question: of the lookup.
        entry_id: the entry whose answer is compared.
        stored: its answer.
        fresh: the answer that the model has just given.
        other_id: the entry that holds the fresh answer; None if it was not stored.
        expected: the chance of being right that was estimated before.
        features: the features of the pair; see `verification.features.FEATURES`.
    """

    kind: ObservationKind
    namespace: str
    question: str
    entry_id: int
    stored: Completion
    fresh: Completion
    other_id: int | None
    expected: float
    features: tuple[float, ...]
