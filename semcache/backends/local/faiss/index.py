"""Nearest neighbours by FAISS, as a log-structured merge tree: a segment and mem tables.

New vectors go to a mem table, which has a partition for each scope. When it has grown, it is frozen
and merged in the background with the sealed segment into a new segment, which replaces both (P.
O'Neil et al., Acta Informatica 33, 1996). A delete takes effect at once: the row is removed from
the mem table, or gets a tombstone if it is in the segment.

A search probes lists of its own scope only, so that it cannot return a vector of another scope,
however near. Vectors have unit length: the inner product that FAISS computes is the cosine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from semcache.backends.local.faiss.mem_table import MemTable
from semcache.backends.local.faiss.merging import NewRows
from semcache.backends.local.faiss.partition import EXACT_BELOW, FLOAT16_TOLERANCE, Lists
from semcache.backends.local.faiss.search import (
    STAGES,
    Search,
    SearchQuery,
    Source,
    Stage,
    merge_results,
)
from semcache.backends.local.faiss.segment import ScopeRows, Segment
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.centroids import CoarseQuantizer
    from semcache.types import Vector

_MEM_TABLE_ROWS = 65_536
"""A mem table is due for a merge if its weight exceeds this many rows, and the rows of the segment
divided by `_MEM_TABLE_SHARE`."""
_MEM_TABLE_SHARE = 8
"""See `_MEM_TABLE_ROWS`."""
_TOMBSTONE_SHARE = 4
"""The segment is due for a merge, which frees memory, if more than one in this many of its rows is
deleted, and more than `_MIN_TOMBSTONES` rows in total."""
_MIN_TOMBSTONES = 1024
"""See `_TOMBSTONE_SHARE`."""

MergeResult = tuple[Segment, "NDArray[np.int64]"]
"""A new segment, and the ids of its rows that have been deleted since."""
BuildSegment = Callable[["Segment | None", NewRows, "NDArray[np.int64]"], MergeResult]
"""(old segment, rows of the frozen mem table, tombstones) -> what replaces them."""


class FaissIndex:
    """An `Index`: mem tables over a sealed segment, which may be mapped from a file.

    Args:
        dimension: length d of a vector; 0 means the length of the first vector added.
        segment: the segment to begin with, if there is one.
        exact_below: scopes with fewer vectors are searched exactly.
        stages: how many lists a search probes, and when it ends.
        background: build inverted lists in the background; False builds them inside the `add`
            that makes them due, for runs in which every hit must be reproducible.
    """

    def __init__(
        self,
        dimension: int,
        *,
        segment: Segment | None = None,
        exact_below: int = EXACT_BELOW,
        stages: Sequence[Stage] = STAGES,
        background: bool = True,
    ) -> None:
        self._stages = stages
        self.dimension = dimension
        self.exact_below = exact_below
        self._background = background
        self._sealed = _SealedSegment(segment, set())
        self._mem_table = self._new_mem_table()
        self._frozen: MemTable | None = None
        self._frozen_tombstones: list[int] = []
        self._pending_deletes: list[int] = []
        self._pending_retain: tuple[NDArray[np.int64], int] | None = None
        self._lock = threading.Lock()

    def tolerance(self, scope: bytes) -> float:
        segment = self._sealed.segment
        if segment is not None:
            return max(segment.quantizer.tolerance, FLOAT16_TOLERANCE)
        exact = all(mem_table.exact(scope) for mem_table in self._mem_tables())
        return 0.0 if exact else FLOAT16_TOLERANCE

    def __len__(self) -> int:
        sealed = self._sealed
        recent = sum(len(mem_table.scope_of) for mem_table in self._mem_tables())
        return sealed.rows - len(sealed.tombstones) + recent

    def __contains__(self, entry_id: int) -> bool:
        known = self._known(np.array([entry_id], np.int64))[0]
        return bool(known) and entry_id not in self._sealed.tombstones

    def ids(self) -> NDArray[np.int64]:
        with self._lock:
            parts = [np.fromiter(mem_table.scope_of, np.int64) for mem_table in self._mem_tables()]
            if (segment := self._sealed.segment) is not None:
                tombstones = np.fromiter(self._sealed.tombstones, np.int64)
                parts.append(np.setdiff1d(segment.arrays.ids, tombstones, assume_unique=True))
        return np.sort(np.concatenate(parts))

    def scopes(self) -> int:
        """About how many scopes have vectors; those emptied since the last merge may be counted."""
        segment = self._sealed.segment
        return max(len(self._mem_table.partitions), 0 if segment is None else segment.scopes)

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        self.add_many([entry_id], [scope], vector[None])

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        all_ids = np.asarray(ids, np.int64)
        with self._lock:
            if not self.dimension:
                self.dimension = vectors.shape[1]
                self._mem_table = self._new_mem_table()
            new = np.flatnonzero(~self._known(all_ids))
            self._mem_table.add(all_ids[new], [scopes[row] for row in new.tolist()], vectors[new])

    def remove(self, ids: Iterable[int]) -> None:
        with self._lock:
            all_ids = list(ids)
            remaining = self._mem_table.remove(all_ids)
            if self._frozen is not None:
                self._pending_deletes += all_ids  # the merged segment may hold any of them
                remaining = self._frozen.remove(remaining)
            self._sealed.remove(remaining)

    def retain(self, ids: NDArray[np.int64], up_to: int) -> None:
        self.remove(_not_retained(self.ids(), ids, up_to).tolist())
        with self._lock:
            if self._frozen is not None:  # the merged segment may hold other rows
                self._pending_retain = (ids, up_to)

    def search(self, scope: bytes, vector: Vector, k: int, spare: int = 0) -> list[Neighbour]:
        wanted = k + spare
        # Mem tables first: a row that a merge is moving is then found twice, not missed.
        mem_tables = self._mem_tables()
        sealed = self._sealed
        exact: list[list[Neighbour]] = []
        sources: dict[CoarseQuantizer, list[Source]] = {}
        if (rows := sealed.rows_of(scope)) is not None:
            sources[rows.coarse] = [rows]
        for mem_table in mem_tables:
            part = mem_table.search(scope, vector, wanted)
            if isinstance(part, Lists):
                sources.setdefault(part.coarse, []).append(part)
            else:
                exact.append(part)
        searches = [
            Search(SearchQuery(vector, coarse), same_lists, wanted, sealed.tombstones)
            for coarse, same_lists in sources.items()
        ]
        return self._search_in_stages(searches, exact, k, wanted)

    def _search_in_stages(
        self,
        searches: Sequence[Search],
        exact: Sequence[list[Neighbour]],
        k: int,
        wanted: int,
    ) -> list[Neighbour]:
        """Widen the searches stage by stage until they find enough; include the exact results."""
        if not searches:
            return merge_results(exact, wanted)
        nearest: list[Neighbour] = []
        for stage in self._stages:
            scaled, parts, more = stage.times(k), list(exact), False
            for search in searches:
                search.widen(scaled)
                parts.append(search.found())
                more = more or not search.exhausted
            nearest = merge_results(parts, wanted)
            if not more or (len(nearest) >= wanted and nearest[0].similarity >= stage.near):
                break
        return nearest

    def wait(self) -> None:
        """Wait until no inverted lists are being built."""
        for mem_table in self._mem_tables():
            mem_table.wait()

    # ------------------------------------------------------------------------ merging

    @property
    def due(self) -> bool:
        """Whether it is time to merge."""
        sealed = self._sealed
        full = self._mem_table.weight > max(_MEM_TABLE_ROWS, sealed.rows // _MEM_TABLE_SHARE)
        sparse = len(sealed.tombstones) > max(_MIN_TOMBSTONES, sealed.rows // _TOMBSTONE_SHARE)
        return self._frozen is None and (full or sparse)

    @property
    def changed_share(self) -> float:
        """Changes since the segment was made, as a share of its rows."""
        sealed = self._sealed
        recent = sum(len(mem_table.scope_of) for mem_table in self._mem_tables())
        return (len(sealed.tombstones) + recent) / max(sealed.rows, 1)

    def freeze(self) -> bool:
        """Freeze the mem table, to be merged; False if a merge is under way already."""
        with self._lock:
            if self._frozen is not None:
                return False
            self._frozen, self._mem_table = self._mem_table, self._new_mem_table()
            self._frozen_tombstones = list(self._sealed.tombstones)
            self._pending_deletes, self._pending_retain = [], None
            return True

    def merge(self, make: BuildSegment) -> None:
        """Replace the segment and the frozen mem table with the segment that `make` returns.

        If `make` fails, `freeze` is undone, and the error is raised.
        """
        frozen = self._frozen
        assert frozen is not None
        try:
            frozen.wait()
            fresh = frozen.contents(self.dimension)
            tombstones = np.asarray(self._frozen_tombstones, np.int64)
            segment, deleted = make(self._sealed.segment, fresh, tombstones)
            missing = np.flatnonzero(~segment.contains(fresh.ids))
        except BaseException:
            self.give_up()
            raise
        with self._lock:
            deleted = np.concatenate([deleted, np.asarray(self._pending_deletes, np.int64)])
            if self._pending_retain is not None:
                not_retained = _not_retained(segment.arrays.ids, *self._pending_retain)
                deleted = np.concatenate([deleted, not_retained])
            missing = missing[~np.isin(fresh.ids[missing], deleted)]
            scopes = [fresh.scopes[row] for row in missing.tolist()]
            self._mem_table.add(fresh.ids[missing], scopes, fresh.vectors[missing])
            # In this order: a search may see a row twice, but never misses one.
            tombstone_ids = deleted[segment.contains(deleted)].tolist()
            self._sealed = _SealedSegment(segment, set(tombstone_ids))
            self._mem_table.follow(segment)
            self._frozen, self._frozen_tombstones, self._pending_deletes = None, [], []
            # Another process's segment may also hold rows that were added here since.
            recent = np.fromiter(self._mem_table.scope_of, np.int64)
            self._mem_table.remove(recent[segment.contains(recent)].tolist())

    def give_up(self) -> None:
        """Undo `freeze`; vectors added since are kept."""
        with self._lock:
            if (frozen := self._frozen) is not None:
                frozen.add_all(self._mem_table)
                self._mem_table, self._frozen = frozen, None

    def _mem_tables(self) -> list[MemTable]:
        mem_table = self._mem_table  # read first, since it may be frozen meanwhile
        frozen = self._frozen
        return [mem_table] if frozen is None or frozen is mem_table else [mem_table, frozen]

    def _new_mem_table(self) -> MemTable:
        return MemTable(
            self.dimension,
            exact_below=self.exact_below,
            background=self._background,
            segment=self._sealed.segment,
        )

    def _known(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[m]: which of these ids are here, including those with a tombstone."""
        mem_tables = self._mem_tables()
        known = np.array(
            [any(i in mem_table.scope_of for mem_table in mem_tables) for i in ids.tolist()], bool
        )
        segment = self._sealed.segment
        return known if segment is None else known | segment.contains(ids)


def _not_retained(
    ids: NDArray[np.int64], retained: NDArray[np.int64], up_to: int
) -> NDArray[np.int64]:
    """The ids up to `up_to` that are not among those to retain."""
    return np.setdiff1d(ids[ids <= up_to], retained)


class _SealedSegment:
    """The segment, if there is one, and the tombstones of its deleted rows."""

    def __init__(self, segment: Segment | None, tombstones: set[int]) -> None:
        self.segment = segment
        self.tombstones = tombstones

    @property
    def rows(self) -> int:
        return 0 if self.segment is None else self.segment.count

    def remove(self, ids: Sequence[int]) -> None:
        if self.segment is not None and ids:
            removed = np.asarray(ids, np.int64)
            self.tombstones.update(removed[self.segment.contains(removed)].tolist())

    def rows_of(self, scope: bytes) -> ScopeRows | None:
        """The scope's rows, including those with a tombstone; None if it has no rows."""
        return None if self.segment is None else self.segment.rows(scope)
