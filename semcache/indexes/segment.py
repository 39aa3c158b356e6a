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

NARROW, WIDE = 16, 64
"""Lists that a search looks into; the wide search follows where the narrow one found ..."""
NEAR = 0.8
"""... nothing of at least this cosine similarity."""
TOLERANCE = 0.01
"""How far a similarity computed from codes may be off."""

KEY = 32
_MARGIN = 0.05
_CLIPPED = 1e-4
"""Share of new vectors' numbers outside the codec's range for which the range is widened."""


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """float32[n, d] to uint8[n, d] and back; each dimension has a range of its own.

    Attributes:
        low, width: float32[d]: the smallest number of each dimension, and how far it goes up.
    """

    low: NDArray[np.float32]
    width: NDArray[np.float32]
    quantizer: Any

    @classmethod
    def of(cls, low: NDArray[np.float32], width: NDArray[np.float32]) -> Codec:
        quantizer = faiss.ScalarQuantizer(len(low), faiss.ScalarQuantizer.QT_8bit)
        faiss.copy_array_to_vector(np.concatenate([low, width]), quantizer.trained)
        return cls(low, width, quantizer)

    @classmethod
    def around(cls, vectors: Vector, other: Codec | None = None) -> Codec:
        """A codec for these vectors; `other` itself if they lie in its range."""
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        if other is not None:
            top = other.low + other.width
            outside = np.count_nonzero((vectors < other.low) | (vectors > top))
            if outside <= _CLIPPED * vectors.size:
                return other
            low, high = np.minimum(low, other.low), np.maximum(high, top)
        room = np.maximum((high - low) * _MARGIN, 1e-3)
        return cls.of((low - room).astype(np.float32), (high - low + 2 * room).astype(np.float32))

    def encode(self, vectors: Vector) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self.quantizer.compute_codes(np.ascontiguousarray(vectors))
        return codes

    def decode(self, codes: NDArray[np.uint8]) -> Vector:
        vectors: Vector = self.quantizer.decode(np.ascontiguousarray(codes))
        return vectors


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """What a segment consists of: s scopes, l lists, c centroids, n rows of d numbers.

    Attributes:
        low, width: float32[d], the codec's.
        keys: uint8[s, 32], sorted. first_list: int64[s + 1]: where each scope's lists begin.
        first_centroid: int64[s + 1]; a scope with one list has no centroid.
        made_for: int64[s]: rows that the centroids were placed for.
        centroids: float32[c, d]; coarse: the same as codes, uint8[c, d].
        first_row: int64[l + 1]: where each list's rows begin.
        ids: int64[n], row by row; sorted_ids: the same in order. codes: uint8[n, d].
    """

    low: NDArray[np.float32]
    width: NDArray[np.float32]
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
        self.codec = Codec.of(np.array(arrays.low), np.array(arrays.width))
        self.keys = as_keys(arrays.keys)
        self._nothing = faiss.IndexFlatIP(len(arrays.low))  # a scanner wants a quantizer
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

    def search(self, scope: bytes, vector: Vector, k: int) -> list[Neighbour]:
        """Up to k nearest rows of the scope, the nearest first."""
        at = self._place(scope)
        if at is None:
            return []
        first, end = self.arrays.first_list[at : at + 2].tolist()
        scan = _Scan(self, vector, k)
        if end - first == 1:
            scan.rows(self._rows_of([first]))
            return scan.found()
        lists = [first + number for number in self._nearest_lists(at, vector)]
        scan.rows(self._rows_of(lists[:NARROW]))
        found = scan.found()
        if len(found) < k or found[0].similarity < NEAR:
            scan.rows(self._rows_of(lists[NARROW:]))
            found = scan.found()
        return found

    def _place(self, scope: bytes) -> int | None:
        key = key_of(scope)
        at = int(np.searchsorted(self.keys, key))
        # Not `self.keys[at]`: numpy's bytes drop zeros at their end.
        found = at < len(self.keys) and self.arrays.keys[at].tobytes() == key
        return at if found else None

    def _nearest_lists(self, at: int, vector: Vector) -> list[int]:
        """The scope's lists, those with the nearest centroids first, at most `WIDE`."""
        first, end = self.arrays.first_centroid[at : at + 2].tolist()
        scan = _Scan(self, vector, min(WIDE, end - first))
        scan.codes(self.arrays.coarse[first:end], self._numbers[: end - first])
        return scan.ids()

    def _rows_of(self, lists: Iterable[int]) -> list[tuple[int, int]]:
        first_row = self.arrays.first_row
        return [(int(first_row[number]), int(first_row[number + 1])) for number in lists]


class _Scan:
    """One search under way: the k best so far, in a heap that FAISS keeps."""

    def __init__(self, segment: Segment, vector: Vector, k: int) -> None:
        self._arrays = segment.arrays
        self._vector = np.ascontiguousarray(vector, np.float32)  # held while FAISS points to it
        self._scanner = segment.codec.quantizer.select_InvertedListScanner(
            faiss.METRIC_INNER_PRODUCT, segment._nothing, False, None, False
        )
        self._scanner.set_query(faiss.swig_ptr(self._vector))
        self._scanner.set_list(0, 0.0)
        self._best = np.full(k, -np.inf, np.float32)
        self._ids = np.full(k, -1, np.int64)

    def rows(self, ranges: Iterable[tuple[int, int]]) -> None:
        for start, end in ranges:
            self.codes(self._arrays.codes[start:end], self._arrays.ids[start:end])

    def codes(self, codes: NDArray[np.uint8], ids: NDArray[np.int64]) -> None:
        if len(ids):
            self._scanner.scan_codes(
                len(ids),
                faiss.swig_ptr(codes),
                faiss.swig_ptr(ids),
                faiss.swig_ptr(self._best),
                faiss.swig_ptr(self._ids),
                len(self._ids),
            )

    def ids(self) -> list[int]:
        """Those found so far, the nearest first."""
        found: list[int] = self._ids[np.argsort(-self._best, kind="stable")].tolist()
        return found

    def found(self) -> list[Neighbour]:
        """The same with their similarities."""
        order = np.argsort(-self._best, kind="stable")
        return [
            Neighbour(entry_id, min(similarity, 1.0))
            for entry_id, similarity in zip(
                self._ids[order].tolist(), self._best[order].tolist(), strict=True
            )
            if entry_id >= 0
        ]


def key_of(scope: bytes) -> bytes:
    """32 bytes for a scope: itself, if it is a digest."""
    return scope if len(scope) == KEY else sha256(scope).digest()


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """uint8[s, 32] as bytes that can be compared; all are of one length, so padding is safe."""
    return np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY}")
