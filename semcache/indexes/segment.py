"""Many vectors at rest: eight bits a number, sorted by scope, never changed, only replaced.

A segment is a handful of arrays, mapped from a file where there is one, so that it opens in
the time of reading a header and costs no Python object for a scope or an entry. Rows lie
scope by scope; a large scope's rows lie list by list (inverted lists around centroids), and
its search looks into the lists whose centroids are nearest. Rows of other scopes are in no
list that is looked into, so they cannot be found.

Codes are rounded: a similarity may be off by a few thousandths. Whoever serves by it takes the
stored vectors (`Index.tolerance`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

WIDE = 128
"""Lists that a search looks into at most."""
STAGES = ((16, 0.8), (48, 0.65), (WIDE, -1.0))
"""(lists, cosine similarity): first so many lists; more where these held nothing so near."""
KEY = 32
_MARGIN, _DEVIATIONS = 1.05, 6.0
_CLIPPED = 1e-4
"""Share of new vectors' numbers outside the codec's range for which the range is widened."""
_MIDDLE = 127.5


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """float32[n, d] to uint8[n, d] and back, from -scale to scale.

    One scale for all dimensions, so that distances between codes are distances between
    vectors, which FAISS computes in whole numbers.
    """

    scale: float
    dimension: int
    quantizer: Any

    @classmethod
    def of(cls, scale: float, dimension: int) -> Codec:
        kind = faiss.ScalarQuantizer.QT_8bit_direct
        return cls(scale, dimension, faiss.ScalarQuantizer(dimension, kind))

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
        return cls.of(min(1.0, scale), dimension)

    @property
    def step(self) -> float:
        """What a code's last digit stands for."""
        return self.scale / _MIDDLE

    @property
    def tolerance(self) -> float:
        """How far a cosine from codes may be off: four deviations or so of its rounding."""
        return 4 * self.step

    def codes_of(self, vectors: Vector) -> NDArray[np.float32]:
        """Codes, as numbers."""
        found: NDArray[np.float32] = np.clip(np.rint(vectors / self.step + _MIDDLE), 0, 255)
        return found

    def encode(self, vectors: Vector) -> NDArray[np.uint8]:
        return self.codes_of(vectors).astype(np.uint8)

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
    codes: NDArray[np.uint8]


class Segment:
    """Finds the nearest rows of a scope. Any thread may search; nothing changes.

    Args:
        arrays: mapped or in memory.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.codec = Codec.of(float(arrays.scale[0]), arrays.codes.shape[1])
        self.keys = as_keys(arrays.keys)
        self._nothing = faiss.IndexFlatL2(self.codec.dimension)  # a scanner wants a quantizer
        self._numbers = np.arange(len(arrays.coarse), dtype=np.int64)

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

    def search(
        self, scope: bytes, vector: Vector, k: int, lists: int = WIDE
    ) -> tuple[list[Neighbour], bool]:
        """(up to k nearest rows of the scope in so many lists, whether that was all of them)"""
        at = self._place(scope)
        if at is None:
            return [], True
        first, end = self.arrays.first_list[at : at + 2].tolist()
        scan = _Scan(self, vector, k)
        if end - first == 1:
            scan.rows(self._rows_of([first]))
            return scan.found(), True
        nearest = self._nearest_lists(at, vector, lists)
        scan.rows(self._rows_of([first + number for number in nearest]))
        return scan.found(), lists >= end - first

    def _place(self, scope: bytes) -> int | None:
        key = key_of(scope)
        at = int(np.searchsorted(self.keys, key))
        # Not `self.keys[at]`: numpy's bytes drop zeros at their end.
        found = at < len(self.keys) and self.arrays.keys[at].tobytes() == key
        return at if found else None

    def _nearest_lists(self, at: int, vector: Vector, lists: int) -> list[int]:
        """So many of the scope's lists, those with the nearest centroids first."""
        first, end = self.arrays.first_centroid[at : at + 2].tolist()
        scan = _Scan(self, vector, min(lists, end - first))
        scan.codes(self.arrays.coarse[first:end], self._numbers[: end - first])
        return scan.ids()

    def _rows_of(self, lists: Iterable[int]) -> list[tuple[int, int]]:
        first_row = self.arrays.first_row
        return [(int(first_row[number]), int(first_row[number + 1])) for number in lists]


class _Scan:
    """One search under way: the k best so far, in a heap that FAISS keeps."""

    def __init__(self, segment: Segment, vector: Vector, k: int) -> None:
        self._arrays = segment.arrays
        codec = segment.codec
        # Of unit vectors |a - b|^2 is 2 - 2 cos; a code's digit is a step.
        self._half_step = 0.5 * codec.step**2
        self._vector = np.ascontiguousarray(codec.codes_of(vector), np.float32)  # FAISS points here
        self._scanner = codec.quantizer.select_InvertedListScanner(
            faiss.METRIC_L2, segment._nothing, False, None, False
        )
        self._scanner.set_query(faiss.swig_ptr(self._vector))
        self._scanner.set_list(0, 0.0)
        self._distances = np.full(k, np.inf, np.float32)
        self._ids = np.full(k, -1, np.int64)
        self._heap = faiss.swig_ptr(self._distances), faiss.swig_ptr(self._ids), k

    def rows(self, ranges: Iterable[tuple[int, int]]) -> None:
        for start, end in ranges:
            self.codes(self._arrays.codes[start:end], self._arrays.ids[start:end])

    def codes(self, codes: NDArray[np.uint8], ids: NDArray[np.int64]) -> None:
        if len(ids):
            self._scanner.scan_codes(
                len(ids), faiss.swig_ptr(codes), faiss.swig_ptr(ids), *self._heap
            )

    def ids(self) -> list[int]:
        """Those found so far, the nearest first."""
        found: list[int] = self._ids[np.argsort(self._distances, kind="stable")].tolist()
        return found

    def found(self) -> list[Neighbour]:
        """The same with their similarities."""
        order = np.argsort(self._distances, kind="stable")
        cosines = 1.0 - self._half_step * self._distances[order]
        return [
            Neighbour(entry_id, similarity)
            for entry_id, similarity in zip(
                self._ids[order].tolist(), cosines.tolist(), strict=True
            )
            if entry_id >= 0
        ]


def key_of(scope: bytes) -> bytes:
    """32 bytes for a scope: itself, if it is a digest."""
    return scope if len(scope) == KEY else sha256(scope).digest()


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """uint8[s, 32] as bytes that can be compared; all are of one length, so padding is safe."""
    return np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY}")
