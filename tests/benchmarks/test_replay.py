"""Replays and their figures, against cases worked out by hand."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bench import ready_embedder
from benchmarks.metrics import Outcome, figures, interval
from benchmarks.policies import Fixed, VCache
from benchmarks.replay import Remembering, Way, cut_at, replay
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from tests.helpers import hashing_embedder


def said(rows: list[Row], threshold: float = 0.9, **way: Any) -> dict[str, Any]:
    return figures(replay(rows, Fixed(threshold), hashing_embedder(), Way(**way)))


# ---------------------------------------------------------------------------- figures


def test_an_empty_stream() -> None:
    """No rate is made up where nothing was served."""
    found = figures([])
    assert (found["prompts"], found["hit_rate"], found["calls_made"]) == (0, 0.0, 0)
    assert found["false_hit_rate"] is None
    assert found["false_hit_interval"] is None


def test_an_all_wrong_stream() -> None:
    """Near in words, and each with an answer of its own: every hit is false."""
    rows = [
        Row(f"what is the price of item {i} in the shop today please", f"a{i}") for i in range(4)
    ]
    found = said(rows, 0.8)
    assert (found["prompts"], found["semantic_hits"], found["false_hits"]) == (4, 3, 3)
    assert found["false_hit_rate"] == 1.0
    assert found["error_rate"] == 0.75
    assert found["oracle_hit_rate"] == 0.0
    assert (found["calls_made"], found["calls_saved"]) == (1, 3)


def test_every_prompt_equal() -> None:
    """One call; all others are exact hits, and no semantic hit enters the false hit rate."""
    found = said([Row("hello there", "a")] * 5)
    assert (found["exact_hits"], found["semantic_hits"], found["calls_made"]) == (4, 0, 1)
    assert found["hit_rate"] == found["oracle_hit_rate"] == 0.8
    assert found["false_hit_rate"] is None
    assert found["error_rate"] == 0.0


def test_one_tenant_s_answer_offered_to_another() -> None:
    """The same words of two tenants never meet; if they did, it would be a false hit."""
    rows = [Row("opening hours please", "a", tenant=t) for t in ("one", "two", "one", "two")]
    found = said(rows, 0.5)
    assert (found["exact_hits"], found["semantic_hits"], found["across_tenants"]) == (2, 0, 0)
    assert found["oracle_hit_rate"] == 0.5
    crossed = figures([Outcome("k", "semantic", right=False, crossed=True)])
    assert (crossed["across_tenants"], crossed["false_hits"]) == (1, 1)


def test_equal_answers_of_two_tenants_are_not_the_same() -> None:
    """An answer id belongs to its tenant."""
    assert Row("p", "a", tenant="one").right != Row("p", "a", tenant="two").right


def test_by_kind_and_by_halves() -> None:
    """The parts add up to the whole."""
    rows = [
        Row(f"question number {i // 2} of many", f"{i // 2}", kind=f"k{i % 2}") for i in range(20)
    ]
    found = said(rows)
    for name in ("prompts", "exact_hits", "semantic_hits", "false_hits", "calls_made"):
        assert sum(part[name] for part in found["by_kind"].values()) == found[name]
        assert sum(part[name] for part in found["halves"]) == found[name]


def test_explorations_and_audits_are_calls() -> None:
    """Labels are never free."""
    found = figures(
        [
            Outcome("k", "miss"),
            Outcome("k", "explore", label=True, near_right=True),
            Outcome("k", "semantic", right=True, label=True, audit=True),
            Outcome("k", "exact", right=True),
        ]
    )
    assert (found["calls_made"], found["calls_saved"]) == (3, 1)
    assert (found["labels_bought"], found["audits"]) == (2, 1)


@pytest.mark.parametrize(
    ("wrong", "served", "expected"),
    [(0, 100, (0.0, 0.0362)), (100, 100, (0.9638, 1.0)), (2, 100, (0.0024, 0.0704))],
)
def test_the_interval(wrong: int, served: int, expected: tuple[float, float]) -> None:
    """Clopper and Pearson's, against tabled values."""
    assert interval(wrong, served) == pytest.approx(expected, abs=5e-4)


@given(st.integers(0, 50), st.integers(1, 50))
def test_the_interval_holds_the_rate(wrong: int, served: int) -> None:
    """Whatever was counted."""
    wrong = min(wrong, served)
    low, high = interval(wrong, served) or (1.0, 0.0)
    assert 0 <= low <= wrong / served <= high <= 1


# ---------------------------------------------------------------------------- replays


def test_conversations_are_scopes_unless_told_otherwise() -> None:
    """With the last message only, another conversation's answer is served, and is wrong."""
    one = ({"role": "user", "content": "about tents"},)
    two = ({"role": "user", "content": "about jackets"},)
    rows = [Row("how much is it", "tent", one), Row("how much is it", "jacket", two)]
    assert said(rows)["exact_hits"] == 0
    found = said(rows, last_message_only=True)
    assert (found["exact_hits"], found["false_exact_hits"], found["error_rate"]) == (1, 1, 0.5)
    assert found["false_hits"] == 0, "false hits are among semantic hits"


def test_the_stream_s_time_drives_the_clock() -> None:
    """An entry expires between two prompts of a stream."""
    rows = [Row("hello there", "a", at=at) for at in (0.0, 50.0, 101.0)]
    assert said(rows)["exact_hits"] == 2
    assert said(rows, options=(("ttl", 100.0),))["exact_hits"] == 1
    assert said(rows, options=(("ttl", 10.0),))["exact_hits"] == 0


def test_eviction_is_replayed() -> None:
    """A cache of one entry forgets."""
    rows = [
        Row("first question", "a"),
        Row("something else entirely", "b"),
        Row("first question", "a"),
    ]
    assert said(rows)["exact_hits"] == 1
    assert said(rows, options=(("max_entries", 1),))["exact_hits"] == 0


def test_two_runs_are_equal() -> None:
    """To the last hit and miss, for a policy that draws, too."""
    rows = read(SUPPORT)
    for make in (lambda: Fixed(0.6), lambda: VCache(0.3)):
        one, two = (replay(rows, make(), hashing_embedder()) for _ in range(2))
        assert one == two


def test_a_text_is_embedded_once() -> None:
    """However many policies are replayed."""
    counted: Counter[str] = Counter()
    inner = hashing_embedder()

    class Counting:
        fingerprint, dimension = inner.fingerprint, inner.dimension
        window, local = inner.window, inner.local
        load, count_tokens = inner.load, inner.count_tokens

        def embed(self, texts: Any) -> Any:
            counted.update(texts)
            return inner.embed(texts)

    rows = read(SUPPORT)[:200]
    embedder = Remembering(Counting())
    embedder.prepare([row.prompt for row in rows])
    for threshold in (0.7, 0.8, 0.9):
        replay(rows, Fixed(threshold), embedder)
    assert set(counted.values()) == {1}


def test_vcache_s_rule() -> None:
    """It explores until an entry has its labels; the more of them are right, the less then."""
    rule = VCache(0.05)
    assert rule.exploring(1, 0.99) == 1.0
    for similarity in (0.95, 0.93, 0.96):
        rule.learned(1, similarity, True)
    assert rule.exploring(1, 0.99) == 1.0, "five labels with the two given"
    for _ in range(40):
        rule.learned(1, 0.94, True)
    sure = rule.exploring(1, 0.99)
    assert sure < 1.0
    assert rule.exploring(1, 0.5) > sure
    assert rule.exploring(2, 0.99) == 1.0
    for similarity in (0.99, 0.98, 0.99, 0.97, 0.98, 0.99):
        rule.learned(3, similarity, False)
    assert rule.exploring(3, 0.99) > 0.9
    loose = VCache(0.5)
    for _ in range(43):
        loose.learned(1, 0.94, True)
    assert loose.exploring(1, 0.99) <= sure


# ---------------------------------------------------------------------------- streams


def test_streams_are_read(tmp_path: Path) -> None:
    """Plain and gzipped, with all fields or two."""
    lines = [
        {"prompt": "p", "answer_id": "a"},
        {
            "prompt": "q",
            "answer_id": "b#de",
            "meaning_id": "b",
            "tenant": "t",
            "t": 3,
            "kind": "k",
            "history": [{"role": "user", "content": "h"}],
        },
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    (tmp_path / "s.jsonl").write_text(text)
    with gzip.open(tmp_path / "s.jsonl.gz", "wt") as file:
        file.write(text)
    one, two = read(tmp_path / "s.jsonl")
    assert (one, two) == tuple(read(tmp_path / "s.jsonl.gz"))
    assert (one.tenant, one.at, one.kind, one.history) == ("default", None, "all", ())
    assert (two.tenant, two.at, two.kind, two.answer_id) == ("t", 3.0, "k", "b#de")
    assert read(tmp_path / "s.jsonl", by_meaning=True)[1].answer_id == "b"


@pytest.mark.parametrize(
    "line", ["nonsense", "[1]", '{"prompt": 1, "answer_id": "a"}', '{"prompt": "p"}']
)
def test_wrong_lines_are_named(tmp_path: Path, line: str) -> None:
    """With the file and the line's number."""
    (tmp_path / "s.jsonl").write_text('{"prompt": "p", "answer_id": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"s\.jsonl, line 2"):
        read(tmp_path / "s.jsonl")


def test_our_own_set() -> None:
    """At least 600 prompts of ours: every kind of near-miss, follow-ups, tenants, one-offs."""
    rows = read(SUPPORT)
    kinds = Counter(row.kind for row in rows)
    assert len({(r.tenant, r.prompt, json.dumps(r.history)) for r in rows}) >= 600
    wanted = {
        "paraphrase", "reworded", "number", "name", "negation", "role_swap", "unit", "date",
        "place", "language", "follow_up", "cross_tenant", "one_off", "repeat",
    }  # fmt: skip
    assert set(kinds) == wanted
    assert min(kinds.values()) >= 20
    assert len({row.tenant for row in rows}) == 5
    assert all(row.history for row in rows if row.kind == "follow_up")
    texts: dict[tuple[str, str, str], str] = {}
    for row in rows:
        key = (row.tenant, row.prompt, json.dumps(row.history))
        assert texts.setdefault(key, row.answer_id) == row.answer_id, "one text, one answer"


SANITY = {
    "s1_qqp": (0.200, 0.0568),
    "s2_tenants": (0.192, 0.0085),
    "s4_near_miss": (0.367, 0.2173),
}
"""Share of prompts served, and served wrongly, at 0.90: another program's replay."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["s4_near_miss"])
def test_a_replay_of_another_s_figures(streams: Path, embedder: DefaultEmbedder, name: str) -> None:
    """Last message only and exact search, texts cut where others cut them: within 0.3 points."""
    rows = read(streams / f"{name}.jsonl.gz")
    remembering = Remembering(embedder, cut_at(ready_embedder()._parts()[1], 128))
    remembering.prepare([row.prompt for row in rows])
    found = figures(
        replay(rows, Fixed(0.90), remembering, Way(last_message_only=True, exact_search=True))
    )
    hit, wrong = SANITY[name]
    assert found["hit_rate"] == pytest.approx(hit, abs=0.003)
    assert found["error_rate"] == pytest.approx(wrong, abs=0.003)
