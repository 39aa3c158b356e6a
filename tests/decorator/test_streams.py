"""A stream runs as it would without a cache: in its caller's thread and context, closed when left.

What others get of it meanwhile is in `test_waiting`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from semcache import SemanticCache

language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="none")


def in_loop(test: Callable[..., Any]) -> Callable[..., Any]:
    """An async test, run to its end."""

    @functools.wraps(test)
    def run(cache: SemanticCache) -> None:
        asyncio.run(test(cache))

    return run


class SDKStream:
    """The stream that a client returns: an iterator with a connection to close."""

    def __init__(self, pieces: int = 3) -> None:
        self.left = list(range(pieces))
        self.closed = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.left:
            raise StopIteration
        return str(self.left.pop(0))

    def close(self) -> None:
        self.closed += 1


class AsyncSDKStream(SDKStream):
    """Likewise of an async client."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return str(self.left.pop(0))

    async def close(self) -> None:  # type: ignore[override]
        self.closed += 1


# ------------------------------------------------------------------------ thread and context


def in_thread(call: Callable[[], Any]) -> list[Any]:
    """What a call on another thread returns, once `join` has been called on it."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(call()), daemon=True)
    thread.start()
    return [thread, got]


def test_a_generator_keeps_the_thread_of_its_reader(cache: SemanticCache) -> None:
    """Although another thread reads along: what belongs to a thread may be held over a `yield`."""
    threads: list[int] = []
    joined = threading.Event()

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        lock = threading.RLock()
        with lock:
            for piece in "abcdef":
                threads.append(threading.get_ident())
                yield piece

    stream = ask("q")
    first = next(stream)
    thread, got = in_thread(lambda: [joined.set(), list(ask("q"))][1])
    joined.wait(5)
    whole = first + "".join(stream)
    thread.join(5)
    assert whole == "abcdef"
    assert got == [list("abcdef")]
    assert set(threads) == {threading.get_ident()}
    assert len(threads) == 6


def test_a_generator_that_is_read_slowly_stays_in_its_thread(cache: SemanticCache) -> None:
    """Others who ask meanwhile get a stream of their own."""
    threads: dict[int, list[int]] = {}

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        mine = threads.setdefault(len(threads), [])
        lock = threading.RLock()
        with lock:
            for piece in "abcdef":
                mine.append(threading.get_ident())
                yield piece

    stream = ask("q")
    next(stream)
    others = [in_thread(lambda: list(ask("q"))) for _ in range(3)]
    for thread, got in others:
        thread.join(5)
        assert got == [list("abcdef")]
    assert "".join(stream) == "bcdef"
    assert all(len(set(mine)) == 1 for mine in threads.values())
    assert set(threads[0]) == {threading.get_ident()}


def test_a_clients_stream_that_is_read_slowly_is_read_by_another_thread(
    cache: SemanticCache,
) -> None:
    """The streams of clients do not care, and the model is called once."""
    made: list[SDKStream] = []

    @cache.cached
    def ask(prompt: str, stream: bool = True) -> Any:
        made.append(SDKStream())
        return made[-1]

    stream = ask("q")
    next(stream)
    others = [in_thread(lambda: list(ask("q"))) for _ in range(3)]
    for thread, got in others:
        thread.join(5)
        assert got == [["0", "1", "2"]]
    assert list(stream) == ["1", "2"]
    assert len(made) == 1


def test_who_follows_a_generator_that_is_left_gets_the_rest(cache: SemanticCache) -> None:
    """A thread of the stream's own runs it to its end."""
    calls: list[str] = []
    first, left = threading.Event(), threading.Event()

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        calls.append(prompt)
        yield from "abcdef"

    def follow() -> list[str]:
        stream = ask("q")
        pieces = [next(stream)]
        first.set()
        left.wait(5)
        return pieces + list(stream)

    stream = ask("q")
    next(stream)
    thread, got = in_thread(follow)
    while not first.wait(0.01):
        next(stream, None)
    stream.close()  # type: ignore[attr-defined]
    left.set()
    thread.join(5)
    assert got == [list("abcdef")]


def test_a_generator_runs_in_the_context_of_its_reader(cache: SemanticCache) -> None:
    """What it sets is seen by its caller, and the other way round."""
    seen: list[str] = []

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        for piece in "ab":
            seen.append(language.get())
            language.set(piece)
            yield piece

    def run() -> None:
        stream = ask("q")
        next(stream)
        assert language.get() == "a"
        language.set("mine")
        list(stream)
        assert language.get() == "b"

    contextvars.copy_context().run(run)
    assert seen == ["none", "mine"]


# --------------------------------------------------------------------------- left before its end


LEAVING: dict[str, Callable[[Any], Any]] = {
    "close at once": lambda stream: stream.close(),
    "close after a piece": lambda stream: (next(stream), stream.close()),
    "with": lambda stream: stream.__enter__() and stream.__exit__(None, None, None),
    "dropped at once": lambda stream: None,
    "dropped after a piece": lambda stream: next(stream),
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_a_stream_that_is_left_is_closed(cache: SemanticCache, leave: Callable[[Any], Any]) -> None:
    """And nobody waits for it: the next call asks the model, at once."""
    made: list[SDKStream] = []

    @cache.cached
    def ask(prompt: str, stream: bool = False) -> Any:
        if not stream:
            return "whole"
        made.append(SDKStream())
        return made[-1]

    leave(ask("q", stream=True))
    gc.collect()
    assert made[0].closed == 1
    start = time.monotonic()
    assert ask("q") == "whole"
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_async_stream_that_is_left_is_closed(
    cache: SemanticCache, pieces: int, how: str
) -> None:
    """Likewise."""
    made: list[AsyncSDKStream] = []

    @cache.cached
    async def ask(prompt: str, stream: bool = False) -> Any:
        if not stream:
            return "whole"
        made.append(AsyncSDKStream())
        return made[-1]

    async def main() -> Any:
        stream: Any = await ask("q", stream=True)
        for _ in range(pieces):
            await anext(stream)
        if how == "close":
            await stream.close()
        del stream
        gc.collect()
        await asyncio.sleep(0.05)
        assert made[0].closed == 1
        return await asyncio.wait_for(ask("q"), 2)  # type: ignore[arg-type]

    assert asyncio.run(main()) == "whole"


def test_a_follower_that_never_reads_does_not_keep_the_stream(cache: SemanticCache) -> None:
    made: list[SDKStream] = []

    @cache.cached
    def ask(prompt: str, stream: bool = True) -> Any:
        made.append(SDKStream())
        return made[-1]

    first = ask("q")
    second = ask("q")
    assert len(made) == 1
    second.close()
    first.close()
    assert made[0].closed == 1


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_plain_call_does_not_wait_for_who_reads_slowly(cache: SemanticCache, pieces: int) -> None:
    """A generator's reader may come again, or not: the caller asks the model soon."""
    made: list[str] = []

    @cache.cached(name="one")
    def pieces_of(prompt: str) -> Iterator[str]:
        made.append("stream")
        yield from ["a", "b", "c"]

    @cache.cached(name="one")
    def whole(prompt: str) -> str:
        made.append("whole")
        return "abc"

    stream = pieces_of("q")
    for _ in range(pieces):
        next(stream)
    thread, got = in_thread(lambda: whole("q"))
    thread.join(5)
    assert got == ["abc"]
    assert made == ["stream", "whole"] if pieces else ["whole"]


def test_a_plain_call_takes_a_clients_stream_that_is_read_slowly(cache: SemanticCache) -> None:
    """As fast as the model sends it."""
    made: list[str] = []

    @cache.cached
    def ask(prompt: str, stream: bool = False) -> Any:
        made.append("stream" if stream else "whole")
        return iter(["a", "b"]) if stream else "ab"

    reading = ask("q", stream=True)
    next(reading)
    thread, got = in_thread(lambda: ask("q"))
    thread.join(5)
    assert got == ["ab"]
    assert made == ["stream"]


@in_loop
async def test_an_async_plain_call_does_not_wait_for_who_reads_slowly(
    cache: SemanticCache,
) -> None:
    """Likewise."""
    made: list[str] = []

    @cache.cached(name="one")
    async def pieces_of(prompt: str) -> AsyncIterator[str]:
        made.append("stream")
        for piece in "abc":
            yield piece

    @cache.cached(name="one")
    async def whole(prompt: str) -> str:
        made.append("whole")
        return "abc"

    stream = pieces_of("q")
    await anext(stream)
    got = await asyncio.wait_for(asyncio.create_task(whole("q")), 5)  # type: ignore[arg-type]
    assert got == "abc"
    assert made == ["stream"]


@in_loop
async def test_an_error_when_an_async_generator_is_closed_is_raised(cache: SemanticCache) -> None:
    """As without a cache."""

    @cache.cached
    async def ask(prompt: str) -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            raise OSError("cannot close")

    stream = ask("q")
    await anext(stream)
    with pytest.raises(OSError, match="cannot close"):
        await stream.aclose()  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------- what is sent in


def test_a_value_sent_into_a_hit_reaches_the_function(cache: SemanticCache) -> None:
    """What is stored does not depend on it, so that the function is called."""
    calls: list[str] = []

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        calls.append(prompt)
        sent = yield "one"
        yield f"two {sent}"
        yield "three"

    assert list(ask("q")) == ["one", "two None", "three"]
    stream: Any = ask("q")
    assert next(stream) == "one"
    assert stream.send("now") == "two now"
    assert list(stream) == ["three"]
    assert calls == ["q", "q"]
    assert list(ask("q")) == ["one", "two None", "three"]


@in_loop
async def test_a_value_sent_into_an_async_hit_reaches_the_function(cache: SemanticCache) -> None:
    """Likewise."""
    calls: list[str] = []

    @cache.cached
    async def ask(prompt: str) -> Any:
        calls.append(prompt)
        sent = yield "one"
        yield f"two {sent}"
        yield "three"

    assert [piece async for piece in ask("q")] == ["one", "two None", "three"]
    stream: Any = ask("q")
    assert await anext(stream) == "one"
    assert await stream.asend("now") == "two now"
    assert [piece async for piece in stream] == ["three"]
    assert calls == ["q", "q"]


def test_a_value_sent_by_a_second_reader_concerns_this_one_only(cache: SemanticCache) -> None:
    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        sent = yield "one"
        yield f"two {sent}"
        yield "three"

    first, second = ask("q"), ask("q")
    assert (next(first), next(second)) == ("one", "one")
    assert second.send("now") == "two now"  # type: ignore[attr-defined]
    assert list(first) == ["two None", "three"]
    assert list(second) == ["three"]


@pytest.mark.parametrize("send", [True, False])
def test_a_value_sent_by_the_first_reader_concerns_this_one_only(
    cache: SemanticCache, send: bool
) -> None:
    """Also if others have read further."""

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        sent = yield "one"
        yield f"two {sent}"
        yield "three"

    first, second = ask("q"), ask("q")
    assert (next(first), next(second)) == ("one", "one")
    assert next(second) == "two None"
    if send:
        assert first.send("now") == "two now"  # type: ignore[attr-defined]
    assert list(second) == ["three"]
    assert list(first) == (["three"] if send else ["two None", "three"])


# ------------------------------------------------------------------ event loops that have ended


@pytest.mark.parametrize("close", [True, False])
def test_a_stream_of_a_loop_that_has_ended_holds_nobody_up(
    cache: SemanticCache, close: bool
) -> None:
    """Half read, and never closed."""
    made: list[AsyncSDKStream] = []

    @cache.cached
    async def ask(prompt: str, stream: bool = False) -> Any:
        if not stream:
            return "whole"
        made.append(AsyncSDKStream())
        return made[-1]

    kept: list[Any] = []

    async def half() -> None:
        stream: Any = await ask("q", stream=True)
        kept.append((stream, await anext(stream)))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(half())
    if close:
        loop.close()
    start = time.monotonic()
    assert asyncio.run(asyncio.wait_for(ask("q"), 5)) == "whole"  # type: ignore[arg-type]
    assert time.monotonic() - start < 2
    loop.close()


# ----------------------------------------------------------------------------- waiting for itself


def test_a_coroutine_may_ask_itself_by_a_thread_of_an_executor(cache: SemanticCache) -> None:
    """The inner call finds out soon that it would wait for itself."""
    calls: list[str] = []

    @cache.cached
    async def ask(prompt: str) -> str:
        calls.append(prompt)
        if len(calls) > 1:
            return "deep"
        loop = asyncio.get_running_loop()
        inner: Any = ask
        return str(await loop.run_in_executor(None, lambda: asyncio.run(inner(prompt))))

    async def main() -> str:
        return await asyncio.wait_for(ask("q"), 5)  # type: ignore[arg-type]

    assert asyncio.run(main()) == "deep"
    assert len(calls) == 2
