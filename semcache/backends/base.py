"""What a backend must do: keep entries, find them, and remember what was learned.

A backend is the place where a cache lives: a directory, a process's memory, a server. It is
made of small parts, each a protocol below, so that an engine which lacks one (a change feed,
leases, maintenance) can say so instead of imitating it.

==================  ===============================================================
`Backend`           the whole: opens the parts, and survives forks
`Entries`           the serving path: exact, nearest, record, delete
`Catalogue`         reading and listing entries, for people and tools
`Evictable`         what quotas need: totals, deletion in order
`Ledger`            labels and served hits
`CounterStore`      counters, added up over all processes
`Metadata`          small facts by name, such as what was learned
`Leases`            one call to the model for equal requests of several processes
`Maintenance`       checks, repair, copies; a backend may have none
==================  ===============================================================

One suite, `tests/backends`, holds every backend to these contracts. One module, so that whoever
writes a backend can read the contract from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from semcache.backends.retention import Retention
    from semcache.embedders.base import Embedder
    from semcache.types import (
        JSON,
        Entry,
        LeaseHolder,
        Neighbours,
        NewEntry,
        Observation,
        Selection,
        ServedHit,
        Vector,
    )

Order = Literal["newest", "oldest", "most_hits", "least_recently_used", "least_frequently_used"]
ORDERS: tuple[Order, ...] = (
    "newest", "oldest", "most_hits", "least_recently_used", "least_frequently_used",
)  # fmt: skip
"""Orders in which entries can be listed. An entry that was never hit counts as used when it was
stored."""

Fault = Callable[[str, BaseException], None]
"""Told (part, error) when something fails that no caller waits for."""
Progress = Callable[[int, int], None]
"""Told (done, total) while something long goes on; total is 0 where it is not known."""


class NotReadyError(Exception):
    """Neighbours cannot be found yet: an index is still being built."""


class TooLargeError(Exception):
    """One entry is larger than the whole quota in bytes."""


class Totals(NamedTuple):
    """Entries, and the bytes of their texts and vectors."""

    entries: int
    size: int


class GroupSize(NamedTuple):
    """Entries and hits of one namespace and model."""

    namespace: str
    model: str
    entries: int
    hits: int


class LabelCount(NamedTuple):
    """How many labels of one kind there are, and how many of them say "right"."""

    kind: str
    labels: int
    right: int


@dataclass(frozen=True, slots=True)
class EntryDetails:
    """What is stored of an entry besides what serving it needs.

    Attributes:
        tags: in alphabetical order.
        summary: the request in short, as JSON.
        key_version: the version of the canonical form that the entry was keyed under.
        vector: float32[d], or None for an entry that the exact tier alone can find.
    """

    tags: tuple[str, ...] = ()
    summary: JSON = field(default_factory=dict)
    key_version: int = 0
    vector: Vector | None = None


class Entries(Protocol):
    """The serving path of a backend.

    - When `record` or `delete` returns, the change is as durable as the backend is, and every
      later call of this process sees it.
    - May be called from many threads at once.
    - Raises `StoreError`, naming the place, when it cannot do what it was asked.
    """

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        ...

    def revision(self) -> int | None:
        """What has been committed so far, as a token for `nearest`.

        None where the backend has no such thing, or cannot read it: `nearest` then looks itself.
        """
        ...

    def nearest(
        self, scope: bytes, vector: Vector, k: int, floor: float, revision: int | None = None
    ) -> Neighbours:
        """Up to k entries of the scope with a similarity of at least `floor`, nearest first.

        Never an entry of another scope, nor one that was deleted before the call. Expired
        entries do not crowd out others.

        Args:
            vector: float32[d], of length 1.
            revision: what `revision` returned on this thread a while ago: entries that other
                processes recorded since may be missed.

        Raises:
            IndexMismatchError: the stored vectors come from another embedder.
            NotReadyError: an index is being built.
        """
        ...

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        """Store an entry, in place of one with the same exact key; return its id.

        Ids grow and are never used twice. Evicts what the quotas no longer allow. Where
        `vector` is None and the entry replaces one of the same question, that one's vector is
        kept.

        Raises:
            IndexMismatchError: the stored vectors come from another embedder; nothing is stored.
            TooLargeError: the entry alone exceeds a quota; nothing is stored.
        """
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """Delete what is selected (at most `limit` entries); return how many were deleted."""
        ...

    def wait(self) -> None:
        """Return when no index is being built in the background."""
        ...


class Evictable(Protocol):
    """What keeping quotas needs of a store."""

    def totals(self, namespace: str | None = None) -> Totals:
        """Of one namespace, or of all. Constant time: nothing is counted."""
        ...

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        """The bytes that an entry would count for in `totals`."""
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        """Delete what is selected (at most `limit` entries); return their ids."""
        ...

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """Delete the first `count` entries in this order, never `spare`; return their ids.

        The cost grows with `count`, not with the number of entries.

        Args:
            namespace: evict only entries of this one.
        """
        ...


class Catalogue(Protocol):
    """Reading and listing entries. Changes nothing."""

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the entries that exist, by id."""
        ...

    def details(self, ids: Sequence[int]) -> dict[int, EntryDetails]:
        """What else is stored of them, by id."""
        ...

    def select(
        self,
        selection: Selection = ...,
        *,
        order: Order = "newest",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Entry]:
        """The selected entries, in this order."""
        ...

    def page_after(self, last: int, selection: Selection, limit: int) -> list[Entry]:
        """The selected entries with an id above `last`, the smallest id first."""
        ...

    def count(self, selection: Selection = ...) -> int:
        """How many entries are selected."""
        ...

    def totals(self, namespace: str | None = None) -> Totals:
        """Of one namespace, or of all. Constant time: nothing is counted."""
        ...

    def groups(self) -> list[GroupSize]:
        """Entries by namespace and model, the largest group first."""
        ...

    def vectors(self) -> Iterator[tuple[int, Vector]]:
        """(id, float32[d]) of every entry that has a vector, by id."""
        ...

    def stored_bytes(self) -> int:
        """The bytes that the backend takes where it is stored; 0 if that is not known."""
        ...


class Ledger(Protocol):
    """Remembers what was learned, and which hits were served.

    - One call is one transaction: it happens whole or not at all.
    - May be called from many threads; other processes may write.
    - Raises `StoreError` when it cannot do what it was asked.
    """

    def observe(self, observations: Sequence[Observation], served: Sequence[ServedHit]) -> None:
        """Append labels and served hits. The oldest served hits are dropped."""
        ...

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        """(number, label) of labels with larger numbers, in their order."""
        ...

    def last_observation(self) -> int:
        """The largest number; 0 if there is no label."""
        ...

    def observation_counts(self) -> list[LabelCount]:
        """Labels by kind."""
        ...

    def served_labels(self, limit: int) -> list[bool]:
        """The newest labels of random samples of what is served: explorations, audits, reviews."""
        ...

    def served_hit(self, lookup_id: str) -> ServedHit | None:
        """What a lookup served, while it is remembered."""
        ...

    def unreviewed(self, limit: int) -> list[ServedHit]:
        """Served hits that nobody has judged and whose entry exists, drawn at random."""
        ...

    def rejected_pairs(self) -> set[tuple[int, str]]:
        """(entry id, question) of served hits that somebody called wrong."""
        ...

    def set_verdict(self, lookup_id: str, right: bool) -> None:
        """Note whether a served hit was right."""
        ...


class CounterStore(Protocol):
    """Counters, added up over all processes."""

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        """Add to counters by name, and to the hits of entries.

        Args:
            hits: by entry id: (how many, when the last one was in seconds since the epoch).
                Extends the life of entries with a sliding TTL.
        """
        ...

    def counters(self) -> dict[str, float]:
        """Every counter by name."""
        ...


class Metadata(Protocol):
    """Small facts by name."""

    def meta(self, name: str) -> str | None:
        """The fact, or None."""
        ...

    def set_meta(self, name: str, value: str) -> None:
        """Note a fact, in place of an older one of this name."""
        ...

    def metas(self, prefix: str) -> dict[str, str]:
        """Every fact whose name begins with `prefix`, by the rest of its name."""
        ...


class Lease(Protocol):
    """The right to ask the model for a request, among all processes."""

    def release(self, *, kept: bool) -> None:
        """Let the others look, or ask. Raises nothing.

        Args:
            kept: the answer was stored, so that the others will find it.
        """
        ...


class Leases(Protocol):
    """Which process asks the model for which request.

    - A lease has one holder at a time, as long as the holder lives; the lease of a dead holder
      can be taken over.
    - May be called from many threads. Raises `StoreError` when it cannot do what it was asked.
    """

    def take(self, key: bytes, scope: bytes, vector: Vector | None) -> Lease | LeaseHolder:
        """The lease, or who holds it.

        Args:
            vector: float32[d], by which callers with a near question find this call.
        """
        ...

    def look(self, key: bytes) -> LeaseHolder | None:
        """Who holds the lease; None if nobody does."""
        ...

    def take_over(self, key: bytes, dead: LeaseHolder) -> Lease | None:
        """The lease, if its holder still looks like `dead`; otherwise None."""
        ...

    def near(self, scope: bytes, vector: Vector, floor: float) -> bytes | None:
        """The key of the lease for the nearest question of a scope, if it is near enough."""
        ...

    def close(self) -> None:
        """Give everything back. Later calls raise `StoreError`."""
        ...


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found. `problems` is empty for a sound cache; `mended` is what was repaired."""

    entries: int
    vectors: int
    without_vector: int
    scopes: int
    embedder: str | None
    key_versions: Mapping[int, int]
    problems: list[str]
    mended: list[str] = field(default_factory=list)


class Maintenance(Protocol):
    """Work on a whole cache. Only for backends that are not looked after by a server."""

    def check(self, *, fix: bool = False) -> CheckReport:
        """Check the backend against its own rules.

        Args:
            fix: repair what can be repaired without losing an entry.
        """
        ...

    def vacuum(self) -> tuple[int, int]:
        """Give the space of deleted entries back; return the bytes before and after."""
        ...

    def reembed(self, embedder: Embedder, progress: Progress) -> int:
        """Embed every stored question again, and put the vectors in place in one step.

        The cache stays usable meanwhile. A run that was interrupted is continued by the next.
        Returns how many vectors there are now.

        Raises:
            EmbedderError: the embedder failed; what was done so far is kept for the next run.
        """
        ...


class Backend(Protocol):
    """One place where entries are kept.

    - May be used by many threads; whether by many processes is the backend's to say.
    - `hold`, `let_go` and `after_fork` surround every fork of the process.
    """

    @property
    def name(self) -> str:
        """What messages call it. Holds no password."""
        ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def counters(self) -> CounterStore: ...

    @property
    def metadata(self) -> Metadata: ...

    @property
    def maintenance(self) -> Maintenance | None:
        """None where somebody else looks after the store, such as a database server."""
        ...

    @property
    def embedder(self) -> str | None:
        """Fingerprint of the embedder whose vectors are stored; None while there is none."""
        ...

    def entries(
        self,
        *,
        fingerprint: Callable[[], str],
        retention: Retention,
        clock: Callable[[], float],
        fault: Fault,
        before_eviction: Callable[[], None] = ...,
    ) -> Entries:
        """The serving path, for vectors of one embedder.

        Args:
            fingerprint: names that embedder; called when a vector is first written or looked up.
            retention: quotas and the order of eviction.
            clock: seconds since the epoch.
            before_eviction: called before entries are evicted, to write down who was just used.
        """
        ...

    def leases(self, fault: Fault) -> Leases | None:
        """Leases among processes; None where no other process can see this backend."""
        ...

    def hold(self) -> None:
        """Before a fork: no write is under way until `let_go`. Waits a second at most."""
        ...

    def let_go(self) -> None:
        """After the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """After the fork, in the child: forget connections, locks and leases of the parent."""
        ...

    def close(self) -> None:
        """Save what is derived, and give files and connections back. Later calls raise
        `StoreError`."""
        ...
