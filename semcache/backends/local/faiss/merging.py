"""A new segment out of an old one, what has come in since, and what was deleted.

Rows of the old segment keep their codes and their lists; only new rows are encoded and put
into lists. Centroids are placed anew where a scope has grown to several times what they were
placed for. Codes are handed on in pieces, so that a merge needs little memory beside the
mapped files, and holds Python's lock only for moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from semcache.backends.local.faiss.centroids import REGROW, assigned, middle_of, placed, sample_of
from semcache.backends.local.faiss.quantizer import Quantizer
from semcache.backends.local.faiss.segment import KEY, Arrays, Segment, as_keys, key_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

_PIECE = 2048
"""Rows that are copied or assigned at a time."""
_SAMPLE = 4096
_STEADY = 0.1
"""Share of the signs of one number that may change before they are counted from anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """Rows to merge in: int64[m] ids, their scopes, float32[m, d]."""

    ids: NDArray[np.int64]
    scopes: Sequence[bytes]
    vectors: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A segment to be: its arrays, where the codes are still to be copied together.

    Attributes:
        arrays: without `codes` and `signs`. rows: its number of rows.
    """

    arrays: Arrays
    rows: int
    _mixed: _Mixed
    _order: NDArray[np.int64]

    def codes(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """(codes, signs): uint8[_, d], uint8[_, d / 8], in pieces that follow each other."""
        for start in range(0, self.rows, _PIECE):
            codes = self._mixed.codes(self._order[start : start + _PIECE])
            yield codes, self._mixed.quantizer.signs_of(codes, self.arrays.middle)

    def in_memory(self) -> Segment:
        """The segment without a file."""
        codes = np.empty((self.rows, self.arrays.codes.shape[1]), np.uint8)
        signs = np.empty((self.rows, self.arrays.signs.shape[1]), np.uint8)
        at = 0
        for piece, its_signs in self.codes():
            codes[at : at + len(piece)], signs[at : at + len(piece)] = piece, its_signs
            at += len(piece)
        return Segment(replace(self.arrays, codes=codes, signs=signs))


class _Mixed:
    """Old rows that are kept, and after them the fresh ones, under one numbering."""

    def __init__(
        self, old: Segment | None, kept: NDArray[np.int64], fresh: Fresh, quantizer: Quantizer
    ) -> None:
        self.old, self.kept, self.fresh, self.quantizer = old, kept, fresh, quantizer

    def ids(self) -> NDArray[np.int64]:
        if self.old is None:
            return self.fresh.ids
        return np.concatenate([self.old.arrays.ids[self.kept], self.fresh.ids])

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[len(rows), d]"""
        return self._gathered(rows, np.uint8, self._recoded, self.quantizer.encode)

    def vectors(self, rows: NDArray[np.int64]) -> Vector:
        """float32[len(rows), d]; of old rows what their codes say."""
        return self._gathered(rows, np.float32, self._decoded, lambda vectors: vectors)

    def _gathered(
        self,
        rows: NDArray[np.int64],
        kind: Any,
        of_old: Callable[[NDArray[np.uint8]], NDArray[Any]],
        of_fresh: Callable[[Vector], NDArray[Any]],
    ) -> NDArray[Any]:
        """What `of_old` makes of old rows' codes, and `of_fresh` of fresh vectors, row by row."""
        found = np.empty((len(rows), self.quantizer.dimension), kind)
        olds = rows < len(self.kept)
        if self.old is not None and olds.any():
            found[olds] = of_old(self.old.arrays.codes[self.kept[rows[olds]]])
        if not olds.all():
            found[~olds] = of_fresh(self.fresh.vectors[rows[~olds] - len(self.kept)])
        return found

    def _decoded(self, codes: NDArray[np.uint8]) -> Vector:
        assert self.old is not None
        return self.old.quantizer.decode(codes)

    def _recoded(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Old codes as the new codec has them."""
        if self.old is not None and self.old.quantizer is self.quantizer:
            return codes
        return self.quantizer.encode(self._decoded(codes))


def merge(
    old: Segment | None, fresh: Fresh, dead: NDArray[np.int64], *, exact_below: int, dimension: int
) -> Plan:
    """What is to be written: the old rows but the dead ones, and the fresh ones.

    Args:
        dead: ids that are left out.
        exact_below: scopes with fewer rows are one list.
    """
    kept = _kept(old, dead)
    old_codec = None if old is None else old.quantizer
    if len(fresh.ids):
        quantizer = Quantizer.around(fresh.vectors, old_codec)
    else:
        quantizer = old_codec or Quantizer.around(np.zeros((1, dimension), np.float32))
    mixed = _Mixed(old, kept, fresh, quantizer)
    keys, scope_of = _scopes(old, kept, fresh)
    lists = _Lists(old, kept, mixed, keys, scope_of, exact_below)
    order = np.lexsort((lists.of_row, scope_of))
    first_list = _firsts(lists.many)
    list_of = first_list[scope_of] + lists.of_row
    ids = mixed.ids()
    no_centroids = np.empty((0, dimension), np.float32)
    centroids = np.concatenate([no_centroids, *lists.centroids]).astype(np.float32)
    no_codes, middle = np.empty((0, dimension), np.uint8), _middle(mixed, len(ids))
    arrays = Arrays(
        scale=np.array([quantizer.scale], np.float32),
        keys=keys.view(np.uint8).reshape(len(keys), KEY),
        first_list=first_list,
        first_centroid=_firsts(np.where(lists.many > 1, lists.many, 0)),
        made_for=lists.made_for,
        centroids=centroids,
        coarse=quantizer.encode(centroids) if len(centroids) else no_codes,
        first_row=_firsts(np.bincount(list_of, minlength=int(first_list[-1]))),
        ids=ids[order],
        sorted_ids=np.sort(ids),
        middle=middle,
        codes=no_codes,
        signs=quantizer.signs_of(no_codes, middle),
    )
    return Plan(arrays, len(ids), mixed, order)


def _middle(mixed: _Mixed, rows: int) -> NDArray[np.uint8]:
    """uint8[d]: where codes lie on average, by a sample; as before, if that is still true.

    What is in memory around the same centroids can then stay as it is.
    """
    sample = mixed.codes(np.arange(0, rows, max(rows // _SAMPLE, 1)))
    middle = middle_of(sample)
    if rows and mixed.old is not None and mixed.old.quantizer == mixed.quantizer:
        before = np.array(mixed.old.arrays.middle)
        changed = ((sample >= before) != (sample >= middle)).mean(axis=0)
        if changed.max(initial=0) <= _STEADY:
            return before
    return middle


def _kept(old: Segment | None, dead: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the old segment that stay."""
    if old is None:
        return np.empty(0, np.int64)
    if not len(dead):
        return np.arange(old.count)
    return np.flatnonzero(~np.isin(old.arrays.ids, dead))


def _scopes(
    old: Segment | None, kept: NDArray[np.int64], fresh: Fresh
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """(sorted keys of the scopes that have rows, each row's place among them)"""
    raw = b"".join(key_of(scope) for scope in fresh.scopes)
    named = as_keys(np.frombuffer(raw, np.uint8).reshape(-1, KEY))
    if old is not None:
        named = np.concatenate([old.keys, named])
    keys, place = np.unique(named, return_inverse=True)
    if old is None:
        scope_of = place
    else:
        scope_of = np.concatenate([place[scope_of_row(old)[kept]], place[len(old.keys) :]])
    used = np.bincount(scope_of, minlength=len(keys)) > 0
    return keys[used], (np.cumsum(used) - 1)[scope_of]


def scope_of_row(segment: Segment) -> NDArray[np.int64]:
    """int64[n]: each row's place in the segment's keys."""
    arrays = segment.arrays
    rows = np.diff(arrays.first_row[arrays.first_list])
    return np.repeat(np.arange(len(rows)), rows)


class _Lists:
    """Which list of its scope each row goes to.

    Attributes:
        of_row: int64[n]. many: int64[s]: lists of each scope. made_for: as in `Arrays`.
        centroids: those of the scopes with several lists, scope after scope.
    """

    def __init__(
        self,
        old: Segment | None,
        kept: NDArray[np.int64],
        mixed: _Mixed,
        keys: NDArray[np.bytes_],
        scope_of: NDArray[np.int64],
        exact_below: int,
    ) -> None:
        self._old, self._kept, self._mixed = old, kept, mixed
        counts = np.bincount(scope_of, minlength=len(keys))
        self.of_row = np.zeros(len(scope_of), np.int64)
        self.many = np.ones(len(keys), np.int64)
        self.made_for = np.zeros(len(keys), np.int64)
        self.centroids: list[NDArray[np.float32]] = []
        for scope in np.flatnonzero(counts >= exact_below):
            rows = np.flatnonzero(scope_of == scope)
            before = self._centroids_before(keys[scope], len(rows))
            if before is None:
                centroids = placed(mixed.vectors(sample_of(rows)), len(rows))
                self.made_for[scope] = len(rows)
                self.of_row[rows] = _assigned(mixed, rows, centroids)
            else:
                centroids, first_list, self.made_for[scope] = before
                olds = rows[rows < len(kept)]
                self.of_row[olds] = self._list_before(olds) - first_list
                news = rows[len(olds) :]
                self.of_row[news] = _assigned(mixed, news, centroids)
            self.many[scope] = len(centroids)
            if len(centroids) > 1:
                self.centroids.append(centroids)

    def _centroids_before(
        self, key: bytes, rows: int
    ) -> tuple[NDArray[np.float32], int, int] | None:
        """(centroids, number of the first list, rows they were placed for), if still good."""
        if self._old is None:
            return None
        at = int(np.searchsorted(self._old.keys, key))
        if at == len(self._old.keys) or self._old.keys[at] != key:
            return None
        arrays = self._old.arrays
        first, end = arrays.first_centroid[at : at + 2].tolist()
        made_for = int(arrays.made_for[at])
        if end == first or rows >= REGROW * made_for or REGROW * rows <= made_for:
            return None
        return np.array(arrays.centroids[first:end]), int(arrays.first_list[at]), made_for

    def _list_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self._old is not None
        first_row = self._old.arrays.first_row
        found: NDArray[np.int64] = np.searchsorted(first_row, self._kept[rows], side="right") - 1
        return found


def _assigned(
    mixed: _Mixed, rows: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The nearest centroid of each row."""
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _PIECE):
        found[start : start + _PIECE] = assigned(
            mixed.vectors(rows[start : start + _PIECE]), centroids
        )
    return found


def _firsts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several runs of these lengths begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
