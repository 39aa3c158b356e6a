"""The two halves of a local backend: a store, and an index derived from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.base import Totals
    from semcache.types import (
        ChangeCursor,
        Entry,
        Neighbour,
        NewEntry,
        Selection,
        Vector,
    )


class Index(Protocol):
    """Finds the nearest vectors within a scope. All of it can be rebuilt from the store.

    - Ids are never reused; scopes are opaque bytes.
    - `search` never returns an id of another scope or one removed before the call.
    - May be called from many threads at once.
    """

    @property
    def dimension(self) -> int:
        """Length d of a vector; 0 if no vector was added yet."""
        ...

    def tolerance(self, scope: bytes) -> float:
        """The largest error of similarities returned for this scope; 0.0 if they are exact."""
        ...

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        """Add float32[d] to `scope`; the next search sees it. Ids already present are ignored."""
        ...

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        """Like `add`, for n rows: `vectors` is float32[n, d]."""
        ...

    def remove(self, ids: Iterable[int]) -> None:
        """Remove these ids; the next search no longer sees them. Unknown ids are ignored."""
        ...

    def retain(self, ids: NDArray[np.int64], up_to: int) -> None:
        """Remove all ids up to `up_to` except these (int64[n], in ascending order)."""
        ...

    def search(self, scope: bytes, vector: Vector, k: int, spare: int = 0) -> list[Neighbour]:
        """The up to k nearest vectors of `scope` by cosine similarity, nearest first.

        Args:
            spare: return up to this many more of the vectors that were compared anyway.
        """
        ...

    def __len__(self) -> int:
        """The number of vectors."""
        ...

    def __contains__(self, entry_id: int) -> bool: ...

    def ids(self) -> NDArray[np.int64]:
        """int64[n]: the ids of all vectors, in ascending order."""
        ...

    def wait(self) -> None:
        """Wait until nothing is being built in the background."""
        ...

    @property
    def due(self) -> bool:
        """Whether so much has changed that `IndexFiles.merge` should be called."""
        ...


class Store(Protocol):
    """The source of truth: entries, their vectors, counters. Everything else is derived from it.

    - When `add` or `delete` returns, the change survives a crash of the process.
    - Each call is one transaction: all of it takes effect, or nothing.
    - May be called from many threads; other processes may use the same store.
    - Every method may raise `StoreError`, which names the file.
    """

    def get_exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        ...

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        """The entries with these ids, by id; missing ones are left out."""
        ...

    def get_with_vectors(self, ids: Sequence[int]) -> dict[int, tuple[Entry, bytes | None]]:
        """Like `get_many`, each with its vector as stored, or None."""
        ...

    @property
    def name(self) -> str:
        """The name of the store in messages."""
        ...

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        """Store an entry, replacing any with the same exact key, and return its id.

        Ids increase and are never reused.

        Args:
            vector: float32[d] or None.
            fingerprint: the embedder of the vector.

        Raises:
            IndexMismatchError: the stored vectors come from another embedder; nothing is stored.
        """
        ...

    def ids(self, selection: Selection) -> list[int]:
        """The ids of the selected entries."""
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        """Delete the selected entries, at most `limit`; return their ids."""
        ...

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """See `Evictable.evict`. Reads only the entries that it deletes."""
        ...

    def totals(self, namespace: str | None = None) -> Totals:
        """Totals of one namespace, or of all. Takes constant time: nothing is counted."""
        ...

    def meta(self, name: str) -> str | None:
        """A value by name, such as "fingerprint", "dimension" or "store_id"; None if not set."""
        ...

    def revision(self) -> int:
        """A number that changes with every commit, by any thread or process; cheap to read.

        Only numbers read on the same thread are comparable.
        """
        ...

    def acked_revision(self) -> int | None:
        """The revision that this thread last passed to `ack_revision`."""
        ...

    def ack_revision(self, revision: int) -> None:
        """Note that the index now includes everything up to this revision."""
        ...

    def embedded_ids(self) -> NDArray[np.int64]:
        """int64[n]: the ids of all entries that have a vector, in ascending order."""
        ...

    def vectors_of(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Stored vectors by id, encoded as in `semcache.backends.vectors`."""
        ...

    def position(self) -> ChangeCursor:
        """The newest id and deletion of the store, and the embedder of its vectors."""
        ...

    def vectors_after(self, entry_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(id, scope, vector) of all entries with a vector and a larger id, in order of id."""
        ...

    def deletions_after(
        self, sequence: int, up_to: int | None = None
    ) -> tuple[list[int], int] | None:
        """(ids deleted after `sequence`, the last sequence that was read).

        None means that the log no longer reaches back that far.

        Args:
            up_to: read no deletions beyond this sequence; None means up to the newest.
        """
        ...

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        """See `CounterStore.add_up`."""
        ...

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        """The bytes that an entry would add to `totals`."""
        ...

    def hold(self) -> None:
        """Before a fork: block writes until `let_go`, waiting at most a second for running ones.

        A lock inside SQLite that is held during a fork stays locked in the child for ever.
        """
        ...

    def let_go(self) -> None:
        """After a fork, in the parent: allow writes again."""
        ...

    def after_fork(self) -> None:
        """After a fork, in the child: drop the connections and locks of the parent."""
        ...

    def close(self) -> None:
        """Close files and connections. Later calls raise `StoreError`."""
        ...
