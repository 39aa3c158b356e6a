"""The contract suite: every backend must fulfil `semcache.backends.base`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.backends import Backend, open_backend
from semcache.backends.base import ORDERS, Entries, TooLargeError
from semcache.errors import IndexMismatchError, StoreError
from semcache.types import (
    Completion,
    Observation,
    PendingComparison,
    Selection,
    ServedHit,
    ToolCallPart,
    Usage,
)
from tests.backends.conftest import SCOPE, direction, new
from tests.helpers import Clock

Serving = Callable[..., Entries]


# -------------------------------------------------------------------------------- entries


def test_an_entry_comes_back_whole(backend: Backend, serving: Serving) -> None:
    """Every field of an entry, its completion and its details is stored and read back."""
    completion = Completion(
        "text",
        finish_reason="tool_calls",
        usage=Usage(3, 4, 0.01),
        provider="p",
        model="m2",
        has_tool_calls=True,
        payload={"a": [1, None]},
        payload_kind="json",
        tool_calls=(ToolCallPart("1", "f", {"x": 1}),),
    )
    wanted = new(
        7, completion=completion, expires_at=5000.0, stale_at=4000.0, sliding=30.0, tags=("b", "a")
    )
    entry_id = serving().record(wanted, direction(1))
    entry = serving().exact(wanted.exact_key)
    assert entry is not None
    assert entry.id == entry_id
    assert entry.completion == completion
    for name in ("scope", "namespace", "model", "question", "created_at"):
        assert getattr(entry, name) == getattr(wanted, name)
    assert (entry.expires_at, entry.stale_at, entry.sliding) == (5000.0, 4000.0, 30.0)
    assert (entry.hits, entry.last_hit_at) == (0, None)
    details = backend.catalogue.details([entry_id])[entry_id]
    assert details.tags == ("a", "b")
    assert details.summary == wanted.summary
    assert details.key_version == 1
    assert details.vector == pytest.approx(direction(1))


def test_an_unknown_key_is_none(serving: Serving) -> None:
    """Nothing is found where nothing was stored."""
    entries = serving()
    assert entries.exact(b"x" * 32) is None
    assert entries.nearest(SCOPE, direction(1), 5, 0.0).nearest is None
    assert entries.delete(Selection(ids=(3,))) == 0


def test_the_same_key_replaces_and_ids_grow(backend: Backend, serving: Serving) -> None:
    """An entry replaces the one with its key and gets an id that was never used before."""
    entries = serving()
    first = entries.record(new(1), direction(1))
    second = entries.record(new(1, completion=Completion("other")), direction(0, 1))
    assert second > first
    entry = entries.exact(new(1).exact_key)
    assert entry is not None
    assert entry.completion.text == "other"
    assert backend.catalogue.count() == 1
    entries.delete(Selection(ids=(second,)))
    assert entries.record(new(1), None) > second


def test_a_vector_stays_when_its_answer_is_replaced_without_one(
    backend: Backend, serving: Serving
) -> None:
    """A question that could not be embedded this time is still found through its old vector."""
    entries = serving()
    entries.record(new(1), direction(1))
    entry_id = entries.record(new(1, completion=Completion("other")), None)
    found = entries.nearest(SCOPE, direction(1), 1, 0.9)
    assert [c.entry.id for c in found.candidates] == [entry_id]


def test_neighbours_come_nearest_first_and_never_from_another_scope(serving: Serving) -> None:
    """A search returns up to k entries of the scope whose similarity is at least the floor."""
    entries = serving()
    near = entries.record(new(1), direction(1, 0.1))
    far = entries.record(new(2), direction(1, 1))
    entries.record(new(3, scope=b"t" * 32), direction(1))
    entries.record(new(4), direction(-1))
    entries.record(new(5), None)
    found = entries.nearest(SCOPE, direction(1), 5, 0.5)
    assert [c.entry.id for c in found.candidates] == [near, far]
    assert found.nearest == pytest.approx(float(direction(1) @ direction(1, 0.1)), abs=1e-4)
    assert [c.entry.id for c in entries.nearest(SCOPE, direction(1), 1, 0.5).candidates] == [near]
    only = entries.nearest(b"t" * 32, direction(1), 5, -1.0)
    assert [c.entry.scope for c in only.candidates] == [b"t" * 32]


def test_the_nearest_similarity_is_reported_even_below_the_floor(serving: Serving) -> None:
    """A miss can then report how similar the nearest entry was."""
    entries = serving()
    entries.record(new(1), direction(1, 1))
    found = entries.nearest(SCOPE, direction(1), 3, 0.9)
    assert found.candidates == []
    assert found.nearest == pytest.approx(0.7071, abs=1e-3)


def test_expired_entries_do_not_crowd_out_others(serving: Serving, clock: Clock) -> None:
    """A fresh neighbour is found behind many expired ones."""
    entries = serving()
    for number in range(40):
        entries.record(new(number, expires_at=500.0), direction(1, number / 1000))
    clock.now = 400.0
    wanted = entries.record(new(99), direction(1, 0.5))
    clock.now = 1000.0
    found = entries.nearest(SCOPE, direction(1), 2, 0.5)
    fresh = [c.entry.id for c in found.candidates if c.entry.fresh(clock.now)]
    assert fresh == [wanted]


def test_what_is_deleted_is_gone_at_once(backend: Backend, serving: Serving) -> None:
    """A deleted entry is missing from the exact tier, the neighbours and the totals."""
    entries = serving()
    ids = [entries.record(new(number), direction(1, number)) for number in range(4)]
    assert entries.delete(Selection(ids=tuple(ids[:2]))) == 2
    assert entries.exact(new(0).exact_key) is None
    found = entries.nearest(SCOPE, direction(1), 9, -1.0)
    assert {c.entry.id for c in found.candidates} == set(ids[2:])
    assert backend.catalogue.totals().entries == backend.catalogue.count() == 2
    assert entries.delete(Selection(), limit=1) == 1
    assert entries.delete(Selection()) == 1
    assert backend.catalogue.totals() == (0, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("a", "b")),
            st.sampled_from(("m", "w")),
            st.sampled_from(((), ("x",), ("x", "y"))),
            st.sampled_from((None, 50.0, 5000.0)),
        ),
        max_size=12,
    ),
    st.sampled_from(
        (
            Selection(),
            Selection(namespace="a"),
            Selection(model="w"),
            Selection(tag="y"),
            Selection(namespace="b", tag="x"),
            Selection(created_before=104.0),
            Selection(expired_at=1000.0),
            Selection(ids=(1, 3, 5)),
        )
    ),
)
@settings(max_examples=30)
def test_selections_mean_the_same_everywhere(
    rows: list[tuple[str, str, tuple[str, ...], float | None]], selection: Selection
) -> None:
    """Listing, counting and deleting agree with each other, in memory and in SQLite."""
    import tempfile

    outcomes = []
    for where in (":memory:", None):
        with tempfile.TemporaryDirectory() as directory:
            backend = open_backend(where or directory)
            entries = backend.entries(
                fingerprint=lambda: "f",
                retention=_retention(),
                clock=lambda: 1.0,
                fault=lambda where, error: None,
            )
            for number, (namespace, model, tags, expires_at) in enumerate(rows):
                entry = new(
                    number, namespace=namespace, model=model, tags=tags, expires_at=expires_at
                )
                entries.record(entry, None)
            ids = [e.id for e in backend.catalogue.select(selection, order="oldest")]
            assert backend.catalogue.count(selection) == len(ids)
            assert [e.id for e in backend.catalogue.page_after(0, selection, 99)] == ids
            assert entries.delete(selection) == len(ids)
            left = [e.id for e in backend.catalogue.select(order="oldest")]
            outcomes.append((ids, left, backend.catalogue.totals().entries))
            backend.close()
    assert outcomes[0] == outcomes[1]


def _retention() -> Any:
    from semcache.backends import Retention

    return Retention()


def test_vectors_of_two_embedders_never_mix(backend: Backend, serving: Serving) -> None:
    """The first vector fixes the embedder; vectors of another are refused and nothing is stored."""
    assert backend.embedder is None
    serving("one").record(new(1), direction(1))
    assert backend.embedder == "one"
    with pytest.raises(IndexMismatchError, match="one"):
        serving("two").record(new(2), direction(1))
    with pytest.raises(IndexMismatchError):
        serving("two").nearest(SCOPE, direction(1), 1, 0.0)
    assert backend.catalogue.count() == 1
    assert serving("two").record(new(3), None)


def test_threads_may_do_all_of_it_at_once(serving: Serving, backend: Backend) -> None:
    """Each thread finds what it recorded, while others record and delete."""
    entries = serving()
    failed: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 25):
                entry_id = entries.record(new(number), direction(1, number))
                found = entries.nearest(SCOPE, direction(1, number), 1, 0.99)
                assert found.candidates
                if number % 5 == 0:
                    entries.delete(Selection(ids=(entry_id,)))
                    assert entries.exact(new(number).exact_key) is None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert backend.catalogue.count() == 4 * 20


def test_a_closed_backend_says_so(backend: Backend, serving: Serving) -> None:
    """Later calls raise an error that says that the cache is closed."""
    entries = serving()
    entries.record(new(1), direction(1))
    backend.close()
    with pytest.raises(StoreError, match="closed"):
        entries.record(new(2), None)
    with pytest.raises(StoreError, match="closed"):
        entries.exact(new(1).exact_key)
    backend.close()


# ------------------------------------------------------------------------------- eviction


@pytest.mark.parametrize(
    ("eviction", "survives"),
    [("least-recently-used", 0), ("least-frequently-used", 1), ("oldest", None)],
)
def test_quotas_evict_in_their_order(
    backend: Backend, serving: Serving, eviction: str, survives: int | None
) -> None:
    """The newest entry always stays; of the others, the first in order is evicted."""
    entries = serving(max_entries=4, eviction=eviction)
    ids = [entries.record(new(number), None) for number in range(4)]
    backend.counters.add_up({}, {ids[0]: (1, 900.0), ids[1]: (5, 300.0)})
    for number in range(4, 7):
        last = entries.record(new(number), None)
    left = {entry.id for entry in backend.catalogue.select()}
    assert len(left) == 4
    assert last in left
    if survives is not None:
        assert ids[survives] in left


def test_a_namespace_has_a_quota_of_its_own(backend: Backend, serving: Serving) -> None:
    """A full namespace evicts its own entries, never those of another."""
    entries = serving(namespace_max_entries={"full": 3})
    kept = [entries.record(new(n, namespace="other"), None) for n in range(5)]
    for number in range(10, 18):
        entries.record(new(number, namespace="full"), None)
    assert backend.catalogue.totals("full").entries == 3
    assert {e.id for e in backend.catalogue.select(Selection(namespace="other"))} == set(kept)


def test_bytes_count_too(backend: Backend, serving: Serving) -> None:
    """A quota in bytes is kept, and an entry larger than the whole quota is refused."""
    entries = serving(max_bytes=20_000)
    for number in range(30):
        entries.record(new(number, completion=Completion("x" * 1500)), None)
        assert backend.catalogue.totals().size <= 20_000
    before = backend.catalogue.count()
    with pytest.raises(TooLargeError):
        entries.record(new(99, completion=Completion("x" * 30_000)), None)
    assert backend.catalogue.count() == before


def test_expired_entries_are_swept_by_and_by(
    backend: Backend, serving: Serving, clock: Clock
) -> None:
    """A later record deletes entries that have expired."""
    entries = serving()
    for number in range(5):
        entries.record(new(number, expires_at=2000.0), None)
    clock.now = 3000.0
    entries.record(new(9), None)
    assert backend.catalogue.count() == 1


# ----------------------------------------------------------------- catalogue and counters


def test_listings_come_in_their_orders(backend: Backend, serving: Serving) -> None:
    """Listings come in each order, with limit and offset."""
    entries = serving()
    a, b, c = (entries.record(new(number), None) for number in range(3))
    backend.counters.add_up({}, {a: (2, 500.0), b: (7, 400.0)})
    wanted = {
        "newest": [c, b, a],
        "oldest": [a, b, c],
        "most_hits": [b, a, c],
        "least_recently_used": [c, b, a],
        "least_frequently_used": [c, a, b],
    }
    assert set(wanted) == set(ORDERS)
    for order in ORDERS:
        listed = [entry.id for entry in backend.catalogue.select(order=order)]
        assert listed == wanted[order], order
        part = backend.catalogue.select(order=order, limit=1, offset=1)
        assert [entry.id for entry in part] == wanted[order][1:2]


def test_groups_and_vectors(backend: Backend, serving: Serving) -> None:
    """Groups come with the largest first, and every vector is returned."""
    entries = serving()
    one = entries.record(new(1, namespace="a"), direction(1))
    entries.record(new(2, namespace="a"), None)
    entries.record(new(3, namespace="b", model="w"), direction(0, 1))
    backend.counters.add_up({}, {one: (3, 500.0)})
    assert backend.catalogue.groups() == [("a", "m", 2, 3), ("b", "w", 1, 0)]
    vectors = dict(backend.catalogue.vectors())
    assert len(vectors) == 2
    assert np.allclose(vectors[one], direction(1))
    assert set(backend.catalogue.get_many([one, 999])) == {one}
    assert backend.catalogue.stored_bytes() > 0


def test_counters_and_hits_add_up(backend: Backend, serving: Serving) -> None:
    """Counters and hits are summed; hits of deleted entries are ignored."""
    entry_id = serving().record(new(1), None)
    backend.counters.add_up({"hits:exact": 2, "usd_saved": 0.5}, {entry_id: (2, 300.0)})
    backend.counters.add_up({"hits:exact": 1}, {entry_id: (1, 200.0), 999: (1, 200.0)})
    assert backend.counters.counters() == {"hits:exact": 3, "usd_saved": 0.5}
    entry = backend.catalogue.get_many([entry_id])[entry_id]
    assert (entry.hits, entry.last_hit_at) == (3, 300.0)


@pytest.mark.parametrize(("hit_at", "expires", "stale"), [(40.0, 90.0, 60.0), (60.0, 70.0, 50.0)])
def test_a_sliding_ttl_starts_again_with_each_hit(
    backend: Backend, serving: Serving, clock: Clock, hit_at: float, expires: float, stale: float
) -> None:
    """But only if the entry was still fresh at the time of the hit."""
    clock.now = 35.0
    entry = new(1, created_at=30.0, expires_at=70.0, stale_at=50.0, sliding=20.0)
    entry_id = serving().record(entry, None)
    backend.counters.add_up({}, {entry_id: (1, hit_at)})
    found = backend.catalogue.get_many([entry_id])[entry_id]
    if hit_at < 50.0:
        assert (found.expires_at, found.stale_at) == (80.0, 60.0)
    else:
        assert (found.expires_at, found.stale_at) == (expires, stale)


def test_facts_by_name(backend: Backend) -> None:
    """Values are stored, replaced, and listed by the prefix of their names."""
    assert backend.metadata.meta("breaker:a") is None
    backend.metadata.set_meta("breaker:a", "open")
    backend.metadata.set_meta("breaker:a", "closed")
    backend.metadata.set_meta("breaker:b", "open")
    backend.metadata.set_meta("other", "x")
    assert backend.metadata.meta("breaker:a") == "closed"
    assert backend.metadata.metas("breaker:") == {"a": "closed", "b": "open"}


# --------------------------------------------------------------------------------- ledger


def label(number: int, kind: str = "miss", right: bool = True) -> Observation:
    return Observation(
        at=float(number),
        writer="w",
        kind=kind,  # type: ignore[arg-type]
        namespace="n",
        entry_id=number,
        other_id=None,
        right=right,
        expected=0.5,
        features=(1.0, 2.0),
    )


def served(name: str, entry_id: int, at: float = 1.0) -> ServedHit:
    return ServedHit(
        id=name,
        at=at,
        namespace="n",
        entry_id=entry_id,
        question="q",
        similarity=0.9,
        chance=0.8,
        features=(1.0,),
    )


def test_labels_come_back_in_their_order(backend: Backend) -> None:
    """Labels have increasing numbers, and can be read in pages and counted by kind."""
    ledger = backend.ledger
    assert ledger.last_observation() == 0
    ledger.observe([label(1), label(2, "explore", right=False)], [])
    ledger.observe([label(3, "audit"), label(4, "feedback", right=False)], [])
    rows = ledger.observations_after(0, 10)
    assert [observation for _, observation in rows] == [
        label(1),
        label(2, "explore", right=False),
        label(3, "audit"),
        label(4, "feedback", right=False),
    ]
    numbers = [number for number, _ in rows]
    assert numbers == sorted(set(numbers))
    assert ledger.last_observation() == numbers[-1]
    assert [n for n, _ in ledger.observations_after(numbers[1], 1)] == [numbers[2]]
    assert ledger.observations_after(numbers[-1], 10) == []
    counts = {(count.kind, count.labels, count.right) for count in ledger.observation_counts()}
    assert counts == {("miss", 1, 1), ("explore", 1, 0), ("audit", 1, 1), ("feedback", 1, 0)}
    assert ledger.served_labels(10) == [True, False]
    assert ledger.served_labels(1) == [True]


def test_served_hits_are_remembered_and_judged(backend: Backend, serving: Serving) -> None:
    """Unjudged hits of existing entries are offered for review; rejected pairs are kept."""
    entry_id = serving().record(new(1), None)
    ledger = backend.ledger
    ledger.observe([], [served("a", entry_id), served("b", entry_id), served("c", 999)])
    assert ledger.served_hit("a") == served("a", entry_id)
    assert ledger.served_hit("z") is None
    assert {hit.id for hit in ledger.unreviewed(10)} == {"a", "b"}
    ledger.set_verdict("a", False)
    ledger.set_verdict("b", True)
    ledger.set_verdict("nobody", True)
    assert ledger.unreviewed(10) == []
    assert ledger.rejected_pairs() == {(entry_id, "q")}
    judged = ledger.served_hit("b")
    assert judged is not None
    assert judged.verdict is True
    ledger.observe([], [served("b", entry_id)])  # recorded again: the verdict stays
    again = ledger.served_hit("b")
    assert again is not None
    assert again.verdict is True


# ------------------------------------------------------------------------------ the whole


def test_comparisons_wait_for_one_who_makes_them(backend: Backend, serving: Serving) -> None:
    """What was kept is taken once, oldest first, and only where the entry still exists."""
    entries = serving()
    ids = [entries.record(new(i), direction(i)) for i in (1, 2, 3)]
    fresh = Completion("fresh", finish_reason="stop", payload={"a": 1}, payload_kind="json")
    kept = [
        PendingComparison(
            "miss",
            "n",
            f"q{i}",
            i,
            new(1).completion,
            fresh,
            None if i == 1 else i + 1,
            0.5,
            (1.0,),
        )
        for i in ids
    ]
    backend.ledger.keep_comparisons(kept)
    entries.delete(Selection(ids=(ids[1],)))
    (first,) = backend.ledger.take_comparisons(1)
    assert first == replace(kept[0], stored=_answer(entries, 1))
    assert [c.entry_id for c in backend.ledger.take_comparisons(10)] == [ids[2]]
    assert backend.ledger.take_comparisons(10) == []


def _answer(entries: Entries, number: int) -> Completion:
    entry = entries.exact(new(number).exact_key)
    assert entry is not None
    return entry.completion


def test_a_backend_says_what_it_is(backend: Backend) -> None:
    """A backend has a name; leases and maintenance are optional."""
    assert backend.name
    leases = backend.leases(lambda where, error: None)
    if leases is not None:
        assert leases.look(b"k") is None
    if backend.maintenance is not None:
        assert backend.maintenance.check().problems == []


def test_a_fork_is_waited_for(backend: Backend, serving: Serving) -> None:
    """Writes wait between `hold` and `let_go`, and continue afterwards."""
    entries = serving()
    backend.hold()
    done = threading.Event()

    def write() -> None:
        entries.record(new(1), None)
        done.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert not done.wait(0.1)
    backend.let_go()
    assert done.wait(10)
    assert backend.catalogue.count() == 1


def test_labels_of_a_namespace_or_of_entries_are_forgotten(
    backend: Backend, serving: Serving
) -> None:
    """With the hits that were served to the namespace, and the comparisons that wait."""
    entries, ledger = serving(), backend.ledger
    mine = entries.record(new(1, namespace="mine", tags=("t",)), direction(1))
    other = entries.record(new(2, tags=("t",)), direction(0, 1))
    third = entries.record(new(3), direction(0, 0, 1))
    ledger.observe(
        [
            replace(label(1), namespace="mine", entry_id=mine),
            replace(label(2), namespace="mine", entry_id=999),
            replace(label(3), entry_id=other),
            replace(label(4), entry_id=third),
        ],
        [replace(served("a", 999), namespace="mine"), served("b", other)],
    )
    assert ledger.forget(Selection(namespace="mine")) == 2
    assert [o.entry_id for _, o in ledger.observations_after(0, 9)] == [other, third]
    assert ledger.served_hit("a") is None
    assert ledger.served_hit("b") is not None
    assert ledger.forget(Selection(tag="t")) == 1
    assert [o.entry_id for _, o in ledger.observations_after(0, 9)] == [third]
    assert ledger.last_observation() >= 4, "numbers are not used again"
