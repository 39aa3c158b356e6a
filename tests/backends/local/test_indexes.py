"""The index finds what brute force finds, whatever its internal structure."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from semcache.backends.local.faiss import snapshot
from semcache.backends.local.faiss.index import FaissIndex
from semcache.backends.local.faiss.merging import Fresh, merge
from semcache.backends.local.faiss.quantizer import Quantizer
from semcache.backends.local.faiss.search import STAGES, cosines_by_codes
from semcache.backends.local.faiss.segment import Segment
from semcache.backends.local.faiss.snapshot import Facts, SnapshotError

D = 16
SCOPES = [bytes([number]) * 32 for number in range(3)]


def vectors(count: int, seed: int = 0) -> Any:
    found = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


POOL = vectors(200)


def merged(old: Any, fresh: Fresh, dead: Any, *, exact_below: int) -> Any:
    d = fresh.vectors.shape[1]
    plan = merge(old, fresh, dead, exact_below=exact_below, dimension=d)
    return plan.in_memory(), np.empty(0, np.int64)


class IndexMachine(RuleBasedStateMachine):
    """Random additions, removals and searches, compared with a dictionary and brute force."""

    exact_below = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.index = FaissIndex(
            D, exact_below=self.exact_below, stages=STAGES[-1:], background=False
        )
        self.known: dict[int, tuple[bytes, Any]] = {}
        self.next_id = 1
        self.merging = False

    @rule(scope=st.sampled_from(SCOPES), count=st.integers(1, 30), row=st.integers(0, 150))
    def add(self, scope: bytes, count: int, row: int) -> None:
        ids = list(range(self.next_id, self.next_id + count))
        rows = POOL[row : row + count]
        self.next_id += count
        self.index.add_many(ids[: len(rows)], [scope] * len(rows), rows)
        self.known.update({i: (scope, v) for i, v in zip(ids, rows, strict=False)})

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(1, self.next_id), max_size=10))
        self.index.remove(ids)
        for entry_id in ids:
            self.known.pop(entry_id, None)

    @rule(scope=st.sampled_from(SCOPES), row=st.integers(0, 199), k=st.integers(1, 5))
    def search(self, scope: bytes, row: int, k: int) -> None:
        mine = {i: float(v @ POOL[row]) for i, (s, v) in self.known.items() if s == scope}
        found = self.index.search(scope, POOL[row], k)
        assert all(n.id in mine for n in found), "another scope's, or a removed one"
        assert len(found) == min(k, len(mine))
        best = sorted(mine.values(), reverse=True)[: len(found)]
        np.testing.assert_allclose(
            [n.similarity for n in found], best, atol=1e-6 + self.index.tolerance(scope)
        )

    @rule(data=st.data())
    def retain(self, data: st.DataObject) -> None:
        up_to = data.draw(st.integers(0, self.next_id))
        kept = data.draw(st.sets(st.sampled_from(sorted(self.known)))) if self.known else set()
        self.index.retain(np.array(sorted(kept), np.int64), up_to)
        for entry_id in [i for i in self.known if i <= up_to and i not in kept]:
            del self.known[entry_id]

    @rule()
    def set_aside(self) -> None:
        """Start a merge; `finish` ends it, with other operations in between."""
        self.merging = self.index.set_aside() or self.merging

    @rule()
    def finish(self) -> None:
        if self.merging:
            self.index.merge(partial(merged, exact_below=self.exact_below))
            self.merging = False

    @invariant()
    def knows_its_ids(self) -> None:
        assert self.index.ids().tolist() == sorted(self.known)
        assert len(self.index) == len(self.known)


class ListsMachine(IndexMachine):
    """The same with inverted lists, which a low threshold makes due for a few vectors."""

    exact_below = 25


TestFlat = IndexMachine.TestCase
TestLists = ListsMachine.TestCase
TestFlat.settings = TestLists.settings = settings(max_examples=60, stateful_step_count=25)


def test_building_in_the_background_loses_nothing() -> None:
    """Additions and removals during the building of lists take effect."""
    index = FaissIndex(D, exact_below=500, background=True)
    rows = vectors(3000, seed=1)
    for number in range(3000):
        index.add(number, SCOPES[0], rows[number])
        if number % 3 == 0:
            index.remove([number])
    index.wait()
    kept = [number for number in range(3000) if number % 3]
    assert index.ids().tolist() == kept
    for number in kept[::50]:
        nearest = index.search(SCOPES[0], rows[number], 1)[0]
        assert nearest.similarity > 0.999
        assert nearest.id == number


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_similarity_is_the_cosine(seed: int) -> None:
    """Similarities are cosines, from -1 to at most 1."""
    index = FaissIndex(D)
    rows = vectors(20, seed)
    index.add_many(list(range(20)), [SCOPES[0]] * 20, rows)
    found = index.search(SCOPES[0], rows[3], 20)
    assert found[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert all(-1.0001 <= n.similarity <= 1.0 for n in found)


# ---------------------------------------------------------------------------- snapshots

FACTS = Facts("store", "embedder", 400, 7)
ROWS = vectors(400)
IDS = np.arange(400, dtype=np.int64)


def kept(path: Path, exact_below: int = 10**9) -> Segment:
    """Write a snapshot of 400 rows in three scopes; return the same segment in memory."""
    fresh = Fresh(IDS, [SCOPES[i % 3] for i in range(400)], ROWS)
    plan = merge(None, fresh, np.empty(0, np.int64), exact_below=exact_below, dimension=D)
    snapshot.write(path, FACTS, plan)
    return plan.in_memory()


@pytest.mark.parametrize("exact_below", [10**9, 50])
def test_a_snapshot_gives_the_same_answers(tmp_path: Path, exact_below: int) -> None:
    """An index loaded from a snapshot finds the same and can be changed."""
    path = tmp_path / "index"
    index = FaissIndex(D, segment=kept(path, exact_below))
    segment, facts = snapshot.load(path, FACTS, D)
    loaded = FaissIndex(D, segment=segment)
    assert facts == FACTS
    assert loaded.ids().tolist() == index.ids().tolist() == IDS.tolist()
    for query in vectors(30, seed=5):
        assert loaded.search(SCOPES[1], query, 3) == index.search(SCOPES[1], query, 3)
    loaded.remove([4])
    loaded.add(1000, SCOPES[1], vectors(1, seed=9)[0])
    assert 1000 in loaded
    assert 4 not in loaded


@pytest.mark.parametrize(
    "facts",
    [
        Facts("another", "embedder", 400, 7),
        Facts("store", "another", 400, 7),
        Facts("store", "embedder", 399, 7),
        Facts("store", "embedder", 400, 6),
    ],
    ids=["store", "embedder", "ahead", "ahead in deletions"],
)
def test_a_snapshot_of_something_else_is_refused(tmp_path: Path, facts: Facts) -> None:
    """A snapshot of another store or embedder, or ahead of the store, is refused."""
    kept(tmp_path / "index")
    with pytest.raises(SnapshotError):
        snapshot.load(tmp_path / "index", facts, D)


@given(st.data())
@settings(max_examples=80)
def test_a_damaged_snapshot_is_refused(tmp_path_factory: Any, data: st.DataObject) -> None:
    """A snapshot that is truncated or has any bit flipped is refused as a whole."""
    path = tmp_path_factory.mktemp("snapshot") / "index"
    kept(path, 50 if data.draw(st.booleans()) else 10**9)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    with pytest.raises(SnapshotError):
        snapshot.load(path, FACTS, D)


def test_rows_far_out_of_the_range_so_far_are_kept_as_they_are() -> None:
    """The range of the codes is widened if new vectors lie outside it."""
    small = np.eye(D, dtype=np.float32)[:1]
    old = merged(None, Fresh(IDS[:1], SCOPES[:1], small), IDS[:0], exact_below=99)[0]
    fresh = Fresh(IDS[1:], [SCOPES[0]] * 399, ROWS[1:])
    index = FaissIndex(D, segment=merged(old, fresh, IDS[:0], exact_below=99)[0])
    for number in range(1, 400, 40):
        found = index.search(SCOPES[0], ROWS[number], 1)[0]
        assert found.id == number
        assert found.similarity == pytest.approx(1.0, abs=index.tolerance(SCOPES[0]))
    assert index.search(SCOPES[0], small[0], 1)[0].id == 0


def test_a_merge_that_fails_changes_nothing() -> None:
    """The vectors being merged stay searchable, along with those added meanwhile."""
    index = FaissIndex(D)
    index.add_many([1, 2], [SCOPES[0]] * 2, ROWS[:2])
    assert index.set_aside()
    index.add(3, SCOPES[1], ROWS[2])
    index.remove([2])

    def failing(*_: Any) -> Any:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        index.merge(failing)
    assert index.ids().tolist() == [1, 3]
    assert index.search(SCOPES[1], ROWS[2], 1)[0].id == 3
    assert not index.due
    assert index.set_aside(), "the next merge may begin"


def test_what_another_process_s_segment_holds_is_held_once() -> None:
    """An entry added here during the merge that is also in the segment is counted once."""
    index = FaissIndex(D)
    index.add_many([1], [SCOPES[0]], ROWS[1:2])
    index.set_aside()
    index.add_many([2, 9], [SCOPES[0]] * 2, ROWS[2:4])
    theirs = Fresh(IDS[1:4], [SCOPES[0]] * 3, ROWS[1:4])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert len(index) == 4
    index.remove([2])
    assert index.ids().tolist() == [1, 3, 9]
    assert 2 not in {n.id for n in index.search(SCOPES[0], ROWS[2], 9)}


def test_what_is_removed_during_a_merge_is_not_in_its_segment() -> None:
    """Even if it was just added here and is in another process's segment."""
    index = FaissIndex(D)
    index.add_many([1], [SCOPES[0]], ROWS[1:2])
    index.set_aside()
    index.add_many([2], [SCOPES[0]], ROWS[2:3])
    index.remove([2])
    theirs = Fresh(IDS[1:4], [SCOPES[0]] * 3, ROWS[1:4])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert index.ids().tolist() == [1, 3]


def test_what_is_retained_during_a_merge_holds_for_its_segment() -> None:
    """Another process's segment may hold rows whose deletion this process has just learned of."""
    index = FaissIndex(D)
    index.add_many([5], [SCOPES[0]], ROWS[5:6])
    index.set_aside()
    index.retain(np.array([1, 5]), 6)
    theirs = Fresh(IDS[1:9], [SCOPES[0]] * 8, ROWS[1:9])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert index.ids().tolist() == [1, 5, 7, 8]


def test_another_process_s_segment_takes_the_place_of_ones_own() -> None:
    """Rows missing from it are kept, and rows deleted since are not brought back."""
    index = FaissIndex(D)
    index.add_many([1, 2, 3, 4], [SCOPES[0]] * 4, ROWS[:4])
    index.set_aside()
    theirs = Fresh(IDS[1:4], [SCOPES[0]] * 3, ROWS[:3])
    segment = merged(None, theirs, IDS[:0], exact_below=99)[0]
    index.remove([3])
    index.merge(lambda *_: (segment, np.array([2])))
    assert index.ids().tolist() == [1, 4]
    assert {n.id for n in index.search(SCOPES[0], ROWS[1], 9)} == {1, 4}


# ------------------------------------------------------------------- many rows, many numbers

WIDE_D = 256
"""A dimension large enough for sign bits to be kept."""


def crowded(count: int, seed: int) -> Any:
    """float32[count, 256]: vectors clustered around fifty topics, like real questions."""
    draws = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(50, WIDE_D))
    found = topics[draws.integers(0, 50, count)] + draws.normal(size=(count, WIDE_D))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def near(rows: Any, similarity: float, seed: int) -> Any:
    """Unit vectors at this cosine similarity to each of the rows."""
    orthogonal = np.random.default_rng(seed).normal(size=rows.shape)
    orthogonal -= (orthogonal * rows).sum(axis=1, keepdims=True) * rows
    orthogonal /= np.linalg.norm(orthogonal, axis=1, keepdims=True)
    return (similarity * rows + (1 - similarity**2) ** 0.5 * orthogonal).astype(np.float32)


def test_signs_are_the_same_of_codes_and_of_what_they_stand_for() -> None:
    """Except for numbers that lie on the edge of a code."""
    rows = crowded(200, seed=20)
    quantizer = Quantizer.around(rows)
    codes = quantizer.encode(rows)
    middle = codes[0]
    edges = quantizer.edges(middle)
    found = np.unpackbits(quantizer.signs_of(rows, edges), axis=-1)
    wanted = np.unpackbits(quantizer.signs_of(codes, middle), axis=-1)
    clear = np.abs(rows - edges) > 1e-6
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], wanted[clear])


@given(scale=st.floats(0.1, 1.0), rows=st.integers(1, 300), seed=st.integers(0, 9))
def test_cosines_by_codes(scale: float, rows: int, seed: int) -> None:
    """Each row appears once, with the cosine of the decoded row and the exact question."""
    question, quantizer = crowded(1, seed=seed + 1)[0], Quantizer(scale, WIDE_D)
    codes = quantizer.encode(crowded(rows, seed=seed))
    order, found = cosines_by_codes(question, codes, quantizer)
    assert sorted(order.tolist()) == list(range(rows))
    np.testing.assert_allclose(found, quantizer.decode(codes[order]) @ question, atol=1e-5)


MERGED = partial(merged, exact_below=1000)


@pytest.mark.parametrize("form", ["around zero", "never below", "mostly zero"])
@pytest.mark.parametrize(
    ("at_rest", "exact_below"), [(0, 1000), (8000, 1000), (11_000, 1000), (12_000, 10**9)]
)
def test_what_is_near_is_found_among_many(at_rest: int, exact_below: int, form: str) -> None:
    """In sealed lists, in new lists, in both or without lists, for any distribution of values."""
    rows = crowded(12_000, seed=1)
    if form == "never below":
        rows = np.abs(rows)
    if form == "mostly zero":
        rows = np.where(rows > np.quantile(rows, 0.8, axis=1, keepdims=True), rows, 0.0)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = FaissIndex(WIDE_D, exact_below=exact_below, background=False)
    index.add_many(list(range(at_rest)), [SCOPES[0]] * at_rest, rows[:at_rest])
    if at_rest:
        index.set_aside()
        index.merge(partial(merged, exact_below=exact_below))
    for number in range(at_rest, 12_000):
        index.add(number, SCOPES[0], rows[number])
    asked = np.arange(0, 12_000, 40)
    found = [index.search(SCOPES[0], q, 1, 3)[0] for q in near(rows[asked], 0.9, seed=2)]
    assert np.mean([n.id for n in found] == asked) > 0.98
    off = [abs(n.similarity - 0.9) for n in found if n.id in asked]
    assert max(off) < 1e-3 + index.tolerance(SCOPES[0])


@pytest.mark.parametrize("exact_below", [1000, 10**9])
def test_deleted_rows_do_not_hide_live_ones(exact_below: int) -> None:
    """Even if hundreds of deleted rows are nearer."""
    crowd = near(np.repeat(crowded(1, seed=3), 900, axis=0), 0.95, seed=4)
    rows = np.concatenate([crowd, crowded(3000, seed=5)])
    index = FaissIndex(WIDE_D, exact_below=exact_below, background=False)
    index.add_many(list(range(3900)), [SCOPES[0]] * 3900, rows)
    index.set_aside()
    index.merge(partial(merged, exact_below=exact_below))
    question = crowded(1, seed=3)[0]
    alive = int(np.argmin(crowd @ question))
    index.remove([number for number in range(900) if number != alive])
    found = index.search(SCOPES[0], question, 1, 3)
    assert found[0].id == alive
    assert all(n.id == alive or n.id >= 900 for n in found)


@pytest.mark.parametrize("d", [D, WIDE_D], ids=["codes", "signs"])
def test_lists_that_have_become_empty_hide_nothing(d: int) -> None:
    """If everything near the question is deleted, a row far away is still found."""
    draws = np.random.default_rng(10)
    topics = np.eye(d)[:10]
    rows = np.repeat(topics, 300, axis=0) + draws.normal(scale=0.01, size=(3000, d))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = FaissIndex(d, exact_below=1000, background=False)
    index.add_many(list(range(3000)), [SCOPES[0]] * 3000, rows)
    index.remove([number for number in range(3000) if number != 2999])
    assert [n.id for n in index.search(SCOPES[0], rows[0], 1, 3)] == [2999]


@pytest.mark.parametrize("during", [False, True], ids=["at rest", "while a merge is under way"])
def test_what_came_in_far_from_the_question_hides_nothing(during: bool) -> None:
    """The nearest lists are empty in memory, but have rows that are sealed or being merged."""
    rows = crowded(6000, seed=11)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope = SCOPES[0]
    index.add_many(list(range(4000)), [scope] * 4000, rows[:4000])
    index.set_aside()
    index.merge(MERGED)
    index.add_many(list(range(4000, 6000)), [scope] * 2000, rows[4000:])
    if during:
        assert index.set_aside()
    far = near(np.repeat(crowded(1, seed=12), 400, axis=0), 0.98, seed=13)
    index.add_many(list(range(6000, 6400)), [scope] * 400, far)
    asked = np.arange(0, 6000, 20)
    found = [index.search(scope, q, 1, 3)[0].id for q in near(rows[asked], 0.95, seed=14)]
    assert np.mean(np.array(found) == asked) > 0.98


def test_rows_that_are_in_two_places_for_a_moment_are_found_once() -> None:
    """Such duplicates, as with another process's segment, do not crowd out other rows."""
    rows = crowded(4000, seed=15)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope, ids = SCOPES[0], list(range(4000))
    index.add_many(ids, [scope] * 4000, rows)
    index.set_aside()
    index.merge(MERGED)
    index._mem_table.add(np.arange(3000), [scope] * 3000, rows[:3000])
    for number in range(0, 3000, 100):
        found = [n.id for n in index.search(scope, rows[number], 1, 3)]
        assert found[0] == number
        assert len(set(found)) == len(found) == 4


def test_searches_beside_additions_and_deletions_find_what_stays() -> None:
    """In sealed lists and in lists that change during the search; deleted rows stay deleted."""
    rows = crowded(4000, seed=8)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope, stays = SCOPES[0], np.arange(0, 3000)
    index.add_many(stays[:2000].tolist(), [scope] * 2000, rows[:2000])
    index.set_aside()
    index.merge(MERGED)
    index.add_many(stays[2000:].tolist(), [scope] * 1000, rows[2000:3000])
    asked = np.arange(0, 3000, 7)
    questions = near(rows[asked], 0.95, seed=9)
    ended = threading.Event()

    def churn() -> None:
        for first in range(10_000, 40_000, 10):
            ids = list(range(first, first + 10))
            index.add_many(ids, [scope] * 10, rows[3000 + first % 1000 :][:10])
            index.remove(ids)
            if ended.is_set():
                return

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(3):
            found = [index.search(scope, q, 1, 3)[0].id for q in questions]
            assert np.mean(np.array(found) == asked) > 0.98
    finally:
        ended.set()
        churning.join()
    assert len(index) == 3000
    assert all(n.id < 3000 for q in questions for n in index.search(scope, q, 1, 3))


def test_what_came_in_lies_around_the_centroids_of_what_is_at_rest() -> None:
    """Even if a merge has moved the centroids meanwhile."""
    rows = crowded(9000, seed=6)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope = SCOPES[0]

    def add(start: int, end: int) -> None:
        index.add_many(list(range(start, end)), [scope] * (end - start), rows[start:end])

    def placed_alike() -> bool:
        mem_table = index._mem_table.partitions[scope]._rows
        segment = index._sealed.segment
        assert segment is not None
        coarse = segment.coarse(scope)
        return coarse is not None and getattr(mem_table, "coarse", None) is coarse

    add(0, 1500)
    index.set_aside()
    index.merge(MERGED)
    add(1500, 2000)
    assert placed_alike()
    index.set_aside()
    add(2000, 2500)  # while that is merged into lists that stay where they are
    came_in = index._mem_table.partitions[scope]._rows
    index.merge(MERGED)
    assert placed_alike()
    assert index._mem_table.partitions[scope]._rows is came_in, "rebuilt without need"
    add(2500, 8000)
    index.set_aside()
    add(8000, 9000)  # into so many that new centroids are computed
    index.merge(MERGED)
    assert placed_alike()
    assert len(index) == 9000
    asked = np.arange(0, 9000, 30)
    found = [index.search(scope, q, 1)[0].id for q in near(rows[asked], 0.9, seed=7)]
    assert np.mean(found == asked) > 0.98
