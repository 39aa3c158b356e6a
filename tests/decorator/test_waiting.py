"""Who waits for whose call in flight, and for how long: never for itself, never for a reader.

Every wait here is on a thread of its own and is given up after `SOON` seconds, so that a test of
code that waits for ever fails and ends.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from semcache import SemanticCache

SOON = 5.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain gives up some time after its test has failed, and the run can end."""
    for name in ("PATIENCE", "STREAM_PATIENCE"):
        monkeypatch.setattr(f"semcache.engine.coalescing.{name}", 1.6 * SOON, raising=False)


class Waited(threading.Thread):
    """A call on a daemon thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def value(self, seconds: float = SOON) -> Any:
        """What the call returns or raises; fails if it takes longer."""
        self.join(seconds)
        if self.is_alive():
            pytest.fail(f"still waiting after {seconds} seconds")
        if self._error is not None:
            raise self._error
        return self._value


# ------------------------------------------------------------- a thread that would wait for itself


@pytest.mark.parametrize("kind", ["function", "generator"])
def test_a_blocking_call_does_not_wait_for_its_own_loop(cache: SemanticCache, kind: str) -> None:
    """The loop is answering the same request, and cannot go on while this call blocks it."""
    calls: list[str] = []
    led = asyncio.Event()

    @cache.cached(name="one")
    async def coroutine(prompt: str) -> str:
        calls.append("async")
        led.set()
        await asyncio.sleep(0.2)
        return "answer"

    @cache.cached(name="one")
    def function(prompt: str) -> str:
        calls.append("blocking")
        return "answer"

    @cache.cached(name="one")
    async def async_generator(prompt: str) -> AsyncIterator[str]:
        calls.append("async")
        led.set()
        await asyncio.sleep(0.2)
        yield "answer"

    @cache.cached(name="one")
    def generator(prompt: str) -> Iterator[str]:
        calls.append("blocking")
        yield "answer"

    async def leading() -> str:
        if kind == "function":
            return str(await coroutine("q"))
        return "".join([piece async for piece in async_generator("q")])

    async def main() -> tuple[str, str, float]:
        leader = asyncio.create_task(leading())
        await led.wait()
        start = time.monotonic()
        blocking = function("q") if kind == "function" else "".join(generator("q"))
        return blocking, await leader, time.monotonic() - start

    blocking, leader, seconds = Waited(lambda: asyncio.run(main())).value()
    assert (blocking, leader, calls) == ("answer", "answer", ["async", "blocking"])
    assert seconds < 2


def test_another_thread_still_waits_for_the_loop(cache: SemanticCache) -> None:
    """Going on alone is for the loop's own thread; a thread beside it shares the answer."""
    calls: list[str] = []
    led = asyncio.Event()

    @cache.cached(name="one")
    async def coroutine(prompt: str) -> str:
        calls.append("async")
        led.set()
        await asyncio.sleep(0.5)
        return "answer"

    @cache.cached(name="one")
    def function(prompt: str) -> str:
        calls.append("blocking")
        return "answer"

    async def main() -> list[str]:
        leader = asyncio.create_task(coroutine("q"))  # type: ignore[arg-type]
        await led.wait()
        beside = asyncio.get_running_loop().run_in_executor(None, function, "q")
        return [await beside, await leader]

    assert Waited(lambda: asyncio.run(main())).value() == ["answer", "answer"]
    assert calls == ["async"]


BY_ANOTHER_THREAD: dict[str, Callable[[Any], Any]] = {
    "executor": lambda ask: in_pool(ask),
    "map": lambda ask: in_pool(ask, how="map"),
    "to_thread": lambda ask: asyncio.run(asyncio.to_thread(ask, "q")),
    "run_in_executor": lambda ask: asyncio.run(in_loop(ask)),
    "thread": lambda ask: in_thread(ask),
}


def in_pool(ask: Any, how: str = "submit") -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, "q").result() if how == "submit" else next(pool.map(ask, ["q"]))


async def in_loop(ask: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, ask, "q")


def in_thread(ask: Any) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask("q")), daemon=True)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize("asked", BY_ANOTHER_THREAD.values(), ids=BY_ANOTHER_THREAD)
def test_a_function_may_ask_itself_by_another_thread(
    cache: SemanticCache, asked: Callable[[Any], Any]
) -> None:
    """The inner call goes on soon, although its thread is not the leader's."""
    calls: list[str] = []

    @cache.cached
    def ask(prompt: str) -> str:
        calls.append(prompt)
        return str(asked(ask)) if len(calls) == 1 else "deep"

    assert Waited(lambda: ask("q")).value() == "deep"
    assert len(calls) == 2


def test_a_coroutine_may_ask_itself_by_another_task(cache: SemanticCache) -> None:
    """Likewise for a task that the leader awaits."""
    calls: list[str] = []

    @cache.cached
    async def ask(prompt: str) -> str:
        calls.append(prompt)
        if len(calls) > 1:
            return "deep"
        return str(await asyncio.create_task(ask(prompt)))  # type: ignore[arg-type]

    assert Waited(lambda: asyncio.run(ask("q"))).value() == "deep"  # type: ignore[arg-type]


# ------------------------------------------------------------------------- streams in flight


class Source:
    """A stream of numbered pieces whose calls are told apart, and held back one by one."""

    def __init__(self, cache: SemanticCache, kind: str, pieces: int = 3) -> None:
        self.calls = 0
        self.kind = kind
        self.free = [threading.Event() for _ in range(pieces)]
        self.error: Exception | None = None
        source = self

        @cache.cached(name="source")
        def generator(prompt: str) -> Iterator[str]:
            number = source.called()
            for index, free in enumerate(source.free):
                if number == 1 and not free.wait(20):
                    return
                if index == 2 and number == 1 and source.error is not None:
                    raise source.error
                yield f"{number}:{index}"

        @cache.cached(name="source")
        async def async_generator(prompt: str) -> AsyncIterator[str]:
            number = source.called()
            for index, free in enumerate(source.free):
                if number == 1 and not await asyncio.to_thread(free.wait, 20):
                    return
                if index == 2 and number == 1 and source.error is not None:
                    raise source.error
                yield f"{number}:{index}"

        self._ask: Any = generator if kind == "generator" else async_generator

    def called(self) -> int:
        self.calls += 1
        return self.calls

    def whole(self, number: int) -> list[str]:
        """All pieces of one call."""
        return [f"{number}:{index}" for index in range(len(self.free))]

    def release(self, *indices: int) -> None:
        for index in indices or range(len(self.free)):
            self.free[index].set()

    def reader(self) -> Reader:
        return Reader(self._ask)


@functools.cache
def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop of all readers of async streams, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class Reader:
    """Reads a stream on a thread of its own, a piece whenever it is told to."""

    def __init__(self, ask: Any) -> None:
        self.pieces: list[str] = []
        self.arrived = threading.Condition()
        self._wanted = threading.Semaphore(0)
        self._left = False
        self._thread = Waited(lambda: self._read(ask("q")))

    def _read(self, stream: Any) -> list[str]:
        if hasattr(stream, "__anext__"):
            reading = self._aread(stream)
            return asyncio.run_coroutine_threadsafe(reading, running_loop()).result()
        while self._told() and (piece := next(stream, None)) is not None:
            self._take(piece)
        stream.close()
        return self.pieces

    async def _aread(self, stream: Any) -> list[str]:
        while (
            await asyncio.to_thread(self._told) and (piece := await anext(stream, None)) is not None
        ):
            self._take(piece)
        await stream.aclose()
        return self.pieces

    def _told(self) -> bool:
        return self._wanted.acquire(timeout=30) and not self._left

    def _take(self, piece: str) -> None:
        with self.arrived:
            self.pieces.append(piece)
            self.arrived.notify_all()

    def read(self, pieces: int) -> Reader:
        """Ask for some pieces more, without waiting for them."""
        for _ in range(pieces):
            self._wanted.release()
        return self

    def has(self, pieces: int, seconds: float = SOON) -> bool:
        """Whether that many pieces arrive in time."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.pieces) >= pieces, seconds)

    def whole(self) -> list[str]:
        """All that is left, and everything read."""
        pieces: list[str] = self.read(9)._thread.value()
        return pieces

    def leave(self) -> None:
        self._left = True
        self._wanted.release()
        self._thread.value()


@pytest.fixture(params=["generator", "async generator"])
def source(request: pytest.FixtureRequest, cache: SemanticCache) -> Iterator[Source]:
    made = Source(cache, request.param)
    yield made
    made.release()


def test_a_second_reader_gets_the_pieces_as_they_arrive(source: Source) -> None:
    """Not when the whole stream has been read; and the function is called once."""
    first = source.reader().read(9)
    source.release(0)
    assert first.has(1)
    second = source.reader().read(9)
    assert second.has(1), "the first piece has arrived, and the second reader does not have it"
    assert source.calls == 1
    source.release(1)
    assert first.has(2)
    assert second.has(2)
    source.release()
    assert first.whole() == second.whole() == source.whole(1)
    assert source.calls == 1


def test_a_reader_that_comes_late_gets_the_beginning_too(source: Source) -> None:
    """The pieces read so far come at once, the others when they arrive."""
    first = source.reader().read(9)
    source.release(0, 1)
    assert first.has(2)
    second = source.reader().read(9)
    assert second.has(2)
    assert second.pieces == ["1:0", "1:1"]
    source.release()
    assert first.whole() == second.whole() == source.whole(1)


def test_a_slow_reader_does_not_hold_back_the_others(source: Source) -> None:
    """The first has stopped reading after a piece; the second still gets a whole stream, soon."""
    source.release()
    first = source.reader().read(1)
    assert first.has(1)
    second = source.reader().whole()
    assert second in (source.whole(1), source.whole(2))
    assert first.whole() == source.whole(1)


def test_a_slow_second_reader_does_not_hold_back_the_first(source: Source) -> None:
    """Nor the other way round, and what it reads later is whole."""
    first = source.reader().read(1)
    source.release(0)
    assert first.has(1)
    second = source.reader().read(1)
    source.release()
    assert first.whole() == source.whole(1)
    assert second.whole() == source.whole(1)
    assert source.calls == 1


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_who_follows_a_reader_that_leaves_gets_a_whole_stream(source: Source, pieces: int) -> None:
    """All its pieces are of one call, even if it has had some of them when the first leaves."""
    first = source.reader().read(2)
    source.release(0, 1)
    assert first.has(2)
    second = source.reader().read(pieces)
    second.has(pieces, 1)
    first.leave()
    source.release()
    assert second.whole() in (source.whole(1), source.whole(2))


def test_readers_share_an_error_in_the_middle(source: Source) -> None:
    """After the pieces before it."""
    source.error = ValueError("cut")
    first = source.reader().read(9)
    source.release(0, 1)
    assert first.has(2)
    second = source.reader().read(9)
    second.has(2)
    source.release()
    for reader in (first, second):
        with pytest.raises(ValueError, match="cut"):
            reader.whole()
    assert first.pieces == second.pieces == ["1:0", "1:1"]


def test_one_thread_reads_the_same_stream_twice_in_turns(source: Source) -> None:
    """Neither waits for the other."""
    source.release()

    async def turns() -> list[tuple[str, str]]:
        one, two = source._ask("q"), source._ask("q")
        if source.kind == "generator":
            return list(zip(one, two, strict=True))
        return [(piece, await anext(two)) async for piece in one]

    pairs = Waited(lambda: asyncio.run(turns())).value()
    assert [one for one, _ in pairs] == source.whole(1)
    assert [two for _, two in pairs] in (source.whole(1), source.whole(2))
