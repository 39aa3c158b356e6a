"""Merges a segment, the rows added since, and tombstones into a new segment.

Rows of the old segment keep their codes and their lists; only new rows are encoded and assigned
to lists. Centroids are trained again if a scope has grown to several times the rows they were
trained for. Codes are produced in batches, so that a merge needs little memory besides the
mapped files and holds the GIL only briefly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from semcache.backends.local.faiss.centroids import (
    RETRAIN_FACTOR,
    mean_code,
    nearest_centroids,
    sample_of,
    train_centroids,
)
from semcache.backends.local.faiss.quantizer import Quantizer
from semcache.backends.local.faiss.segment import KEY_BYTES, Arrays, Segment, as_keys, key_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

_BATCH = 2048
"""Rows that are copied or assigned at a time."""
_SAMPLE = 4096
"""Sample this many rows or more for the mean codes; all, if there are fewer."""
_MAX_CHANGED = 0.1
"""Sign bits keep their thresholds if at most this share of a dimension's bits would change."""


@dataclass(frozen=True, slots=True, eq=False)
class NewRows:
    """New rows to be merged: ids int64[m], their scopes, vectors float32[m, d]."""

    ids: NDArray[np.int64]
    scopes: Sequence[bytes]
    vectors: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A merged segment whose codes and sign bits are yet to be produced.

    Attributes:
        arrays: the arrays, of which `codes` and `signs` are still empty.
        rows: number of rows of the segment.
    """

    arrays: Arrays
    rows: int
    _inputs: _Inputs
    _order: NDArray[np.int64]

    def codes(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield codes uint8[_, d] with their sign bits uint8[_, d / 8], batch by batch."""
        for start in range(0, self.rows, _BATCH):
            codes = self._inputs.codes(self._order[start : start + _BATCH])
            yield codes, self._inputs.quantizer.sign_bits(codes, self.arrays.middle)

    def in_memory(self) -> Segment:
        """The segment in memory, without a file."""
        codes = np.empty((self.rows, self.arrays.codes.shape[1]), np.uint8)
        signs = np.empty((self.rows, self.arrays.signs.shape[1]), np.uint8)
        start = 0
        for codes_batch, signs_batch in self.codes():
            end = start + len(codes_batch)
            codes[start:end], signs[start:end] = codes_batch, signs_batch
            start = end
        return Segment(replace(self.arrays, codes=codes, signs=signs))


class _Inputs:
    """The rows to be merged, numbered: the live old rows, then the fresh ones."""

    def __init__(
        self, old: Segment | None, live: NDArray[np.int64], fresh: NewRows, quantizer: Quantizer
    ) -> None:
        self.old, self.live, self.fresh, self.quantizer = old, live, fresh, quantizer

    def ids(self) -> NDArray[np.int64]:
        if self.old is None:
            return self.fresh.ids
        return np.concatenate([self.old.arrays.ids[self.live], self.fresh.ids])

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[len(rows), d]"""
        return self._gathered(rows, np.uint8, self._recoded, self.quantizer.encode)

    def vectors(self, rows: NDArray[np.int64]) -> Vector:
        """float32[len(rows), d]; old rows are decoded from their codes."""
        return self._gathered(rows, np.float32, self._decoded, lambda vectors: vectors)

    def _gathered(
        self,
        rows: NDArray[np.int64],
        dtype: Any,
        of_old: Callable[[NDArray[np.uint8]], NDArray[Any]],
        of_fresh: Callable[[Vector], NDArray[Any]],
    ) -> NDArray[Any]:
        """`of_old` applied to the codes of old rows, `of_fresh` to the vectors of fresh rows."""
        gathered = np.empty((len(rows), self.quantizer.dimension), dtype)
        is_old = rows < len(self.live)
        if self.old is not None and is_old.any():
            gathered[is_old] = of_old(self.old.arrays.codes[self.live[rows[is_old]]])
        if not is_old.all():
            gathered[~is_old] = of_fresh(self.fresh.vectors[rows[~is_old] - len(self.live)])
        return gathered

    def _decoded(self, codes: NDArray[np.uint8]) -> Vector:
        assert self.old is not None
        return self.old.quantizer.decode(codes)

    def _recoded(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes of the old segment as the new quantizer would make them."""
        if self.old is not None and self.old.quantizer is self.quantizer:
            return codes
        return self.quantizer.encode(self._decoded(codes))


def merge(
    old: Segment | None,
    fresh: NewRows,
    tombstones: NDArray[np.int64],
    *,
    exact_below: int,
    dimension: int,
) -> Plan:
    """Plan a segment of the old rows, without the deleted ones, and of the fresh rows.

    Args:
        tombstones: ids of old rows that are left out.
        exact_below: scopes with fewer rows get a single list.
        dimension: length d of a vector.
    """
    live = _live_rows(old, tombstones)
    old_quantizer = None if old is None else old.quantizer
    if len(fresh.ids):
        quantizer = Quantizer.around(fresh.vectors, old_quantizer)
    else:
        quantizer = old_quantizer or Quantizer.around(np.zeros((1, dimension), np.float32))
    inputs = _Inputs(old, live, fresh, quantizer)
    keys, scope_of = _scopes(old, live, fresh)
    lists = _ListAssignment(old, live, inputs, keys, scope_of, exact_below)
    order = np.lexsort((lists.list_of, scope_of))
    first_list = _offsets(lists.list_counts)
    segment_list_of = first_list[scope_of] + lists.list_of
    ids = inputs.ids()
    no_centroids = np.empty((0, dimension), np.float32)
    centroids = np.concatenate([no_centroids, *lists.centroids]).astype(np.float32)
    no_codes, middle = np.empty((0, dimension), np.uint8), _middle(inputs, len(ids))
    arrays = Arrays(
        scale=np.array([quantizer.scale], np.float32),
        keys=keys.view(np.uint8).reshape(len(keys), KEY_BYTES),
        first_list=first_list,
        first_centroid=_offsets(np.where(lists.list_counts > 1, lists.list_counts, 0)),
        made_for=lists.made_for,
        centroids=centroids,
        coarse=quantizer.encode(centroids) if len(centroids) else no_codes,
        first_row=_offsets(np.bincount(segment_list_of, minlength=int(first_list[-1]))),
        ids=ids[order],
        sorted_ids=np.sort(ids),
        middle=middle,
        codes=no_codes,
        signs=quantizer.sign_bits(no_codes, middle),
    )
    return Plan(arrays, len(ids), inputs, order)


def _middle(inputs: _Inputs, rows: int) -> NDArray[np.uint8]:
    """uint8[d]: the mean codes of a sample, or the old segment's if they are still close.

    With unchanged mean codes, mem tables that use the same centroids can keep their lists.
    """
    sample = inputs.codes(np.arange(0, rows, max(rows // _SAMPLE, 1)))
    middle = mean_code(sample)
    if rows and inputs.old is not None and inputs.old.quantizer == inputs.quantizer:
        old_middle = np.array(inputs.old.arrays.middle)
        changed = ((sample >= old_middle) != (sample >= middle)).mean(axis=0)
        if changed.max(initial=0) <= _MAX_CHANGED:
            return old_middle
    return middle


def _live_rows(old: Segment | None, tombstones: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[_]: rows of the old segment that have no tombstone."""
    if old is None:
        return np.empty(0, np.int64)
    if not len(tombstones):
        return np.arange(old.count)
    return np.flatnonzero(~np.isin(old.arrays.ids, tombstones))


def _scopes(
    old: Segment | None, live: NDArray[np.int64], fresh: NewRows
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """(sorted keys of the scopes that have rows, each row's index into them)"""
    raw = b"".join(key_of(scope) for scope in fresh.scopes)
    all_keys = as_keys(np.frombuffer(raw, np.uint8).reshape(-1, KEY_BYTES))
    if old is not None:
        all_keys = np.concatenate([old.keys, all_keys])
    keys, index_of = np.unique(all_keys, return_inverse=True)
    if old is None:
        scope_of = index_of
    else:
        scope_of = np.concatenate([index_of[scope_of_row(old)[live]], index_of[len(old.keys) :]])
    used = np.bincount(scope_of, minlength=len(keys)) > 0
    return keys[used], (np.cumsum(used) - 1)[scope_of]


def scope_of_row(segment: Segment) -> NDArray[np.int64]:
    """int64[n]: the index of each row's scope in the segment's keys."""
    arrays = segment.arrays
    counts = np.diff(arrays.first_row[arrays.first_list])
    return np.repeat(np.arange(len(counts)), counts)


class _ListAssignment:
    """Which list of its scope each row goes to.

    Attributes:
        list_of: int64[n], each row's list, numbered within its scope.
        list_counts: int64[s], the number of lists of each scope.
        made_for: int64[s], see `Arrays`.
        centroids: float32[_, d] of each scope with several lists, in the order of the scopes.
    """

    def __init__(
        self,
        old: Segment | None,
        live: NDArray[np.int64],
        inputs: _Inputs,
        keys: NDArray[np.bytes_],
        scope_of: NDArray[np.int64],
        exact_below: int,
    ) -> None:
        self._old, self._live, self._inputs = old, live, inputs
        counts = np.bincount(scope_of, minlength=len(keys))
        self.list_of = np.zeros(len(scope_of), np.int64)
        self.list_counts = np.ones(len(keys), np.int64)
        self.made_for = np.zeros(len(keys), np.int64)
        self.centroids: list[NDArray[np.float32]] = []
        for scope in np.flatnonzero(counts >= exact_below):
            rows = np.flatnonzero(scope_of == scope)
            reusable = self._reusable_centroids(keys[scope], len(rows))
            if reusable is None:
                centroids = train_centroids(inputs.vectors(sample_of(rows)), len(rows))
                self.made_for[scope] = len(rows)
                self.list_of[rows] = _assigned(inputs, rows, centroids)
            else:
                centroids, first_list, self.made_for[scope] = reusable
                old_rows = rows[rows < len(live)]
                self.list_of[old_rows] = self._old_lists(old_rows) - first_list
                fresh_rows = rows[len(old_rows) :]
                self.list_of[fresh_rows] = _assigned(inputs, fresh_rows, centroids)
            self.list_counts[scope] = len(centroids)
            if len(centroids) > 1:
                self.centroids.append(centroids)

    def _reusable_centroids(
        self, key: bytes, rows: int
    ) -> tuple[NDArray[np.float32], int, int] | None:
        """(centroids, number of their first list, rows they were trained for) in the old segment.

        None if the scope has none there, or has grown or shrunk too much since.
        """
        if self._old is None:
            return None
        at = int(np.searchsorted(self._old.keys, key))
        if at == len(self._old.keys) or self._old.keys[at] != key:
            return None
        arrays = self._old.arrays
        first, end = arrays.first_centroid[at : at + 2].tolist()
        made_for = int(arrays.made_for[at])
        if end == first or rows >= RETRAIN_FACTOR * made_for or RETRAIN_FACTOR * rows <= made_for:
            return None
        return np.array(arrays.centroids[first:end]), int(arrays.first_list[at]), made_for

    def _old_lists(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[_]: the lists of old rows, numbered within the old segment."""
        assert self._old is not None
        first_row = self._old.arrays.first_row
        lists: NDArray[np.int64] = np.searchsorted(first_row, self._live[rows], side="right") - 1
        return lists


def _assigned(
    inputs: _Inputs, rows: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.int64]:
    """int64[_]: the nearest centroid of each row."""
    nearest = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        nearest[start : start + _BATCH] = nearest_centroids(inputs.vectors(batch), centroids)
    return nearest


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Start of each of several consecutive runs of these lengths, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
