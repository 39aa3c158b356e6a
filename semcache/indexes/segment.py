"""Many vectors at rest: eight bits a number, sorted by scope, never changed, only replaced.

A segment is a handful of arrays, mapped from a file where there is one, so that it opens in
the time of reading a header and costs no Python object for a scope or an entry. Rows lie
scope by scope; a large scope's rows lie list by list (inverted lists around centroids), and
its search looks into the lists whose centroids are nearest. Rows of other scopes are in no
list that is looked into, so they cannot be found.

Of many rows only the signs are read, one bit a number, counted from the middle of what there
is: the rows that differ from the question in the fewest signs are those whose codes are then
read. After an embedding, which fills the processor's caches with a model, a search takes as
long as what it reads from memory.

Codes are rounded: a similarity may be off by a few thousandths. Whoever serves by it takes the
stored vectors (`Index.tolerance`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np

from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector


class Stage(NamedTuple):
    """How far a search looks before it may end.

    Attributes:
        lists: so many, those with the nearest centroids.
        near: it ends here if it has found something of this cosine similarity.
        read: rows, of those that were not looked at before, whose codes are read; by signs.
    """

    lists: int
    near: float
    read: int

    def times(self, k: int) -> Stage:
        """The same for k neighbours: the second and third lie in other lists more often."""
        if k == 1:
            return self
        last = STAGES[-1]
        return Stage(min(k * self.lists, last.lists), self.near, min(k * self.read, last.read))


STAGES = (Stage(8, 0.9, 48), Stage(32, 0.75, 128), Stage(192, -1.0, 256))
"""A question that will be served has a near neighbour, which lies in the first lists almost
always; only the others pay for looking farther."""
WIDE = STAGES[-1].lists
KEY = 32
_MARGIN, _DEVIATIONS = 1.05, 6.0
_CLIPPED = 1e-4
"""Share of new vectors' numbers outside the codec's range for which the range is widened."""
_MIDDLE = 127.5
_FEW = 512
"""Rows whose codes are all read: their signs would save nothing."""
_SIGNS_FROM = 256
"""Numbers of a vector below which its signs tell too little."""


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """float32[n, d] to uint8[n, d] and back, from -scale to scale.

    One scale for all dimensions, so that distances between codes are distances between
    vectors, which FAISS computes in whole numbers.
    """

    scale: float
    dimension: int

    @classmethod
    def around(cls, vectors: Vector, other: Codec | None = None) -> Codec:
        """A codec for these vectors; `other` itself if they lie in its range."""
        sizes = np.abs(vectors)
        if other is not None:
            outside = np.count_nonzero(sizes > other.scale)
            if outside <= _CLIPPED * vectors.size:
                return other
        dimension = vectors.shape[1]
        # Vectors to come lie in the range too: few numbers are beyond so many deviations.
        scale = max(_MARGIN * float(sizes.max(initial=0.0)), _DEVIATIONS / math.sqrt(dimension))
        return cls(min(1.0, scale), dimension)

    @property
    def step(self) -> float:
        """What a code's last digit stands for."""
        return self.scale / _MIDDLE

    @property
    def tolerance(self) -> float:
        """How far a cosine from codes may be off: seven deviations of its rounding."""
        return 2 * self.step

    def codes_of(self, vectors: Vector) -> NDArray[np.float32]:
        """Codes, as numbers that are still to be cut to whole ones."""
        found: NDArray[np.float32] = vectors * np.float32(1 / self.step)
        found += np.float32(_MIDDLE + 0.5)
        np.maximum(found, 0, out=found)
        np.minimum(found, 255, out=found)
        return found

    def encode(self, vectors: Vector) -> NDArray[np.uint8]:
        return self.codes_of(vectors).astype(np.uint8)

    @property
    def signed(self) -> bool:
        """Whether signs are kept too."""
        return self.dimension >= _SIGNS_FROM

    def signs_of(self, codes: NDArray[Any], middle: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8[n, d] to uint8[n, d / 8], a bit a number: whether it reaches the middle.

        uint8[n, 0] where signs are not kept.
        """
        if not self.signed:
            return np.empty((len(codes), 0), np.uint8)
        return np.packbits(codes >= middle, axis=-1)

    def decode(self, codes: NDArray[np.uint8]) -> Vector:
        vectors: Vector = ((codes.astype(np.float32) - _MIDDLE) * self.step).astype(np.float32)
        return vectors


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """What a segment consists of: s scopes, l lists, c centroids, n rows of d numbers.

    Attributes:
        scale: float32[1], the codec's.
        keys: uint8[s, 32], sorted. first_list: int64[s + 1]: where each scope's lists begin.
        first_centroid: int64[s + 1]; a scope with one list has no centroid.
        made_for: int64[s]: rows that the centroids were placed for.
        centroids: float32[c, d]; coarse: the same as codes, uint8[c, d].
        first_row: int64[l + 1]: where each list's rows begin.
        ids: int64[n], row by row; sorted_ids: the same in order. codes: uint8[n, d].
        middle: uint8[d], where the codes of each number lie on average. signs: uint8[n, d / 8].
    """

    scale: NDArray[np.float32]
    keys: NDArray[np.uint8]
    first_list: NDArray[np.int64]
    first_centroid: NDArray[np.int64]
    made_for: NDArray[np.int64]
    centroids: NDArray[np.float32]
    coarse: NDArray[np.uint8]
    first_row: NDArray[np.int64]
    ids: NDArray[np.int64]
    sorted_ids: NDArray[np.int64]
    middle: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    signs: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """The lists of a large scope: l centroids of length 1, and the rows around each.

    Attributes:
        centroids: float32[l, d]; coarse: the same as codes.
        first_row: int64[l + 1].
    """

    centroids: NDArray[np.float32]
    coarse: NDArray[np.uint8]
    first_row: NDArray[np.int64]


class Segment:
    """Finds the nearest rows of a scope. Any thread may search; nothing changes.

    Args:
        arrays: mapped or in memory.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.codec = Codec(float(arrays.scale[0]), arrays.codes.shape[1])
        self.keys = as_keys(arrays.keys)
        self._placings: dict[bytes, Placing] = {}

    @property
    def count(self) -> int:
        return len(self.arrays.ids)

    @property
    def scopes(self) -> int:
        return len(self.keys)

    def contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[m]: which of these ids have a row."""
        known = self.arrays.sorted_ids
        if not len(known):
            return np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found: NDArray[np.bool_] = known[at] == ids
        return found

    def search(self, scope: bytes, vector: Vector, k: int, dead: Set[int]) -> Search | None:
        """A search for the k nearest rows of a scope, but those of these ids."""
        if (placing := self._placings.get(scope)) is not None:
            return Search(self, placing, placing.first_row, vector, k, dead)
        if (at := self._place(scope)) is None:
            return None
        return Search(self, self._placing_at(at, scope), self._rows_at(at), vector, k, dead)

    def placing(self, scope: bytes) -> Placing | None:
        """The same object each time; None: the scope has but one list, or none."""
        if (known := self._placings.get(scope)) is not None:
            return known
        return None if (at := self._place(scope)) is None else self._placing_at(at, scope)

    def _placing_at(self, at: int, scope: bytes) -> Placing | None:
        first, end = self.arrays.first_centroid[at : at + 2].tolist()
        if first == end:
            return None
        placing = Placing(
            self.arrays.centroids[first:end],
            self.arrays.coarse[first:end],
            self._rows_at(at),
        )
        return self._placings.setdefault(scope, placing)

    def _rows_at(self, at: int) -> NDArray[np.int64]:
        """int64[l + 1]: where the rows of each of the scope's lists begin."""
        first, end = self.arrays.first_list[at : at + 2].tolist()
        return self.arrays.first_row[first : end + 1]

    def _place(self, scope: bytes) -> int | None:
        key = key_of(scope)
        at = int(np.searchsorted(self.keys, key))
        # Not `self.keys[at]`: numpy's bytes drop zeros at their end.
        found = at < len(self.keys) and self.arrays.keys[at].tobytes() == key
        return at if found else None


class Search:
    """One search under way: `widen` it until it has found enough.

    Attributes:
        placing: what the lists were chosen by, if there are several.
        lists: int64[l], numbers of the nearest lists, the nearest first.
        exhausted: whether there are no more lists to look into.
    """

    def __init__(
        self,
        segment: Segment,
        placing: Placing | None,
        first_row: NDArray[np.int64],
        vector: Vector,
        k: int,
        dead: Set[int],
    ) -> None:
        self._k, self._dead = k, dead
        self._wanted = 4 * k if dead else k
        self._first_row = first_row
        self._done: list[tuple[NDArray[np.int64], int]] = []
        self._found: list[_Rows] = []
        self._looked = 0
        self._reader = _Reader(segment, vector)
        self.placing = placing
        self.lists = _ONLY if placing is None else self._reader.nearest_lists(placing)
        self.exhausted = False

    def widen(self, stage: Stage) -> None:
        """Look into the lists of a stage that have not been looked into."""
        if self.exhausted:
            return
        lists = self.lists[self._looked : stage.lists]
        if not len(lists):
            return
        # What has one list looks at all of it at once.
        read = STAGES[-1].read if self.placing is None else stage.read
        self._looked += len(lists)
        self.exhausted = self._looked == len(self._first_row) - 1
        self._done.append((lists, read))
        self._found.append(self._reader.nearest_rows(self._first_row, lists, read, self._wanted))

    def found(self) -> list[Neighbour]:
        """The nearest living rows so far; k, if so many were looked at."""
        while True:
            rows = self._found[0] if len(self._found) == 1 else _together(self._found)
            nearest = rows.nearest(len(rows.ids) if self._dead else self._k)
            if self._dead:
                nearest = [n for n in nearest if n.id not in self._dead]
            if len(nearest) >= self._k or rows.all:
                return nearest[: self._k]
            self._wanted *= 4  # the dead are in the way
            self._found = [
                self._reader.nearest_rows(self._first_row, lists, read, self._wanted)
                for lists, read in self._done
            ]


class _Rows(NamedTuple):
    """int64[n] ids and float32[n] cosines of rows; `all`: there were no others."""

    ids: NDArray[np.int64]
    cosines: NDArray[np.float32]
    all: bool

    def nearest(self, count: int) -> list[Neighbour]:
        order = np.argsort(-self.cosines)[:count]
        return list(map(Neighbour, self.ids[order].tolist(), self.cosines[order].tolist()))


def _together(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.cosines for part in parts]),
        all(part.all for part in parts),
    )


class _Reader:
    """Reads a segment's rows for one question.

    What runs right after an embedding finds no code of its own in the processor's caches:
    each kind of call that can be left out here saves ten microseconds.
    """

    def __init__(self, segment: Segment, vector: Vector) -> None:
        self._arrays, self._codec = segment.arrays, segment.codec
        self._vector = np.ascontiguousarray(vector, np.float32)  # FAISS reads where it lies
        self._digits = self._codec.codes_of(self._vector)

    def nearest_lists(self, placing: Placing) -> NDArray[np.int64]:
        """Numbers of the `WIDE` lists with the nearest centroids, the nearest first."""
        distances, lists = self._by_codes([placing.coarse], [0], min(WIDE, len(placing.coarse)))
        nearest: NDArray[np.int64] = lists[np.argsort(distances)]
        return nearest

    def nearest_rows(
        self, first_row: NDArray[np.int64], lists: NDArray[np.int64], read: int, wanted: int
    ) -> _Rows:
        """The nearest `wanted` rows, or some more, of these lists.

        Args:
            read: how many rows' codes are read, if there are signs to choose them by.
        """
        arrays = self._arrays
        starts, ends = first_row[lists].tolist(), first_row[lists + 1].tolist()
        rows, enough = sum(ends) - sum(starts), 2 * wanted
        if self._codec.signed and rows > max(_FEW, 2 * read, 2 * enough):
            signs = [arrays.signs[s:e] for s, e in zip(starts, ends, strict=True)]
            chosen = self._by_signs(signs, starts, max(read, enough))
        else:
            codes = [arrays.codes[s:e] for s, e in zip(starts, ends, strict=True)]
            _, chosen = self._by_codes(codes, starts, min(enough, rows))
        digits = arrays.codes[chosen].astype(np.float32)
        digits -= _MIDDLE
        cosines = np.empty(len(chosen), np.float32)
        at = faiss.swig_ptr  # numpy's `@` would wake a thread for each processor
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
            at(cosines), at(self._vector), at(digits), *digits.shape[::-1]
        )
        cosines *= self._codec.step
        return _Rows(arrays.ids[chosen], cosines, all=len(chosen) == rows)

    def _by_signs(
        self, parts: Sequence[NDArray[np.uint8]], firsts: Sequence[int], count: int
    ) -> NDArray[np.int64]:
        """int64[count]: the rows that differ from the question in the fewest signs.

        Args:
            parts: signs of rows that follow each other. firsts: the number of the first of each.
        """
        signs = self._codec.signs_of(self._digits, self._arrays.middle)
        scanner = _scanners.of_signs(8 * len(signs))
        scanner.set_query(faiss.swig_ptr(signs))
        return _scanned(scanner, parts, firsts, _filled(_FAR, count))

    def _by_codes(
        self, parts: Sequence[NDArray[np.uint8]], firsts: Sequence[int], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(distances, rows) of the nearest `count`, in no order, the question rounded too.

        Args:
            parts: codes of rows that follow each other. firsts: the number of the first of each.
        """
        scanner = _scanners.of_codes(self._codec.dimension)
        scanner.set_query(faiss.swig_ptr(self._digits))  # which it cuts to whole ones
        distances = np.full(count, np.inf, np.float32)
        return distances, _scanned(scanner, parts, firsts, distances)


def _scanned(
    scanner: Any,
    parts: Sequence[NDArray[np.uint8]],
    firsts: Sequence[int],
    distances: NDArray[Any],
) -> NDArray[np.int64]:
    """Rows of the smallest distances, of which `distances` becomes the heap."""
    swig_ptr, count = faiss.swig_ptr, len(distances)
    places = _filled(_NOWHERE, count)
    heap = swig_ptr(distances), swig_ptr(places), count
    for first, part in zip(firsts, parts, strict=True):
        if len(part):
            scanner.set_list(first, 0)
            # It gives (first, offset) in place of ids, and reads none.
            scanner.scan_codes(len(part), swig_ptr(part), heap[1], *heap)
    rows: NDArray[np.int64] = (places >> 32) + (places & 0xFFFFFFFF)
    return rows


class _Scanners(threading.local):
    """FAISS's loops over codes, one of each kind for a thread; each holds one question."""

    def __init__(self) -> None:
        self._of_codes: dict[int, Any] = {}
        self._of_signs: dict[int, Any] = {}

    def of_codes(self, dimension: int) -> Any:
        """Squared distances to a question in codes; ids are (list << 32) + offset."""
        if (scanner := self._of_codes.get(dimension)) is None:
            codec = faiss.ScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit_direct)
            centroids = faiss.IndexFlatL2(dimension)  # which stay empty
            scanner = codec.select_InvertedListScanner(  # type: ignore[attr-defined]
                faiss.METRIC_L2, centroids, True, None, False
            )
            scanner.pointed_at = codec, centroids
            self._of_codes[dimension] = scanner
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
_ONLY = np.zeros(1, np.int64)


def _filled(template: NDArray[Any], count: int) -> NDArray[Any]:
    """So many of what the template is full of."""
    return template[:count].copy() if count <= len(template) else np.full(count, template[0])


_FAR = np.full(1024, np.iinfo(np.int32).max, np.int32)
_NOWHERE = np.full(1024, -1, np.int64)


def key_of(scope: bytes) -> bytes:
    """32 bytes for a scope: itself, if it is a digest."""
    return scope if len(scope) == KEY else sha256(scope).digest()


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """uint8[s, 32] as bytes that can be compared; all are of one length, so padding is safe."""
    return np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY}")
