"""Doing what the router asks for: once blocking, once for tasks. Nothing is decided here.

A driver serves one call. It owns the reply or stream that is open and closes it, whichever
way the call ends; a cancelled task leaves nothing running.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import EventSource

from semcache.providers.http_messages import HTTPReply, HTTPRequest, ServerEvent
from semcache.router.clients import Pools
from semcache.router.steps import (
    Call,
    Drain,
    Emit,
    Exchange,
    NextChunk,
    NextEvent,
    Open,
    OpenCall,
    Sleep,
    Step,
    Steps,
    Timeouts,
    WaitFor,
)
from semcache.sansio import Turn, adrive, drive
from semcache.types import Chunk

_EVENTS = "text/event-stream"


def _built(client: httpx.Client | httpx.AsyncClient, step: Exchange | Open) -> httpx.Request:
    sent: HTTPRequest = step.request
    secrets = {name: secret.get_secret_value() for name, secret in sent.secrets.items()}
    times = step.timeouts
    return client.build_request(
        sent.method,
        sent.url,
        headers={**sent.headers, **secrets},
        content=sent.content,
        timeout=httpx.Timeout(times.read, connect=times.connect, pool=times.total or times.read),
    )


def _checked(client: httpx.Client | httpx.AsyncClient, step: Exchange | Open) -> httpx.Request:
    try:
        return _built(client, step)
    except (httpx.InvalidURL, ValueError):
        # Alone: what it complains of stands beside the keys.
        raise httpx.LocalProtocolError("its address or a header cannot be sent") from None


_drainers: tuple[int, ThreadPoolExecutor] | None = None
_DRAINING = 0.25
"""Seconds that a task waits for the end of a stream whose answer is whole."""


def _in_background(work: Callable[[], object]) -> None:
    global _drainers
    if _drainers is None or _drainers[0] != os.getpid():
        _drainers = (os.getpid(), ThreadPoolExecutor(4, thread_name_prefix="semcache-drain"))
    _drainers[1].submit(work)


def _reply(response: httpx.Response, content: bytes) -> HTTPReply:
    return HTTPReply(response.status_code, dict(response.headers), content)


def _is_stream(response: httpx.Response) -> bool:
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    return response.is_success and kind == _EVENTS


def _timed_out() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("it took longer than the time that was left for it")


class Blocking:
    """Does one step at a time, on the caller's thread."""

    def __init__(
        self,
        pools: Pools[httpx.Client],
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._pools = pools
        self._client: httpx.Client | None = None
        self._sleep = sleep
        self._response: httpx.Response | None = None
        self._items: Iterator[Any] = iter(())
        self._end: float | None = None

    def perform(self, step: Step) -> Any:
        match step:
            case Sleep(seconds):
                return self._sleep(seconds)
            case WaitFor(future, seconds):
                with suppress(FutureTimeoutError):
                    future.result(seconds)
                    return True
                return False
            case Exchange():
                return self._exchange(step)
            case Open():
                return self._open(step)
            case Call(provider, request, model, seconds):
                return provider.call(request, model=model, timeout=seconds)
            case OpenCall(provider, request, model, seconds):
                self._items = provider.stream(request, model=model, timeout=seconds)
                return None
            case NextEvent() | NextChunk():
                item = next(self._items, None)
                self._check()
                return item
            case Drain():
                return self._drain()
            case Emit():
                raise AssertionError("a chunk is handed out by the loop itself")

    def _drain(self) -> None:
        """In another thread, since a blocking read cannot be given up."""
        items, response, client = self._items, self._response, self._client
        self._items, self._response, self._client = iter(()), None, None
        assert client is not None
        assert response is not None

        def work() -> None:
            try:
                with suppress(Exception):
                    for _ in items:
                        pass
                response.close()
            finally:
                self._pools.give_back(client)

        _in_background(work)

    def close(self) -> None:
        """Close what is open, and give back what was taken."""
        response, self._response = self._response, None
        client, self._client = self._client, None
        items, self._items = self._items, iter(())
        try:
            if response is not None:
                response.close()
            if (close := getattr(items, "close", None)) is not None:
                close()
        finally:
            if client is not None:
                self._pools.give_back(client)

    def _send(self, step: Exchange | Open) -> httpx.Response:
        self.close()
        self._end = _end_of(step.timeouts, time.monotonic())
        self._client = self._pools.take()
        self._response = self._client.send(_checked(self._client, step), stream=True)
        return self._response

    def _exchange(self, step: Exchange) -> HTTPReply:
        try:
            return self._whole(self._send(step))
        finally:
            self.close()

    def _open(self, step: Open) -> HTTPReply:
        response = self._send(step)
        if not _is_stream(response):
            reply = self._whole(response)
            self.close()
            return reply
        self._items = self._events(response)
        return _reply(response, b"")

    def _whole(self, response: httpx.Response) -> HTTPReply:
        content = []
        for piece in response.iter_bytes():
            content.append(piece)
            self._check()
        return _reply(response, b"".join(content))

    def _events(self, response: httpx.Response) -> Iterator[ServerEvent]:
        for event in EventSource(_Watched(response, self._check)).iter_sse():  # type: ignore[arg-type]
            yield ServerEvent(event.event, event.data)

    def _check(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise _timed_out()


class _Watched:
    """A response of which every piece is held against the time: a server that dribbles never
    exceeds the time between two pieces."""

    def __init__(self, response: httpx.Response, check: Callable[[], None]) -> None:
        self._response = response
        self._check = check
        self.headers = {"content-type": _EVENTS}  # however the server spells it

    def iter_text(self) -> Iterator[str]:
        for text in self._response.iter_text():
            self._check()
            yield text

    async def aiter_text(self) -> AsyncIterator[str]:
        async for text in self._response.aiter_text():
            self._check()
            yield text


class Tasks:
    """Does one step at a time, without blocking."""

    def __init__(
        self,
        pools: Pools[httpx.AsyncClient],
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._pools = pools
        self._client: httpx.AsyncClient | None = None
        self._sleep = sleep
        self._response: httpx.Response | None = None
        self._items: AsyncIterator[Any] | None = None
        self._end: float | None = None

    async def perform(self, step: Step) -> Any:
        match step:
            case Sleep(seconds):
                return await self._sleep(seconds)
            case WaitFor(future, seconds):
                waiting = asyncio.shield(asyncio.wrap_future(future))
                with suppress(TimeoutError):
                    await asyncio.wait_for(waiting, seconds)
                    return True
                return False
            case Exchange():
                return await self._timed(step.timeouts, self._exchange(step))
            case Open():
                return await self._timed(step.timeouts, self._open(step))
            case Call(provider, request, model, seconds):
                call = provider.acall(request, model=model, timeout=seconds)
                return await self._timed(Timeouts(total=seconds), call)
            case OpenCall(provider, request, model, seconds):
                self._end = None if seconds is None else time.monotonic() + seconds
                self._items = provider.astream(request, model=model, timeout=seconds)
                return None
            case NextEvent() | NextChunk():
                return await self._next()
            case Drain():
                with suppress(TimeoutError, httpx.HTTPError):
                    async with asyncio.timeout(_DRAINING):
                        assert self._items is not None
                        async for _ in self._items:
                            pass
                return None
            case Emit():
                raise AssertionError("a chunk is handed out by the loop itself")

    async def close(self) -> None:
        """Close what is open, and give back what was taken."""
        response, self._response = self._response, None
        client, self._client = self._client, None
        items, self._items = self._items, None
        try:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()
            if response is not None:
                await response.aclose()
        finally:
            if client is not None:
                self._pools.give_back(client)

    async def _timed(self, times: Timeouts, work: Any) -> Any:
        self._end = _end_of(times, time.monotonic())
        try:
            async with asyncio.timeout(times.total):
                return await work
        except TimeoutError as error:
            raise _timed_out() from error

    async def _next(self) -> Any:
        assert self._items is not None
        left = None if self._end is None else self._end - time.monotonic()
        try:
            async with asyncio.timeout(left):
                return await anext(self._items, None)
        except TimeoutError as error:
            raise _timed_out() from error

    async def _send(self, step: Exchange | Open) -> httpx.Response:
        await self.close()
        self._client = self._pools.take()
        self._response = await self._client.send(_checked(self._client, step), stream=True)
        return self._response

    async def _exchange(self, step: Exchange) -> HTTPReply:
        try:
            response = await self._send(step)
            return _reply(response, await response.aread())
        finally:
            await self.close()

    async def _open(self, step: Open) -> HTTPReply:
        response = await self._send(step)
        if not _is_stream(response):
            reply = _reply(response, await response.aread())
            await self.close()
            return reply
        self._items = self._events(response)
        return _reply(response, b"")

    async def _events(self, response: httpx.Response) -> AsyncIterator[ServerEvent]:
        watched: Any = _Watched(response, lambda: None)
        async for event in EventSource(watched).aiter_sse():
            yield ServerEvent(event.event, event.data)


def _end_of(times: Timeouts, now: float) -> float | None:
    return None if times.total is None else now + times.total


# -------------------------------------------------------------------------- the loops


def run(steps: Steps, driver: Blocking) -> Any:
    """Do all steps; the value that they come to."""
    try:
        return drive(steps, driver.perform)
    finally:
        driver.close()


async def arun(steps: Steps, driver: Tasks) -> Any:
    """`run` for tasks."""
    try:
        return await adrive(steps, driver.perform)
    finally:
        await driver.close()


def stream(steps: Steps, driver: Blocking) -> Generator[Chunk, None, None]:
    """Do all steps, handing out the chunks."""
    turn = Turn(steps)
    try:
        while (step := turn.next()) is not None:
            if isinstance(step, Emit):
                yield step.chunk
                continue
            try:
                turn.result = driver.perform(step)
            except BaseException as error:
                turn.error = error
    finally:  # also when the reader has seen enough: the steps give back what they hold
        steps.close()
        driver.close()


async def astream(steps: Steps, driver: Tasks) -> AsyncGenerator[Chunk, None]:
    """`stream` for tasks."""
    turn = Turn(steps)
    try:
        while (step := turn.next()) is not None:
            if isinstance(step, Emit):
                yield step.chunk
                continue
            try:
                turn.result = await driver.perform(step)
            except BaseException as error:
                turn.error = error
    finally:
        steps.close()
        await driver.close()
