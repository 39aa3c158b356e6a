"""What was served, and whether it was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ObservationKind: TypeAlias = Literal["miss", "explore", "audit", "review", "feedback"]
"""How a label came about; all but "feedback" are random samples of what they are labels of."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A label: whether a stored answer was right for a question.

    Attributes:
        at: seconds since the epoch. writer: the process that noted it.
        kind: how it came about.
        namespace: of the lookup.
        entry_id: whose answer it is about. other_id: the entry that holds the fresh answer.
        right: the label. expected: the chance that was believed before.
        features: what was known, see `verification.features.FEATURES`.
    """

    at: float
    writer: str
    kind: ObservationKind
    namespace: str
    entry_id: int
    other_id: int | None
    right: bool
    expected: float
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ServedHit:
    """A semantic hit, remembered for whoever reports on it.

    `id` is its lookup's; `verdict` what was said of it last, None: nothing.
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
