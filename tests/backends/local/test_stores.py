"""`SQLiteStore` fulfils the contract of `Store`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.backends.local.sqlite.migrations import SCHEMA_VERSION
from semcache.backends.local.sqlite.orders import ORDER_BY
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.vectors import FORMS, Form, decoded, encoded
from semcache.errors import IndexMismatchError, StoreError, StoreVersionError
from semcache.keys import keys
from semcache.types import Completion, Observation, Selection, ServedHit, Usage
from tests.backends.conftest import new

DATA = Path(__file__).parents[2] / "data"
VECTOR = np.ones(4, np.float32) / 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "cache" / "semcache.db", busy_timeout=0.2)
    yield opened
    opened.close()


def test_an_entry_comes_back_whole(store: SQLiteStore) -> None:
    """Every field of an entry and its completion is stored and read back."""
    completion = Completion(
        "text",
        finish_reason="stop",
        usage=Usage(3, 4, 0.01),
        provider="p",
        model="m2",
        has_tool_calls=True,
        payload={"a": [1, None]},
        payload_kind="json",
    )
    entry = new(1, completion=completion, expires_at=500.0, tags=("a", "b"), question="ü\0?")
    entry_id = store.add(entry, VECTOR, "f")
    found = store.get_exact(entry.exact_key)
    assert found is not None
    assert found == store.get_many([entry_id])[entry_id]
    bare = store.add(new(2), None, None)
    both = store.get_with_vectors([bare, entry_id, 999])
    assert both == {entry_id: (found, VECTOR.tobytes()), bare: (store.get_many([bare])[bare], None)}
    assert found.completion == completion
    assert (found.question, found.expires_at, found.created_at) == ("ü\0?", 500.0, 101.0)
    assert store.details([entry_id])[entry_id].tags == ("a", "b")
    assert list(store.vectors_after(0)) == [(entry_id, b"s" * 32, VECTOR.tobytes())]


def test_the_same_key_replaces_and_ids_are_never_reused(store: SQLiteStore) -> None:
    """A new answer to the same request replaces the old one under a new id."""
    first = store.add(new(1), VECTOR, "f")
    second = store.add(new(1, completion=Completion("better")), VECTOR, "f")
    assert second > first
    assert store.totals()[0] == store.count() == 1
    assert [row[0] for row in store.vectors_after(0)] == [second]
    store.delete(Selection(ids=(second,)))
    assert store.add(new(2), VECTOR, "f") > second
    assert store.deletions_after(0) == ([first, second], 2)


def test_selections_delete_what_they_say(store: SQLiteStore) -> None:
    """Conditions select alone and in combination."""
    for number in range(6):
        store.add(
            new(
                number,
                namespace="a" if number % 2 else "b",
                model="x" if number < 3 else "y",
                tags=("even",) if number % 2 == 0 else (),
                expires_at=200.0 if number == 5 else None,
            ),
            None,
            None,
        )
    assert store.count(Selection(namespace="a")) == 3
    assert store.count(Selection(namespace="a", model="x")) == 1
    assert store.count(Selection(tag="even")) == 3
    assert store.count(Selection(created_before=102.0)) == 2
    assert store.count(Selection(expired_at=200.0)) == 1
    assert store.count(Selection(ids=())) == 0
    assert len(store.delete(Selection(tag="even"))) == 3
    assert len(store.delete(Selection(namespace="a", model="x"))) == 1
    assert store.totals()[0] == store.count() == 2
    assert len(store.delete(Selection())) == 2
    assert store.totals() == (0, 0)


def test_other_connections_commits_show(tmp_path: Path, store: SQLiteStore) -> None:
    """The revision changes only when another connection has written."""
    other = SQLiteStore(store.path)
    before = store.revision()
    assert store.revision() == before
    other.add(new(1), None, None)
    assert store.revision() != before
    assert store.get_exact(new(1).exact_key) is not None
    other.close()


def test_vectors_of_two_embedders_never_mix(store: SQLiteStore) -> None:
    """The first vector fixes the embedder; vectors of another are refused and nothing is stored."""
    store.add(new(1), VECTOR, "one")
    with pytest.raises(IndexMismatchError, match=r"'one'.*'two'.*reembed"):
        store.add(new(2), VECTOR, "two")
    assert store.count() == 1


def test_a_newer_schema_is_left_alone(store: SQLiteStore) -> None:
    """A file from a newer version is refused, and not one byte of it is changed."""
    store.add(new(1), None, None)
    store.close()
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = store.path.read_bytes()
    with pytest.raises(StoreVersionError, match="Upgrade semcache"):
        SQLiteStore(store.path)
    assert store.path.read_bytes() == before


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    """The error names the file, which is left unchanged."""
    path = tmp_path / "semcache.db"
    path.write_text("not a database " * 100)
    with pytest.raises(StoreError, match=r"semcache\.db.*not a database"):
        SQLiteStore(path)
    assert path.read_text().startswith("not a database")


def test_a_locked_database_is_an_error_that_says_so(store: SQLiteStore) -> None:
    """A write that waits too long raises a StoreError; reads continue."""
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.add(new(1), None, None)
    assert store.get_exact(new(1).exact_key) is None
    blocker.execute("ROLLBACK")
    blocker.close()
    assert store.add(new(1), None, None)


def test_counters_and_hits_add_up(store: SQLiteStore) -> None:
    """Increments from several connections are summed."""
    entry_id = store.add(new(1), None, None)
    other = SQLiteStore(store.path)
    for opened in (store, other, store):
        opened.add_up({"hits:exact": 2, "usd_saved": 0.5}, {entry_id: (3, 900.0)})
    other.close()
    assert store.counters() == {"hits:exact": 6, "usd_saved": 1.5}
    entry = store.get_many([entry_id])[entry_id]
    assert (entry.hits, entry.last_hit_at) == (9, 900.0)


def test_a_vector_stays_when_its_answer_is_replaced_without_one(store: SQLiteStore) -> None:
    """If the embedder was down, an entry with the same question keeps its vector."""
    store.add(new(1), VECTOR, "f")
    entry_id = store.add(replace(new(1), completion=Completion("newer")), None, None)
    assert store.vectors_of([entry_id]) == {entry_id: VECTOR.tobytes()}
    assert store.problems() == []


def test_deletions_can_be_read_up_to_a_position(store: SQLiteStore) -> None:
    """A reader gets no deletions later than the position that it asks for."""
    ids = [store.add(new(number), None, None) for number in range(4)]
    store.delete(Selection(ids=tuple(ids)))
    assert store.deletions_after(1, 3) == (ids[1:3], 3)
    assert store.deletions_after(4) == ([], 4)
    assert store.deletions_after(0, 9) is None


def test_a_malformed_vector_is_found_and_repaired(store: SQLiteStore) -> None:
    """A malformed vector is recognised by its length and deleted; the entry stays."""
    store.add(new(1), VECTOR, "f")
    store.add(new(2), VECTOR, "f")
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE embeddings SET vector = x'00' WHERE entry_id = 1")
    assert "1 vectors have a length" in store.problems()[0]
    store.mend()
    assert store.problems() == []
    assert store.embedded_ids().tolist() == [2]
    assert store.count() == 2


def test_a_long_gap_in_the_log_of_deletions_is_admitted(store: SQLiteStore) -> None:
    """If some of the requested deletions are no longer in the log, the result is None."""
    ids = [store.add(new(number), None, None) for number in range(4)]
    store.delete(Selection(ids=tuple(ids)))
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("DELETE FROM deletions WHERE sequence <= 2")
    assert store.deletions_after(0) is None
    assert store.deletions_after(2) == (ids[2:], 4)


def test_a_closed_store_says_so(store: SQLiteStore) -> None:
    """After close, methods raise a StoreError."""
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add(new(1), None, None)
    with pytest.raises(StoreError, match="closed"):
        store.get_exact(b"x")


def observation(number: int) -> Observation:
    return Observation(100.0 + number, "w", "miss", "n", number, None, True, 0.75, (1.0, 2.5))


def serve(number: int) -> ServedHit:
    return ServedHit(f"id{number}", 100.0 + number, "n", number, f"q{number}", 0.9, 0.97, (1.0,))


def test_labels_come_back_in_their_order(store: SQLiteStore) -> None:
    """Labels are complete, have increasing numbers, and can be read from any number on."""
    assert store.last_observation() == 0
    store.observe([observation(1), observation(2)], [])
    store.observe([observation(3)], [])
    found = store.observations_after(0, 10)
    assert [one for _, one in found] == [observation(n) for n in (1, 2, 3)]
    assert store.observations_after(found[0][0], 10) == found[1:]
    assert store.observations_after(0, 1) == found[:1]
    assert store.last_observation() == found[-1][0]
    assert store.observation_counts() == [("miss", 3, 3)]


def test_served_hits_are_kept_judged_and_dropped(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest served hits are kept; those judged wrong as long as their entry exists."""
    monkeypatch.setattr("semcache.backends.local.sqlite.ledger.SERVES_KEPT", 5)
    entries = [store.add(new(n), VECTOR, "f") for n in range(1, 12)]
    store.observe([], [serve(n) for n in entries[:3]])
    assert {one.id for one in store.unreviewed(10)} == {"id1", "id2", "id3"}
    store.set_verdict("id1", False)
    store.set_verdict("id2", True)
    assert store.rejected_pairs() == {(1, "q1")}
    assert [one.id for one in store.unreviewed(10)] == ["id3"]
    found = store.served_hit("id1")
    assert found is not None
    assert found.verdict is False
    store.observe([], [serve(n) for n in entries[3:]])
    assert store.served_hit("id2") is None
    assert store.rejected_pairs() == {(1, "q1")}
    store.delete(Selection(ids=(1,)))
    assert store.rejected_pairs() == set()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_file_of_every_earlier_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    """A database written by each older version has all its entries and supports all features."""
    path = tmp_path / "semcache.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript((DATA / f"schema-{version}.sql").read_text())
    opened = SQLiteStore(path)
    try:
        assert opened.problems() == []
        assert opened.totals()[0] == 4
        assert opened.totals("default")[0] == 3
        assert opened.totals("tenant")[0] == 1
        entry = opened.get_exact(keys.exact_key(b"s" * 32, "question 1"))
        assert entry is not None
        assert opened.key_versions() == {keys.KEY_VERSION: 4}
        assert opened.take_comparisons(9) == []
        assert (entry.completion.text, entry.hits, opened.details([1])[1].tags) == (
            "answer 1",
            2,
            ("a", "b"),
        )
        assert sorted(opened.vectors_of([1, 2, 3, 4])) == [1, 2, 4]
        assert opened.deletions_after(0) == ([5], 1)
        assert opened.counters() == {"hits:exact": 2.0}
        assert opened.add(new(9), None, None) == 6
        assert opened.evict("least_recently_used", 1, spare=6) == [2]
        opened.observe([observation(1)], [serve(1)])
        assert opened.last_observation() == version
    finally:
        opened.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_many_processes_migrate_one_file(tmp_path: Path, version: int) -> None:
    """If several processes open a file at once, one migrates it and the others wait."""
    path = tmp_path / "semcache.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript((DATA / f"schema-{version}.sql").read_text())
    code = (
        "import sys; from semcache.backends.local.sqlite.store import SQLiteStore;"
        "SQLiteStore(sys.argv[1])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(6)]
    assert [process.wait(60) for process in running] == [0] * 6
    opened = SQLiteStore(path)
    assert opened.problems() == []
    opened.close()


@pytest.mark.parametrize("form", FORMS)
def test_vectors_come_back_in_any_form(tmp_path: Path, form: Form) -> None:
    """float32 is exact and the others are rounded; one store may hold a mixture."""
    path = tmp_path / "semcache.db"
    plain = SQLiteStore(path)
    plain.add(new(1), VECTOR, "f")
    plain.close()
    opened = SQLiteStore(path, vectors=form)
    try:
        opened.add(new(2), VECTOR, "f")
        blobs = opened.vectors_of([1, 2, 99])
        assert sorted(blobs) == [1, 2]
        for row in decoded([blobs[1], blobs[2]], len(VECTOR)):
            np.testing.assert_allclose(row, VECTOR, atol=0.01)
        assert opened.size_of(new(2), VECTOR) - opened.size_of(new(2), None) == len(blobs[2])
        assert opened.problems() == []
    finally:
        opened.close()


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from(FORMS))
def test_a_form_is_recognised_by_its_length(dimension: int, seed: int, form: Form) -> None:
    """Decoding recognises the form at any dimension and hardly changes the cosine."""
    vector = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    vector /= np.linalg.norm(vector)
    row = decoded([encoded(vector, form)], dimension)[0]
    assert row.dtype == np.float32
    assert float(row @ vector) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("order", "first"), [("least_recently_used", 3), ("least_frequently_used", 3), ("oldest", 1)]
)
def test_an_eviction_looks_at_no_others_than_it_deletes(
    store: SQLiteStore, order: str, first: int
) -> None:
    """In the whole cache and in one namespace, SQLite reads an index and does not sort."""
    for number in range(1, 5):
        store.add(new(number), None, None)
    store.add_up({}, {1: (5, 1000.5), 2: (1, 3000.0), 4: (2, 2000.0)})
    store.keep_order(order, by_namespace=False)
    store.keep_order(order, by_namespace=True)
    with closing(sqlite3.connect(store.path)) as db, db:
        for where in ("id != 9", "id != 9 AND namespace = 'n'"):
            sql = f"SELECT id FROM entries WHERE {where} ORDER BY {ORDER_BY[order]} LIMIT 1"
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert not any("TEMP B-TREE" in step for step in plan), plan
            assert len(plan) == 1
    assert store.evict(order, 1, spare=0, namespace="n") == [first]
    assert store.evict(order, 1, spare=2, namespace="other") == []


def test_a_sliding_ttl_restarts_with_each_hit(store: SQLiteStore) -> None:
    """A hit extends a fresh entry; one that is stale or has expired is not extended."""
    made = {
        "plain": new(1, expires_at=1100.0),
        "sliding": new(2, expires_at=1100.0, sliding=100.0),
        "soft": new(3, expires_at=1150.0, stale_at=1100.0, sliding=100.0),
    }
    ids = {name: store.add(entry, None, None) for name, entry in made.items()}

    def ends(at: float) -> dict[str, tuple[float | None, float | None]]:
        store.add_up({}, dict.fromkeys(ids.values(), (1, at)))
        found = store.get_many(list(ids.values()))
        return {name: (found[i].expires_at, found[i].stale_at) for name, i in ids.items()}

    assert ends(1060.0) == {
        "plain": (1100.0, None), "sliding": (1160.0, None), "soft": (1210.0, 1160.0)
    }  # fmt: skip
    assert ends(1040.0)["sliding"] == (1160.0, None), "a late note of an earlier hit"
    assert ends(1170.0)["soft"] == (1210.0, 1160.0), "served stale"
    assert ends(1170.0)["sliding"] == (1160.0, None), "expired"
