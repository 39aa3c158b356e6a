"""Calls whose answers are streams: from start to end, as in `calls`."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.call_options import CallOptions, Lead, Served, Steps
from semcache.engine.calls import aopen_call, open_call, outcome_of
from semcache.engine.coalescing import codec_fault, finish
from semcache.engine.drivers import adrive, drive
from semcache.engine.kept_chunks import Kept
from semcache.engine.shared_streams import (
    FIRST_CHUNK_PATIENCE,
    Reader,
    SharedStream,
    diverted,
    resume,
)
from semcache.engine.single_flight import Completed, inside
from semcache.types import Query

if TYPE_CHECKING:
    from semcache.engine.async_shared_streams import AsyncReader, AsyncSharedStream
    from semcache.engine.engine import Engine


def stream(
    engine: Engine, query: Query, send: Callable[[], Iterator[Any]], options: CallOptions
) -> Generator[Any, Any, Any]:
    """The stored chunks for a request, or those of `send()` as they arrive.

    A stream is stored only if it is read to its end. Callers who make the same request meanwhile
    read the same stream, each from its start. A follower that sends a value into it gets its own.
    """
    shared = SharedStream(query.exact_key, _kept(options))
    opening = open_call(engine, query, options, shared)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            after_hit(engine, opening.lookup, partial(_collect, options, send), options)
        return (yield from Replay(opening.value, send))
    if isinstance(opening, Lead):
        return (yield from shared.start(send, _end(engine, opening, shared, options)))
    return (yield from _followed(engine, query, send, options, opening.stream))


def value_or_stream(
    engine: Engine,
    query: Query,
    send: Callable[[], Any],
    whole: CallOptions,
    options: CallOptions,
    returned_whole: Callable[[], bool],
) -> Any:
    """What `send()` returns if it is a whole value; else its stream, as `stream` yields it.

    For functions that return an iterator if they are asked to stream.

    Args:
        whole: the options of a whole value.
        options: the options of a stream.
        returned_whole: called if `send()` returned a whole value; whether it may be stored.
    """
    shared = SharedStream(query.exact_key, _kept(options))
    opening = open_call(engine, query, options, shared)
    if isinstance(opening, Lead):
        try:
            with inside(opening.call.key):
                value = send()
        except BaseException as error:
            engine.in_flight.end(opening.call, outcome_of(error))
            raise
        if not hasattr(value, "__next__"):
            if returned_whole():
                drive(finish(engine, opening, whole, value, value))
            else:
                engine.in_flight.end(opening.call, Completed(None, kept=False))
            return value
        reader = shared.start(send, _end(engine, opening, shared, options), value)
        return ReplayedStream(reader, value)
    if isinstance(opening, Served):
        return ReplayedStream(Replay(opening.value, send))
    return ReplayedStream(_followed(engine, query, send, options, opening.stream))


def _followed(
    engine: Engine,
    query: Query,
    send: Callable[[], Iterator[Any]],
    options: CallOptions,
    shared: SharedStream,
) -> Reader:
    """A reader of another caller's stream; it opens its own if that stream never starts."""
    alone = replace(options, coalesce="off")
    restart = partial(stream, engine, query, send, alone)
    return Reader(shared, patience=FIRST_CHUNK_PATIENCE, anew=send, restart=restart)


def _end(
    engine: Engine, lead: Lead, shared: SharedStream, options: CallOptions
) -> Callable[[BaseException | None], None]:
    """The callback for the end of a stream that this caller leads."""
    return lambda error: drive(_ended(engine, lead, shared.kept, options, error))


def _kept(options: CallOptions) -> Kept:
    """An empty list of chunks for a new stream."""
    return Kept(options.codec, keep_seen=options.store_if is not None)


def _ended(
    engine: Engine, lead: Lead, kept: Kept, options: CallOptions, error: BaseException | None
) -> Steps:
    """Store the stream if it ended without an error, and end the call in flight."""
    if error is not None:
        engine.in_flight.end(lead.call, outcome_of(error))
        return
    value, checked = _to_store(engine, kept, options)
    if value is None:
        engine.in_flight.end(lead.call, Completed(None, kept=False))
    else:
        yield from finish(engine, lead, options, value, checked)


def _to_store(engine: Engine, kept: Kept, options: CallOptions) -> Whole:
    """What to store of a stream, and the value to call `store_if` with."""
    whole = kept.whole
    if kept.fault is not None:
        codec_fault(engine, options, kept.fault)
    elif whole is not None and kept.returned is not None:
        try:
            whole.append(options.codec.keep_returned(kept.returned))
        except Exception as error:
            codec_fault(engine, options, error)
            whole = None
    return whole, kept.seen


class _Replayed:
    """Takes the place of the stream object that an SDK returns.

    Args:
        chunks: an iterator over the chunks.
        source: the SDK's object, whose other attributes can be read; None for a stored stream.
    """

    def __init__(self, chunks: Any, source: Any = None) -> None:
        self._chunks = chunks
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if self._source is not None and not name.startswith("_"):
            return getattr(self._source, name)
        if name == "response":  # which the SDKs' streaming helpers close
            return _NO_RESPONSE
        raise AttributeError(f"a stream that is served from the cache has no {name}")


class _NoResponse:
    """Stands for the HTTP response of a stream that is served from the cache."""

    status_code = 200
    headers: Mapping[str, str] = MappingProxyType({})

    def close(self) -> None:
        """There is no connection."""

    async def aclose(self) -> None:
        """There is no connection."""


_NO_RESPONSE = _NoResponse()


class Replay(Generator[Any, Any, Any]):
    """Replays the chunks of a stored stream, with all the methods of a generator.

    Args:
        chunks: the chunks; their attribute `returned`, if any, is the generator's return value.
        anew: calls the function for a live stream, for a caller who sends a value.
    """

    def __init__(self, chunks: list[Any], anew: Callable[[], Iterator[Any]]) -> None:
        self._chunks = chunks
        self._anew = anew
        self._rest = iter(chunks)
        self._position = 0
        self._own: Any = None

    def send(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is None and value is not None:
            self._own = diverted(self._anew, self._position)
        if self._own is not None:
            return resume(self._own, ("send", value), next)
        for chunk in self._rest:
            self._position += 1
            return chunk
        raise StopIteration(getattr(self._chunks, "returned", None))

    def throw(self, *error: Any) -> Any:
        """Raise an error where the generator is paused; return its next chunk."""
        if self._own is not None:
            return self._own.throw(*error)
        self._rest = iter(())
        return super().throw(*error)

    def close(self) -> None:
        """Stop reading."""
        self._rest = iter(())
        if self._own is not None and (close := getattr(self._own, "close", None)) is not None:
            close()


class ReplayedStream(_Replayed):
    """A stream of a blocking client."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)

    def __enter__(self) -> ReplayedStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        self._chunks.close()


async def astream(
    engine: Engine, query: Query, send: Callable[[], AsyncIterator[Any]], options: CallOptions
) -> AsyncGenerator[Any, Any]:
    """`stream` for an async iterator."""
    from semcache.engine.async_shared_streams import AsyncSharedStream

    shared = AsyncSharedStream(query.exact_key, _kept(options))
    opening = await aopen_call(engine, query, options, shared)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            whole = partial(_acollect, options, send)
            aafter_hit(engine, opening.lookup, whole, options)
        reader: AsyncGenerator[Any, Any] = AsyncReplay(opening.value, send)
    elif isinstance(opening, Lead):
        reader = shared.start(send, _aend(engine, opening, shared, options))
    else:
        reader = _afollowed(engine, query, send, options, opening.stream)
    try:
        sent: Any = None
        while True:
            chunk = await reader.asend(sent)
            try:
                sent = yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:
                chunk = await reader.athrow(error)
                sent = yield chunk
    except StopAsyncIteration:
        return
    finally:
        await reader.aclose()


async def avalue_or_stream(
    engine: Engine,
    query: Query,
    send: Callable[[], Awaitable[Any]],
    whole: CallOptions,
    options: CallOptions,
    returned_whole: Callable[[], bool],
) -> Any:
    """`value_or_stream` for an async `send`, which may return an async iterator."""
    from semcache.engine.async_shared_streams import AsyncSharedStream

    async def awaited() -> AsyncGenerator[Any, Any]:
        async for chunk in await send():
            yield chunk

    shared = AsyncSharedStream(query.exact_key, _kept(options))
    opening = await aopen_call(engine, query, options, shared)
    if isinstance(opening, Lead):
        try:
            with inside(opening.call.key):
                value = await send()
        except BaseException as error:
            engine.in_flight.end(opening.call, outcome_of(error))
            raise
        if not hasattr(value, "__anext__"):
            if returned_whole():
                await adrive(engine, finish(engine, opening, whole, value, value))
            else:
                engine.in_flight.end(opening.call, Completed(None, kept=False))
            return value
        reader = shared.start(awaited, _aend(engine, opening, shared, options), value)
        return AsyncReplayedStream(reader, value)
    if isinstance(opening, Served):
        return AsyncReplayedStream(AsyncReplay(opening.value, awaited))
    return AsyncReplayedStream(_afollowed(engine, query, awaited, options, opening.stream))


def _afollowed(
    engine: Engine,
    query: Query,
    send: Callable[[], AsyncIterator[Any]],
    options: CallOptions,
    shared: AsyncSharedStream,
) -> AsyncReader:
    """`_followed` for an async iterator."""
    from semcache.engine.async_shared_streams import AsyncReader

    alone = replace(options, coalesce="off")
    restart = partial(astream, engine, query, send, alone)
    return AsyncReader(shared, patience=FIRST_CHUNK_PATIENCE, anew=send, restart=restart)


def _aend(
    engine: Engine, lead: Lead, shared: AsyncSharedStream, options: CallOptions
) -> Callable[[BaseException | None], Awaitable[Any]]:
    """`_end` for an async iterator."""
    return lambda error: adrive(engine, _ended(engine, lead, shared.kept, options, error))


class AsyncReplay(AsyncGenerator[Any, Any]):
    """`Replay` for an async iterator."""

    def __init__(self, chunks: list[Any], anew: Callable[[], AsyncIterator[Any]]) -> None:
        self._anew = anew
        self._rest = iter(chunks)
        self._position = 0
        self._own: Any = None

    async def __anext__(self) -> Any:
        return await self.asend(None)

    async def asend(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is None and value is not None:
            from semcache.engine.async_shared_streams import adiverted

            self._own = await adiverted(self._anew, self._position)
        if self._own is not None:
            return await resume(self._own, ("asend", value), anext)
        for chunk in self._rest:
            self._position += 1
            return chunk
        raise StopAsyncIteration

    async def athrow(self, *error: Any) -> Any:
        """Raise an error where the generator is paused; return its next chunk."""
        if self._own is not None:
            return await self._own.athrow(*error)
        self._rest = iter(())
        return await super().athrow(*error)

    async def aclose(self) -> None:
        """Stop reading."""
        self._rest = iter(())
        if self._own is not None and (close := getattr(self._own, "aclose", None)) is not None:
            await close()


class AsyncReplayedStream(_Replayed):
    """A stream of an async client."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._chunks)

    async def __aenter__(self) -> AsyncReplayedStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading."""
        await self._chunks.aclose()


def _collect(options: CallOptions, send: Callable[[], Iterator[Any]]) -> Whole:
    """Read a whole stream for a refresh, with no caller waiting."""
    kept = _kept(options)
    for chunk in send():
        kept.add(chunk)
    return kept.whole, kept.seen


async def _acollect(options: CallOptions, send: Callable[[], AsyncIterator[Any]]) -> Whole:
    kept = _kept(options)
    async for chunk in send():
        kept.add(chunk)
    return kept.whole, kept.seen
