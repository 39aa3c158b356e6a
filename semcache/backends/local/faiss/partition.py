"""A scope's partition of a mem table: flat with few vectors, in inverted lists with many.

Flat: all vectors in one array, searched exactly. With 8,192 vectors of 384 dimensions a search
takes less than a tenth of the time of one embedding. This time grows with the number of vectors, so
a larger scope is moved to inverted lists.

Inverted lists: around the centroids that the scope has in the segment, so that one search covers
both; if it has none there, around centroids of its own. A search probes a few lists, and more if
those held nothing near (`search.STAGES`). Unlike a graph (HNSW), lists apply deletes at once and
are built in seconds. What exact search costs by size, and the recall of the lists, is in
`benchmarks/results/latency.json`.

Eventually a merge moves all of this to a segment (`FaissIndex`). One module, because the flat form
and the lists replace each other and share their rows.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np

from semcache.backends.local.faiss.centroids import (
    RETRAIN_FACTOR,
    CoarseQuantizer,
    mean_code,
    nearest_centroids,
    sample_of,
    train_centroids,
)
from semcache.backends.local.faiss.quantizer import Block, Quantizer
from semcache.backends.local.faiss.search import SearchQuery, inner_products
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

EXACT_BELOW = 8_192
"""A scope with fewer vectors is searched exactly."""
_LISTS_FROM = 256
"""A partition with this many vectors uses lists if the segment has centroids for its scope."""
FLOAT16_TOLERANCE = 0.001
"""Error bound of a cosine from float16 vectors."""
_NO_ROWS = np.empty(0, np.int64)


class Flat:
    """Rows in an array that grows. The last row takes the slot of a deleted one."""

    def __init__(self, dimension: int, capacity: int = 1) -> None:
        self.count = 0
        self._ids = np.empty(capacity, np.int64)
        self._vectors = np.empty((capacity, dimension), np.float32)
        self._rows: dict[int, int] = {}

    @property
    def ids(self) -> NDArray[np.int64]:
        return self._ids[: self.count]

    @property
    def vectors(self) -> Vector:
        """float32[count, d]"""
        return self._vectors[: self.count]

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        end = self.count + len(ids)
        if end > len(self._ids):
            capacity = max(end, 2 * len(self._ids))
            self._ids = _grown(self._ids, capacity)
            self._vectors = _grown(self._vectors, capacity)
        self._ids[self.count : end] = ids
        self._vectors[self.count : end] = vectors
        self._rows.update(zip(ids.tolist(), range(self.count, end), strict=True))
        self.count = end

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """Copies of the ids, int64[n], and the vectors, float32[n, d]."""
        return self.ids.copy(), self.vectors.copy()

    def remove(self, ids: list[int]) -> None:
        for entry_id in ids:
            row = self._rows.pop(entry_id, None)
            if row is None:
                continue
            last = self.count - 1
            if row != last:
                self._ids[row] = self._ids[last]
                self._vectors[row] = self._vectors[last]
                self._rows[int(self._ids[row])] = row
            self.count = last

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        if not self.count:
            return []
        similarities, rows = faiss.knn(
            vector[None], self.vectors, min(k, self.count), metric=faiss.METRIC_INNER_PRODUCT
        )
        return [
            Neighbour(int(self._ids[row]), min(float(similarity), 1.0))
            for similarity, row in zip(similarities[0], rows[0], strict=True)
            if row >= 0
        ]


class Lists:
    """Float16 vectors in inverted lists; a `Source`.

    One thread at a time changes it; others search meanwhile, without a lock. If a new row is just
    taking the slot of a deleted one, they may read the new row, or a mixture of both. Similarities
    are rounded anyway: callers that decide by one compute it again from the stored vector.

    Args:
        coarse: the coarse quantizer.
        trained_for: number of rows that the centroids were trained for, if they belong to these
            lists alone; None means that they are the segment's.
        room: initial capacity in rows.
    """

    def __init__(self, coarse: CoarseQuantizer, *, trained_for: int | None, room: int) -> None:
        self.coarse = coarse
        self.trained_for = trained_for
        self._ids = np.empty(room, np.int64)
        self._list_of = np.empty(room, np.int64)
        self._vectors = np.empty((room, coarse.quantizer.dimension), np.float16)
        self._lists: list[_List | None] = [None] * coarse.lists
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._used = 0

    @classmethod
    def build(
        cls, ids: NDArray[np.int64], vectors: Vector, coarse: CoarseQuantizer | None
    ) -> Lists:
        """Put vectors into the lists of this coarse quantizer; None trains one by k-means."""
        if coarse is not None:
            lists = cls(coarse, trained_for=None, room=2 * len(ids))
        else:
            lists = cls(_trained(vectors), trained_for=len(ids), room=2 * len(ids))
        lists.add(ids, vectors)
        return lists

    @property
    def count(self) -> int:
        return len(self._row_of)

    @property
    def outgrown(self) -> bool:
        """Whether there are too many rows for the centroids that were trained for them."""
        return self.trained_for is not None and self.count >= RETRAIN_FACTOR * self.trained_for

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        if not len(ids):
            return
        rows = self._allocate(len(ids))
        if len(ids) == 1:
            numbers = SearchQuery(vectors[0], self.coarse).nearest_lists(1)
        else:
            numbers = nearest_centroids(vectors, self.coarse.centroids)
        self._ids[rows], self._vectors[rows], self._list_of[rows] = ids, vectors, numbers
        self._row_of.update(zip(ids.tolist(), rows.tolist(), strict=True))
        sketch = self.coarse.sketch(vectors)
        order = np.argsort(numbers, kind="stable")
        first = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for of_one_list in np.split(order, first[1:]):
            number = int(numbers[of_one_list[0]])
            if (inverted_list := self._lists[number]) is None:
                inverted_list = self._lists[number] = _List(sketch.shape[1])
            inverted_list.add(sketch[of_one_list], rows[of_one_list])

    def _allocate(self, count: int) -> NDArray[np.int64]:
        """int64[count]: slots for new rows, free ones first."""
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        start, self._used = self._used, self._used + count - len(reused)
        if self._used > len(self._ids):
            capacity = max(self._used, 2 * len(self._ids))
            self._ids = _grown(self._ids, capacity)
            self._list_of = _grown(self._list_of, capacity)
            self._vectors = _grown(self._vectors, capacity)
        return np.array([*reused, *range(start, self._used)], np.int64)

    def remove(self, ids: list[int]) -> None:
        removed = [row for i in ids if (row := self._row_of.pop(i, None)) is not None]
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, number in zip(removed, self._list_of[removed].tolist(), strict=True):
            rows_of[number].append(row)
        for number, rows in rows_of.items():
            inverted_list = self._lists[number]
            assert inverted_list is not None  # it has these rows
            self._lists[number] = inverted_list.without(rows)
        self._free += removed

    def view(self, lists: Sequence[int]) -> _View:
        parts, firsts, rows, end = [], [], [], 0
        for number in lists:
            inverted_list = self._lists[number]
            if inverted_list is not None and (part := inverted_list.part).rows:
                parts.append(part)
                rows.append(inverted_list.rows[: part.rows])
                firsts.append(end)
                end += part.rows
        return _View(parts, firsts, end, rows, self)

    def with_cosines(
        self, rows: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(ids, cosines with float32[d])"""
        return self._ids[rows], inner_products(vector, self._vectors[rows].astype(np.float32))

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """Copies of the ids, int64[n], and the vectors, float32[n, d]."""
        rows = np.fromiter(self._row_of.values(), np.int64, len(self._row_of))
        return self._ids[rows], self._vectors[rows].astype(np.float32)


class _List:
    """One inverted list: its rows, and their sign bits or codes.

    Readers read `part` before `rows`, which then has at least as many rows.
    """

    __slots__ = ("part", "rows")

    def __init__(self, width: int, room: int = 8) -> None:
        self.part = Block.of(np.empty((room, width), np.uint8), 0)
        self.rows = np.empty(room, np.int64)

    def add(self, sketch: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        part, end = self.part, self.part.rows + len(rows)
        if end > len(self.rows):
            capacity = max(end, 2 * len(self.rows))
            part = Block.of(_grown(part.sketch, capacity), part.rows)
            self.rows = _grown(self.rows, capacity)
        part.sketch[part.rows : end], self.rows[part.rows : end] = sketch, rows
        self.part = part._replace(rows=end)

    def without(self, rows: list[int]) -> _List:
        """A copy without these rows."""
        remaining = np.flatnonzero(~np.isin(self.rows[: self.part.rows], rows))
        copy = _List(self.part.sketch.shape[1], max(len(remaining), 8))
        copy.add(self.part.sketch[remaining], self.rows[remaining])
        return copy


class _View(NamedTuple):
    """Rows of some lists, numbered consecutively."""

    parts: Sequence[Block]
    firsts: Sequence[int]
    end: int
    rows: Sequence[NDArray[np.int64]]
    lists: Lists

    def with_cosines(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = np.concatenate([_NO_ROWS, *self.rows])
        return self.lists.with_cosines(rows[numbers], vector)


def _trained(vectors: Vector) -> CoarseQuantizer:
    """A coarse quantizer trained on these vectors by k-means."""
    sample = vectors[sample_of(np.arange(len(vectors)))]
    centroids, quantizer = train_centroids(sample, len(vectors)), Quantizer.around(vectors)
    coarse, middle = quantizer.encode(centroids), mean_code(quantizer.encode(sample))
    return CoarseQuantizer(centroids, Block.of(coarse), quantizer, quantizer.thresholds(middle))


def _grown(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    """A copy of the array with room for `capacity` rows."""
    copy = np.empty((capacity, *array.shape[1:]), array.dtype)
    copy[: len(array)] = array
    return copy


class Partition:
    """One scope's vectors in a mem table. Every method is thread-safe.

    The move to lists, or to more of them, happens in the background: the new lists are built
    from a copy while the old form keeps serving, and take over the changes made meanwhile
    before they replace it.

    Args:
        exact_below: see `FaissIndex`.
        background: see `FaissIndex`.
        coarse: returns the coarse quantizer that the scope has in the segment now, if any.
    """

    def __init__(
        self,
        dimension: int,
        *,
        exact_below: int,
        background: bool,
        coarse: Callable[[], CoarseQuantizer | None],
    ) -> None:
        self._exact_below = exact_below
        self._background = background
        self._coarse = coarse
        self._lock = threading.Lock()
        self._rows: Flat | Lists = Flat(dimension)
        self._building: threading.Thread | None = None
        # Changes during a build: (ids, their vectors, or None if they were removed).
        self._pending: list[tuple[NDArray[np.int64], Vector | None]] = []

    @property
    def count(self) -> int:
        return self._rows.count

    @property
    def exact(self) -> bool:
        """Whether its vectors are kept unrounded and searched exactly."""
        return isinstance(self._rows, Flat)

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """Copies of the ids, int64[n], and the vectors, float32[n, d]."""
        with self._lock:
            return self._rows.contents()

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        with self._lock:
            self._rows.add(ids, vectors)
            if self._building is not None:
                self._pending.append((ids, vectors))
            elif self._outgrown():
                self._start_building()

    def remove(self, ids: list[int]) -> None:
        with self._lock:
            self._rows.remove(ids)
            if self._building is not None:
                self._pending.append((np.asarray(ids, np.int64), None))

    def search(self, vector: Vector, k: int) -> list[Neighbour] | Lists:
        """The k nearest if it is flat; else its lists, for a `Search` over all sources."""
        rows = self._rows
        if isinstance(rows, Lists):
            return rows
        with self._lock:
            return rows.search(vector, k)

    def follow(self) -> None:
        """Adopt the segment's centroids, which a merge may have replaced."""
        with self._lock:
            if self._building is None:
                self._follow()

    def _follow(self) -> None:
        """The caller holds the lock, and nothing is being built."""
        rows, coarse = self._rows, self._coarse()
        if isinstance(rows, Flat) or coarse is None or rows.coarse is coarse:
            return
        if rows.coarse.equals(coarse):
            rows.coarse = coarse
        else:
            self._start_building()

    def wait(self) -> None:
        """Wait until no lists are being built."""
        while (building := self._building) is not None:
            building.join()

    def _outgrown(self) -> bool:
        rows = self._rows
        if isinstance(rows, Lists):
            coarse = self._coarse()
            return rows.outgrown or (coarse is not None and coarse is not rows.coarse)
        if rows.count >= self._exact_below:
            return True
        return rows.count >= _LISTS_FROM and self._coarse() is not None

    def _start_building(self) -> None:
        """The caller holds the lock."""
        ids, vectors = self._rows.contents()
        coarse = self._coarse()
        if not self._background:
            self._rows = Lists.build(ids, vectors, coarse)
            return
        building = threading.Thread(
            target=self._build,
            args=(ids, vectors, coarse),
            name="semcache-index",
            daemon=True,
        )
        try:
            building.start()
        except RuntimeError:  # too many threads: the next `add` tries again
            return
        self._building = building

    def _build(
        self, ids: NDArray[np.int64], vectors: Vector, coarse: CoarseQuantizer | None
    ) -> None:
        try:
            lists = Lists.build(ids, vectors, coarse)
        except BaseException:
            with self._lock:
                self._building, self._pending = None, []
            raise
        with self._lock:
            for changed_ids, changed_vectors in self._pending:
                if changed_vectors is None:
                    lists.remove(changed_ids.tolist())
                else:
                    lists.add(changed_ids, changed_vectors)
            self._rows, self._building, self._pending = lists, None, []
            self._follow()
            if self._building is None and self._outgrown():
                self._start_building()  # many vectors were added meanwhile, as happens at opening
