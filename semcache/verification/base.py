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
    - An implementation that learns nothing still has the `observe_*` methods, which do nothing.
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
        """Decide whether one of the question's neighbours in its scope may be served.

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
        """Learn that a lookup was decided: it counts as traffic."""
        ...

    def observe_answer(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """Compare the model's answer with that of the lookup's candidate.

        Args:
            entry_id: id of the entry that holds the fresh answer; None if it was not stored.
        """
        ...

    @property
    def judges(self) -> bool:
        """Whether there is a judge that compares answers; without one, audits teach nothing."""
        ...

    def observe_audit(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """Learn from an audit: the model was called although the candidate was served."""
        ...

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        """Record a report on whether the answer that a lookup served was right.

        Returns whether the lookup is remembered.

        Raises:
            StoreError: the report could not be written.
        """
        ...

    def forget(self, namespace: str) -> None:
        """Drop what was learned about a namespace."""
        ...

    def save(self) -> None:
        """Save what was learned. Raises `StoreError`."""
        ...

    def wait(self) -> None:
        """Wait until no comparison is pending."""
        ...

    def after_fork(self) -> None:
        """Recreate threads and locks in a forked child process."""
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
        """Decide which of these unexpired candidates, nearest first, may be served, if any.

        Args:
            draw: uniform in [0, 1).
        """
        ...


class Verifier(Protocol):
    """A model that estimates how likely it is that one answer serves two questions.

    - The same pair always gets the same score. May be called from many threads at once.
    - A verifier may have an attribute `highest_logit`, the highest score that it ever gives. It
      then scores only the first candidate, and others that could be served with this score.
    - Raises `EmbedderError` if the model cannot be loaded.
    """

    def load(self) -> None:
        """Load the model, which may take seconds. Calling this again does nothing."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-odds that one answer serves both questions, for each pair (stored, asked)."""
        ...


@runtime_checkable
class ForkAware(Protocol):
    """A component whose locks or threads must be recreated in a forked child process."""

    def after_fork(self) -> None:
        """Recreate locks and threads: the parent's threads are gone and may have held the locks."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Compares a stored answer with a fresh one to the same question.

    - Called in the background, one call at a time; it may ask a model, and take its time.
    - Returns None if it is not sure. That counts as a verdict: the cache learns how often it is
      given to answers that agree and to answers that differ. If the judge raises, no label is
      recorded.
    - May have a `reliability` attribute, a `Reliability` that says how often the judge is expected
      to give each verdict.
    """

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        """Whether the stored answer would have served as well as the fresh one."""
        ...
