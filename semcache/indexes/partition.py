"""The vectors of one scope that came in lately: one by one while few, in lists when many.

Flat: all vectors in one array, compared by FAISS one by one. Exact. At 8,192 vectors of 384
dimensions this takes less than a tenth of one embedding, and it grows
with their number, so a larger scope is moved to inverted lists.

Inverted lists (`IndexIVFScalarQuantizer`, float16): where the scope's older vectors lie in lists
of a segment, around the same centroids, so that a search looks for the nearest centroids once;
else about 2 sqrt(n) lists of their own. A search looks into a few of them, and into more where
those held nothing near (`segment.STAGES`). Unlike a graph (HNSW), lists take deletes at once
and are built in seconds. What exact search costs by size, and the recall of the lists, is in
`benchmarks/results/latency.json`.

Sooner or later all of this is merged into a segment (`FaissIndex`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from semcache.indexes.centroids import REGROW, ROUNDS, SEED, TRAINING_POINTS, lists_for, sample_of
from semcache.indexes.segment import WIDE, Placing, Stage
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

EXACT_BELOW = 8_192
"""A scope with fewer vectors is searched exactly."""
_PLACED_FROM = 256
"""Vectors from which on they are put into lists whose centroids are there already."""

_UNUSED = np.zeros(WIDE, np.float32)
"""Distances of centroids, which FAISS asks for and does not look at."""
HALF = 0.001
"""How far a cosine of float16 vectors may be off."""


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
            capacity = max(end, 2 * len(self._ids))
            self._ids = np.resize(self._ids, capacity)
            grown = np.empty((capacity, self._vectors.shape[1]), np.float32)
            grown[: self.count] = self.vectors
            self._vectors = grown
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
    """Inverted lists over float16 vectors, with deletes that take effect at once."""

    def __init__(self, index: Any, made_for: int, placing: Placing | None) -> None:
        self.index = index
        self.made_for = made_for
        self.placing = placing

    @classmethod
    def build(cls, ids: NDArray[np.int64], vectors: Vector, placing: Placing | None) -> Lists:
        """Put vectors into lists around these centroids; without any, place some by k-means."""
        dimension = vectors.shape[1]
        lists = lists_for(len(ids)) if placing is None else len(placing.centroids)
        quantizer = faiss.IndexFlatIP(dimension)
        if placing is not None:
            quantizer.add(placing.centroids)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dimension, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        quantizer.this.disown()  # type: ignore[attr-defined]  # SWIG: the index owns it now
        index.own_fields = True
        index.by_residual = False  # codes are the vectors themselves: `contents` reads them
        index.cp.niter = ROUNDS
        index.cp.seed = SEED
        index.cp.max_points_per_centroid = TRAINING_POINTS
        index.cp.min_points_per_centroid = 1
        index.train(vectors[sample_of(np.arange(len(ids)))])
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
        index.add_with_ids(vectors, ids)
        return cls(index, len(ids), placing)

    @property
    def count(self) -> int:
        return int(self.index.ntotal)

    def add(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        # FAISS would call its threads together for every row, and wait for the slowest.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            self.index.add_with_ids(vectors, ids)
        finally:
            faiss.omp_set_num_threads(threads)

    def remove(self, ids: list[int]) -> None:
        chosen = np.asarray(ids, np.int64)
        self.index.remove_ids(faiss.IDSelectorArray(chosen))

    def nearest_lists(self, vector: Vector) -> NDArray[np.int64]:
        """The `WIDE` lists with the nearest centroids, the nearest first."""
        found: NDArray[np.int64]
        found = self.index.quantizer.search(vector[None], min(WIDE, self.index.nlist))[1][0]
        return found

    def search(self, vector: Vector, k: int, lists: NDArray[np.int64]) -> list[Neighbour]:
        """The nearest in these lists."""
        self.index.nprobe = len(lists)
        similarities, ids = np.empty(k, np.float32), np.empty(k, np.int64)
        at = faiss.swig_ptr
        self.index.search_preassigned_c(
            1, at(vector), k, at(lists), at(_UNUSED), at(similarities), at(ids), False
        )
        return [
            Neighbour(entry_id, min(similarity, 1.0))
            for similarity, entry_id in zip(similarities.tolist(), ids.tolist(), strict=True)
            if entry_id >= 0
        ]

    def contents(self) -> tuple[NDArray[np.int64], Vector]:
        """(int64[n], float32[n, d]): all ids with their vectors, list by list."""
        lists, d = self.index.invlists, self.index.d
        ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        codes: list[NDArray[np.float16]] = [np.empty((0, d), np.float16)]
        for number in range(self.index.nlist):
            size = lists.list_size(number)
            if size:
                ids.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
                raw = faiss.rev_swig_ptr(lists.get_codes(number), size * d * 2)
                codes.append(raw.copy().view(np.float16).reshape(size, d))
        return np.concatenate(ids), np.concatenate(codes).astype(np.float32)


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
        placing: Callable[[], Placing | None],
    ) -> None:
        self._exact_below = exact_below
        self._background = background
        self._placing = placing
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

    def search(
        self, vector: Vector, k: int, placing: Placing | None, near: NDArray[np.int64]
    ) -> Search:
        """A search for the k nearest of those that are here now.

        Args:
            placing, near: centroids by which lists were chosen already, and these lists.
        """
        return Search(self._rows, self._lock, vector, k, placing, near)

    def follow(self) -> None:
        """A merge may have put other centroids in the place of those that were there."""
        with self._lock:
            if self._building is None:
                self._follow()

    def _follow(self) -> None:
        """Called with the lock held, while nothing is being built."""
        rows, placing = self._rows, self._placing()
        if isinstance(rows, Flat) or placing is None or rows.placing is placing:
            return
        before = rows.placing
        if before is not None and np.array_equal(before.centroids, placing.centroids):
            rows.placing = placing
        else:
            self._start_building()

    def wait(self) -> None:
        """Until no lists are being built."""
        while (building := self._building) is not None:
            building.join()

    def _outgrown(self) -> bool:
        rows = self._rows
        if isinstance(rows, Lists):
            return rows.placing is None and rows.count >= REGROW * rows.made_for
        if rows.count >= self._exact_below:
            return True
        return rows.count >= _PLACED_FROM and self._placing() is not None

    def _start_building(self) -> None:
        """Called with the lock held."""
        ids, vectors = self._rows.contents()
        placing = self._placing()
        if not self._background:
            self._rows = Lists.build(ids, vectors, placing)
            return
        building = threading.Thread(
            target=self._build,
            args=(ids, vectors, placing),
            name="semcache-index",
            daemon=True,
        )
        try:
            building.start()
        except RuntimeError:  # there are too many: the next add tries again
            return
        self._building = building

    def _build(self, ids: NDArray[np.int64], vectors: Vector, placing: Placing | None) -> None:
        try:
            lists = Lists.build(ids, vectors, placing)
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


class Search:
    """One search under way: `widen` it until it has found enough."""

    def __init__(
        self,
        rows: Flat | Lists,
        lock: threading.Lock,
        vector: Vector,
        k: int,
        placing: Placing | None,
        near: NDArray[np.int64],
    ) -> None:
        self._rows, self._lock, self._vector, self._k = rows, lock, vector, k
        self._found: list[Neighbour] = []
        self._ahead = near
        """Lists that were not looked into yet."""
        if isinstance(rows, Lists) and (placing is None or rows.placing is not placing):
            self._ahead = rows.nearest_lists(vector)
        self._looked = 0
        self.exhausted = False

    def widen(self, stage: Stage) -> None:
        """Look into the lists of a stage that have not been looked into."""
        if self.exhausted:
            return
        if isinstance(self._rows, Flat):
            with self._lock:
                self._found = self._rows.search(self._vector, self._k)
            self.exhausted = True
            return
        lists = self._ahead[: stage.lists - self._looked]
        self._ahead = self._ahead[len(lists) :]
        self._looked += len(lists)
        self.exhausted = self._looked == self._rows.index.nlist
        if len(lists):
            with self._lock:
                found = self._rows.search(self._vector, self._k, lists)
            self._found = together([self._found, found], self._k)

    def found(self) -> list[Neighbour]:
        """The nearest so far."""
        return self._found


def together(parts: Sequence[list[Neighbour]], k: int) -> list[Neighbour]:
    """The k nearest of all parts, each once: a row may move from one to another meanwhile."""
    if len(parts) == 1:
        return parts[0]
    nearest = {n.id: n for part in parts for n in part}
    return sorted(nearest.values(), key=lambda n: -n.similarity)[:k]
