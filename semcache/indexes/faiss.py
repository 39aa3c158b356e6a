"""Nearest neighbours by FAISS, a partition for each scope.

A search looks into the partition of its scope and nowhere else, so that a vector
of another scope cannot be found, however near it lies. Vectors have length 1; the
inner product that FAISS computes is the cosine similarity.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semcache.indexes import snapshot
from semcache.indexes.partition import EXACT_BELOW, Flat, Partition
from semcache.types import Neighbour

if TYPE_CHECKING:
    from semcache.types import Vector


class FaissIndex:
    """An `Index` in memory.

    Args:
        dimension: length d of a vector; 0: that of the first one added.
        exact_below: scopes with fewer vectors are searched exactly (see `partition`).
        background: build inverted lists beside the traffic. False: build them inside the
            `add` that makes them due, for runs that must repeat to the last hit.
    """

    def __init__(
        self, dimension: int, *, exact_below: int = EXACT_BELOW, background: bool = True
    ) -> None:
        self.dimension = dimension
        self._exact_below = exact_below
        self._background = background
        self._partitions: dict[bytes, Partition] = {}
        self._scope_of: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._scope_of)

    def __contains__(self, entry_id: int) -> bool:
        return entry_id in self._scope_of

    def ids(self) -> set[int]:
        return set(self._scope_of)

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        self.add_many([entry_id], [scope], vector[None])

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        with self._lock:
            self.dimension = self.dimension or vectors.shape[1]
            rows: dict[bytes, list[int]] = defaultdict(list)
            for row, (entry_id, scope) in enumerate(zip(ids, scopes, strict=True)):
                if entry_id not in self._scope_of:
                    self._scope_of[entry_id] = scope
                    rows[scope].append(row)
            every_id = np.asarray(ids, np.int64)
            for scope, chosen in rows.items():
                self._partition(scope).add(every_id[chosen], vectors[chosen])

    def remove(self, ids: Iterable[int]) -> None:
        with self._lock:
            chosen: dict[bytes, list[int]] = defaultdict(list)
            for entry_id in ids:
                if (scope := self._scope_of.pop(entry_id, None)) is not None:
                    chosen[scope].append(entry_id)
            for scope, members in chosen.items():
                partition = self._partitions[scope]
                partition.remove(members)
                if not partition.count:
                    del self._partitions[scope]

    def search(self, scope: bytes, vector: Vector, k: int) -> list[Neighbour]:
        partition = self._partitions.get(scope)
        return [] if partition is None else partition.search(vector, k)

    def scopes(self) -> int:
        """How many scopes have vectors."""
        return len(self._partitions)

    def wait(self) -> None:
        """Until no inverted lists are being built."""
        for partition in list(self._partitions.values()):
            partition.wait()

    def _partition(self, scope: bytes) -> Partition:
        partition = self._partitions.get(scope)
        if partition is None:
            partition = self._partitions[scope] = self._new_partition()
        return partition

    def _new_partition(self) -> Partition:
        return Partition(self.dimension, exact_below=self._exact_below, background=self._background)

    # ---------------------------------------------------------------------- snapshots

    def save(self, path: Path, facts: snapshot.Facts) -> None:
        """Write a snapshot beside the database, in one atomic step. Waits for builds."""
        self.wait()
        with self._lock:
            partitions = {scope: p.rows for scope, p in self._partitions.items()}
            snapshot.save(path, facts, self.dimension, partitions)

    @classmethod
    def load(
        cls,
        path: Path,
        facts: snapshot.Facts,
        dimension: int,
        *,
        exact_below: int = EXACT_BELOW,
        background: bool = True,
    ) -> tuple[FaissIndex, snapshot.Facts]:
        """The index of a snapshot and how far it had followed the store.

        Raises:
            SnapshotError: there is none, it is damaged, or it was made for another store,
                embedder or dimension than `facts` says.
        """
        found, partitions = snapshot.load(path, facts, dimension)
        index = cls(dimension, exact_below=exact_below, background=background)
        for scope, rows in partitions.items():
            partition = index._partitions[scope] = index._new_partition()
            partition.adopt(rows)
            ids = rows.ids if isinstance(rows, Flat) else rows.contents()[0]
            index._scope_of.update(dict.fromkeys(ids.tolist(), scope))
        return index, found
