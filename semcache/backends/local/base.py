"""The two halves of a local backend: the store is the truth, the index is derived from it."""

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
    """Finds the nearest vectors within one scope. Holds nothing that the store does not.

    - Ids are given once and never again; scopes are opaque bytes.
    - `search` never returns an id of another scope, nor one removed before it began.
    - May be called from many threads at once.
    """

    @property
    def dimension(self) -> int:
        """Length d of a vector; 0 before the first."""
        ...

    def tolerance(self, scope: bytes) -> float:
        """How far a similarity found in this scope may be off; 0.0: they are exact."""
        ...

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        """Make float32[d] findable in `scope` at once. A known id is left as it is."""
        ...

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        """`add` for n rows: vectors is float32[n, d]."""
        ...

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these ids at once. Unknown ids are passed over."""
        ...

    def retain(self, ids: NDArray[np.int64], up_to: int) -> None:
        """Forget all but these (int64[n], in order), as far as they are not above `up_to`."""
        ...

    def search(self, scope: bytes, vector: Vector, k: int, spare: int = 0) -> list[Neighbour]:
        """Up to k nearest of `scope` by cosine similarity, the nearest first.

        spare: so many more, of those that were looked at anyway.
        """
        ...

    def __len__(self) -> int:
        """How many vectors can be found."""
        ...

    def __contains__(self, entry_id: int) -> bool: ...

    def ids(self) -> NDArray[np.int64]:
        """int64[n]: the ids of all vectors that can be found, in order."""
        ...

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        ...

    @property
    def due(self) -> bool:
        """So much has changed that `IndexFiles.merge` should be called."""
        ...


class Store(Protocol):
    """The truth: entries, their vectors, counters. Everything else is derived from it.

    - When `add` or `delete` returns, the change survives the death of the process.
    - One call is one transaction: it happens whole or not at all.
    - May be called from many threads; other processes may use the same store.
    - Raises `StoreError`, naming the file, when it cannot.
    """

    def get_exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        ...

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the entries that exist."""
        ...

    def get_with_vectors(self, ids: Sequence[int]) -> dict[int, tuple[Entry, bytes | None]]:
        """The same, each with its vector as it is stored, if it has one."""
        ...

    @property
    def name(self) -> str:
        """What the store is called in messages."""
        ...

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        """Store an entry, in place of one with the same exact key; return its new id.

        Ids grow and are never given twice. vector: float32[d] or None; fingerprint: the
        embedder that made it. Raises `IndexMismatchError`, and stores nothing, if the
        store's vectors come from another embedder.
        """
        ...

    def ids(self, selection: Selection) -> list[int]:
        """Ids of what is selected."""
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        """Delete what is selected (at most `limit`); return the ids."""
        ...

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """Delete the first `count` entries in this order, never `spare`; return their ids.

        Looks at no others than it deletes. namespace: of this one's only.
        """
        ...

    def totals(self, namespace: str | None = None) -> Totals:
        """(entries, bytes of their texts and vectors) of one namespace or all, not counted."""
        ...

    def meta(self, name: str) -> str | None:
        """A fact about the store: "fingerprint", "dimension", "store_id"."""
        ...

    def revision(self) -> int:
        """A number that changes, for this thread, when anybody has committed. Cheap."""
        ...

    def acked_revision(self) -> int | None:
        """What this thread has noted with `ack_revision`."""
        ...

    def ack_revision(self, revision: int) -> None:
        """Note that everything up to this revision has been taken over."""
        ...

    def embedded_ids(self) -> NDArray[np.int64]:
        """int64[n]: ids of all entries that have a vector, in order."""
        ...

    def vectors_of(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The stored vectors of those that have one, in a form of `semcache.backends.vectors`."""
        ...

    def position(self) -> ChangeCursor:
        """How far the store has come, and whose vectors it holds."""
        ...

    def vectors_after(self, entry_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(id, scope, vector) of all entries that have one and a larger id, by id."""
        ...

    def deletions_after(
        self, sequence: int, up_to: int | None = None
    ) -> tuple[list[int], int] | None:
        """(ids deleted since `sequence`, the newest sequence or `up_to`).

        None: too long ago to know.
        """
        ...

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        """Add to counters by name, and to hits by id: (how many, the last: s since the epoch)."""
        ...

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        """The bytes that an entry counts for in `totals`."""
        ...

    def hold(self) -> None:
        """Before a fork: nobody is in the middle of a write until `let_go`.

        A lock within SQLite that is held during a fork is held in the child for ever. Waits
        for a second at most.
        """
        ...

    def let_go(self) -> None:
        """After the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """In a child process: forget connections and locks of the parent."""
        ...

    def close(self) -> None:
        """Give back files and connections. Later calls raise `StoreError`."""
        ...
