"""`shared_streams` for async iterators, whose readers run in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import copy_context
from inspect import isawaitable
from typing import Any

from semcache.engine.kept_chunks import Kept, RestartError
from semcache.engine.single_flight import mark_inside
from semcache.engine.stream_readers import View, as_raised, resume


class AsyncSharedStream:
    """A shared stream whose source is an async iterator, for readers in one event loop.

    One task takes the chunks, so that the model's stream runs in one task from start to end. It
    takes a chunk only when a reader needs one.

    Args:
        key: the exact key of the call.
        kept: the chunks.
    """

    def __init__(self, key: bytes, kept: Kept) -> None:
        self.kept = kept
        self.loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._context.run(mark_inside, key)
        self._readers = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._needed = asyncio.Event()
        self._draining = False
        self._command: tuple[str, Any] | None = None
        self._taker: asyncio.Task[None] | None = None
        self._taking = False
        self._close_error: Exception | None = None
        self._void = False
        self._private = False
        self._abandon: Callable[[], None] = _nothing

    def start(
        self,
        send: Callable[[], AsyncIterator[Any]],
        ended: Callable[[BaseException | None], Any],
        abandon: Callable[[], None],
        source: Any = None,
    ) -> AsyncReader:
        """Attach the model's stream, so that chunks can be taken, and become the leading reader.

        Args:
            send: called to open the stream when its first chunk is taken.
            ended: an async function, called once, with the stream's error.
            abandon: called instead if the event loop was closed before the stream ended.
            source: the stream itself, if there is one already.
        """
        self._readers += 1
        self._abandon = abandon
        self._taker = self.loop.create_task(self._run(send, ended, source), context=self._context)
        self._wake()
        return AsyncReader(self, leads=True, anew=send)

    @property
    def stalled(self) -> bool:
        """Whether nothing runs the event loop that the stream needs."""
        return not self.loop.is_running()

    def leads_alone(self, position: int) -> bool:
        """See `SharedStream.leads_alone`."""
        return self._readers == 1 and position == len(self.kept)

    def runner(self, leader: tuple[int, Any]) -> tuple[int, Any] | None:
        """See `SharedStream.runner`."""
        if self._taker is None:
            return leader
        return (leader[0], self._taker) if self._taking else None

    def cancel(self) -> None:
        """Record that no stream will start, so that its followers stop waiting."""
        self._void = self._taker is None
        self._in_loop(self._wake)

    def enter(self) -> bool:
        """See `SharedStream.enter`; also False if the stream belongs to another event loop."""
        if self.kept.over or self._void or self._private:
            return False
        if asyncio.get_running_loop() is not self.loop:
            return False
        self._readers += 1
        return True

    def drain(self) -> None:
        """Have the stream read to its end, for a caller who waits for the whole answer."""

        def start() -> None:
            if not (self._draining or self._void or self.kept.over):
                self._readers += 1
                self._draining = True
                self._needed.set()

        self._in_loop(start)

    def command(self, command: tuple[str, Any]) -> int:
        """Set the method to resume the generator with; return the index of the chunk it yields."""
        self._command, self._private, self.kept.storable = command, True, False
        return len(self.kept)

    async def progress(self, position: int, patience: float | None) -> None:
        """Wait for a chunk, or for the end.

        Raises:
            RestartError: there is no stream, or it takes too long.
        """
        if position < len(self.kept) or self.kept.over:
            return
        if self._void and self._taker is None:
            raise RestartError
        future = self.loop.create_future()
        self._waiting.append(future)
        self._needed.set()
        try:
            await asyncio.wait_for(future, patience)
        except TimeoutError:
            raise RestartError from None
        if self._void and self._taker is None:
            raise RestartError

    async def leave(self) -> None:
        """Stop reading; the last reader waits until the stream is closed.

        Raises:
            Exception: what closing the generator raised.
        """
        if self._left_by_last() and self._taker is not None:
            await asyncio.wait([self._taker])
            error, self._close_error = self._close_error, None
            if error is not None:
                raise error

    def forsake(self) -> None:
        """`leave`, from any thread, for a reader that was garbage-collected unclosed."""
        self._in_loop(self._left_by_last)

    def _left_by_last(self) -> bool:
        self._readers -= 1
        if self._readers or self.kept.over or self._taker is None:
            return False
        self._void = True  # admit no new readers: the stream is about to be closed
        if self._taking:
            self._taker.cancel()
        self._needed.set()
        return True

    def _in_loop(self, call: Callable[[], Any]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed
            self.kept.error, self.kept.over = GeneratorExit(), True
            abandon, self._abandon = self._abandon, _nothing
            abandon()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def _run(
        self,
        send: Callable[[], AsyncIterator[Any]],
        ended: Callable[[BaseException | None], Any],
        source: Any,
    ) -> None:
        """Take a chunk whenever a reader needs one."""
        error: BaseException | None = None
        try:
            while True:
                await self._needed.wait()
                if self._void:
                    raise GeneratorExit
                if source is None:
                    source = aiter(send())
                if not self._draining:
                    self._needed.clear()
                command, self._command = self._command, None
                self._taking = True
                try:
                    self.kept.add(await resume(source, command, anext))
                finally:
                    self._taking = False
                self._wake()
        except StopAsyncIteration:
            pass
        except BaseException as raised:
            error = raised
        self.kept.error, self.kept.over = error, True
        try:
            close = getattr(source, "aclose", None) or getattr(source, "close", None)
            if close is not None and (error is not None or not isinstance(source, AsyncGenerator)):
                closing = close()
                if isawaitable(closing):
                    await closing
        except Exception as raised:
            self._close_error = raised
        finally:
            await ended(error)
            self._wake()


def _nothing() -> None:
    pass


class AsyncReader(View, AsyncGenerator[Any, Any]):
    """A view with all the methods of an async generator."""

    async def __anext__(self) -> Any:
        return await self.asend(None)

    async def asend(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is not None:
            return await resume(self._own, ("asend", value), anext)
        if value is None or self._left:
            return await self._next(None)
        if not self._is_alone:
            self._own = await adiverted(self._anew, self._position)
            await self.aclose()
            return await resume(self._own, ("asend", value), anext)
        return await self._next(("asend", value))

    async def athrow(self, *error: Any) -> Any:
        """Raise an error where the generator is paused; return its next chunk."""
        raised = as_raised(error)
        if self._own is not None:
            return await resume(self._own, ("athrow", raised), anext)
        if self._left or not self._is_alone:
            await self.aclose()
            raise raised
        return await self._next(("athrow", raised))

    async def aclose(self) -> None:
        """Stop reading."""
        if not self._left:
            self._left = True
            await self._stream.leave()
        elif self._own is not None and (close := getattr(self._own, "aclose", None)) is not None:
            await close()

    def __del__(self) -> None:
        if not self._left:
            self._left = True
            self._stream.forsake()

    async def _next(self, command: tuple[str, Any] | None) -> Any:
        if self._left:
            raise StopAsyncIteration
        stream = self._stream
        try:
            if command is not None:
                self._position = stream.command(command)
            while self._position == len(stream.kept):
                if stream.kept.over:
                    if self._leads and stream.kept.error is not None:
                        raise stream.kept.error
                    stream.kept.raise_error(self._position)
                    raise StopAsyncIteration
                await stream.progress(self._position, None if self._position else self._patience)
            chunk = stream.kept.chunk(self._position)
        except RestartError:
            await self.aclose()
            if self._restart is None:
                raise
            self._own = aiter(self._restart())
            return await anext(self._own)
        except BaseException:
            await self.aclose()
            raise
        self._position += 1
        return chunk


async def adiverted(anew: Callable[[], AsyncIterator[Any]] | None, position: int) -> Any:
    """A stream of the caller's own, advanced to the position reached in the shared one.

    Raises:
        TypeError: nothing can be sent into this stream.
    """
    if anew is None:
        raise TypeError("a value cannot be sent into a stream that other callers read too")
    own = aiter(anew())
    for _ in range(position):
        await anext(own)
    return own
