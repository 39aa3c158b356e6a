"""What keeps a function from being cached is said, counted, and shown; a hit tells itself."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from semcache import Completion, ConfigError, FaultEvent, RequestError, SemanticCache
from semcache.telemetry import NotStoredEvent
from tests.helpers import Heard, open_cache


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def cache(tmp_path: Any, heard: Heard) -> Iterator[SemanticCache]:
    with open_cache(tmp_path / "cache", hooks=[heard]) as opened:
        yield opened


def chat(reason: str | None, **message: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "x", **message}, "finish_reason": reason}
    return {"object": "chat.completion", "choices": [choice]}


NOT_STORED = {
    "truncated": (chat("length"), "store_truncated=True"),
    "unfinished": (chat(None), "no finish reason"),
    "tool_calls": (chat("tool_calls"), "store_tool_calls=True"),
    "empty": (None, "None, or has no text"),
}


@pytest.mark.parametrize(("reason", "answer", "advice"), [(k, *v) for k, v in NOT_STORED.items()])
def test_the_first_answer_that_is_not_stored_is_reported(
    cache: SemanticCache, heard: Heard, reason: str, answer: Any, advice: str
) -> None:
    """With the function's name and what to do; the later ones are counted."""

    @cache.cached
    def ask(prompt: str) -> Any:
        return answer

    for _ in range(3):
        ask("hello")
    [event] = heard.of(NotStoredEvent)
    assert (event.function, event.reason) == (ask.__qualname__, reason)
    assert advice in event.advice
    assert ask.cache_info().not_stored == {reason: 3}
    [why] = cache.stats().without_hits.values()
    assert f"its answers are not stored ({reason})" in why


FAULTS: dict[str, tuple[Callable[[SemanticCache], Any], str, str]] = {
    "an answer": (
        lambda cache: cache.cached(lambda prompt: threading.Lock()),
        "codec",
        "has the type _thread.lock",
    ),
    "an argument": (
        lambda cache: cache.cached(prompt="prompt")(lambda prompt, lock=threading.Lock(): "x"),
        "request",
        "ignore=",
    ),
    "key": (
        lambda cache: cache.cached(key=lambda prompt: {}["user"])(lambda prompt: "x"),
        "request",
        "key= of",
    ),
    "namespace": (
        lambda cache: cache.cached(namespace=lambda prompt: {}["user"])(lambda prompt: "x"),
        "request",
        "namespace= of",
    ),
    "store_if": (
        lambda cache: cache.cached(store_if=lambda value: value["x"])(lambda prompt: "x"),
        "codec",
        "string indices",
    ),
}


@pytest.mark.parametrize(("made", "where", "says"), FAULTS.values(), ids=FAULTS)
def test_the_first_fault_of_a_function_is_a_warning(
    cache: SemanticCache,
    heard: Heard,
    caplog: pytest.LogCaptureFixture,
    made: Callable[[SemanticCache], Any],
    where: str,
    says: str,
) -> None:
    """Once, with the function and the reason; the calls go through, and are counted."""
    from semcache.telemetry import logging_hook

    ask = made(cache)
    with caplog.at_level(logging.WARNING, "semcache"):
        for _ in range(3):
            ask("hello")
        for event in heard.of(FaultEvent):
            logging_hook(event)
    assert [event.repeated for event in heard.of(FaultEvent)] == [False, True, True]
    [record] = caplog.records
    message = record.getMessage()
    assert f"fault in {where} of {ask.__qualname__}" in message
    assert says in message
    assert ask.cache_info().faults == 3
    assert cache.stats().without_hits.keys() == {ask.__qualname__}


def test_a_function_that_hits_is_not_listed(cache: SemanticCache) -> None:
    @cache.cached
    def ask(prompt: str) -> str:
        return "x"

    ask("hello"), ask("hello")
    stats = cache.stats()
    assert stats.functions[ask.__qualname__] == {"hit": 1, "miss": 1}
    assert stats.without_hits == {}


def test_a_function_asked_something_else_each_time_is_listed(cache: SemanticCache) -> None:
    """As one that is given the time."""

    @cache.cached(prompt="prompt")
    def ask(prompt: str, now: float) -> str:
        return "x"

    for now in range(3):
        ask("hello", now)
    assert cache.stats().without_hits == {
        ask.__qualname__: "3 calls, each with another question or other arguments"
    }


# ------------------------------------------------------------------------ telling a hit


def test_the_last_lookup_tells_a_hit_from_a_miss(cache: SemanticCache) -> None:
    """In each of the four shapes; a call that cannot be looked up has none."""

    @cache.cached(name="one")
    def function(prompt: Any) -> str:
        return "x"

    @cache.cached(name="two")
    async def coroutine(prompt: str) -> str:
        return "x"

    @cache.cached(name="three")
    def generator(prompt: str) -> Iterator[str]:
        yield "x"

    @cache.cached(name="four")
    async def async_generator(prompt: str) -> Any:
        yield "x"

    async def read() -> list[str | None]:
        tiers = []
        for _ in range(2):
            await coroutine("hello")
            tiers.append(tier(coroutine))
            _ = [chunk async for chunk in async_generator("hello")]
            tiers.append(tier(async_generator))
        return tiers

    def tier(ask: Any) -> str | None:
        found = ask.last_lookup()
        assert found is not None
        return found.tier  # type: ignore[no-any-return]

    assert function.last_lookup() is None
    for expected in (None, "exact"):
        function("hello")
        assert tier(function) == expected
        assert list(generator("hello")) == ["x"]
        assert tier(generator) == expected
    assert asyncio.run(read()) == [None, None, "exact", "exact"]
    function(object())
    assert function.last_lookup() is None


def test_each_thread_and_task_has_its_own_last_lookup(cache: SemanticCache) -> None:
    @cache.cached
    async def ask(prompt: str) -> str:
        await asyncio.sleep(0.01)
        return prompt

    async def one(prompt: str) -> str | None:
        await ask(prompt)
        found = ask.last_lookup()
        assert found is not None
        return found.query.question

    async def main() -> list[str | None]:
        return await asyncio.gather(*map(one, "abc"))

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_completion_tells_where_it_was_served_from(cache: SemanticCache) -> None:
    cache.put("where is my parcel now", Completion("x"))
    exact, near = cache.get("where is my parcel now"), cache.get("where is my parcel now ?")
    assert exact is not None
    assert near is not None
    assert (exact.served_from, near.served_from) == ("exact", "semantic")


def test_feedback_on_an_exact_hit_deletes_the_answer(cache: SemanticCache) -> None:
    """It is wrong for its own question; a right one stays."""
    calls: list[str] = []

    @cache.cached
    def ask(prompt: str) -> str:
        calls.append(prompt)
        return "x"

    ask("hello")
    assert not cache.feedback(ask.last_lookup() or "", correct=True)  # a miss served nothing
    ask("hello")
    hit = ask.last_lookup()
    assert hit is not None
    assert cache.feedback(hit, correct=True)
    assert len(cache) == 1
    assert cache.feedback(hit, correct=False)
    assert len(cache) == 0
    ask("hello")
    assert calls == ["hello", "hello"]
    with pytest.raises(RequestError, match=r"not a int.*last_lookup"):
        cache.feedback(5, correct=True)  # type: ignore[arg-type]


# --------------------------------------------------------------------- first mistakes


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda cache: cache.cached("gpt"), r"cached\(model='gpt'\)"),
        (lambda cache: cache.cached(modle="x"), "did you mean 'model'"),
        (lambda cache: cache.cached(key="prompt")(len), "key is 'prompt', not a function"),
        (lambda cache: cache.cached(store_if=True)(len), "store_if is True, not a function"),
    ],
)
def test_a_wrong_option_is_an_error_that_helps(
    cache: SemanticCache, make: Callable[[Any], Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make(cache)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda cache: cache.lookup("q", temperature=0), r"params=\{'temperature': 0\}"),
        (lambda cache: cache.lookup(prompt="q"), "first argument, without a name"),
        (lambda cache: cache.get("q", ttl=5), r"ttl is an argument of put\(\)"),
    ],
)
def test_a_wrong_argument_is_an_error_that_helps(
    cache: SemanticCache, call: Callable[[Any], Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        call(cache)
