"""Read by mypy, never run: the decorator keeps every signature and return type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

from semcache import (
    Cached,
    CacheInfo,
    Chunk,
    Completion,
    Entry,
    Explanation,
    Lookup,
    SemanticCache,
)
from semcache.router import Router

cache = SemanticCache("cache")


@cache.cached(model="m", namespace="n", ttl=3600)
def function(prompt: str, *, style: int = 0) -> list[int]:
    return [len(prompt) + style]


@cache.cached()
async def coroutine(prompt: str) -> str:
    return prompt


@cache.cached()
def generator(prompt: str) -> Iterator[str]:
    yield prompt


@cache.cached()
async def async_generator(prompt: str) -> AsyncIterator[bytes]:
    yield prompt.encode()


class Bot:
    @cache.cached(prompt="question")
    def ask(self, question: str) -> int:
        return len(question)


assert_type(function("a", style=1), list[int])
assert_type(function.refresh("a"), list[int])
assert_type(function.bypass("a"), list[int])
assert_type(function.lookup("a"), Lookup)
assert_type(generator("a"), Iterator[str])
assert_type(async_generator("a"), AsyncIterator[bytes])

function(1)  # type: ignore[arg-type]
function("a", tone=1)  # type: ignore[call-arg]


async def use() -> None:
    waiting = assert_type(coroutine("a"), Coroutine[Any, Any, str])
    assert_type(await waiting, str)
    async for chunk in async_generator("a"):
        assert_type(chunk, bytes)


def takes(cached: Cached[..., list[int]]) -> None: ...


takes(function)

lookup = cache.lookup("a", model="m", params={"temperature": 0})
assert_type(lookup, Lookup)
assert_type(lookup.completion, Completion | None)
assert_type(cache.record(lookup, "b", ttl=5), Entry | None)
assert_type(cache.get(messages=[{"role": "user", "content": "a"}]), Completion | None)
cache.lookup("a", modle="m")  # type: ignore[call-arg]


# ------------------------------------------------------------------------- the router


def routed(router: Router, cache: SemanticCache) -> None:
    """Answers and streams, with and without a cache in front."""
    assert_type(router.complete("hello", task_type="general"), Completion)
    assert_type(list(router.stream("hello")), list[Chunk])
    assert_type(cache.answer("hello"), Completion)
    assert_type(list(cache.stream("hello")), list[str])
    ask = cache.cached()(router.complete)
    assert_type(ask("hello"), Completion)


async def arouted(router: Router, cache: SemanticCache) -> None:
    """The same for tasks."""
    assert_type(await router.acomplete(messages=[{"role": "user", "content": "hi"}]), Completion)
    assert_type([chunk async for chunk in router.astream("hello")], list[Chunk])
    assert_type(await cache.aanswer("hello"), Completion)
    assert_type([piece async for piece in cache.astream("hello")], list[str])


# ---- methods, bound and by their class


@dataclass(frozen=True)
class FrozenBot:
    style: str = "s"

    @cache.cached
    def ask(self, question: str) -> int:
        return len(question)

    @cache.cached
    async def aask(self, question: str) -> int:
        return len(question)

    @staticmethod
    @cache.cached
    def of_none(question: str) -> int:
        return len(question)


frozen = FrozenBot()
assert_type(frozen.ask("q"), int)
waiting = assert_type(frozen.aask("q"), Coroutine[Any, Any, int])
assert_type(frozen.ask.refresh("q"), int)
assert_type(frozen.ask.bypass("q"), int)
assert_type(frozen.ask.lookup("q"), Lookup)
assert_type(frozen.ask.explain("q"), Explanation)
assert_type(frozen.ask.cache_info(), CacheInfo)
assert_type(FrozenBot.ask(frozen, "q"), int)
assert_type(FrozenBot.of_none("q"), int)
frozen.ask(1)  # type: ignore[arg-type]
frozen.ask("q", tone=1)  # type: ignore[call-arg]
