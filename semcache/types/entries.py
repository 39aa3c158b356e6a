"""Stored answers, and how they are selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from semcache.types.base import JSON
from semcache.types.completions import Completion


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. Times are seconds since the epoch.

    Attributes:
        expires_at: it is not served from then on. None: never.
        stale_at: from then on it is served while it is made anew in the background.
        sliding: seconds for which it is good after each time that it is served; None: the
            times above stand.
    """

    id: int
    exact_key: bytes
    scope: bytes
    namespace: str
    model: str
    question: str | None
    completion: Completion
    created_at: float
    expires_at: float | None
    last_hit_at: float | None = None
    hits: int = 0
    stale_at: float | None = None
    sliding: float | None = None

    def fresh(self, now: float) -> bool:
        """Whether the entry may still be served at `now` (seconds since the epoch)."""
        return self.expires_at is None or now < self.expires_at

    def stale(self, now: float) -> bool:
        """Whether it is to be made anew, though it may still be served."""
        return self.stale_at is not None and now >= self.stale_at


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An answer about to be stored: an `Entry` before the store has given it an id.

    Attributes:
        summary: what a person needs to see of the request, as JSON.
        key_version: the canonical form that `exact_key` and `scope` were made in.
    """

    exact_key: bytes
    scope: bytes
    namespace: str
    model: str
    question: str | None
    summary: JSON
    completion: Completion
    key_version: int
    created_at: float
    expires_at: float | None
    tags: tuple[str, ...] = ()
    hits: int = 0
    last_hit_at: float | None = None
    stale_at: float | None = None
    sliding: float | None = None


class Neighbour(NamedTuple):
    """What an index finds: an entry's id and the cosine similarity of its vector."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class ChangeCursor:
    """How far a store has come: what an index that follows it must hold.

    Attributes:
        store_id: the store's own random id; another one after everything was embedded anew.
        fingerprint: the embedder of its vectors; None while there is none.
        dimension: length of a vector; 0 while there is none.
        last_id: the largest id ever given.
        last_deletion: the newest sequence in the log of deletions.
    """

    store_id: str
    fingerprint: str | None
    dimension: int
    last_id: int
    last_deletion: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries a listing or a deletion means; all the given conditions must hold.

    Attributes:
        namespace, model, tag: equal to this.
        ids: one of these.
        created_before: seconds since the epoch.
        expired_at: expired at this time (seconds since the epoch).
    """

    namespace: str | None = None
    model: str | None = None
    tag: str | None = None
    ids: tuple[int, ...] | None = None
    created_before: float | None = None
    expired_at: float | None = None

    @property
    def everything(self) -> bool:
        return self == Selection()


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a lease, at one moment.

    Attributes:
        owner: names the process that holds it; "" if that has released it without storing an
            answer.
        heartbeat: grows while the owner lives.
    """

    owner: str
    heartbeat: int

    @property
    def void(self) -> bool:
        return not self.owner
