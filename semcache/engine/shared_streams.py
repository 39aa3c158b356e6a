"""A stream in flight that several callers read, each from its start and at its own pace.

The first caller leads: it has called the model. Chunks are kept as they come, so that a caller who
joins later gets those that there are at once, and then each as it comes. Whoever needs a chunk that
there is not yet takes it from the model's stream: a caller who reads slowly, or has gone, does not
hold back the others. The model's stream is closed when its last reader has gone.

The first reader of a chunk gets the chunk itself, the others get copies, made by the codec.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from semcache.engine.kept_chunks import Kept, RestartError
from semcache.engine.single_flight import mark_inside

if TYPE_CHECKING:
    import asyncio

FIRST_CHUNK_PATIENCE = 10.0
"""Seconds that a follower waits for the first chunk before it asks the model independently."""


class SharedStream:
    """A stream of a blocking iterator.

    Args:
        key: the exact key of the call.
        kept: the chunks.
    """

    def __init__(self, key: bytes, kept: Kept) -> None:
        self.kept = kept
        self._context = copy_context()
        self._context.run(mark_inside, key)
        self._changed = threading.Condition()
        self._taking = False
        self._readers = 0
        self._source: Iterator[Any] | None = None
        self._ended: Callable[[BaseException | None], None] = _nothing
        self._void = False

    def start(self, source: Iterator[Any], ended: Callable[[BaseException | None], None]) -> None:
        """Let readers take chunks from the model's stream.

        Args:
            ended: called once, with the stream's error; `GeneratorExit` if all readers have gone.
        """
        with self._changed:
            self._source, self._ended = source, ended
            self._changed.notify_all()

    def cancel(self) -> None:
        """There will be no stream: send its followers away."""
        with self._changed:
            self._void = self._source is None
            self._changed.notify_all()

    def enter(self) -> bool:
        """Become a reader; False if the stream is over. The reader must then call `read`."""
        with self._changed:
            if self.kept.over or self._void:
                return False
            self._readers += 1
            return True

    def read(self, patience: float | None = None) -> Generator[Any, Any, Any]:
        """Read the stream from its start; return what the model's generator returned.

        Args:
            patience: seconds to wait for the first chunk.

        Raises:
            RestartError: there is no stream, or its first chunk takes too long.
        """
        position, command = 0, None
        try:
            while True:
                if command is not None or position == len(self.kept):
                    if self.kept.over:
                        self.kept.raise_error(position)
                        return self.kept.returned
                    self._take(position, command, None if position else patience)
                    command = None
                    continue
                chunk = self.kept.chunk(position)
                position += 1
                try:
                    sent = yield chunk
                    command = None if sent is None else ("send", sent)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    command = ("throw", error)
                if command is not None:
                    self.kept.storable = False
                    position = len(self.kept)
        finally:
            self._leave()

    def _take(self, position: int, command: tuple[str, Any] | None, patience: float | None) -> None:
        """Take the next chunk, unless another reader has taken one meanwhile."""
        if not self._turn(position, command, patience):
            return
        try:
            self.kept.add(self._context.run(_resume, self._source, command, next))
        except StopIteration as stop:
            self.kept.returned = stop.value
            self._end(None)
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise  # an interruption concerns this reader only
        finally:
            self._free()

    def _turn(self, position: int, command: tuple[str, Any] | None, patience: float | None) -> bool:
        """Wait for a turn to take a chunk; False if another reader has taken one meanwhile."""

        def may_go_on() -> bool:
            came = command is None and (position < len(self.kept) or self.kept.over)
            return came or self._void or (self._source is not None and not self._taking)

        with self._changed:
            if not self._changed.wait_for(may_go_on, patience) or self._source is None:
                raise RestartError
            if command is None and (position < len(self.kept) or self.kept.over):
                return False
            self._taking = True
            return True

    def _free(self) -> None:
        """Let another reader take a chunk."""
        with self._changed:
            self._taking = False
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        if not self.kept.over:
            self.kept.error, self.kept.over = error, True
            self._ended(error)

    def _leave(self) -> None:
        with self._changed:
            self._readers -= 1
            if self._readers or self.kept.over or self._source is None:
                return
            self._void = True  # nobody may become a reader of what is about to be closed
        close = getattr(self._source, "close", None)
        try:
            if close is not None:
                self._context.run(close)
        finally:
            self._end(GeneratorExit())


def _nothing(_: BaseException | None) -> None:
    pass


def _resume(source: Any, command: tuple[str, Any] | None, advance: Callable[[Any], Any]) -> Any:
    """Take the next chunk, or do what a reader has asked of the generator.

    Args:
        command: the name of a generator's method, and its argument. A source without that method
            is only advanced, and what is thrown into it comes back.
        advance: `next` or `anext`.
    """
    if command is None:
        return advance(source)
    name, value = command
    method = getattr(source, name, None)
    if method is not None:
        return method(value)
    if isinstance(value, BaseException) and name in ("throw", "athrow"):
        raise value
    return advance(source)


class AsyncSharedStream:
    """A stream of an async iterator, for readers of one event loop.

    One task takes the chunks, so that the model's stream runs in one task from start to end; it
    takes one only when a reader needs it.

    Args:
        key: the exact key of the call.
        kept: the chunks.
    """

    def __init__(self, key: bytes, kept: Kept) -> None:
        import asyncio

        self.kept = kept
        self.loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._context.run(mark_inside, key)
        self._readers = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._needed: asyncio.Event = asyncio.Event()
        self._command: tuple[str, Any] | None = None
        self._taker: asyncio.Task[None] | None = None
        self._void = False

    def start(
        self,
        send: Callable[[], AsyncIterator[Any]],
        ended: Callable[[BaseException | None], Any],
    ) -> None:
        """Let readers take chunks from the model's stream.

        Args:
            send: called for the stream when its first chunk is taken.
            ended: an async function, called once, with the stream's error.
        """
        self._taker = self.loop.create_task(self._run(send, ended), context=self._context)
        self._wake()

    def cancel(self) -> None:
        """There will be no stream: send its followers away."""
        self._void = self._taker is None
        self.loop.call_soon_threadsafe(self._wake)

    def enter(self) -> bool:
        """Become a reader; False if the stream is over. The reader must then call `read`."""
        import asyncio

        if self.kept.over or self._void or asyncio.get_running_loop() is not self.loop:
            return False
        self._readers += 1
        return True

    async def read(self, patience: float | None = None) -> AsyncGenerator[Any, Any]:
        """Read the stream from its start.

        Args:
            patience: seconds to wait for the first chunk.

        Raises:
            RestartError: there is no stream, or its first chunk takes too long.
        """
        position = 0
        try:
            while True:
                if self._void and self._taker is None:
                    raise RestartError
                if self._command is not None or position == len(self.kept):
                    if self.kept.over:
                        self.kept.raise_error(position)
                        return
                    await self._progress(None if position else patience)
                    continue
                chunk = self.kept.chunk(position)
                position += 1
                command = None
                try:
                    sent = yield chunk
                    command = None if sent is None else ("asend", sent)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    command = ("athrow", error)
                if command is not None:
                    self._command, self.kept.storable = command, False
                    position = len(self.kept)
        finally:
            await self._leave()

    async def _progress(self, patience: float | None) -> None:
        """Wait for a chunk, or for the end."""
        import asyncio

        future = self.loop.create_future()
        self._waiting.append(future)
        self._needed.set()
        try:
            await asyncio.wait_for(future, patience)
        except TimeoutError:
            raise RestartError from None

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def _run(
        self,
        send: Callable[[], AsyncIterator[Any]],
        ended: Callable[[BaseException | None], Any],
    ) -> None:
        """Take a chunk whenever a reader needs one."""
        error: BaseException | None = None
        source: Any = None
        try:
            await self._needed.wait()
            source = aiter(send())
            while True:
                await self._needed.wait()
                self._needed.clear()
                command, self._command = self._command, None
                self.kept.add(await _resume(source, command, anext))
                self._wake()
        except StopAsyncIteration:
            pass
        except BaseException as raised:
            error = raised
        self.kept.error, self.kept.over = error, True
        try:
            close = getattr(source, "aclose", None) or getattr(source, "close", None)
            if close is not None and error is not None:
                await close()
        finally:
            await ended(error)
            self._wake()

    async def _leave(self) -> None:
        self._readers -= 1
        if self._readers or self.kept.over or self._taker is None:
            return
        import asyncio

        self._void = True  # nobody may become a reader of what is about to be closed
        self._taker.cancel()
        await asyncio.wait([self._taker])
