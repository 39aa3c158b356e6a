"""The index finds what brute force finds, whatever form its rows are in."""

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
from semcache.backends.local.faiss.merging import NewRows, merge
from semcache.backends.local.faiss.quantizer import Quantizer
from semcache.backends.local.faiss.search import STAGES, cosines_by_codes
from semcache.backends.local.faiss.segment import Segment
from semcache.backends.local.faiss.snapshot import SnapshotError, SnapshotInfo

D = 16
SCOPES = [bytes([number]) * 32 for number in range(3)]


def vectors(count: int, seed: int = 0) -> Any:
    rows = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


POOL = vectors(200)


def merged(old: Any, fresh: NewRows, tombstones: Any, *, exact_below: int) -> Any:
    d = fresh.vectors.shape[1]
    plan = merge(old, fresh, tombstones, exact_below=exact_below, dimension=d)
    return plan.in_memory(), np.empty(0, np.int64)


class IndexMachine(RuleBasedStateMachine):
    """Random adds, removals, merges and searches, checked against a dictionary and brute force."""

    exact_below = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.index = FaissIndex(
            D, exact_below=self.exact_below, stages=STAGES[-1:], background=False
        )
        self.expected: dict[int, tuple[bytes, Any]] = {}
        self.next_id = 1
        self.merging = False

    @rule(scope=st.sampled_from(SCOPES), count=st.integers(1, 30), row=st.integers(0, 150))
    def add(self, scope: bytes, count: int, row: int) -> None:
        ids = list(range(self.next_id, self.next_id + count))
        rows = POOL[row : row + count]
        self.next_id += count
        self.index.add_many(ids[: len(rows)], [scope] * len(rows), rows)
        self.expected.update({i: (scope, v) for i, v in zip(ids, rows, strict=False)})

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(1, self.next_id), max_size=10))
        self.index.remove(ids)
        for entry_id in ids:
            self.expected.pop(entry_id, None)

    @rule(scope=st.sampled_from(SCOPES), row=st.integers(0, 199), k=st.integers(1, 5))
    def search(self, scope: bytes, row: int, k: int) -> None:
        cosines = {i: float(v @ POOL[row]) for i, (s, v) in self.expected.items() if s == scope}
        found = self.index.search(scope, POOL[row], k)
        assert all(n.id in cosines for n in found), "an id of another scope, or a removed one"
        assert len(found) == min(k, len(cosines))
        best = sorted(cosines.values(), reverse=True)[: len(found)]
        np.testing.assert_allclose(
            [n.similarity for n in found], best, atol=1e-6 + self.index.tolerance(scope)
        )

    @rule(data=st.data())
    def retain(self, data: st.DataObject) -> None:
        up_to = data.draw(st.integers(0, self.next_id))
        ids = sorted(self.expected)
        retained = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
        self.index.retain(np.array(sorted(retained), np.int64), up_to)
        for entry_id in [i for i in ids if i <= up_to and i not in retained]:
            del self.expected[entry_id]

    @rule()
    def freeze(self) -> None:
        """Begin a merge; `finish` ends it, whatever other steps come in between."""
        self.merging = self.index.freeze() or self.merging

    @rule()
    def finish(self) -> None:
        if self.merging:
            self.index.merge(partial(merged, exact_below=self.exact_below))
            self.merging = False

    @invariant()
    def holds_the_expected_ids(self) -> None:
        assert self.index.ids().tolist() == sorted(self.expected)
        assert len(self.index) == len(self.expected)


class ListsMachine(IndexMachine):
    """The same with inverted lists, which are built for few vectors here."""

    exact_below = 25


TestFlat = IndexMachine.TestCase
TestLists = ListsMachine.TestCase
TestFlat.settings = TestLists.settings = settings(max_examples=60, stateful_step_count=25)


def test_building_in_the_background_loses_nothing() -> None:
    """Adds and removals during a build of inverted lists take effect in the new lists."""
    index = FaissIndex(D, exact_below=500, background=True)
    rows = vectors(3000, seed=1)
    for number in range(3000):
        index.add(number, SCOPES[0], rows[number])
        if number % 3 == 0:
            index.remove([number])
    index.wait()
    remaining = [number for number in range(3000) if number % 3]
    assert index.ids().tolist() == remaining
    for number in remaining[::50]:
        nearest = index.search(SCOPES[0], rows[number], 1)[0]
        assert nearest.similarity > 0.999
        assert nearest.id == number


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_similarity_is_the_cosine(seed: int) -> None:
    """Similarities are from -1 to 1; rounding does not take one above 1."""
    index = FaissIndex(D)
    rows = vectors(20, seed)
    index.add_many(list(range(20)), [SCOPES[0]] * 20, rows)
    found = index.search(SCOPES[0], rows[3], 20)
    assert found[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert all(-1.0001 <= n.similarity <= 1.0 for n in found)


# ---------------------------------------------------------------------------- snapshots

FACTS = SnapshotInfo("store", "embedder", 400, 7)
ROWS = vectors(400)
IDS = np.arange(400, dtype=np.int64)


def write_snapshot(path: Path, exact_below: int = 10**9) -> Segment:
    """Write a snapshot of 400 rows in three scopes, and return its segment in memory."""
    fresh = NewRows(IDS, [SCOPES[i % 3] for i in range(400)], ROWS)
    plan = merge(None, fresh, np.empty(0, np.int64), exact_below=exact_below, dimension=D)
    snapshot.write(path, FACTS, plan)
    return plan.in_memory()


@pytest.mark.parametrize("exact_below", [10**9, 50])
def test_a_snapshot_gives_the_same_answers(tmp_path: Path, exact_below: int) -> None:
    """An index over a mapped snapshot finds the same rows, and can be changed."""
    path = tmp_path / "index"
    index = FaissIndex(D, segment=write_snapshot(path, exact_below))
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
        SnapshotInfo("another", "embedder", 400, 7),
        SnapshotInfo("store", "another", 400, 7),
        SnapshotInfo("store", "embedder", 399, 7),
        SnapshotInfo("store", "embedder", 400, 6),
    ],
    ids=["store", "embedder", "ahead", "ahead in deletions"],
)
def test_a_snapshot_that_does_not_match_is_refused(tmp_path: Path, facts: SnapshotInfo) -> None:
    """It belongs to another store or another embedder, or is ahead of the store."""
    write_snapshot(tmp_path / "index")
    with pytest.raises(SnapshotError):
        snapshot.load(tmp_path / "index", facts, D)


@given(st.data())
@settings(max_examples=80)
def test_a_damaged_snapshot_is_refused(tmp_path_factory: Any, data: st.DataObject) -> None:
    """A snapshot that is truncated or has any bit flipped is never used, not even in part."""
    path = tmp_path_factory.mktemp("snapshot") / "index"
    write_snapshot(path, 50 if data.draw(st.booleans()) else 10**9)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    with pytest.raises(SnapshotError):
        snapshot.load(path, FACTS, D)


def test_vectors_outside_the_range_of_the_codes_are_not_clipped() -> None:
    """A merge widens the quantizer's range if new vectors lie outside it."""
    small = np.eye(D, dtype=np.float32)[:1]
    old = merged(None, NewRows(IDS[:1], SCOPES[:1], small), IDS[:0], exact_below=99)[0]
    fresh = NewRows(IDS[1:], [SCOPES[0]] * 399, ROWS[1:])
    index = FaissIndex(D, segment=merged(old, fresh, IDS[:0], exact_below=99)[0])
    for number in range(1, 400, 40):
        found = index.search(SCOPES[0], ROWS[number], 1)[0]
        assert found.id == number
        assert found.similarity == pytest.approx(1.0, abs=index.tolerance(SCOPES[0]))
    assert index.search(SCOPES[0], small[0], 1)[0].id == 0


def test_a_merge_that_fails_changes_nothing() -> None:
    """The frozen mem table and later changes are all there."""
    index = FaissIndex(D)
    index.add_many([1, 2], [SCOPES[0]] * 2, ROWS[:2])
    assert index.freeze()
    index.add(3, SCOPES[1], ROWS[2])
    index.remove([2])

    def failing(*_: Any) -> Any:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        index.merge(failing)
    assert index.ids().tolist() == [1, 3]
    assert index.search(SCOPES[1], ROWS[2], 1)[0].id == 3
    assert not index.due
    assert index.freeze(), "the next merge cannot begin"


def test_rows_that_are_in_another_process_s_segment_too_are_held_once() -> None:
    """If a row was also added here during the merge, removing it once removes it."""
    index = FaissIndex(D)
    index.add_many([1], [SCOPES[0]], ROWS[1:2])
    index.freeze()
    index.add_many([2, 9], [SCOPES[0]] * 2, ROWS[2:4])
    theirs = NewRows(IDS[1:4], [SCOPES[0]] * 3, ROWS[1:4])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert len(index) == 4
    index.remove([2])
    assert index.ids().tolist() == [1, 3, 9]
    assert 2 not in {n.id for n in index.search(SCOPES[0], ROWS[2], 9)}


def test_a_removal_during_a_merge_holds_for_its_segment() -> None:
    """Also for a row that was added here during the merge and is in another process's segment."""
    index = FaissIndex(D)
    index.add_many([1], [SCOPES[0]], ROWS[1:2])
    index.freeze()
    index.add_many([2], [SCOPES[0]], ROWS[2:3])
    index.remove([2])
    theirs = NewRows(IDS[1:4], [SCOPES[0]] * 3, ROWS[1:4])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert index.ids().tolist() == [1, 3]


def test_a_retain_during_a_merge_holds_for_its_segment() -> None:
    """Another process's segment may hold a row that was deleted before this index saw it."""
    index = FaissIndex(D)
    index.add_many([5], [SCOPES[0]], ROWS[5:6])
    index.freeze()
    index.retain(np.array([1, 5]), 6)
    theirs = NewRows(IDS[1:9], [SCOPES[0]] * 8, ROWS[1:9])
    index.merge(lambda *_: (merged(None, theirs, IDS[:0], exact_below=99)[0], IDS[:0]))
    assert index.ids().tolist() == [1, 5, 7, 8]


def test_a_merge_can_adopt_another_process_s_segment() -> None:
    """Rows that it lacks are kept; rows that were deleted since do not come back."""
    index = FaissIndex(D)
    index.add_many([1, 2, 3, 4], [SCOPES[0]] * 4, ROWS[:4])
    index.freeze()
    theirs = NewRows(IDS[1:4], [SCOPES[0]] * 3, ROWS[:3])
    segment = merged(None, theirs, IDS[:0], exact_below=99)[0]
    index.remove([3])
    index.merge(lambda *_: (segment, np.array([2])))
    assert index.ids().tolist() == [1, 4]
    assert {n.id for n in index.search(SCOPES[0], ROWS[1], 9)} == {1, 4}


# ------------------------------------------------------------------- many rows, wide vectors

WIDE_D = 256
"""The smallest dimension with sign bits."""


def crowded(count: int, seed: int) -> Any:
    """float32[count, 256]: unit vectors clustered around fifty topics, as questions are."""
    draws = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(50, WIDE_D))
    rows = topics[draws.integers(0, 50, count)] + draws.normal(size=(count, WIDE_D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def near(rows: Any, similarity: float, seed: int) -> Any:
    """Unit vectors at this cosine similarity to each of the rows."""
    orthogonal = np.random.default_rng(seed).normal(size=rows.shape)
    orthogonal -= (orthogonal * rows).sum(axis=1, keepdims=True) * rows
    orthogonal /= np.linalg.norm(orthogonal, axis=1, keepdims=True)
    return (similarity * rows + (1 - similarity**2) ** 0.5 * orthogonal).astype(np.float32)


def test_sign_bits_of_codes_are_those_of_the_vectors() -> None:
    """Except for numbers that lie on their edge."""
    rows = crowded(200, seed=20)
    quantizer = Quantizer.around(rows)
    codes = quantizer.encode(rows)
    middle = codes[0]
    thresholds = quantizer.thresholds(middle)
    of_vectors = np.unpackbits(quantizer.sign_bits(rows, thresholds), axis=-1)
    of_codes = np.unpackbits(quantizer.sign_bits(codes, middle), axis=-1)
    off_edge = np.abs(rows - thresholds) > 1e-6
    assert off_edge.mean() > 0.99
    np.testing.assert_array_equal(of_vectors[off_edge], of_codes[off_edge])


@given(scale=st.floats(0.1, 1.0), rows=st.integers(1, 300), seed=st.integers(0, 9))
def test_cosines_by_codes(scale: float, rows: int, seed: int) -> None:
    """They are those of the decoded rows with the unrounded query; each row comes once."""
    question, quantizer = crowded(1, seed=seed + 1)[0], Quantizer(scale, WIDE_D)
    codes = quantizer.encode(crowded(rows, seed=seed))
    order, cosines = cosines_by_codes(question, codes, quantizer)
    assert sorted(order.tolist()) == list(range(rows))
    np.testing.assert_allclose(cosines, quantizer.decode(codes[order]) @ question, atol=1e-5)


MERGED = partial(merged, exact_below=1000)


@pytest.mark.parametrize("numbers", ["around zero", "never negative", "mostly zero"])
@pytest.mark.parametrize(
    ("sealed", "exact_below"), [(0, 1000), (8000, 1000), (11_000, 1000), (12_000, 10**9)]
)
def test_recall_at_1(sealed: int, exact_below: int, numbers: str) -> None:
    """Above 98% in the lists of the segment, of the mem table, of both, and in a single list."""
    rows = crowded(12_000, seed=1)
    if numbers == "never negative":
        rows = np.abs(rows)
    if numbers == "mostly zero":
        rows = np.where(rows > np.quantile(rows, 0.8, axis=1, keepdims=True), rows, 0.0)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = FaissIndex(WIDE_D, exact_below=exact_below, background=False)
    index.add_many(list(range(sealed)), [SCOPES[0]] * sealed, rows[:sealed])
    if sealed:
        index.freeze()
        index.merge(partial(merged, exact_below=exact_below))
    for number in range(sealed, 12_000):
        index.add(number, SCOPES[0], rows[number])
    asked = np.arange(0, 12_000, 40)
    found = [index.search(SCOPES[0], q, 1, 3)[0] for q in near(rows[asked], 0.9, seed=2)]
    assert np.mean([n.id for n in found] == asked) > 0.98
    errors = [abs(n.similarity - 0.9) for n in found if n.id in asked]
    assert max(errors) < 1e-3 + index.tolerance(SCOPES[0])


@pytest.mark.parametrize("exact_below", [1000, 10**9])
def test_tombstones_do_not_hide_live_rows(exact_below: int) -> None:
    """A live row is found though hundreds of tombstones are nearer."""
    crowd = near(np.repeat(crowded(1, seed=3), 900, axis=0), 0.95, seed=4)
    rows = np.concatenate([crowd, crowded(3000, seed=5)])
    index = FaissIndex(WIDE_D, exact_below=exact_below, background=False)
    index.add_many(list(range(3900)), [SCOPES[0]] * 3900, rows)
    index.freeze()
    index.merge(partial(merged, exact_below=exact_below))
    question = crowded(1, seed=3)[0]
    live = int(np.argmin(crowd @ question))
    index.remove([number for number in range(900) if number != live])
    found = index.search(SCOPES[0], question, 1, 3)
    assert found[0].id == live
    assert all(n.id == live or n.id >= 900 for n in found)


@pytest.mark.parametrize("d", [D, WIDE_D], ids=["codes", "signs"])
def test_lists_that_have_become_empty_hide_nothing(d: int) -> None:
    """When all rows near the query are deleted, one far away is found."""
    draws = np.random.default_rng(10)
    topics = np.eye(d)[:10]
    rows = np.repeat(topics, 300, axis=0) + draws.normal(scale=0.01, size=(3000, d))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = FaissIndex(d, exact_below=1000, background=False)
    index.add_many(list(range(3000)), [SCOPES[0]] * 3000, rows)
    index.remove([number for number in range(3000) if number != 2999])
    assert [n.id for n in index.search(SCOPES[0], rows[0], 1, 3)] == [2999]


@pytest.mark.parametrize("during", [False, True], ids=["no merge", "while a merge is under way"])
def test_recent_rows_far_from_the_query_hide_nothing(during: bool) -> None:
    """The lists near the query are empty in the mem table, but not in older sources."""
    rows = crowded(6000, seed=11)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope = SCOPES[0]
    index.add_many(list(range(4000)), [scope] * 4000, rows[:4000])
    index.freeze()
    index.merge(MERGED)
    index.add_many(list(range(4000, 6000)), [scope] * 2000, rows[4000:])
    if during:
        assert index.freeze()
    far = near(np.repeat(crowded(1, seed=12), 400, axis=0), 0.98, seed=13)
    index.add_many(list(range(6000, 6400)), [scope] * 400, far)
    asked = np.arange(0, 6000, 20)
    found = [index.search(scope, q, 1, 3)[0].id for q in near(rows[asked], 0.95, seed=14)]
    assert np.mean(np.array(found) == asked) > 0.98


def test_a_row_in_two_sources_is_found_once() -> None:
    """As during a merge with another process's segment; duplicates do not crowd out other rows."""
    rows = crowded(4000, seed=15)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope, ids = SCOPES[0], list(range(4000))
    index.add_many(ids, [scope] * 4000, rows)
    index.freeze()
    index.merge(MERGED)
    index._mem_table.add(np.arange(3000), [scope] * 3000, rows[:3000])
    for number in range(0, 3000, 100):
        found = [n.id for n in index.search(scope, rows[number], 1, 3)]
        assert found[0] == number
        assert len(set(found)) == len(found) == 4


def test_searches_during_adds_and_removals_find_the_rows_that_stay() -> None:
    """In the segment's lists and in lists that keep changing; removed rows stay removed."""
    rows = crowded(4000, seed=8)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope, stays = SCOPES[0], np.arange(0, 3000)
    index.add_many(stays[:2000].tolist(), [scope] * 2000, rows[:2000])
    index.freeze()
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


def test_mem_tables_use_the_centroids_of_the_segment() -> None:
    """Also after a merge has replaced the centroids."""
    rows = crowded(9000, seed=6)
    index = FaissIndex(WIDE_D, exact_below=1000, background=False)
    scope = SCOPES[0]

    def add(start: int, end: int) -> None:
        index.add_many(list(range(start, end)), [scope] * (end - start), rows[start:end])

    def same_centroids() -> bool:
        mem_table = index._mem_table.partitions[scope]._rows
        segment = index._sealed.segment
        assert segment is not None
        coarse = segment.coarse(scope)
        return coarse is not None and getattr(mem_table, "coarse", None) is coarse

    add(0, 1500)
    index.freeze()
    index.merge(MERGED)
    add(1500, 2000)
    assert same_centroids()
    index.freeze()
    add(2000, 2500)  # meanwhile the rest is merged around the same centroids
    before = index._mem_table.partitions[scope]._rows
    index.merge(MERGED)
    assert same_centroids()
    assert index._mem_table.partitions[scope]._rows is before, "rebuilt for nothing"
    add(2500, 8000)
    index.freeze()
    add(8000, 9000)  # the merged rows are so many that centroids are trained again
    index.merge(MERGED)
    assert same_centroids()
    assert len(index) == 9000
    asked = np.arange(0, 9000, 30)
    found = [index.search(scope, q, 1)[0].id for q in near(rows[asked], 0.9, seed=7)]
    assert np.mean(found == asked) > 0.98
