"""A search under way: through the lists whose centroids are nearest, wider step by step.

Of many rows only the signs are looked through, one bit a number; the rows that differ from the
question in the fewest are those that are then measured. What runs right after an embedding finds
the processor's caches full of a model: it takes as long as what it reads from memory, data and
code. So all rows of a scope, at rest and come in lately, are looked through in one go, and each
kind of call that can be left out saves ten microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import faiss
import numpy as np

from semcache.backends.local.faiss.quantizer import Part
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.centroids import CoarseQuantizer
    from semcache.backends.local.faiss.quantizer import Quantizer
    from semcache.types import Vector


class Stage(NamedTuple):
    """How far a search looks before it may end.

    Attributes:
        lists: so many, those with the nearest centroids.
        near: it ends here if it has found something of this cosine similarity.
        read: rows that are measured at least, of those that were not looked at before.
        share: this part of all lists, where that is more than `lists`.
    """

    lists: int
    near: float
    read: int
    share: float = 0.0

    def of(self, lists: int) -> int:
        """How many of so many lists it looks into."""
        return min(max(self.lists, int(self.share * lists)), lists)

    def times(self, k: int) -> Stage:
        """The same for k neighbours: the second and third lie in other lists more often."""
        if k == 1:
            return self
        last = STAGES[-1]
        lists, read = min(k * self.lists, last.lists), min(k * self.read, last.read)
        return self._replace(lists=lists, read=read)


STAGES = (Stage(6, 0.9, 48), Stage(24, 0.75, 128), Stage(128, -1.0, 256, share=0.5))
"""A question that will be served has a near neighbour, which lies in the first lists almost
always; only the others pay for looking farther."""


class View(Protocol):
    """Rows of some lists, numbered.

    Attributes:
        parts: what is looked through of them (`CoarseQuantizer.sketch`), list by list.
        firsts: the number of the first row of each part. end: more than every number.
    """

    @property
    def parts(self) -> Sequence[Part]: ...
    @property
    def firsts(self) -> Sequence[int]: ...
    @property
    def end(self) -> int: ...

    def measured(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(ids, cosines with float32[d]) of rows by their numbers."""
        ...


class Source(Protocol):
    """Rows in lists around one placing's centroids."""

    def view(self, lists: Sequence[int]) -> View:
        """The rows of these lists as they are now."""
        ...


class Question:
    """A vector, to be compared with rows of one placing.

    Args:
        vector: float32[d] of length 1.
    """

    def __init__(self, vector: Vector, coarse: CoarseQuantizer) -> None:
        self.vector = np.ascontiguousarray(vector, np.float32)  # FAISS reads where it lies
        self.coarse = coarse

    def nearest_lists(self, count: int) -> NDArray[np.int64]:
        """Numbers of so many lists, or all: the nearest, in no order."""
        part = self.coarse.part
        return self._by_codes([part], [0], _filled(_FARTHEST, min(count, part.rows)))

    def nearest(
        self, parts: Sequence[Part], firsts: Sequence[int], count: int
    ) -> NDArray[np.int64]:
        """int64[count]: numbers of the nearest rows, by what is looked through of them."""
        quantizer = self.coarse.quantizer
        if not quantizer.signed:
            return _numbers(self._by_codes(parts, firsts, _filled(_FARTHEST, count)))
        signs = quantizer.signs_of(self.vector, self.coarse.edges)
        scanner = _scanners.of_signs(8 * len(signs))
        scanner.set_query(faiss.swig_ptr(signs))
        return _numbers(_scanned(scanner, parts, firsts, _filled(_FAR, count)))

    def _by_codes(
        self,
        parts: Sequence[Part],
        firsts: Sequence[int],
        distances: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """Places by codes; see `_scanned`."""
        scanner = _scanners.of_codes(self.coarse.quantizer, faiss.METRIC_L2)
        scanner.set_query(faiss.swig_ptr(self.vector))
        return _scanned(scanner, parts, firsts, distances)


class Search:
    """One search: `widen` it until it has found enough.

    Args:
        question: of the placing that all sources share.
        dead: ids that are not to be found.

    Attributes:
        exhausted: whether there are no more lists to look into.
    """

    def __init__(
        self, question: Question, sources: Sequence[Source], k: int, dead: Set[int]
    ) -> None:
        self._question, self._sources = question, sources
        self._many = question.coarse.lists
        self._k, self._dead = k, dead
        self._wanted = 4 * k if dead else k
        self._looked: set[int] = set()
        self._seen: list[tuple[list[View], int]] = []
        self._found: list[_Rows] = []
        self.exhausted = False

    def widen(self, stage: Stage) -> None:
        """Look into the lists of a stage that have not been looked into."""
        if self.exhausted:
            return
        if self._many == 1:
            lists, read = [0], STAGES[-1].read  # it looks at all of it at once
        else:
            nearest, read = self._question.nearest_lists(stage.of(self._many)), stage.read
            lists = [number for number in nearest.tolist() if number not in self._looked]
        if not lists:
            return
        self._looked.update(lists)
        self.exhausted = len(self._looked) == self._many
        views = [source.view(lists) for source in self._sources]
        self._seen.append((views, read))
        self._found.append(self._nearest(views, read))

    def found(self) -> list[Neighbour]:
        """The nearest living rows so far; k, if so many were looked at."""
        while True:
            rows = self._found[0] if len(self._found) == 1 else _joined(self._found)
            every = len(rows.ids)
            nearest = self._living(rows.nearest(every if self._dead else self._k))
            if len(nearest) < self._k < every:
                nearest = self._living(rows.nearest(every))
            if len(nearest) >= self._k or rows.all:
                return nearest[: self._k]
            self._wanted *= 4  # the dead are in the way
            self._found = [self._nearest(views, read) for views, read in self._seen]

    def _living(self, nearest: list[Neighbour]) -> list[Neighbour]:
        """Without the dead, and each once: a row may be in two places for a moment."""
        living: dict[int, Neighbour] = {}
        for neighbour in nearest:
            if neighbour.id not in self._dead:
                living.setdefault(neighbour.id, neighbour)
        return list(living.values())

    def _nearest(self, views: Sequence[View], read: int) -> _Rows:
        """The nearest rows of these views: `read` of them, or more, where more are wanted."""
        parts: list[Part] = []
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
            every = [np.arange(f, f + p.rows) for f, p in zip(firsts, parts, strict=True)]
            numbers = np.concatenate([_NONE, *every])
        ids, cosines = _measured(views, numbers, self._question.vector)
        return _Rows(ids, cosines, all=rows <= count)


def _measured(
    views: Sequence[View], numbers: NDArray[np.int64], vector: Vector
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(ids, cosines) of rows that are numbered through all views."""
    end = views[0].end
    if len(views) == 1 or max(numbers.tolist(), default=0) < end:
        return views[0].measured(numbers, vector)
    behind = numbers >= end
    ids, cosines = views[0].measured(numbers[~behind], vector)
    more, their_cosines = _measured(views[1:], numbers[behind] - end, vector)
    return np.concatenate([ids, more]), np.concatenate([cosines, their_cosines])


class _Rows(NamedTuple):
    """int64[n] ids and float32[n] cosines of rows; `all`: there were no others."""

    ids: NDArray[np.int64]
    cosines: NDArray[np.float32]
    all: bool

    def nearest(self, count: int) -> list[Neighbour]:
        order = self.cosines.argsort()[::-1][:count]
        found = zip(self.ids[order].tolist(), self.cosines[order].tolist(), strict=True)
        return [Neighbour(entry_id, min(cosine, 1.0)) for entry_id, cosine in found]


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.cosines for part in parts]),
        all(part.all for part in parts),
    )


def together(parts: Sequence[list[Neighbour]], k: int) -> list[Neighbour]:
    """The k nearest of all parts: a row that moves from one to another meanwhile is found once."""
    if len(parts) == 1:
        return parts[0]
    nearest = {n.id: n for part in parts for n in part}
    return sorted(nearest.values(), key=lambda n: -n.similarity)[:k]


def inner_products(vector: Vector, rows: Vector) -> NDArray[np.float32]:
    """float32[n] of float32[d] and float32[n, d]."""
    found = np.empty(len(rows), np.float32)
    at = faiss.swig_ptr  # numpy's `@` would wake a thread for each processor
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
        at(found), at(vector), at(rows), *rows.shape[::-1]
    )
    return found


def cosines_by_codes(
    vector: Vector, codes: NDArray[np.uint8], quantizer: Quantizer
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(which row, its cosine with float32[d]) of each of uint8[n, d], in another order."""
    found = _filled(_AWAY, len(codes))
    scanner = _scanners.of_codes(quantizer, faiss.METRIC_INNER_PRODUCT)
    scanner.set_query(faiss.swig_ptr(vector))
    return _scanned(scanner, [Part.of(codes)], [0], found), found


def _scanned(
    scanner: Any,
    parts: Sequence[Part],
    firsts: Sequence[int],
    distances: NDArray[Any],
) -> NDArray[np.int64]:
    """Where the nearest are, (first << 32) + offset; `distances` becomes their heap."""
    swig_ptr, count = faiss.swig_ptr, len(distances)
    places = _filled(_NOWHERE, count)
    heap = swig_ptr(distances), swig_ptr(places), count
    for first, (_, pointer, rows) in zip(firsts, parts, strict=True):
        if rows:
            scanner.set_list(first, 0)
            # It gives (first, offset) in place of ids, and reads none.
            scanner.scan_codes(rows, pointer, heap[1], *heap)
    return places


def _numbers(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """First and offset together."""
    numbers: NDArray[np.int64] = (places >> 32) + (places & 0xFFFFFFFF)
    return numbers


class _Scanners(threading.local):
    """FAISS's loops over codes, one of each kind for a thread; each holds one question."""

    def __init__(self) -> None:
        self._of_codes: dict[tuple[Quantizer, int], Any] = {}
        self._of_signs: dict[int, Any] = {}

    def of_codes(self, quantizer: Quantizer, metric: int) -> Any:
        """Squared distances of codes to a question, or cosines; ids are (list << 32) + offset."""
        if (scanner := self._of_codes.get((quantizer, metric))) is None:
            theirs = faiss.ScalarQuantizer(
                quantizer.dimension, faiss.ScalarQuantizer.QT_8bit_uniform
            )
            least = float(quantizer.edges(np.zeros(1, np.uint8))[0])
            faiss.copy_array_to_vector(np.array([least, 2 * quantizer.scale], "f"), theirs.trained)
            centroids = faiss.IndexFlat(quantizer.dimension, metric)  # which stay empty
            scanner = theirs.select_InvertedListScanner(  # type: ignore[attr-defined]
                metric, centroids, True, None, False
            )
            scanner.pointed_at = theirs, centroids
            self._of_codes[quantizer, metric] = scanner
        return scanner

    def of_signs(self, bits: int) -> Any:
        """Hamming distances; ids likewise."""
        if (scanner := self._of_signs.get(bits)) is None:
            index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, 1)
            scanner = index.get_InvertedListScanner(True)  # type: ignore[attr-defined]
            scanner.pointed_at = index
            self._of_signs[bits] = scanner
        return scanner


_scanners = _Scanners()
_NONE = np.empty(0, np.int64)


def _filled(template: NDArray[Any], count: int) -> NDArray[Any]:
    """So many of what the template is full of."""
    return template[:count].copy() if count <= len(template) else np.full(count, template[0])


_FAR = np.full(1024, np.iinfo(np.int32).max, np.int32)
_AWAY = np.full(1024, -np.inf, np.float32)
_FARTHEST = np.full(1024, np.inf, np.float32)
_NOWHERE = np.full(1024, -1, np.int64)
