"""The contract of a backend: store entries, search them, and remember what was learned.

A backend is where a cache is stored: a directory, the memory of a process, a server. It consists
of small parts, each a protocol below, so that a backend without some capability (revisions,
leases, maintenance) can leave that part out instead of faking it.

==================  ===============================================================
`Backend`           the whole backend: gives access to its parts, and supports forks
`Entries`           the serving path: exact, nearest, record, delete
`Catalogue`         reading and listing entries, for people and tools
`Evictable`         what quotas need: totals, adding, and deletion in a given order
`Ledger`            labels, served hits and pending comparisons
`CounterStore`      counters, summed over all processes
`Metadata`          small named values
`Leases`            which of several processes calls the model for a request
`Maintenance`       checks, repairs, re-embedding; optional
==================  ===============================================================

The test suite in `tests/backends` runs against every backend. One module holds all the protocols,
so that the author of a backend can read the contract from top to bottom.
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
        PendingComparison,
        Selection,
        ServedHit,
        Vector,
    )

Order = Literal["newest", "oldest", "most_hits", "least_recently_used", "least_frequently_used"]
ORDERS: tuple[Order, ...] = (
    "newest", "oldest", "most_hits", "least_recently_used", "least_frequently_used",
)  # fmt: skip
"""Orders in which entries can be listed. An entry without hits counts as last used when it was
stored."""

Fault = Callable[[str, BaseException], None]
"""Called with (component, error) when something fails that no caller is waiting for."""
Progress = Callable[[int, int], None]
"""Called with (done, total) during a long operation; total is 0 if it is unknown."""


class NotReadyError(Exception):
    """Neighbours cannot be searched yet: the index is still being built."""


class TooLargeError(Exception):
    """A single entry is larger than a whole quota in bytes."""


class Totals(NamedTuple):
    """The number of entries, and the size of their texts and vectors in bytes."""

    entries: int
    size: int


class GroupSize(NamedTuple):
    """How many entries and hits one namespace and model has."""

    namespace: str
    model: str
    entries: int
    hits: int


class LabelCount(NamedTuple):
    """How many labels of one kind there are, and how many of them are "right"."""

    kind: str
    labels: int
    right: int


@dataclass(frozen=True, slots=True)
class EntryDetails:
    """The stored fields of an entry that serving it does not need.

    Attributes:
        tags: the entry's tags, in alphabetical order.
        summary: a short form of the request, as JSON.
        key_version: the version of the canonical form that the entry's key was computed from.
        vector: float32[d]; None means that only the exact tier can find the entry.
    """

    tags: tuple[str, ...] = ()
    summary: JSON = field(default_factory=dict)
    key_version: int = 0
    vector: Vector | None = None


class Entries(Protocol):
    """The serving path of a backend.

    - When `record` or `delete` returns, the change is as durable as the backend is, and every
      later call in this process sees it.
    - May be called from many threads at once.
    - Every method may raise `StoreError`, which names the location of the backend.
    """

    def exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        ...

    def revision(self) -> int | None:
        """A token for everything committed so far, to be passed to `nearest`.

        None means that the backend has no revisions or cannot read the current one; `nearest`
        then checks for new commits itself.
        """
        ...

    def nearest(
        self, scope: bytes, vector: Vector, k: int, floor: float, revision: int | None = None
    ) -> Neighbours:
        """Entries of the scope with a similarity of at least `floor`, nearest first.

        Returns the k nearest fresh entries, or all if there are fewer; expired entries and more
        than k fresh ones may be among the results. Never returns an entry of another scope or one
        deleted before the call.

        Args:
            vector: float32[d], of length 1.
            revision: the result of an earlier call of `revision` on this thread; entries that
                other processes recorded since then may be missed.

        Raises:
            IndexMismatchError: the stored vectors come from another embedder.
            NotReadyError: the index is still being built.
        """
        ...

    def record(self, entry: NewEntry, vector: Vector | None) -> int:
        """Store an entry, replacing any with the same exact key, and return its id.

        Ids increase and are never reused. Entries in excess of a quota are evicted. If `vector`
        is None and the replaced entry has the same question, its vector is kept.

        Raises:
            IndexMismatchError: the stored vectors come from another embedder; nothing is stored.
            TooLargeError: the entry alone exceeds a quota; nothing is stored.
        """
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> int:
        """Delete the selected entries, at most `limit`; return how many were deleted."""
        ...

    def wait(self) -> None:
        """Wait until no index is being built in the background."""
        ...


class Evictable(Protocol):
    """What a store must offer for quotas to be enforced."""

    def totals(self, namespace: str | None = None) -> Totals:
        """Totals of one namespace, or of all. Takes constant time: nothing is counted."""
        ...

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        """The bytes that an entry would add to `totals`."""
        ...

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        """Store an entry, replacing any with the same exact key, and return its id.

        Args:
            fingerprint: the embedder of the vector; None if there is no vector.
        """
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        """Delete the selected entries, at most `limit`; return their ids."""
        ...

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """Delete the first `count` entries in this order and return their ids.

        The cost should grow with `count`, not with the number of entries.

        Args:
            spare: the id of an entry that is never deleted.
            namespace: evict only entries of this namespace; None means all.
        """
        ...


class Catalogue(Protocol):
    """Reads and lists entries; changes nothing."""

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        """The entries with these ids, by id; missing ones are left out."""
        ...

    def details(self, ids: Sequence[int]) -> dict[int, EntryDetails]:
        """The other stored fields of these entries, by id."""
        ...

    def select(
        self,
        selection: Selection = ...,
        *,
        order: Order = "newest",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Entry]:
        """The selected entries in this order."""
        ...

    def page_after(self, last: int, selection: Selection, limit: int) -> list[Entry]:
        """Selected entries with an id above `last`, smallest id first."""
        ...

    def count(self, selection: Selection = ...) -> int:
        """How many entries are selected."""
        ...

    def totals(self, namespace: str | None = None) -> Totals:
        """Totals of one namespace, or of all. Takes constant time: nothing is counted."""
        ...

    def groups(self) -> list[GroupSize]:
        """Numbers of entries by namespace and model, largest group first."""
        ...

    def vectors(self) -> Iterator[tuple[int, Vector]]:
        """(id, float32[d]) of every entry that has a vector, in order of id."""
        ...

    def stored_bytes(self) -> int:
        """The space that the backend takes up, in bytes; 0 if unknown."""
        ...


class Ledger(Protocol):
    """Labels, and the hits that were served.

    - Each call is one transaction: all of it takes effect, or nothing.
    - May be called from many threads; other processes may write at the same time.
    - Every method may raise `StoreError`.
    """

    def observe(self, observations: Sequence[Observation], served: Sequence[ServedHit]) -> None:
        """Append labels and served hits; old ones beyond a limit are dropped."""
        ...

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        """(number, label) of up to `limit` labels after this number, in order of number."""
        ...

    def last_observation(self) -> int:
        """The number of the newest label; 0 if there are no labels."""
        ...

    def observation_counts(self) -> list[LabelCount]:
        """How many labels there are of each kind, except those of which the judge was unsure."""
        ...

    def served_labels(self, limit: int) -> list[bool]:
        """The newest labels from random samples: explorations, audits and reviews.

        Labels of which the judge was unsure are left out.
        """
        ...

    def forget(self, selection: Selection) -> int:
        """Delete the labels of the selected entries; return how many.

        Must be called before the entries themselves are deleted. If the selection is a namespace,
        all labels, served hits and comparisons of the namespace are deleted.
        """
        ...

    def served_hit(self, lookup_id: str) -> ServedHit | None:
        """The hit that a lookup served; None if it is unknown or was dropped."""
        ...

    def unreviewed(self, limit: int) -> list[ServedHit]:
        """A random sample of served hits without a verdict, whose entries still exist."""
        ...

    def rejected_pairs(self) -> set[tuple[int, str]]:
        """(entry id, question) of all served hits whose verdict is "wrong"."""
        ...

    def set_verdict(self, lookup_id: str, right: bool) -> None:
        """Record whether a served hit was right; unknown lookups are ignored."""
        ...

    def keep_comparisons(self, comparisons: Sequence[PendingComparison]) -> None:
        """Store comparisons that no judge has made yet; the oldest beyond a limit are dropped.

        `PendingComparison.stored` is not written: `take_comparisons` reads it from the entry.
        """
        ...

    def take_comparisons(self, limit: int) -> list[PendingComparison]:
        """Remove and return up to `limit` comparisons, oldest first; none is returned twice.

        Comparisons whose entry has been deleted are gone.
        """
        ...


class CounterStore(Protocol):
    """Counters, summed over all processes."""

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        """Add to counters by name, and to the hits of entries by id.

        Hits extend the life of entries with a sliding TTL. Unknown entry ids are ignored.

        Args:
            counters: the amount to add to each counter.
            hits: (number of hits, time of the last one in seconds since the epoch) by entry id.
        """
        ...

    def counters(self) -> dict[str, float]:
        """All counters by name."""
        ...


class Metadata(Protocol):
    """Small named values."""

    def meta(self, name: str) -> str | None:
        """The value with this name; None if there is no such value."""
        ...

    def set_meta(self, name: str, value: str) -> None:
        """Store a value, replacing any of the same name."""
        ...

    def metas(self, prefix: str) -> dict[str, str]:
        """All values whose names begin with `prefix`, by the rest of the name."""
        ...


class Lease(Protocol):
    """The right to call the model for a request, among all processes."""

    def release(self, *, kept: bool) -> None:
        """Give the lease back, so that waiting processes go on. Raises nothing.

        Args:
            kept: False if there is an answer that was not stored: the waiting processes then all
                call the model themselves. True otherwise: they look in the cache, and if the answer
                is not there, one of them takes the lease.
        """
        ...


class Leases(Protocol):
    """Records which process is calling the model for which request.

    - A lease has one holder at a time. The lease of a holder that has died can be taken over.
    - May be called from many threads. Every method may raise `StoreError`.
    """

    def take(self, key: bytes, scope: bytes, vector: Vector | None) -> Lease | LeaseHolder:
        """Take the lease and return it; if it is held already, return its holder.

        Args:
            vector: float32[d], by which `near` finds this lease; None hides the lease from `near`.
        """
        ...

    def look(self, key: bytes) -> LeaseHolder | None:
        """The holder of the lease; None if nobody holds it."""
        ...

    def take_over(self, key: bytes, dead: LeaseHolder) -> Lease | None:
        """Take the lease from a dead holder; None if the present holder does not equal `dead`.

        It does not if the holder is alive after all, because its heartbeat has then increased.
        """
        ...

    def near(self, scope: bytes, vector: Vector, floor: float) -> bytes | None:
        """The key of the held lease of this scope whose question is most similar to `vector`.

        None if no lease reaches a similarity of `floor`.
        """
        ...

    def close(self) -> None:
        """Release pending leases and close files. Later calls raise `StoreError`."""
        ...


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        entries: the number of entries.
        vectors: the number of entries that have a vector.
        without_vector: the number of entries that only the exact tier can find.
        scopes: the number of scopes that have vectors.
        embedder: the fingerprint of the stored vectors; None if there are none.
        key_versions: numbers of entries by version of the canonical form.
        problems: what is wrong and was not repaired; empty for a sound cache.
        mended: problems that were repaired.
    """

    entries: int
    vectors: int
    without_vector: int
    scopes: int
    embedder: str | None
    key_versions: Mapping[int, int]
    problems: list[str]
    mended: list[str] = field(default_factory=list)


class Maintenance(Protocol):
    """Work on a whole cache; not for backends that a server maintains."""

    def check(self, *, fix: bool = False) -> CheckReport:
        """Check the consistency of the backend.

        Args:
            fix: repair whatever can be repaired; entries that cannot be served are deleted.
        """
        ...

    def vacuum(self) -> tuple[int, int]:
        """Free the space of deleted entries; return the size before and after, in bytes."""
        ...

    def reembed(self, embedder: Embedder, progress: Progress) -> int:
        """Embed every stored question again, then replace all vectors in one step.

        The cache stays usable meanwhile, and an interrupted run is resumed by the next one.
        Returns the number of vectors afterwards.

        Raises:
            EmbedderError: the embedder failed; the next run continues from here.
        """
        ...


class Backend(Protocol):
    """Where the entries of a cache are stored.

    - May be used from many threads; each backend documents whether several processes may share it.
    - `hold` is called before every fork of the process, `let_go` and `after_fork` afterwards.
    """

    @property
    def name(self) -> str:
        """The name of the backend in messages. Contains no password."""
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
        """None means that something else, such as a database server, maintains the store."""
        ...

    @property
    def embedder(self) -> str | None:
        """The fingerprint of the embedder of the stored vectors; None if there are none yet."""
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
            fingerprint: returns the embedder's fingerprint; first called when a vector is written
                or looked up.
            retention: quotas and the eviction policy.
            clock: returns the time in seconds since the epoch.
            fault: called when something fails that no caller is waiting for.
            before_eviction: called before entries are evicted, to write out pending hits.
        """
        ...

    def leases(self, fault: Fault) -> Leases | None:
        """Leases among processes; None for a read-only backend, or one for a single process."""
        ...

    def hold(self) -> None:
        """Before a fork: block writes until `let_go`, waiting at most a second for running ones."""
        ...

    def let_go(self) -> None:
        """After a fork, in the parent: allow writes again."""
        ...

    def after_fork(self) -> None:
        """After a fork, in the child: drop the connections, locks and leases of the parent."""
        ...

    def close(self) -> None:
        """Save derived data and close files and connections. Later calls raise `StoreError`."""
        ...
