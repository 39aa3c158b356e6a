"""Stored answers, how they are selected, and the state of an index or a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from semcache.types.base import JSON
from semcache.types.completions import Completion


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. Times are seconds since the epoch.

    Attributes:
        expires_at: when the entry is no longer served; None means never.
        stale_at: when it becomes due for a refresh: it is still served while the refresh runs in
            the background. None means never.
        sliding: a TTL in seconds that restarts with every hit; None means that `expires_at` and
            `stale_at` are fixed.
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
        """Whether the entry is due for a refresh at `now`; it may still be served."""
        return self.stale_at is not None and now >= self.stale_at


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An answer about to be stored: an `Entry` that has no id yet.

    Attributes:
        summary: a readable summary of the request, as JSON.
        key_version: version of the canonical form that `exact_key` and `scope` are hashes of.
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

    def with_id(self, entry_id: int) -> Entry:
        """The entry under the id that the store gave it."""
        return Entry(
            id=entry_id,
            exact_key=self.exact_key,
            scope=self.scope,
            namespace=self.namespace,
            model=self.model,
            question=self.question,
            completion=self.completion,
            created_at=self.created_at,
            expires_at=self.expires_at,
            last_hit_at=self.last_hit_at,
            hits=self.hits,
            stale_at=self.stale_at,
            sliding=self.sliding,
        )


class Neighbour(NamedTuple):
    """A search result of an index: an entry's id and the cosine similarity of its vector."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class ChangeCursor:
    """A state of a store: its present one, or the one up to which an index has followed it.

    Attributes:
        store_id: the store's random id; re-embedding, restoring or recovering a store changes it.
        fingerprint: the embedder of the stored vectors; None while there are none.
        dimension: length of a vector; 0 while there are none.
        last_id: the largest entry id assigned so far.
        last_deletion: the newest sequence number in the log of deletions.
    """

    store_id: str
    fingerprint: str | None
    dimension: int
    last_id: int
    last_deletion: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to list or delete: those that meet every condition that is not None.

    Attributes:
        namespace, model, tag: the entry has this namespace, model or tag.
        ids: the entry has one of these ids.
        created_before: the entry was stored before this time (seconds since the epoch).
        expired_at: the entry has expired by this time (seconds since the epoch).
    """

    namespace: str | None = None
    model: str | None = None
    tag: str | None = None
    ids: tuple[int, ...] | None = None
    created_before: float | None = None
    expired_at: float | None = None

    @property
    def everything(self) -> bool:
        """Whether there is no condition, so that every entry is selected."""
        return self == Selection()


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """The holder of a lease, at one moment.

    Attributes:
        owner: id of the process that holds the lease; "" if that process released it without
            storing an answer.
        heartbeat: a counter that increases while the owner is alive.
    """

    owner: str
    heartbeat: int

    @property
    def void(self) -> bool:
        """Whether the lease was released without a stored answer."""
        return not self.owner
