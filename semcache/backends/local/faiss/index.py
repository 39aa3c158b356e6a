"""Nearest neighbours by FAISS: a segment at rest, and what has come in since.

A search looks into its own scope's lists and nowhere else, so that a vector of another scope
cannot be found, however near it lies. Vectors have length 1; the inner product that FAISS
computes is the cosine similarity.

What is new goes to a level in memory, a partition for each scope; when that has grown, it is
set aside, merged with the segment into a new one beside the traffic, and the new one takes
the place of both (as in a log-structured merge tree: P. O'Neil et al., Acta Informatica 33,
1996). A deletion is taken out of the level, or noted against the segment, at once.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from semcache.backends.local.faiss.merging import Fresh
from semcache.backends.local.faiss.partition import EXACT_BELOW, HALF, Lists, Partition
from semcache.backends.local.faiss.search import STAGES, Question, Search, Source, Stage, together
from semcache.backends.local.faiss.segment import ScopeRows, Segment
from semcache.types import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.centroids import CoarseQuantizer
    from semcache.types import Vector

_LEVEL_ROWS = 65_536
"""The level is merged when it holds this many rows, or ..."""
_LEVEL_SHARE = 8
"""... so many times fewer than the segment, if that is more."""
_SCOPE_WEIGHT = 2
"""Rows that a scope of the level counts for: it takes memory of its own."""
_DEAD_SHARE = 4
"""One row in so many deleted: the segment is merged, to give their memory back."""
_DEAD_ROWS = 1024

Made = tuple[Segment, "NDArray[np.int64]"]
"""A new segment, and ids of rows in it that are deleted already."""
Maker = Callable[["Segment | None", Fresh, "NDArray[np.int64]"], Made]
"""(the segment so far, what has come in, ids that are deleted) -> what takes their place."""


class FaissIndex:
    """An `Index` in memory, over a segment that may be mapped from a file.

    Args:
        dimension: length d of a vector; 0: that of the first one added.
        segment: what there is already.
        exact_below: scopes with fewer vectors are searched one by one.
        stages: how far searches look.
        background: build inverted lists beside the traffic. False: build them inside the
            `add` that makes them due, for runs that must repeat to the last hit.
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
        self._aside: _MemTable | None = None
        self._dead_then: list[int] = []
        self._pending_deletes: list[int] = []
        self._retained: tuple[NDArray[np.int64], int] | None = None
        self._lock = threading.Lock()

    def tolerance(self, scope: bytes) -> float:
        segment = self._sealed.segment
        if segment is not None:
            return max(segment.quantizer.tolerance, HALF)
        return 0.0 if all(mem_table.exact(scope) for mem_table in self._mem_tables()) else HALF

    def __len__(self) -> int:
        rest = self._sealed
        return (
            rest.rows
            - len(rest.dead)
            + sum(len(mem_table.scope_of) for mem_table in self._mem_tables())
        )

    def __contains__(self, entry_id: int) -> bool:
        known = self._known(np.array([entry_id], np.int64))[0]
        return bool(known) and entry_id not in self._sealed.dead

    def ids(self) -> NDArray[np.int64]:
        with self._lock:
            parts = [np.fromiter(mem_table.scope_of, np.int64) for mem_table in self._mem_tables()]
            if (segment := self._sealed.segment) is not None:
                dead = np.fromiter(self._sealed.dead, np.int64)
                parts.append(np.setdiff1d(segment.arrays.ids, dead, assume_unique=True))
        return np.sort(np.concatenate(parts))

    def scopes(self) -> int:
        """How many scopes have vectors, or had before the last merge."""
        segment = self._sealed.segment
        return max(len(self._mem_table.partitions), 0 if segment is None else segment.scopes)

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        self.add_many([entry_id], [scope], vector[None])

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        every_id = np.asarray(ids, np.int64)
        with self._lock:
            if not self.dimension:
                self.dimension = vectors.shape[1]
                self._mem_table = self._new_mem_table()
            new = np.flatnonzero(~self._known(every_id))
            self._mem_table.add(every_id[new], [scopes[row] for row in new.tolist()], vectors[new])

    def remove(self, ids: Iterable[int]) -> None:
        with self._lock:
            every = list(ids)
            left = self._mem_table.remove(every)
            if self._aside is not None:
                self._pending_deletes += every  # the segment to come may hold any of them
                left = self._aside.remove(left)
            self._sealed.remove(left)

    def retain(self, ids: NDArray[np.int64], up_to: int) -> None:
        mine = self.ids()
        self.remove(_others(mine, ids, up_to).tolist())
        with self._lock:
            if self._aside is not None:  # the segment to come may know more than is here
                self._retained = (ids, up_to)

    def search(self, scope: bytes, vector: Vector, k: int, spare: int = 0) -> list[Neighbour]:
        wanted = k + spare
        mem_tables = (
            self._mem_tables()
        )  # before the rest: what a merge moves is then found, if twice
        rest = self._sealed
        found: list[list[Neighbour]] = []
        sources: dict[CoarseQuantizer, list[Source]] = {}
        if (rows := rest.rows_of(scope)) is not None:
            sources[rows.coarse] = [rows]
        for mem_table in mem_tables:
            part = mem_table.search(scope, vector, wanted)
            if isinstance(part, Lists):
                sources.setdefault(part.coarse, []).append(part)
            else:
                found.append(part)
        searches = [
            Search(Question(vector, coarse), around_it, wanted, rest.dead)
            for coarse, around_it in sources.items()
        ]
        return self._widened(searches, found, k, wanted)

    def _widened(
        self,
        searches: Sequence[Search],
        exact: Sequence[list[Neighbour]],
        k: int,
        wanted: int,
    ) -> list[Neighbour]:
        """The nearest that searches find, looking no farther than need be, and other parts."""
        if not searches:
            return together(exact, wanted)
        found: list[Neighbour] = []
        for stage in self._stages:
            farther, parts, more = stage.times(k), list(exact), False
            for search in searches:
                search.widen(farther)
                parts.append(search.found())
                more = more or not search.exhausted
            found = together(parts, wanted)
            if not more or (len(found) >= wanted and found[0].similarity >= stage.near):
                break
        return found

    def wait(self) -> None:
        """Until no inverted lists are being built."""
        for mem_table in self._mem_tables():
            mem_table.wait()

    # ------------------------------------------------------------------------ merging

    @property
    def due(self) -> bool:
        """Whether it is time to merge."""
        rest = self._sealed
        fresh = self._mem_table.weight > max(_LEVEL_ROWS, rest.rows // _LEVEL_SHARE)
        dead = len(rest.dead) > max(_DEAD_ROWS, rest.rows // _DEAD_SHARE)
        return self._aside is None and (fresh or dead)

    @property
    def unsaved(self) -> float:
        """Changes since the segment was made, as a share of its rows."""
        rest = self._sealed
        changes = len(rest.dead) + sum(len(mem_table.scope_of) for mem_table in self._mem_tables())
        return changes / max(rest.rows, 1)

    def set_aside(self) -> bool:
        """Begin a merge of all that is here now; False: one is under way."""
        with self._lock:
            if self._aside is not None:
                return False
            self._aside, self._mem_table = self._mem_table, self._new_mem_table()
            self._dead_then, self._pending_deletes, self._retained = (
                list(self._sealed.dead),
                [],
                None,
            )
            return True

    def merge(self, make: Maker) -> None:
        """Put what `make` makes of the segment and what was set aside in place of both.

        Where `make` fails, everything stays as it was.
        """
        aside = self._aside
        assert aside is not None
        try:
            aside.wait()
            fresh = aside.contents(self.dimension)
            dead = np.asarray(self._dead_then, np.int64)
            segment, gone = make(self._sealed.segment, fresh, dead)
            left = np.flatnonzero(~segment.contains(fresh.ids))
        except BaseException:
            self.give_up()
            raise
        with self._lock:
            gone = np.concatenate([gone, np.asarray(self._pending_deletes, np.int64)])
            if self._retained is not None:
                gone = np.concatenate([gone, _others(segment.arrays.ids, *self._retained)])
            left = left[~np.isin(fresh.ids[left], gone)]
            scopes = [fresh.scopes[row] for row in left.tolist()]
            self._mem_table.add(fresh.ids[left], scopes, fresh.vectors[left])
            # In this order, so that a search may find a row twice and never not at all.
            self._sealed = _SealedSegment(segment, set(gone[segment.contains(gone)].tolist()))
            self._mem_table.follow(segment)
            self._aside, self._dead_then, self._pending_deletes = None, [], []
            # Another process's segment may hold what has come in here since: once is enough.
            fresher = np.fromiter(self._mem_table.scope_of, np.int64)
            self._mem_table.remove(fresher[segment.contains(fresher)].tolist())

    def give_up(self) -> None:
        """Undo `set_aside`."""
        with self._lock:
            if (aside := self._aside) is not None:
                aside.take(self._mem_table)
                self._mem_table, self._aside = aside, None

    def _mem_tables(self) -> list[_MemTable]:
        mem_table = self._mem_table  # before what is set aside: it may be set aside meanwhile
        aside = self._aside
        return [mem_table] if aside is None or aside is mem_table else [mem_table, aside]

    def _new_mem_table(self) -> _MemTable:
        return _MemTable(
            self.dimension,
            exact_below=self.exact_below,
            background=self._background,
            segment=self._sealed.segment,
        )

    def _known(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[m]: which of these ids are here, deleted ones of the segment included."""
        mem_tables = self._mem_tables()
        known = np.array(
            [any(i in mem_table.scope_of for mem_table in mem_tables) for i in ids.tolist()], bool
        )
        segment = self._sealed.segment
        return known if segment is None else known | segment.contains(ids)


def _others(ids: NDArray[np.int64], kept: NDArray[np.int64], up_to: int) -> NDArray[np.int64]:
    """Those up to `up_to` that are not among the kept."""
    return np.setdiff1d(ids[ids <= up_to], kept)


class _SealedSegment:
    """A segment and which of its rows are deleted."""

    def __init__(self, segment: Segment | None, dead: set[int]) -> None:
        self.segment = segment
        self.dead = dead

    @property
    def rows(self) -> int:
        return 0 if self.segment is None else self.segment.count

    def remove(self, ids: Sequence[int]) -> None:
        if self.segment is not None and ids:
            chosen = np.asarray(ids, np.int64)
            self.dead.update(chosen[self.segment.contains(chosen)].tolist())

    def rows_of(self, scope: bytes) -> ScopeRows | None:
        """Living and deleted rows of a scope, if it has any."""
        return None if self.segment is None else self.segment.rows(scope)


class _MemTable:
    """What has come in lately: a partition for each scope.

    Args:
        segment: what is at rest; its large scopes' centroids are these partitions' too.
    """

    def __init__(
        self, dimension: int, *, exact_below: int, background: bool, segment: Segment | None
    ) -> None:
        self._dimension = dimension
        self._segment = segment
        self._exact_below = exact_below
        self._background = background
        self.partitions: dict[bytes, Partition] = {}
        self.scope_of: dict[int, bytes] = {}

    @property
    def weight(self) -> int:
        return len(self.scope_of) + _SCOPE_WEIGHT * len(self.partitions)

    def add(self, ids: NDArray[np.int64], scopes: Sequence[bytes], vectors: Vector) -> None:
        rows: dict[bytes, list[int]] = defaultdict(list)
        for row, (entry_id, scope) in enumerate(zip(ids.tolist(), scopes, strict=True)):
            if entry_id not in self.scope_of:
                self.scope_of[entry_id] = scope
                rows[scope].append(row)
        for scope, chosen in rows.items():
            partition = self.partitions.get(scope)
            if partition is None:
                partition = self.partitions[scope] = Partition(
                    self._dimension,
                    exact_below=self._exact_below,
                    background=self._background,
                    coarse=partial(self._coarse, scope),
                )
            partition.add(ids[chosen], vectors[chosen])

    def take(self, other: _MemTable) -> None:
        """Take over what another level holds."""
        fresh = other.contents(self._dimension)
        self.add(fresh.ids, fresh.scopes, fresh.vectors)

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Those that were not here."""
        here: dict[bytes, list[int]] = defaultdict(list)
        left: list[int] = []
        for entry_id in ids:
            scope = self.scope_of.pop(entry_id, None)
            if scope is None:
                left.append(entry_id)
            else:
                here[scope].append(entry_id)
        for scope, own in here.items():
            partition = self.partitions[scope]
            partition.remove(own)
            if not partition.count:
                del self.partitions[scope]
        return left

    def follow(self, segment: Segment) -> None:
        """Another segment is at rest now."""
        self._segment = segment
        for partition in self.partitions.values():
            if not partition.exact:
                partition.follow()

    def _coarse(self, scope: bytes) -> CoarseQuantizer | None:
        return None if self._segment is None else self._segment.coarse(scope)

    def search(self, scope: bytes, vector: Vector, k: int) -> list[Neighbour] | Lists:
        """See `Partition.search`."""
        partition = self.partitions.get(scope)
        return [] if partition is None else partition.search(vector, k)

    def exact(self, scope: bytes) -> bool:
        """Whether its similarities are not rounded."""
        partition = self.partitions.get(scope)
        return partition is None or partition.exact

    def contents(self, dimension: int) -> Fresh:
        parts = [(scope, *p.contents()) for scope, p in list(self.partitions.items())]
        ids = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        vectors = np.concatenate(
            [np.empty((0, dimension), np.float32), *(part[2] for part in parts)]
        )
        scopes = [scope for scope, own, _ in parts for _ in own]
        return Fresh(ids, scopes, vectors)

    def wait(self) -> None:
        for partition in list(self.partitions.values()):
            partition.wait()
