"""A sealed segment: vectors as 8-bit codes, sorted by scope, immutable.

A segment is a set of arrays, memory-mapped if they come from a file, so that opening it parses
no rows, and no scope or entry needs a Python object. Rows are sorted by scope; a large scope's
rows are grouped in inverted lists, and a search probes the lists with the nearest centroids. A
list holds rows of one scope only, so that a search cannot return another scope's.

Codes are rounded: a similarity may be off by a few thousandths (`Index.tolerance`). Callers that
decide by similarity compute it again from the stored vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semcache.backends.local.faiss.centroids import CoarseQuantizer
from semcache.backends.local.faiss.quantizer import Block, Quantizer
from semcache.backends.local.faiss.search import cosines_by_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from semcache.types import Vector

KEY_BYTES = 32
"""Length of a scope's key in bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """The arrays of a segment of s scopes, l lists, c centroids, and n rows of dimension d.

    Attributes:
        scale: float32[1], the quantizer's scale.
        keys: uint8[s, 32], the keys of the scopes, sorted.
        first_list: int64[s + 1], the first list of each scope.
        first_centroid: int64[s + 1], the first centroid of each scope; a scope with only one
            list has no centroid.
        made_for: int64[s], the number of rows that the scope's centroids were trained for.
        centroids: float32[c, d].
        coarse: uint8[c, d], the centroids as codes.
        first_row: int64[l + 1], the first row of each list.
        ids: int64[n], the entry of each row.
        sorted_ids: int64[n], the same ids in ascending order.
        middle: uint8[d], the mean code of each dimension: the threshold of its sign bit.
        codes: uint8[n, d].
        signs: uint8[n, d / 8], the sign bits; uint8[n, 0] if d is small, see `Quantizer`.
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
    """The rows of every scope. Immutable: any thread may read it.

    Args:
        arrays: mapped from a file or in memory.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.quantizer = Quantizer(float(arrays.scale[0]), arrays.codes.shape[1])
        self.keys = as_keys(arrays.keys)
        self._large_scopes: dict[bytes, ScopeRows] = {}
        self._single_list = self._coarse_of(slice(0, 0))

    @property
    def count(self) -> int:
        return len(self.arrays.ids)

    @property
    def scopes(self) -> int:
        return len(self.keys)

    def contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[m]: which of these ids have a row here."""
        own_ids = self.arrays.sorted_ids
        if not len(own_ids):
            return np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(own_ids, ids), len(own_ids) - 1)
        present: NDArray[np.bool_] = own_ids[at] == ids
        return present

    def rows(self, scope: bytes) -> ScopeRows | None:
        """The scope's rows, or None if it has none; for a large scope, always the same object."""
        if (cached := self._large_scopes.get(scope)) is not None:
            return cached
        if (at := self._scope_index(scope)) is None:
            return None
        rows = self._rows_at(at)
        return rows if rows.coarse.lists == 1 else self._large_scopes.setdefault(scope, rows)

    def coarse(self, scope: bytes) -> CoarseQuantizer | None:
        """The scope's coarse quantizer, always the same object; None for fewer than two lists."""
        rows = self.rows(scope)
        return None if rows is None or rows.coarse.lists == 1 else rows.coarse

    def _rows_at(self, at: int) -> ScopeRows:
        arrays = self.arrays
        first, end = arrays.first_centroid[at : at + 2].tolist()
        coarse = self._single_list if first == end else self._coarse_of(slice(first, end))
        first, end = arrays.first_list[at : at + 2].tolist()
        return ScopeRows(arrays, coarse, arrays.first_row[first : end + 1])

    def _coarse_of(self, centroids: slice) -> CoarseQuantizer:
        arrays = self.arrays
        part = Block.of(arrays.coarse[centroids])
        thresholds = self.quantizer.thresholds(arrays.middle)
        return CoarseQuantizer(arrays.centroids[centroids], part, self.quantizer, thresholds)

    def _scope_index(self, scope: bytes) -> int | None:
        key = key_of(scope)
        at = int(np.searchsorted(self.keys, key))
        # Not `self.keys[at]`: numpy strips trailing zeros from its bytes.
        present = at < len(self.keys) and self.arrays.keys[at].tobytes() == key
        return at if present else None


class ScopeRows:
    """One scope's rows in a segment; a `Source`.

    Args:
        first_row: int64[l + 1], the first row of each of the scope's lists.
    """

    def __init__(
        self, arrays: Arrays, coarse: CoarseQuantizer, first_row: NDArray[np.int64]
    ) -> None:
        self.coarse = coarse
        self._arrays = arrays
        self._first_row = first_row
        self._lists: dict[int, tuple[int, Block]] = {}
        self._sketch = arrays.signs if coarse.quantizer.has_sign_bits else arrays.codes

    def view(self, lists: Sequence[int]) -> _View:
        cached = self._lists
        opened = [cached.get(number) or self._open_list(number) for number in lists]
        firsts, parts = [first for first, _ in opened], [part for _, part in opened]
        return _View(parts, firsts, len(self._arrays.ids), self._arrays, self.coarse.quantizer)

    def _open_list(self, number: int) -> tuple[int, Block]:
        """(number of the list's first row, its rows)"""
        first, end = self._first_row[number : number + 2].tolist()
        opened = self._lists[number] = first, Block.of(self._sketch[first:end])
        return opened


class _View(NamedTuple):
    """Rows of some lists, by their numbers in the segment."""

    parts: Sequence[Block]
    firsts: Sequence[int]
    end: int
    arrays: Arrays
    quantizer: Quantizer

    def with_cosines(
        self, numbers: NDArray[np.int64], vector: Vector
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        order, cosines = cosines_by_codes(vector, self.arrays.codes[numbers], self.quantizer)
        return self.arrays.ids[numbers[order]], cosines


def key_of(scope: bytes) -> bytes:
    """The 32-byte key of a scope: the scope itself if it is a digest."""
    return scope if len(scope) == KEY_BYTES else sha256(scope).digest()


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """uint8[s, 32] as comparable bytes; equal lengths make numpy's zero padding harmless."""
    return np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY_BYTES}")
