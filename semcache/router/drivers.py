"""Drivers perform the steps of a call, blocking or async. They decide nothing.

A driver serves one call. It owns the open reply or stream and closes it, however the call
ends; a cancelled task leaves nothing running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from httpx_sse import EventSource

from semcache.lifecycle import Threads
from semcache.providers.http_messages import HTTPReply, HTTPRequest, ServerEvent
from semcache.router.clients import ClientPool
from semcache.router.steps import (
    DirectCall,
    Drain,
    Emit,
    Exchange,
    NextChunk,
    NextEvent,
    OpenDirectStream,
    OpenStream,
    Sleep,
    Step,
    Steps,
    Timeouts,
    WaitFor,
)
from semcache.sansio import Turn, adrive, drive
from semcache.types import Chunk

_EVENT_STREAM = "text/event-stream"


def _build(client: httpx.Client | httpx.AsyncClient, step: Exchange | OpenStream) -> httpx.Request:
    request: HTTPRequest = step.request
    secrets = {name: secret.get_secret_value() for name, secret in request.secrets.items()}
    timeouts = step.timeouts
    return client.build_request(
        request.method,
        request.url,
        headers={**request.headers, **secrets},
        content=request.content,
        timeout=httpx.Timeout(
            timeouts.read, connect=timeouts.connect, pool=timeouts.total or timeouts.read
        ),
    )


def _http_request(
    client: httpx.Client | httpx.AsyncClient, step: Exchange | OpenStream
) -> httpx.Request:
    try:
        return _build(client, step)
    except (httpx.InvalidURL, ValueError):
        # Hide the original error: its traceback holds the keys.
        raise httpx.LocalProtocolError("its address or a header cannot be sent") from None


_DRAIN_TIMEOUT = 0.25
"""Seconds that an async driver waits for the end of a stream whose answer is complete."""


def _reply(response: httpx.Response, content: bytes) -> HTTPReply:
    return HTTPReply(response.status_code, dict(response.headers), content)


def _is_stream(response: httpx.Response) -> bool:
    content_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    return response.is_success and content_type == _EVENT_STREAM


def _timeout_error() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("the response took longer than the time that was left")


class BlockingDriver:
    """Performs one step at a time, on the caller's thread."""

    def __init__(
        self,
        clients: ClientPool[httpx.Client],
        threads: Threads,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clients = clients
        self._threads = threads
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
            case OpenStream():
                return self._open(step)
            case DirectCall(provider, request, model, seconds):
                return provider.call(request, model=model, timeout=seconds)
            case OpenDirectStream(provider, request, model, seconds):
                self._items = provider.stream(request, model=model, timeout=seconds)
                return None
            case NextEvent() | NextChunk():
                item = next(self._items, None)
                self._check_time()
                return item
            case Drain():
                return self._drain()
            case Emit():
                raise AssertionError("`stream` handles Emit")

    def _drain(self) -> None:
        """Drain the stream in another thread, since a blocking read cannot be interrupted."""
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
                self._clients.release(client)

        self._threads.submit(work)

    def close(self) -> None:
        """Close the open reply or stream, and release the client."""
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
                self._clients.release(client)

    def _send(self, step: Exchange | OpenStream) -> httpx.Response:
        self.close()
        self._end = _end_of(step.timeouts, time.monotonic())
        self._client = self._clients.acquire()
        self._response = self._client.send(_http_request(self._client, step), stream=True)
        return self._response

    def _exchange(self, step: Exchange) -> HTTPReply:
        try:
            return self._read_all(self._send(step))
        finally:
            self.close()

    def _open(self, step: OpenStream) -> HTTPReply:
        response = self._send(step)
        if not _is_stream(response):
            reply = self._read_all(response)
            self.close()
            return reply
        self._items = self._events(response)
        return _reply(response, b"")

    def _read_all(self, response: httpx.Response) -> HTTPReply:
        content = []
        for piece in response.iter_bytes():
            content.append(piece)
            self._check_time()
        return _reply(response, b"".join(content))

    def _events(self, response: httpx.Response) -> Iterator[ServerEvent]:
        timed: Any = _TimedResponse(response, self._check_time)
        for event in EventSource(timed).iter_sse():
            yield ServerEvent(event.event, event.data)

    def _check_time(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise _timeout_error()


class _TimedResponse:
    """A response that checks the time at every piece it receives.

    A server that sends a little at a time never exceeds the read timeout between two pieces.
    """

    def __init__(self, response: httpx.Response, check_time: Callable[[], None]) -> None:
        self._response = response
        self._check_time = check_time
        # httpx-sse compares this value exactly, and servers spell it in different ways.
        self.headers = {"content-type": _EVENT_STREAM}

    def iter_text(self) -> Iterator[str]:
        for text in self._response.iter_text():
            self._check_time()
            yield text

    async def aiter_text(self) -> AsyncIterator[str]:
        async for text in self._response.aiter_text():
            self._check_time()
            yield text


class AsyncDriver:
    """Performs one step at a time, without blocking the event loop."""

    def __init__(
        self,
        clients: ClientPool[httpx.AsyncClient],
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._clients = clients
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
                return await self._with_timeout(step.timeouts, self._exchange(step))
            case OpenStream():
                return await self._with_timeout(step.timeouts, self._open(step))
            case DirectCall(provider, request, model, seconds):
                call = provider.acall(request, model=model, timeout=seconds)
                return await self._with_timeout(Timeouts(total=seconds), call)
            case OpenDirectStream(provider, request, model, seconds):
                self._end = None if seconds is None else time.monotonic() + seconds
                self._items = provider.astream(request, model=model, timeout=seconds)
                return None
            case NextEvent() | NextChunk():
                return await self._next()
            case Drain():
                with suppress(TimeoutError, httpx.HTTPError):
                    async with asyncio.timeout(_DRAIN_TIMEOUT):
                        assert self._items is not None
                        async for _ in self._items:
                            pass
                return None
            case Emit():
                raise AssertionError("`astream` handles Emit")

    async def close(self) -> None:
        """Close the open reply or stream, and release the client."""
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
                self._clients.release(client)

    async def _with_timeout(self, timeouts: Timeouts, work: Any) -> Any:
        self._end = _end_of(timeouts, time.monotonic())
        try:
            async with asyncio.timeout(timeouts.total):
                return await work
        except TimeoutError as error:
            raise _timeout_error() from error

    async def _next(self) -> Any:
        assert self._items is not None
        left = None if self._end is None else self._end - time.monotonic()
        try:
            async with asyncio.timeout(left):
                return await anext(self._items, None)
        except TimeoutError as error:
            raise _timeout_error() from error

    async def _send(self, step: Exchange | OpenStream) -> httpx.Response:
        await self.close()
        self._client = self._clients.acquire()
        self._response = await self._client.send(_http_request(self._client, step), stream=True)
        return self._response

    async def _exchange(self, step: Exchange) -> HTTPReply:
        try:
            response = await self._send(step)
            return _reply(response, await response.aread())
        finally:
            await self.close()

    async def _open(self, step: OpenStream) -> HTTPReply:
        response = await self._send(step)
        if not _is_stream(response):
            reply = _reply(response, await response.aread())
            await self.close()
            return reply
        self._items = self._events(response)
        return _reply(response, b"")

    async def _events(self, response: httpx.Response) -> AsyncIterator[ServerEvent]:
        # No check at each piece: `_next` already limits the time.
        timed: Any = _TimedResponse(response, lambda: None)
        async for event in EventSource(timed).aiter_sse():
            yield ServerEvent(event.event, event.data)


def _end_of(timeouts: Timeouts, now: float) -> float | None:
    return None if timeouts.total is None else now + timeouts.total


# ------------------------------------------------------------------- running all steps


def run(steps: Steps, driver: BlockingDriver) -> Any:
    """Perform all steps; returns their result."""
    try:
        return drive(steps, driver.perform)
    finally:
        driver.close()


async def arun(steps: Steps, driver: AsyncDriver) -> Any:
    """Perform all steps without blocking; returns their result."""
    try:
        return await adrive(steps, driver.perform)
    finally:
        await driver.close()


@contextmanager
def _error_into(turn: Turn) -> Iterator[None]:
    """Pass the error of a step to the generator that yielded the step."""
    try:
        yield
    except BaseException as error:
        turn.error = error


def stream(steps: Steps, driver: BlockingDriver) -> Generator[Chunk, None, None]:
    """Perform all steps, yielding the chunks they emit."""
    turn = Turn(steps)
    try:
        while (step := turn.next()) is not None:
            if isinstance(step, Emit):
                yield step.chunk
            else:
                with _error_into(turn):
                    turn.result = driver.perform(step)
    finally:  # also if the reader stops early: the steps must release what they hold
        steps.close()
        driver.close()


async def astream(steps: Steps, driver: AsyncDriver) -> AsyncGenerator[Chunk, None]:
    """Perform all steps without blocking, yielding the chunks they emit."""
    turn = Turn(steps)
    try:
        while (step := turn.next()) is not None:
            if isinstance(step, Emit):
                yield step.chunk
            else:
                with _error_into(turn):
                    turn.result = await driver.perform(step)
    finally:
        steps.close()
        await driver.close()
