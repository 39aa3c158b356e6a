"""What a backend must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from semcache.types import (
        Held,
        Observation,
        Serve,
        Vector,
    )


class Lease(Protocol):
    """The right to ask the model for a request, among all processes."""

    def release(self, *, kept: bool) -> None:
        """Let the others look, or ask. kept False: the answer was not one to keep.

        Raises nothing.
        """
        ...


class Leases(Protocol):
    """Who asks the model for which request, among all processes.

    - One holder at a time, as long as it lives; what a dead one holds can be taken over.
    - May be called from many threads. Raises `StoreError` when it cannot.
    """

    def take(self, key: bytes, scope: bytes, vector: Vector | None) -> Lease | Held:
        """The lease, or who holds it. `vector`: what near questions may find it by."""
        ...

    def look(self, key: bytes) -> Held | None:
        """Who holds the lease; None: nobody."""
        ...

    def take_over(self, key: bytes, dead: Held) -> Lease | None:
        """The lease of a holder that looks like this still; None: it does not."""
        ...

    def near(self, scope: bytes, vector: Vector, floor: float) -> bytes | None:
        """The key of the lease for the nearest question of a scope, if it is near enough."""
        ...

    def hold(self) -> None:
        """As `Store.hold`."""
        ...

    def let_go(self) -> None:
        """After the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """In a child process: what the parent holds is the parent's."""
        ...

    def close(self) -> None:
        """Give the file back. Later calls raise `StoreError`."""
        ...


class Ledger(Protocol):
    """Remembers what was learned, and what was served for people to look at.

    - One call is one transaction. May be called from many threads; other processes may write.
    - Raises `StoreError` when it cannot.
    """

    def observe(self, observations: Sequence[Observation], serves: Sequence[Serve]) -> None:
        """Append observations, and what was served; the oldest serves are let go."""
        ...

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        """(number, observation) with larger numbers, in their order."""
        ...

    def last_observation(self) -> int:
        """The largest number; 0: there is none."""
        ...

    def serve(self, lookup_id: str) -> Serve | None:
        """What a lookup served, while it is remembered."""
        ...

    def unreviewed(self, limit: int) -> list[Serve]:
        """Serves that nobody has judged, drawn at random."""
        ...

    def refuted(self) -> set[tuple[int, str]]:
        """(entry id, question) of serves that somebody called wrong."""
        ...

    def reviewed(self, lookup_id: str, right: bool) -> None:
        """Note what was said of a serve."""
        ...

    def meta(self, name: str) -> str | None:
        """A fact about the store."""
        ...

    def set_meta(self, name: str, value: str) -> None:
        """Note a fact about the store."""
        ...
