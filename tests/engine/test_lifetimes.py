"""How long entries are kept and served: soft and sliding TTLs, quotas, sweeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semcache import Completion, ConfigError, Request, SemanticCache
from tests.helpers import Clock, open_cache

WORDS = "one two three four five six seven eight nine ten"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not come to pass within 10 s"
        time.sleep(0.01)


class Model:
    """Counts how often it was asked, by all four doors."""

    def __init__(self) -> None:
        self.asked = 0

    def _next(self) -> str:
        self.asked += 1
        return f"answer {self.asked}"

    def answer(self, cache: SemanticCache, prompt: str) -> str:
        return cache.answer(prompt, lambda _: Completion(self._next())).text

    def stream(self, cache: SemanticCache, prompt: str) -> str:
        def send(_: Request) -> Iterator[str]:
            yield from (self._next(), "!")

        return "".join(cache.stream(prompt, send)).rstrip("!")

    def aanswer(self, cache: SemanticCache, prompt: str) -> str:
        async def send(_: Request) -> Completion:
            return Completion(self._next())

        async def main() -> str:
            found = await cache.aanswer(prompt, send)
            await _others()
            return found.text

        return asyncio.run(main())

    def astream(self, cache: SemanticCache, prompt: str) -> str:
        async def send(_: Request) -> AsyncIterator[str]:
            yield self._next()
            yield "!"

        async def main() -> str:
            found = [chunk async for chunk in cache.astream(prompt, send)]
            await _others()
            return "".join(found).rstrip("!")

        return asyncio.run(main())


async def _others() -> None:
    """Until the tasks that were begun beside this one are done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


DOORS = ["answer", "stream", "aanswer", "astream"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("asked", [WORDS, f"{WORDS} please"], ids=["exact", "semantic"])
def test_past_its_soft_age_an_entry_is_served_while_it_is_renewed(
    tmp_path: Path, door: str, asked: str
) -> None:
    """Served once more, at once; the model is asked once, beside it; then the new one is."""
    clock, model = Clock(), Model()
    ask = getattr(model, door)
    with open_cache(tmp_path, ttl=100, stale_while_revalidate=50, clock=clock) as cache:
        assert ask(cache, WORDS) == "answer 1"
        clock.now += 99
        assert ask(cache, asked) == "answer 1"
        assert model.asked == 1
        clock.now += 2
        assert cache.lookup(asked).stale
        assert ask(cache, asked) == "answer 1"
        until(lambda: model.asked == 2)
        until(lambda: not cache.lookup(asked).stale)
        assert ask(cache, asked) == "answer 2"
        assert len(cache) == 1, "the stale one is gone"
        clock.now += 200
        assert ask(cache, asked) == "answer 3", "past its end it is not served at all"


def test_many_hits_on_a_stale_entry_renew_it_once(tmp_path: Path) -> None:
    """However many are served meanwhile."""
    clock, model = Clock(), Model()
    with open_cache(tmp_path, ttl=100, stale_while_revalidate=50, clock=clock) as cache:

        def slowly(_: Request) -> Completion:
            time.sleep(0.1 if model.asked else 0)
            return Completion(model._next())

        cache.answer(WORDS, slowly)
        clock.now += 120
        assert {cache.answer(WORDS, slowly).text for _ in range(20)} == {"answer 1"}
        until(lambda: not cache.lookup(WORDS).stale)
        time.sleep(0.3)
        assert model.asked == 2


def test_a_renewal_that_fails_leaves_the_stale_one(tmp_path: Path) -> None:
    """It is served on, until its end; the failure is a fault and nobody's exception."""
    clock = Clock()
    with open_cache(tmp_path, ttl=100, stale_while_revalidate=50, clock=clock) as cache:
        cache.put(WORDS, "old")
        clock.now += 120

        def failing(_: Request) -> Completion:
            raise ConnectionError("no model")

        assert cache.answer(WORDS, failing).text == "old"
        until(lambda: cache.stats().faults.get("background", 0) == 1)
        assert str(cache.get(WORDS)) == "old"
        clock.now += 31
        with pytest.raises(ConnectionError):
            cache.answer(WORDS, failing)


def test_what_is_served_slides(tmp_path: Path) -> None:
    """Each hit makes it good for its TTL again; what nobody asks for expires."""
    clock = Clock()
    with open_cache(tmp_path, ttl=100, sliding=True, clock=clock) as cache:
        cache.put(WORDS, "asked for")
        cache.put("quite another matter altogether", "forgotten")
        for _ in range(5):
            clock.now += 80
            assert str(cache.get(WORDS)) == "asked for"
            cache.flush()
        assert cache.get("quite another matter altogether") is None


def test_each_namespace_has_its_quota(tmp_path: Path) -> None:
    """A busy tenant evicts its own entries and no other's."""
    with open_cache(tmp_path, namespace_max_entries={"busy": 10}, max_entries=100) as cache:
        for number in range(30):
            cache.put(f"calm question {number}", "a", namespace="calm")
        for number in range(50):
            cache.put(f"busy question {number}", "a", namespace="busy")
            assert len(cache.entries(namespace="busy")) <= 10
        assert len(cache.entries(namespace="calm")) == 30
        assert cache.get("busy question 49", namespace="busy") is not None


def test_a_namespace_s_bytes_are_bounded(tmp_path: Path) -> None:
    """By the bytes of its texts and vectors; one that alone is too large is not stored."""
    with open_cache(tmp_path, namespace_max_bytes=20_000) as cache:
        for number in range(30):
            cache.put(f"question {number}", "word " * 100, namespace="n")
            assert cache._engine.backend.store.totals("n")[1] <= 20_000
        assert cache.put("large", "word " * 5_000, namespace="n") is None
        assert cache.stats().not_stored == {"too_large": 1}


def test_a_lowered_quota_is_reached_step_by_step(tmp_path: Path) -> None:
    """No record pays for all of it: each evicts a bounded number, until it holds."""
    with open_cache(tmp_path, semantic=False, embedder=None) as cache:
        for number in range(6_000):
            cache.put(f"question {number}", "a")
    with open_cache(tmp_path, semantic=False, embedder=None, max_entries=100) as cache:
        sizes = [len(cache)]
        while sizes[-1] > 100:
            cache.put(f"new question {len(sizes)}", "a")
            sizes.append(len(cache))
            assert sizes[-2] - sizes[-1] <= 8 * 256
        assert len(sizes) > 3


def test_what_has_expired_is_swept_in_steps(tmp_path: Path) -> None:
    """By whoever records, a bounded number at a time, until nothing is left."""
    clock = Clock()
    with open_cache(tmp_path, semantic=False, embedder=None, ttl=10, clock=clock) as cache:
        for number in range(1_000):
            cache.put(f"question {number}", "a")
        clock.now += 100
        sizes = [len(cache)]
        while sizes[-1] > 10:
            cache.put(f"later {len(sizes)}", "a")
            sizes.append(len(cache))
            assert sizes[-2] - sizes[-1] <= 256
        assert 4 <= len(sizes) <= 8


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_clock_that_steps_stops_no_sweep(tmp_path: Path, step: float) -> None:
    """Backwards or forwards: what has expired is not served, and goes in time."""
    clock = Clock()
    with open_cache(tmp_path, ttl=10, clock=clock) as cache:
        cache.put(WORDS, "a")
        clock.now += step
        assert (cache.get(WORDS) is None) == (step > 0)
        cache.put("another", "b")
        clock.now += 100
        cache.put("a third", "c")
        assert cache.get("another") is None
        assert {e.question for e in cache.entries()} <= {WORDS, "another", "a third"}
        assert "another" not in {e.question for e in cache.entries()}


@pytest.mark.parametrize(
    "options",
    [
        {"stale_while_revalidate": -1},
        {"namespace_max_entries": 0},
        {"namespace_max_bytes": {"n": -5}},
        {"vectors": "float64"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_setting_that_is_none_is_named(tmp_path: Path, options: dict[str, Any]) -> None:
    """With a word on what it is."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_cache(tmp_path, **options)
