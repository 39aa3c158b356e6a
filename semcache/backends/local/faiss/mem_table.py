"""The vectors added since the last merge, in memory, in one partition for each scope."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from semcache.backends.local.faiss.merging import NewRows
from semcache.backends.local.faiss.partition import Lists, Partition
from semcache.backends.local.faiss.segment import Segment
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.centroids import CoarseQuantizer
    from semcache.types import Vector

_SCOPE_WEIGHT = 2
"""Weight of each scope in a mem table, in rows, since every partition has a memory overhead."""


class MemTable:
    """Vectors that are not in the segment yet: a partition for each scope.

    Args:
        segment: the sealed segment; partitions use the centroids of its large scopes.
    """

    def __init__(
        self, dimension: int, *, exact_below: int, background: bool, segment: Segment | None
    ) -> None:
        self._dimension = dimension
        self._segment = segment
        self._exact_below = exact_below
        self._background = background
        self.partitions: dict[bytes, Partition] = {}
        self.scope_of: dict[int, bytes] = {}

    @property
    def weight(self) -> int:
        return len(self.scope_of) + _SCOPE_WEIGHT * len(self.partitions)

    def add(self, ids: NDArray[np.int64], scopes: Sequence[bytes], vectors: Vector) -> None:
        rows: dict[bytes, list[int]] = defaultdict(list)
        for row, (entry_id, scope) in enumerate(zip(ids.tolist(), scopes, strict=True)):
            if entry_id not in self.scope_of:
                self.scope_of[entry_id] = scope
                rows[scope].append(row)
        for scope, chosen in rows.items():
            partition = self.partitions.get(scope)
            if partition is None:
                partition = self.partitions[scope] = Partition(
                    self._dimension,
                    exact_below=self._exact_below,
                    background=self._background,
                    coarse=partial(self._coarse, scope),
                )
            partition.add(ids[chosen], vectors[chosen])

    def add_all(self, other: MemTable) -> None:
        """Add the rows of another mem table."""
        rows = other.contents(self._dimension)
        self.add(rows.ids, rows.scopes, rows.vectors)

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Remove these ids, and return those that are not in this mem table."""
        here: dict[bytes, list[int]] = defaultdict(list)
        missing: list[int] = []
        for entry_id in ids:
            scope = self.scope_of.pop(entry_id, None)
            if scope is None:
                missing.append(entry_id)
            else:
                here[scope].append(entry_id)
        for scope, own_ids in here.items():
            partition = self.partitions[scope]
            partition.remove(own_ids)
            if not partition.count:
                del self.partitions[scope]
        return missing

    def follow(self, segment: Segment) -> None:
        """Adopt the centroids of the new sealed segment."""
        self._segment = segment
        for partition in self.partitions.values():
            if not partition.exact:
                partition.follow()

    def _coarse(self, scope: bytes) -> CoarseQuantizer | None:
        return None if self._segment is None else self._segment.coarse(scope)

    def search(self, scope: bytes, vector: Vector, k: int) -> list[Neighbour] | Lists:
        """See `Partition.search`."""
        partition = self.partitions.get(scope)
        return [] if partition is None else partition.search(vector, k)

    def exact(self, scope: bytes) -> bool:
        """Whether similarities in this scope are exact."""
        partition = self.partitions.get(scope)
        return partition is None or partition.exact

    def contents(self, dimension: int) -> NewRows:
        parts = [(scope, *p.contents()) for scope, p in list(self.partitions.items())]
        ids = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        vectors = np.concatenate(
            [np.empty((0, dimension), np.float32), *(part[2] for part in parts)]
        )
        scopes = [scope for scope, own_ids, _ in parts for _ in own_ids]
        return NewRows(ids, scopes, vectors)

    def wait(self) -> None:
        for partition in list(self.partitions.values()):
            partition.wait()
