"""The cache as its users see it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semcache import (
    Completion,
    ConfigError,
    FaultEvent,
    IndexMismatchError,
    LookupEvent,
    Matching,
    Miss,
    RecordEvent,
    RequestError,
    SemanticCache,
    StoreError,
    Usage,
)
from semcache.embedders.default import DefaultEmbedder
from tests.helpers import Clock, Heard, hashing_embedder, open_cache

WORDS = "how do I change the colour of my house door"


def test_a_miss_is_recorded_and_then_hit(cache: SemanticCache) -> None:
    """Miss, record, exact hit; nothing is embedded twice."""
    lookup = cache.lookup(WORDS, model="m")
    assert lookup.completion is None
    assert lookup.vector is not None
    entry = cache.record(lookup, "Paint it.")
    assert entry is not None
    again = cache.lookup(WORDS, model="m")
    assert (again.tier, again.similarity) == ("exact", 1.0)
    assert str(again.completion) == "Paint it."
    assert again.vector is None, "an exact hit embeds nothing"


def test_a_near_question_is_a_semantic_hit(cache: SemanticCache) -> None:
    """Nearly the same words are served, with their similarity; others are not."""
    cache.put(WORDS, "Paint it.", model="m")
    near = cache.lookup(WORDS + " please", model="m")
    assert near.tier == "semantic"
    assert near.similarity is not None
    assert 0.9 <= near.similarity < 1
    assert near.entry is not None
    far = cache.lookup("what is the capital of Peru", model="m")
    assert far.completion is None
    assert isinstance(far.decision, Miss)
    assert far.decision.reason == "below_threshold"


def test_the_real_model_finds_a_paraphrase(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """With the default embedder other words for the same thing are near, other things far."""
    with SemanticCache(tmp_path, embedder=embedder, threshold=0.8) as cache:
        cache.put("How do I reset my password?", "Open Settings.")
        assert cache.get("how can i reset my password") is not None
        assert cache.get("What is the tallest mountain?") is None


def test_completions_keep_what_is_known_of_them(cache: SemanticCache) -> None:
    """Usage, finish reason, provider and model come back."""
    answer = Completion("Hi", "stop", Usage(5, 7, 0.002), "openai", "gpt")
    cache.put("hello", answer)
    assert cache.get("hello") == answer
    stats = cache.stats()
    assert (stats.tokens_saved, stats.usd_saved) == (12, 0.002)


@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens"])
def test_truncated_answers_are_not_kept(cache: SemanticCache, reason: str) -> None:
    """An answer that was cut off is passed on, not stored, unless asked for."""
    assert cache.put("hello", Completion("Hi th", finish_reason=reason)) is None
    assert cache.get("hello") is None
    assert cache.stats().not_stored == {"truncated": 1}
    keeping = open_cache(cache.path, store_truncated=True)
    assert keeping.put("hello", Completion("Hi th", finish_reason=reason)) is not None
    keeping.close()


def test_answers_with_tool_calls_and_empty_ones_are_not_kept(cache: SemanticCache) -> None:
    """They are no answers to serve again."""
    assert cache.put("a", Completion("", has_tool_calls=True)) is None
    assert cache.put("a", Completion("x", finish_reason="tool_calls")) is None
    assert cache.put("a", "  ") is None
    assert cache.stats().not_stored == {"empty": 1, "tool_calls": 2}


def test_expired_entries_are_never_served(tmp_path: Path) -> None:
    """Neither exactly nor semantically, from the very second on."""
    clock = Clock()
    with open_cache(tmp_path, ttl=10, namespace_ttl={"slow": None}, clock=clock) as cache:
        cache.put(WORDS, "a")
        cache.put(WORDS, "b", namespace="slow")
        cache.put(WORDS, "c", namespace="call", ttl=3)
        clock.now += 3
        assert cache.get(WORDS, namespace="call") is None
        assert cache.get(WORDS) is not None
        clock.now += 6.9
        assert cache.get(WORDS + " please") is not None
        clock.now += 0.2
        assert cache.lookup(WORDS).decision == Miss("expired", "the stored answer has expired")
        assert cache.get(WORDS + " please") is None
        assert cache.get(WORDS, namespace="slow") is not None


def test_an_expired_neighbour_does_not_hide_a_fresh_one(tmp_path: Path) -> None:
    """Nearer entries that have expired are passed over."""
    clock = Clock()
    with open_cache(tmp_path, clock=clock, threshold=0.7) as cache:
        for number in range(10):
            cache.put(f"{WORDS} now {number}", "old", ttl=5)
        cache.put(WORDS + " again maybe", "fresh")
        clock.now += 6
        assert str(cache.get(WORDS + " now")) == "fresh"


@pytest.mark.parametrize("ttl", [-1, float("nan")])
def test_a_ttl_below_zero_is_refused_and_loses_nothing(cache: SemanticCache, ttl: float) -> None:
    """ConfigError; what was stored stays."""
    cache.put("hello", "Hi")
    with pytest.raises(ConfigError, match="ttl"):
        cache.put("hello", "other", ttl=ttl)
    assert str(cache.get("hello")) == "Hi"


def test_invalidation_by_every_condition(cache: SemanticCache) -> None:
    """Tag, namespace, model, ids: what is meant goes at once, in both tiers."""
    cache.put(WORDS, "1", tags=["doc-7"])
    cache.put("second thing", "2", namespace="a")
    cache.put("third thing", "3", model="m")
    entry = cache.put("fourth thing", "4")
    cache.put("fifth thing", "5")
    assert entry is not None
    assert cache.get(WORDS + " please") is not None
    assert cache.invalidate(tag="doc-7") == 1
    assert cache.get(WORDS + " please") is None
    assert cache.invalidate(namespace="a") == 1
    assert cache.invalidate(model="m") == 1
    assert cache.invalidate(ids=[entry.id, 999]) == 1
    assert len(cache) == 1
    with pytest.raises(ConfigError, match="condition"):
        cache.invalidate()
    assert cache.clear() == 1


@pytest.mark.parametrize(
    ("eviction", "kept"),
    [
        ("least-recently-used", {"q0", "q4"}),
        ("least-frequently-used", {"q1", "q4"}),
        ("oldest", {"q3", "q4"}),
    ],
)
def test_the_quota_is_kept_by_eviction(tmp_path: Path, eviction: str, kept: set[str]) -> None:
    """Four fit; the fifth and a smaller quota drive out those that the policy names."""
    clock = Clock()
    with open_cache(tmp_path, clock=clock) as cache:
        for number in range(4):
            clock.now += 1
            cache.put(f"q{number}", "a")
        for question, times in (("q1", 3), ("q0", 1)):
            for _ in range(times):
                clock.now += 1
                cache.get(question)
    with open_cache(tmp_path, clock=clock, max_entries=2, eviction=eviction) as cache:
        clock.now += 1
        cache.put("q4", "a")
        assert {entry.question for entry in cache.entries()} == kept


def test_a_quota_in_bytes_is_kept(tmp_path: Path) -> None:
    """However large the answers are, the sum stays under the quota."""
    with open_cache(tmp_path, max_bytes=20_000) as cache:
        for number in range(60):
            cache.put(f"question {number}", "x" * 1000)
        assert 5 < len(cache) < 20
        assert cache.stats().entry_bytes <= 20_000
        assert cache.get("question 59") is not None


def test_every_lookup_and_record_is_an_event(tmp_path: Path) -> None:
    """Tier, reason and entry, but neither prompt nor answer."""
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard]) as cache:
        cache.put(WORDS, "secret answer")
        cache.get(WORDS)
        cache.get(WORDS + " please")
        cache.get("else")
    tiers = [event.tier for event in heard.of(LookupEvent)]
    assert tiers == [None, "exact", "semantic", None]
    assert [event.reason for event in heard.of(RecordEvent)] == ["stored"]
    assert "secret" not in str(heard.events)
    assert "colour" not in str(heard.events)


def test_a_failing_hook_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and passed over."""

    def broken(event: object) -> None:
        raise RuntimeError("hook")

    with open_cache(tmp_path, hooks=[broken]) as cache:
        assert cache.get("x") is None
    assert "hook" in caplog.text


def test_counters_survive_and_add_up(tmp_path: Path) -> None:
    """Two openings, one sum."""
    for _ in range(2):
        with open_cache(tmp_path) as cache:
            cache.put("hello", "Hi")
            cache.get("hello")
            cache.get("unknown words")
    with open_cache(tmp_path) as cache:
        stats = cache.stats()
        assert (stats.exact_hits, stats.records) == (2, 2)
        assert stats.misses == {"bypassed": 2, "below_threshold": 2}
        assert cache.entries()[0].hits == 1


def test_explain_shows_everything_and_changes_nothing(cache: SemanticCache) -> None:
    """Scope, candidates at any similarity, decision; no counter moves."""
    cache.put(WORDS, "a", model="m", params={"temperature": 0.5})
    before = cache.stats()
    found = cache.explain(WORDS + " please", model="m", params={"temperature": 0.5})
    assert found.tier == "semantic"
    assert found.query.scope.parts["params"] == {"temperature": 0.5}
    assert found.neighbours[0].similarity > 0.9
    far = cache.explain("capital of Peru", model="m", params={"temperature": 0.5})
    assert len(far.neighbours) == 1
    assert far.tier is None
    assert cache.stats() == before


def test_long_prompts_use_the_exact_tier_and_explain_says_so(
    tmp_path: Path, embedder: DefaultEmbedder
) -> None:
    """Two long prompts that begin alike are not one; in chunks all of them counts."""
    start = "The terms of the contract between the parties are as follows. " * 60
    one, two = start + "Who pays for repairs?", start + "List all the birds of Australia. " * 40
    with SemanticCache(tmp_path / "exact", embedder=embedder, threshold=0.9) as cache:
        cache.put(one, "the tenant")
        assert str(cache.get(one)) == "the tenant"
        assert cache.get(two) is None
        assert cache.lookup(two).vector is None
        assert "longer than the embedder's window" in cache.explain(two).notes[0]
    with SemanticCache(
        tmp_path / "chunks",
        embedder=embedder,
        threshold=0.98,
        matching=Matching(long_prompts="chunks"),
    ) as cache:
        cache.put(one, "the tenant")
        assert cache.get(two) is None
        assert cache.lookup(one + " Thanks.").tier == "semantic"


def test_another_embedder_is_refused(tmp_path: Path, cache: SemanticCache) -> None:
    """The error names both and says how to re-embed; nothing is lost."""
    cache.put("hello", "Hi")
    with pytest.raises(IndexMismatchError, match=r"hashed.*other.*semcache reembed") as caught:
        open_cache(cache.path, embedder=hashing_embedder(name="other"))
    assert caught.value.stored == "function/hashed/512"
    with pytest.raises(IndexMismatchError):
        SemanticCache(cache.path)
    assert str(cache.get("hello")) == "Hi"


def test_the_exact_tier_alone_needs_no_embedder(tmp_path: Path) -> None:
    """semantic=False embeds nothing and serves exact repeats."""
    with SemanticCache(tmp_path, matching=Matching(semantic=False)) as cache:
        cache.put("hello", "Hi")
        assert str(cache.get("hello")) == "Hi"
        assert cache.lookup("hello there").decision.reason == "semantic_off"


def test_async_doors(cache: SemanticCache) -> None:
    """aget, aput, alookup and arecord do what their twins do."""

    async def main() -> None:
        await cache.aput("hello", "Hi")
        assert str(await cache.aget("hello")) == "Hi"
        lookup = await cache.alookup("new words here")
        assert await cache.arecord(lookup, "New") is not None
        assert str(await cache.aget("new words here")) == "New"

    asyncio.run(main())


def test_answer_and_stream_doors(cache: SemanticCache) -> None:
    """answer, aanswer, stream and astream ask once and serve from then on."""
    asked: list[str] = []

    def send(request: Any) -> Completion:
        asked.append("answer")
        return Completion("Hi")

    def chunks(request: Any) -> Any:
        asked.append("stream")
        yield from ("a", "b")

    async def asend(request: Any) -> Completion:
        return send(request)

    async def achunks(request: Any) -> Any:
        for chunk in ("x", "y"):
            yield chunk

    async def main() -> None:
        assert str(await cache.aanswer("hello", asend)) == "Hi"
        assert [c async for c in cache.astream("two", achunks)] == ["x", "y"]
        assert [c async for c in cache.astream("two", achunks)] == ["x", "y"]

    for _ in range(2):
        assert cache.answer("hello", send) == Completion("Hi")
        assert list(cache.stream("count", chunks)) == ["a", "b"]
    asyncio.run(main())
    assert asked == ["answer", "stream"]
    assert list(cache.stream("hello", chunks)) == ["Hi"], "an answer streams as one chunk"


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 2},
        {"embedder": 7},
        {"context": "some"},
        {"long_prompts": "cut"},
        {"embed_timeout": 0},
        {"busy_timeout": -1},
        {"ignore": "temperature"},
        {"ttl": -5},
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Each with a ConfigError that names the setting."""
    with pytest.raises(ConfigError):
        open_cache(tmp_path, **options)


def test_a_path_that_cannot_be_a_cache_is_said(tmp_path: Path) -> None:
    """A file, a directory that cannot be made, or no name at all."""
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        open_cache(file)
    with pytest.raises(ConfigError, match="empty"):
        SemanticCache("")
    with pytest.raises(StoreError, match="Cannot create the cache directory"):
        open_cache(file / "below")


@pytest.mark.parametrize("answer", [None, 7, b"x", {"a": 1}])
def test_an_answer_that_is_none_is_refused(cache: SemanticCache, answer: Any) -> None:
    """Text or a Completion; else RequestError, before anything is done."""
    with pytest.raises(RequestError, match="answer"):
        cache.put("hello", answer)
    assert len(cache) == 0


def test_many_threads_use_one_cache(tmp_path: Path) -> None:
    """Lookups, records and deletes on 8 threads: no fault, and what is left is right."""
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard], exact_below=40, threshold=0.99) as cache:

        def work(number: int) -> None:
            for turn in range(30):
                prompt = f"thread {number} asks thing {turn}"
                cache.put(prompt, prompt)
                assert str(cache.get(prompt)) == prompt
                if turn % 3 == 0:
                    entry = cache.lookup(prompt).entry
                    assert entry is not None
                    cache.invalidate(ids=[entry.id])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not heard.of(FaultEvent)
        assert len(cache) == 8 * 20
        for entry in cache.entries(limit=50):
            assert entry.question == entry.completion.text


def test_the_most_recent_hit_counts_for_eviction(tmp_path: Path) -> None:
    """Though counters are written behind, what was just hit is not evicted."""
    with open_cache(tmp_path, max_entries=3) as cache:
        for name in ("a", "b", "c"):
            cache.put(name, "x")
        cache.get("a")
        cache.put("d", "x")
        assert {entry.question for entry in cache.entries()} == {"a", "c", "d"}


def test_expired_entries_go_before_live_ones(tmp_path: Path) -> None:
    """A quota is filled with what can still be served."""
    clock = Clock()
    with open_cache(tmp_path, max_entries=3, clock=clock) as cache:
        cache.put("live", "x")
        clock.now += 1
        cache.put("dead", "x", ttl=5)
        cache.put("also", "x")
        clock.now += 10
        cache.put("new", "x")
        assert {entry.question for entry in cache.entries()} == {"live", "also", "new"}


def test_an_entry_larger_than_the_quota_is_not_kept(tmp_path: Path) -> None:
    """It would drive out all the others."""
    with open_cache(tmp_path, max_bytes=50_000) as cache:
        for number in range(10):
            cache.put(f"question {number}", "x" * 500)
        assert cache.put("huge", "x" * 100_000) is None
        assert len(cache) == 10
        assert cache.stats().not_stored == {"too_large": 1}


def test_invalidation_spells_tags_as_they_are_stored(cache: SemanticCache) -> None:
    """Unicode form and blanks at the ends do not matter."""
    cache.put("hello", "Hi", tags=["e\u0301 "], model="gpt", namespace="n")
    assert cache.invalidate(tag="\u00e9", model="gpt", namespace="n") == 1


@pytest.mark.parametrize(
    "name", ["n ", " n", "n\xa0", "\u3000n", "e\u0301", "n\n", "a\x00b", "a\u2028b"]
)
@pytest.mark.parametrize("what", ["namespace", "model"])
def test_names_that_are_not_in_their_normal_form_are_refused(
    cache: SemanticCache, what: str, name: str
) -> None:
    """They are never merged with those that look the same."""
    with pytest.raises(RequestError, match=what):
        cache.put("hello", "Hi", **{what: name})
    with pytest.raises(RequestError, match=what):
        cache.get("hello", **{what: name})


def test_developer_messages_are_instructions(cache: SemanticCache) -> None:
    """Under context="none" another instruction is still another scope."""

    def told(role: str) -> list[dict[str, str]]:
        return [
            {"role": "developer", "content": f"You are a {role}."},
            {"role": "user", "content": "hi"},
        ]

    cache.put(None, "arr", messages=told("pirate"), context="none")
    assert cache.get(messages=told("lawyer"), context="none") is None
    assert cache.get(messages=told("pirate"), context="none") is not None


def test_an_embedders_vectors_are_made_unit(tmp_path: Path) -> None:
    """A protocol's embedder that forgets to normalise cannot make a wrong similarity."""

    class Loud:
        fingerprint, dimension, window, local = "loud", 512, None, True

        def load(self) -> None: ...

        def count_tokens(self, text: str) -> int:
            return 1

        def embed(self, texts: Any) -> Any:
            return hashing_embedder().embed(texts) * 3

    with open_cache(tmp_path, embedder=Loud(), threshold=0.9) as cache:
        cache.put("one two three", "x")
        lookup = cache.lookup("one other words entirely")
        assert lookup.completion is None
        assert lookup.similarity is not None
        assert lookup.similarity < 0.5


def test_explain_decides_as_lookup_does(tmp_path: Path) -> None:
    """Also where the nearest has expired and a fresh one stands behind it."""
    clock = Clock()
    with open_cache(tmp_path, clock=clock, threshold=0.7) as cache:
        for number in range(10):
            cache.put(f"{WORDS} now {number}", "old", ttl=5)
        cache.put(WORDS + " again maybe", "fresh")
        cache.put("the very same", "old", ttl=5)
        clock.now += 6
        for prompt in (WORDS + " now", WORDS + " now 3", "the very same", "nothing like it"):
            explained, found = cache.explain(prompt, k=3), cache.lookup(prompt)
            assert explained.decision == found.decision
            assert explained.tier == found.tier
            assert len(explained.neighbours) <= 3


def test_recording_after_an_exact_hit_keeps_the_vector(cache: SemanticCache) -> None:
    """A better answer to the same request is still found by meaning."""
    cache.put(WORDS, "first")
    cache.record(cache.lookup(WORDS), "second")
    found = cache.lookup(WORDS + " please")
    assert (found.tier, str(found.completion)) == ("semantic", "second")


def test_an_entry_whose_eviction_fails_is_stored_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is said to be stored; the fault is an event."""
    heard = Heard()
    with open_cache(tmp_path, max_entries=1, hooks=[heard]) as cache:
        cache.put("one", "1")

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise StoreError("no")

        monkeypatch.setattr(cache._engine.backend.store, "evict", broken)
        assert cache.put("two", "2") is not None
        assert str(cache.get("two")) == "2"
    assert [event.where for event in heard.of(FaultEvent)] == ["record"]


def test_puts_are_no_misses(cache: SemanticCache) -> None:
    """The hit rate counts what could have been served."""
    for number in range(10):
        cache.put(f"question {number}", "x")
    cache.get("question 3")
    assert cache.stats().hit_rate == 1.0


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"audit": 0.1}, TypeError, "trust=Trust(audit=0.1)"),
        ({"max_false_hitrate": 0.1}, TypeError, "did you mean 'max_false_hit_rate'?"),
        ({"zzz": 1}, TypeError, "no argument 'zzz'."),
        ({"trust": {"audit": 0.1}}, ConfigError, "trust=Trust(...)"),
        ({"judge": "gpt"}, ConfigError, "judge is 'gpt'"),
        ({"path": None}, ConfigError, "give a directory"),
    ],
)
def test_a_wrong_option_says_what_to_write(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Where the option is, what it is called, or what it takes."""
    options: dict[str, Any] = {"path": tmp_path / "never", **given}
    with pytest.raises(error, match=re.escape(words)):
        SemanticCache(**options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: c.lookup("q", namepsace="n"), TypeError, "did you mean 'namespace'?"),
        (lambda c: c.get("q", temperature=0), TypeError, "params={'temperature': 0}"),
        (lambda c: c.record("q", "answer"), RequestError, "call put(prompt, answer)"),
        (lambda c: c.get("q", messages=[]), RequestError, "both are given"),
        (lambda c: c.get(), RequestError, "neither is given"),
    ],
)
def test_a_wrong_call_says_what_to_write(
    cache: SemanticCache, call: Callable[[Any], Any], error: type[Exception], words: str
) -> None:
    """The argument that was meant, or where it goes."""
    with pytest.raises(error, match=re.escape(words)):
        call(cache)


def test_a_cache_is_an_async_context_manager(tmp_path: Path) -> None:
    """Leaving it closes the cache."""

    async def use() -> SemanticCache:
        async with open_cache(tmp_path) as cache:
            await cache.aput("hello", "hi")
        return cache

    cache = asyncio.run(use())
    heard = cache.put("again", "hi")
    assert heard is None, "a closed cache stores nothing"
