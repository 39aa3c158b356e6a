"""The seams of verification: policies, models that look at two questions, judges of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from semcache.types import (
        Candidate,
        Completion,
        Decision,
    )


class Policy(Protocol):
    """Decides whether a candidate may be served. Pure: same arguments, same decision."""

    @property
    def k(self) -> int:
        """How many candidates it wants to see."""
        ...

    @property
    def floor(self) -> float:
        """Neighbours less similar than this need not be shown to it."""
        ...

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        """Judge fresh candidates, the nearest first; draw is uniform in [0, 1)."""
        ...


class Verifier(Protocol):
    """Looks at two questions and says how likely one answer serves both.

    - The same pair gives the same number. May be called from many threads at once.
    - Raises `EmbedderError` when it cannot.
    """

    def load(self) -> None:
        """Get ready; may take seconds. Calling it again does nothing."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """log-odds that (stored, asked) ask for the same, for each pair."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Compares a stored answer with a fresh one to the same question.

    - Called in the background, one call at a time; it may ask a model, and take its time.
    - Returns None where it is not sure: that is no label. An exception is none either.
    """

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        """Whether the stored answer would have done in the fresh one's place."""
        ...
