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

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semcache.backends.local.faiss.centroids import CoarseQuantizer
from semcache.backends.local.faiss.quantizer import Part, Quantizer
from semcache.backends.local.faiss.search import cosines_by_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from semcache.types import Vector

KEY = 32


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


class Segment:
    """The rows of every scope. Any thread may read; nothing changes.

    Args:
        arrays: mapped or in memory.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.quantizer = Quantizer(float(arrays.scale[0]), arrays.codes.shape[1])
        self.keys = as_keys(arrays.keys)
        self._large: dict[bytes, ScopeRows] = {}
        self._one_list = self._placing_at(slice(0, 0))

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

    def rows(self, scope: bytes) -> ScopeRows | None:
        """A scope's rows, if it has any; of a large scope the same object each time."""
        if (known := self._large.get(scope)) is not None:
            return known
        if (at := self._place(scope)) is None:
            return None
        rows = self._rows_at(at)
        return rows if rows.coarse.lists == 1 else self._large.setdefault(scope, rows)

    def coarse(self, scope: bytes) -> CoarseQuantizer | None:
        """The same object each time; None: the scope has but one list, or none."""
        rows = self.rows(scope)
        return None if rows is None or rows.coarse.lists == 1 else rows.coarse

    def _rows_at(self, at: int) -> ScopeRows:
        arrays = self.arrays
        first, end = arrays.first_centroid[at : at + 2].tolist()
        coarse = self._one_list if first == end else self._placing_at(slice(first, end))
        first, end = arrays.first_list[at : at + 2].tolist()
        return ScopeRows(arrays, coarse, arrays.first_row[first : end + 1])

    def _placing_at(self, centroids: slice) -> CoarseQuantizer:
        arrays = self.arrays
        part = Part.of(arrays.coarse[centroids])
        edges = self.quantizer.edges(arrays.middle)
        return CoarseQuantizer(arrays.centroids[centroids], part, self.quantizer, edges)

    def _place(self, scope: bytes) -> int | None:
        key = key_of(scope)
        at = int(np.searchsorted(self.keys, key))
        # Not `self.keys[at]`: numpy's bytes drop zeros at their end.
        found = at < len(self.keys) and self.arrays.keys[at].tobytes() == key
        return at if found else None


class ScopeRows:
    """One scope's rows in a segment; a `Source`.

    Args:
        first_row: int64[l + 1]: where the rows of each of the scope's lists begin.
    """

    def __init__(
        self, arrays: Arrays, coarse: CoarseQuantizer, first_row: NDArray[np.int64]
    ) -> None:
        self.coarse = coarse
        self._arrays = arrays
        self._first_row = first_row
        self._known: dict[int, tuple[int, Part]] = {}
        self._brief = arrays.signs if coarse.quantizer.signed else arrays.codes

    def view(self, lists: Sequence[int]) -> _View:
        known = self._known
        found = [known.get(number) or self._list(number) for number in lists]
        firsts, parts = [first for first, _ in found], [part for _, part in found]
        return _View(parts, firsts, len(self._arrays.ids), self._arrays, self.coarse.quantizer)

    def _list(self, number: int) -> tuple[int, Part]:
        """(number of its first row, its rows) of a list."""
        first, end = self._first_row[number : number + 2].tolist()
        found = self._known[number] = first, Part.of(self._brief[first:end])
        return found


class _View(NamedTuple):
    """Rows numbered as they lie in the segment."""

    parts: Sequence[Part]
    firsts: Sequence[int]
    end: int
    arrays: Arrays
    quantizer: Quantizer

    def measured(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        order, cosines = cosines_by_codes(vector, self.arrays.codes[numbers], self.quantizer)
        return self.arrays.ids[numbers[order]], cosines


def key_of(scope: bytes) -> bytes:
    """32 bytes for a scope: itself, if it is a digest."""
    return scope if len(scope) == KEY else sha256(scope).digest()


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """uint8[s, 32] as bytes that can be compared; all are of one length, so padding is safe."""
    return np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY}")
