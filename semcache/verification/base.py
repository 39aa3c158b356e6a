"""The protocols of verification.

`Verification` and `Policy` decide, a `Verifier` compares questions, a `Judge` compares answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from semcache.types import (
        Candidate,
        Completion,
        Decision,
        Lookup,
        Neighbours,
        ObservationKind,
        Query,
    )


class Verification(Protocol):
    """Decides which stored answer may be served, and learns whether that was right.

    - `decide` changes nothing. Its only source of randomness is the argument `draw`.
    - An implementation that learns nothing has the `observe_*` methods, too; they do nothing.
    - May be called from many threads at once. Raises only what its policy or store raises.
    """

    @property
    def k(self) -> int:
        """How many candidates it wants to see."""
        ...

    @property
    def floor(self) -> float:
        """Minimum similarity of a candidate."""
        ...

    def describe(self) -> str:
        """A short description of how it decides, for people."""
        ...

    def decide(self, query: Query, neighbours: Neighbours, *, now: float, draw: float) -> Decision:
        """Decide on the neighbours of a question within its scope.

        Args:
            now: seconds since the epoch.
            draw: uniform in [0, 1).
        """
        ...

    def examine(
        self, query: Query, candidates: Sequence[Candidate], *, now: float
    ) -> list[Candidate]:
        """All candidates, each with as much evidence as can be gathered, for people to inspect."""
        ...

    def observe_lookup(self, lookup: Lookup) -> None:
        """A lookup was decided."""
        ...

    def observe_answer(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """The model was called: compare its answer with that of the lookup's candidate.

        Args:
            entry_id: of the entry that holds the fresh answer, if it was stored.
        """
        ...

    @property
    def judges(self) -> bool:
        """Whether answers are compared; if not, an audit would teach nothing."""
        ...

    def observe_audit(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """The model was asked although the candidate was served."""
        ...

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        """Record a report on whether the answer that a lookup served was right.

        Returns whether the lookup is remembered.

        Raises:
            StoreError: the report could not be written.
        """
        ...

    def save(self) -> None:
        """Write down what was learned. Raises `StoreError`."""
        ...

    def wait(self) -> None:
        """Return when no comparison is waiting."""
        ...

    def after_fork(self) -> None:
        """Renew threads and locks in a forked child process."""
        ...

    def close(self) -> None:
        """Stop comparing answers, and save. Raises `StoreError`."""
        ...


class Policy(Protocol):
    """Decides whether a candidate may be served. Pure: same arguments, same decision."""

    @property
    def k(self) -> int:
        """How many candidates it wants to see."""
        ...

    @property
    def floor(self) -> float:
        """Minimum similarity of a candidate."""
        ...

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        """Decide on unexpired candidates, the nearest first. `draw` is uniform in [0, 1)."""
        ...


class Verifier(Protocol):
    """A model that looks at two questions and says how likely one answer serves both.

    - The same pair gives the same number. May be called from many threads at once.
    - Raises `EmbedderError` if the model cannot be loaded.
    """

    def load(self) -> None:
        """Get ready; may take seconds. Calling it again does nothing."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-odds that one answer serves both questions, for each pair (stored, asked)."""
        ...


@runtime_checkable
class ForkAware(Protocol):
    """A part with locks or threads of its own, which a forked child must renew."""

    def after_fork(self) -> None:
        """In a child process: threads are gone, and locks may be held by them."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Compares a stored answer with a fresh one to the same question.

    - Called in the background, one call at a time; it may ask a model, and take its time.
    - Returns None if it is not sure. This is a verdict of its own: how often it is given for
      answers that agree, and for answers that differ, is learned. If it raises, no label is
      recorded.
    - May have an attribute `reliability`, a `Reliability`: how often it gives each verdict, as far
      as is known beforehand.
    """

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        """Whether the stored answer would have done in place of the fresh one."""
        ...
