"""A search in progress: it probes the lists with the nearest centroids, more at each stage.

For most rows only the sign bits are scanned, one per dimension; the cosine is then computed for the
rows with the smallest Hamming distance to the query. A search usually follows an embedding, which
has filled the processor's caches with the model, so most of its time goes into reading data and
code from memory. Therefore all rows of a scope, in the segment and in the mem tables, are scanned
in one pass; each function that need not be called at all saves about ten microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import faiss
import numpy as np

from semcache.backends.local.faiss.quantizer import Block
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.centroids import CoarseQuantizer
    from semcache.backends.local.faiss.quantizer import Quantizer
    from semcache.types import Vector


class Stage(NamedTuple):
    """How far a search looks before it may end.

    Attributes:
        lists: number of lists probed, those with the nearest centroids.
        near: the search ends at this stage if its best row has at least this cosine similarity.
        read: the cosine is computed for at least this many of the rows that the stage adds.
        share: the share of all lists to probe, if that is more than `lists`.
    """

    lists: int
    near: float
    read: int
    share: float = 0.0

    def of(self, lists: int) -> int:
        """How many lists to probe in a scope that has `lists` lists."""
        return min(max(self.lists, int(self.share * lists)), lists)

    def times(self, k: int) -> Stage:
        """The stage for k neighbours, with more lists: farther neighbours are often in others."""
        if k == 1:
            return self
        last = STAGES[-1]
        lists, read = min(k * self.lists, last.lists), min(k * self.read, last.read)
        return self._replace(lists=lists, read=read)


STAGES = (Stage(6, 0.9, 48), Stage(24, 0.75, 128), Stage(128, -1.0, 256, share=0.5))
"""A query that will be a hit has a near neighbour, almost always in the first lists; only other
queries pay for probing more."""


class View(Protocol):
    """Rows of some lists, numbered.

    Attributes:
        parts: the rows' sign bits or codes (`CoarseQuantizer.sketch`), list by list.
        firsts: the number of the first row of each part.
        end: greater than every row's number.
    """

    @property
    def parts(self) -> Sequence[Block]: ...
    @property
    def firsts(self) -> Sequence[int]: ...
    @property
    def end(self) -> int: ...

    def with_cosines(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(ids, cosines with float32[d]) of the rows with these numbers, in any order."""
        ...


class Source(Protocol):
    """Rows in the inverted lists of one coarse quantizer."""

    def view(self, lists: Sequence[int]) -> View:
        """The rows of these lists as they are now."""
        ...


class SearchQuery:
    """A query vector, to be compared with rows in the lists of one coarse quantizer.

    Args:
        vector: float32[d] of unit length.
    """

    def __init__(self, vector: Vector, coarse: CoarseQuantizer) -> None:
        self.vector = np.ascontiguousarray(vector, np.float32)  # FAISS reads its memory
        self.coarse = coarse

    def nearest_lists(self, count: int) -> NDArray[np.int64]:
        """Numbers of the `count` lists (or all) with the nearest centroids, unsorted."""
        part = self.coarse.part
        return self._by_codes([part], [0], _filled(_MAX_L2, min(count, part.rows)))

    def nearest(
        self, parts: Sequence[Block], firsts: Sequence[int], count: int
    ) -> NDArray[np.int64]:
        """int64[count]: numbers of the nearest rows, by their sign bits or codes, unsorted."""
        quantizer = self.coarse.quantizer
        if not quantizer.has_sign_bits:
            return _row_numbers(self._by_codes(parts, firsts, _filled(_MAX_L2, count)))
        signs = quantizer.sign_bits(self.vector, self.coarse.thresholds)
        scanner = _scanners.of_signs(8 * len(signs))
        scanner.set_query(faiss.swig_ptr(signs))
        return _row_numbers(_scanned(scanner, parts, firsts, _filled(_MAX_HAMMING, count)))

    def _by_codes(
        self,
        parts: Sequence[Block],
        firsts: Sequence[int],
        distances: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """The nearest rows by their codes, as `_scanned` returns them."""
        scanner = _scanners.of_codes(self.coarse.quantizer, faiss.METRIC_L2)
        scanner.set_query(faiss.swig_ptr(self.vector))
        return _scanned(scanner, parts, firsts, distances)


class Search:
    """One search: call `widen` until it has found enough.

    Args:
        question: the query, for the coarse quantizer that all sources share.
        sources: where rows are searched.
        k: how many neighbours to find.
        tombstones: ids that are never returned.

    Attributes:
        exhausted: whether all lists have been probed.
    """

    def __init__(
        self, question: SearchQuery, sources: Sequence[Source], k: int, tombstones: Set[int]
    ) -> None:
        self._question, self._sources = question, sources
        self._list_count = question.coarse.lists
        self._k, self._dead = k, tombstones
        self._wanted = 4 * k if tombstones else k
        self._probed: set[int] = set()
        self._views: list[tuple[list[View], int]] = []
        self._measured: list[_MeasuredRows] = []
        self.exhausted = False

    def widen(self, stage: Stage) -> None:
        """Probe the lists of a stage that have not been probed yet."""
        if self.exhausted:
            return
        if self._list_count == 1:
            lists, read = [0], STAGES[-1].read  # a single list is scanned whole, once
        else:
            nearest, read = self._question.nearest_lists(stage.of(self._list_count)), stage.read
            lists = [number for number in nearest.tolist() if number not in self._probed]
        if not lists:
            return
        self._probed.update(lists)
        self.exhausted = len(self._probed) == self._list_count
        views = [source.view(lists) for source in self._sources]
        self._views.append((views, read))
        self._measured.append(self._nearest(views, read))

    def found(self) -> list[Neighbour]:
        """The k nearest live rows in the lists probed so far, or all if there are fewer."""
        while True:
            rows = self._measured[0] if len(self._measured) == 1 else _joined(self._measured)
            count = len(rows.ids)
            nearest = self._live(rows.nearest(count if self._dead else self._k))
            if len(nearest) < self._k < count:
                nearest = self._live(rows.nearest(count))
            if len(nearest) >= self._k or rows.complete:
                return nearest[: self._k]
            self._wanted *= 4  # tombstones crowd out live rows
            self._measured = [self._nearest(views, read) for views, read in self._views]

    def _live(self, nearest: list[Neighbour]) -> list[Neighbour]:
        """Drop tombstones, and duplicates: during a merge a row may be in two sources."""
        live: dict[int, Neighbour] = {}
        for neighbour in nearest:
            if neighbour.id not in self._dead:
                live.setdefault(neighbour.id, neighbour)
        return list(live.values())

    def _nearest(self, views: Sequence[View], read: int) -> _MeasuredRows:
        """The nearest rows of these views: `read` of them, or more if more are wanted."""
        parts: list[Block] = []
        firsts: list[int] = []
        end = 0
        for view in views:
            parts += view.parts
            firsts += [end + first for first in view.firsts]
            end += view.end
        rows, count = sum([part.rows for part in parts]), max(read, 2 * self._wanted)
        if rows > count:
            numbers = self._question.nearest(parts, firsts, count)
        else:
            ranges = [np.arange(f, f + p.rows) for f, p in zip(firsts, parts, strict=True)]
            numbers = np.concatenate([_NO_NUMBERS, *ranges])
        ids, cosines = _measured(views, numbers, self._question.vector)
        return _MeasuredRows(ids, cosines, complete=rows <= count)


def _measured(
    views: Sequence[View], numbers: NDArray[np.int64], vector: Vector
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(ids, cosines) of rows that are numbered across all views."""
    end = views[0].end
    if len(views) == 1 or max(numbers.tolist(), default=0) < end:
        return views[0].with_cosines(numbers, vector)
    in_others = numbers >= end
    ids, cosines = views[0].with_cosines(numbers[~in_others], vector)
    other_ids, other_cosines = _measured(views[1:], numbers[in_others] - end, vector)
    return np.concatenate([ids, other_ids]), np.concatenate([cosines, other_cosines])


class _MeasuredRows(NamedTuple):
    """Rows whose cosine has been computed.

    Attributes:
        ids: int64[n].
        cosines: float32[n].
        complete: whether the lists that they come from have no other rows.
    """

    ids: NDArray[np.int64]
    cosines: NDArray[np.float32]
    complete: bool

    def nearest(self, count: int) -> list[Neighbour]:
        order = self.cosines.argsort()[::-1][:count]
        rows = zip(self.ids[order].tolist(), self.cosines[order].tolist(), strict=True)
        return [Neighbour(entry_id, min(cosine, 1.0)) for entry_id, cosine in rows]


def _joined(parts: Sequence[_MeasuredRows]) -> _MeasuredRows:
    return _MeasuredRows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.cosines for part in parts]),
        all(part.complete for part in parts),
    )


def merge_results(parts: Sequence[list[Neighbour]], k: int) -> list[Neighbour]:
    """The k nearest of all parts, each id once, though a merge may be moving it between them."""
    if len(parts) == 1:
        return parts[0]
    nearest = {n.id: n for part in parts for n in part}
    return sorted(nearest.values(), key=lambda n: -n.similarity)[:k]


def inner_products(vector: Vector, rows: Vector) -> NDArray[np.float32]:
    """float32[n]: the inner products of float32[d] with the rows of float32[n, d]."""
    products = np.empty(len(rows), np.float32)
    pointer = faiss.swig_ptr
    # Not numpy's `@`, which would wake a thread for each processor.
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
        pointer(products), pointer(vector), pointer(rows), *rows.shape[::-1]
    )
    return products


def cosines_by_codes(
    vector: Vector, codes: NDArray[np.uint8], quantizer: Quantizer
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows, their cosines with float32[d]) of uint8[n, d]: every row, unsorted."""
    cosines = _filled(_MIN_COSINE, len(codes))
    scanner = _scanners.of_codes(quantizer, faiss.METRIC_INNER_PRODUCT)
    scanner.set_query(faiss.swig_ptr(vector))
    return _scanned(scanner, [Block.of(codes)], [0], cosines), cosines


def _scanned(
    scanner: Any,
    parts: Sequence[Block],
    firsts: Sequence[int],
    distances: NDArray[Any],
) -> NDArray[np.int64]:
    """Scan the parts for the rows nearest to the scanner's query.

    Returns (first << 32) + offset of each row, offset being its index in its part. `distances`,
    filled with the worst distance, says how many rows to find and receives their distances.
    """
    swig_ptr, count = faiss.swig_ptr, len(distances)
    positions = _filled(_NO_POSITION, count)
    heap = swig_ptr(distances), swig_ptr(positions), count
    for first, (_, pointer, rows) in zip(firsts, parts, strict=True):
        if rows:
            scanner.set_list(first, 0)
            # The third argument, the rows' ids, is not read: the scanner stores (first, offset).
            scanner.scan_codes(rows, pointer, heap[1], *heap)
    return positions


def _row_numbers(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of rows from the positions that `_scanned` returns: first + offset."""
    numbers: NDArray[np.int64] = (positions >> 32) + (positions & 0xFFFFFFFF)
    return numbers


class _Scanners(threading.local):
    """FAISS's scan loops, one of each kind per thread, since each holds its current query.

    They store (list << 32) + offset as the id of a row.
    """

    def __init__(self) -> None:
        self._of_codes: dict[tuple[Quantizer, int], Any] = {}
        self._of_signs: dict[int, Any] = {}

    def of_codes(self, quantizer: Quantizer, metric: int) -> Any:
        """Scans codes by squared distance or by cosine."""
        if (scanner := self._of_codes.get((quantizer, metric))) is None:
            faiss_quantizer = faiss.ScalarQuantizer(
                quantizer.dimension, faiss.ScalarQuantizer.QT_8bit_uniform
            )
            lowest = float(quantizer.thresholds(np.zeros(1, np.uint8))[0])
            faiss.copy_array_to_vector(
                np.array([lowest, 2 * quantizer.scale], "f"), faiss_quantizer.trained
            )
            centroids = faiss.IndexFlat(quantizer.dimension, metric)  # required, but left empty
            scanner = faiss_quantizer.select_InvertedListScanner(  # type: ignore[attr-defined]
                metric, centroids, True, None, False
            )
            scanner.keep_alive = faiss_quantizer, centroids  # the scanner points into them
            self._of_codes[quantizer, metric] = scanner
        return scanner

    def of_signs(self, bits: int) -> Any:
        """Scans sign bits by Hamming distance."""
        if (scanner := self._of_signs.get(bits)) is None:
            index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, 1)
            scanner = index.get_InvertedListScanner(True)  # type: ignore[attr-defined]
            scanner.keep_alive = index  # the scanner points into it
            self._of_signs[bits] = scanner
        return scanner


_scanners = _Scanners()
_NO_NUMBERS = np.empty(0, np.int64)


def _filled(template: NDArray[Any], count: int) -> NDArray[Any]:
    """An array of `count` copies of the template's value."""
    return template[:count].copy() if count <= len(template) else np.full(count, template[0])


_MAX_HAMMING = np.full(1024, np.iinfo(np.int32).max, np.int32)
_MIN_COSINE = np.full(1024, -np.inf, np.float32)
_MAX_L2 = np.full(1024, np.inf, np.float32)
_NO_POSITION = np.full(1024, -1, np.int64)
