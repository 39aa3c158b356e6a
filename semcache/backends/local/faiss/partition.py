"""The vectors of one scope that came in lately: one by one while few, in lists when many.

Flat: all vectors in one array, compared by FAISS one by one. Exact. At 8,192 vectors of 384
dimensions this takes less than a tenth of one embedding, and it grows with their number, so a
larger scope is moved to inverted lists.

Inverted lists: where the scope's older vectors lie in lists of a segment, around the same
centroids, so that one search looks through both; else around some of their own. A search
looks into a few of them, and into more where those held nothing near (`scanning.STAGES`). Unlike
a graph (HNSW), lists take deletes at once and are built in seconds. What exact search costs by
size, and the recall of the lists, is in `benchmarks/results/latency.json`.

Sooner or later all of this is merged into a segment (`FaissIndex`). One module, because the flat
form and the lists replace each other and share their rows.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np

from semcache.backends.local.faiss.centroids import (
    REGROW,
    CoarseQuantizer,
    assigned,
    middle_of,
    placed,
    sample_of,
)
from semcache.backends.local.faiss.quantizer import Part, Quantizer
from semcache.backends.local.faiss.search import Question, inner_products
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

EXACT_BELOW = 8_192
"""A scope with fewer vectors is searched exactly."""
_PLACED_FROM = 256
"""Vectors from which on they are put into lists whose centroids are there already."""
HALF = 0.001
"""How far a cosine of float16 vectors may be off."""
_NONE = np.empty(0, np.int64)


class Flat:
    """Rows in an array with room to grow. A deleted row is filled with the last one."""

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
            room = max(end, 2 * len(self._ids))
            self._ids = _with_room(self._ids, room)
            self._vectors = _with_room(self._vectors, room)
        self._ids[self.count : end] = ids
        self._vectors[self.count : end] = vectors
        self._rows.update(zip(ids.tolist(), range(self.count, end), strict=True))
        self.count = end

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """(int64[n], float32[n, d]), copied."""
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

    One thread changes it at a time. Others search meanwhile and wait for nothing: of a row that was
    deleted a moment ago they may find what has come in its place, or half of it. Similarities are
    rounded anyway: whoever serves by one takes the stored vector.

    Args:
        placing: the centroids.
        own_for: how many rows these were placed for, if for none but those that are here.
        room: rows to come.
    """

    def __init__(self, coarse: CoarseQuantizer, *, own_for: int | None, room: int) -> None:
        self.coarse = coarse
        self.own_for = own_for
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
        """Put vectors into lists around these centroids; without any, place some by k-means."""
        if coarse is not None:
            lists = cls(coarse, own_for=None, room=2 * len(ids))
        else:
            lists = cls(_placing_for(vectors), own_for=len(ids), room=2 * len(ids))
        lists.add(ids, vectors)
        return lists

    @property
    def count(self) -> int:
        return len(self._row_of)

    @property
    def outgrown(self) -> bool:
        """Whether there are too many rows for the centroids that were placed for them."""
        return self.own_for is not None and self.count >= REGROW * self.own_for

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        if not len(ids):
            return
        rows = self._rows_for(len(ids))
        if len(ids) == 1:
            numbers = Question(vectors[0], self.coarse).nearest_lists(1)
        else:
            numbers = assigned(vectors, self.coarse.centroids)
        self._ids[rows], self._vectors[rows], self._list_of[rows] = ids, vectors, numbers
        self._row_of.update(zip(ids.tolist(), rows.tolist(), strict=True))
        sketch = self.coarse.sketch(vectors)
        order = np.argsort(numbers, kind="stable")
        first = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for of_one_list in np.split(order, first[1:]):
            number = int(numbers[of_one_list[0]])
            if (one := self._lists[number]) is None:
                one = self._lists[number] = _List(sketch.shape[1])
            one.add(sketch[of_one_list], rows[of_one_list])

    def _rows_for(self, count: int) -> NDArray[np.int64]:
        """Where to put so many."""
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        start, self._used = self._used, self._used + count - len(again)
        if self._used > len(self._ids):
            room = max(self._used, 2 * len(self._ids))
            self._ids = _with_room(self._ids, room)
            self._list_of = _with_room(self._list_of, room)
            self._vectors = _with_room(self._vectors, room)
        return np.array([*again, *range(start, self._used)], np.int64)

    def remove(self, ids: list[int]) -> None:
        gone = [row for i in ids if (row := self._row_of.pop(i, None)) is not None]
        of_list: dict[int, list[int]] = defaultdict(list)
        for row, number in zip(gone, self._list_of[gone].tolist(), strict=True):
            of_list[number].append(row)
        for number, rows in of_list.items():
            one = self._lists[number]
            assert one is not None  # it has these rows
            self._lists[number] = one.without(rows)
        self._free += gone

    def view(self, lists: Sequence[int]) -> _View:
        parts, firsts, rows, end = [], [], [], 0
        for number in lists:
            one = self._lists[number]
            if one is not None and (part := one.part).rows:
                parts.append(part)
                rows.append(one.rows[: part.rows])
                firsts.append(end)
                end += part.rows
        return _View(parts, firsts, end, rows, self)

    def measured(
        self, rows: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(ids, cosines with float32[d])"""
        return self._ids[rows], inner_products(vector, self._vectors[rows].astype(np.float32))

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """(int64[n], float32[n, d]), copied."""
        rows = np.fromiter(self._row_of.values(), np.int64, len(self._row_of))
        return self._ids[rows], self._vectors[rows].astype(np.float32)


class _List:
    """Rows of one list, and what is looked through of them.

    Whoever reads takes `part` first: `rows` then has so many at least.
    """

    __slots__ = ("part", "rows")

    def __init__(self, width: int, room: int = 8) -> None:
        self.part = Part.of(np.empty((room, width), np.uint8), 0)
        self.rows = np.empty(room, np.int64)

    def add(self, sketch: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        part, end = self.part, self.part.rows + len(rows)
        if end > len(self.rows):
            room = max(end, 2 * len(self.rows))
            part = Part.of(_with_room(part.sketch, room), part.rows)
            self.rows = _with_room(self.rows, room)
        part.sketch[part.rows : end], self.rows[part.rows : end] = sketch, rows
        self.part = part._replace(rows=end)

    def without(self, rows: list[int]) -> _List:
        """A copy that lacks these."""
        left = np.flatnonzero(~np.isin(self.rows[: self.part.rows], rows))
        other = _List(self.part.sketch.shape[1], max(len(left), 8))
        other.add(self.part.sketch[left], self.rows[left])
        return other


class _View(NamedTuple):
    """Rows numbered as they follow each other."""

    parts: Sequence[Part]
    firsts: Sequence[int]
    end: int
    rows: Sequence[NDArray[np.int64]]
    lists: Lists

    def measured(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = np.concatenate([_NONE, *self.rows])
        return self.lists.measured(rows[numbers], vector)


def _placing_for(vectors: Vector) -> CoarseQuantizer:
    """Centroids for these vectors, by k-means."""
    sample = vectors[sample_of(np.arange(len(vectors)))]
    centroids, quantizer = placed(sample, len(vectors)), Quantizer.around(vectors)
    coarse, middle = quantizer.encode(centroids), middle_of(quantizer.encode(sample))
    return CoarseQuantizer(centroids, Part.of(coarse), quantizer, quantizer.edges(middle))


def _with_room(array: NDArray[Any], room: int) -> NDArray[Any]:
    """A copy with room for so many rows."""
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


class Partition:
    """One scope's vectors. Every method may be called from any thread.

    Moving to lists, or to more of them, happens beside the traffic: the new lists are built
    from a copy while the old ones go on serving, and take the changes made meanwhile when
    they are put in place.

    Args:
        placing: what older vectors of the scope lie around by now, if they lie in lists.
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
        self._late: list[tuple[NDArray[np.int64], Vector | None]] = []

    @property
    def count(self) -> int:
        return self._rows.count

    @property
    def exact(self) -> bool:
        """Whether its vectors are kept as they came."""
        return isinstance(self._rows, Flat)

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """(int64[n], float32[n, d]): all ids with their vectors, copied."""
        with self._lock:
            return self._rows.contents()

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        with self._lock:
            self._rows.add(ids, vectors)
            if self._building is not None:
                self._late.append((ids, vectors))
            elif self._outgrown():
                self._start_building()

    def remove(self, ids: list[int]) -> None:
        with self._lock:
            self._rows.remove(ids)
            if self._building is not None:
                self._late.append((np.asarray(ids, np.int64), None))

    def search(self, vector: Vector, k: int) -> list[Neighbour] | Lists:
        """The k nearest; the lists they are in, if they are to be looked for in lists."""
        rows = self._rows
        if isinstance(rows, Lists):
            return rows
        with self._lock:
            return rows.search(vector, k)

    def follow(self) -> None:
        """A merge may have put other centroids in the place of those that were there."""
        with self._lock:
            if self._building is None:
                self._follow()

    def _follow(self) -> None:
        """Called with the lock held, while nothing is being built."""
        rows, coarse = self._rows, self._coarse()
        if isinstance(rows, Flat) or coarse is None or rows.coarse is coarse:
            return
        if rows.coarse.equals(coarse):
            rows.coarse = coarse
        else:
            self._start_building()

    def wait(self) -> None:
        """Until no lists are being built."""
        while (building := self._building) is not None:
            building.join()

    def _outgrown(self) -> bool:
        rows = self._rows
        if isinstance(rows, Lists):
            coarse = self._coarse()
            return rows.outgrown or (coarse is not None and coarse is not rows.coarse)
        if rows.count >= self._exact_below:
            return True
        return rows.count >= _PLACED_FROM and self._coarse() is not None

    def _start_building(self) -> None:
        """Called with the lock held."""
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
        except RuntimeError:  # there are too many: the next add tries again
            return
        self._building = building

    def _build(
        self, ids: NDArray[np.int64], vectors: Vector, coarse: CoarseQuantizer | None
    ) -> None:
        try:
            lists = Lists.build(ids, vectors, coarse)
        except BaseException:
            with self._lock:
                self._building, self._late = None, []
            raise
        with self._lock:
            for late_ids, late_vectors in self._late:
                if late_vectors is None:
                    lists.remove(late_ids.tolist())
                else:
                    lists.add(late_ids, late_vectors)
            self._rows, self._building, self._late = lists, None, []
            self._follow()
            if self._building is None and self._outgrown():
                self._start_building()  # much came in meanwhile, as when a cache is opened
