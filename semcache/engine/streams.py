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
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.call_options import CallOptions, Lead, Served, Steps
from semcache.engine.calls import aopen_call, open_call, outcome_of
from semcache.engine.coalescing import codec_fault, finish
from semcache.engine.drivers import adrive, drive
from semcache.engine.kept_chunks import Kept, RestartError
from semcache.engine.shared_streams import (
    FIRST_CHUNK_PATIENCE,
    AsyncSharedStream,
    SharedStream,
)
from semcache.engine.single_flight import Completed, inside
from semcache.types import Query

if TYPE_CHECKING:
    from semcache.engine.engine import Engine


def stream(
    engine: Engine, query: Query, send: Callable[[], Iterator[Any]], options: CallOptions
) -> Generator[Any, Any, Any]:
    """The stored chunks for a request, or those of `send()` as they arrive.

    A stream is stored only if it is read to its end. Callers who make the same request meanwhile
    read the same stream, each from its start.
    """
    shared = SharedStream(query.exact_key, _kept(options))
    opening = open_call(engine, query, options, shared)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            after_hit(engine, opening.lookup, partial(_collect, options, send), options)
        yield from opening.value
        return getattr(opening.value, "returned", None)
    if isinstance(opening, Lead):
        _lead(engine, opening, shared, send, options)
        return (yield from shared.read())
    return (yield from _followed(engine, query, send, options, opening.stream))


def value_or_stream(
    engine: Engine, query: Query, send: Callable[[], Any], whole: CallOptions, options: CallOptions
) -> Any:
    """What `send()` returns if it is a whole value; else its stream, as `stream` yields it.

    For functions that return an iterator if they are asked to stream.

    Args:
        whole: the options of a whole value.
        options: the options of a stream.
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
            drive(finish(engine, opening, whole, value, value))
            return value
        _lead(engine, opening, shared, lambda: value, options)
        return ReplayedStream(shared.read(), value)
    if isinstance(opening, Served):
        return ReplayedStream(chunk for chunk in opening.value)
    return ReplayedStream(_followed(engine, query, send, options, opening.stream))


def _followed(
    engine: Engine,
    query: Query,
    send: Callable[[], Iterator[Any]],
    options: CallOptions,
    shared: SharedStream,
) -> Generator[Any, Any, Any]:
    """The stream that another caller leads; one of its own if there is none after all."""
    try:
        return (yield from shared.read(FIRST_CHUNK_PATIENCE))
    except RestartError:
        return (yield from stream(engine, query, send, replace(options, coalesce="off")))


def _lead(
    engine: Engine,
    lead: Lead,
    shared: SharedStream,
    send: Callable[[], Iterator[Any]],
    options: CallOptions,
) -> None:
    """Start the stream that the caller leads, and become its first reader."""

    shared.enter()
    shared.start(
        _deferred(send), lambda error: drive(_ended(engine, lead, shared.kept, options, error))
    )


def _deferred(send: Callable[[], Iterator[Any]]) -> Generator[Any, Any, Any]:
    """The stream of `send()`, called when the first chunk is taken."""
    source = send()
    if isinstance(source, Generator):
        return (yield from source)
    closable: Any = source
    with closing(closable) if hasattr(source, "close") else nullcontext():
        return (yield from source)


def _kept(options: CallOptions) -> Kept:
    """No chunks yet."""
    return Kept(options.codec, keep_seen=options.store_if is not None)


def _ended(
    engine: Engine, lead: Lead, kept: Kept, options: CallOptions, error: BaseException | None
) -> Steps:
    """Store a stream that came to its end, and end the call in flight."""
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
    """An iterator over a stream that stands for the object that an SDK returns for one.

    Args:
        chunks: the chunks.
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
    while True:
        shared = AsyncSharedStream(query.exact_key, _kept(options))
        opening = await aopen_call(engine, query, options, shared)
        if isinstance(opening, Served):
            if opening.lookup is not None:
                whole = partial(_acollect, options, send)
                aafter_hit(engine, opening.lookup, whole, options)
            for chunk in opening.value:
                yield chunk
            return
        if isinstance(opening, Lead):
            _alead(engine, opening, shared, send, options)
            chunks, patience = shared, None
        else:
            chunks, patience = opening.stream, FIRST_CHUNK_PATIENCE
        reader = chunks.read(patience)
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
        except RestartError:
            options = replace(options, coalesce="off")
        finally:
            await reader.aclose()


async def avalue_or_stream(
    engine: Engine,
    query: Query,
    send: Callable[[], Awaitable[Any]],
    whole: CallOptions,
    options: CallOptions,
) -> Any:
    """`value_or_stream` for an async `send`, which may return an async iterator."""
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
            await adrive(engine, finish(engine, opening, whole, value, value))
            return value
        _alead(engine, opening, shared, lambda: value, options)
        return AsyncReplayedStream(shared.read(), value)
    if isinstance(opening, Served):
        return AsyncReplayedStream(_aiter(opening.value))
    return AsyncReplayedStream(_afollowed(engine, query, send, options, opening.stream))


async def _afollowed(
    engine: Engine,
    query: Query,
    send: Callable[[], Awaitable[Any]],
    options: CallOptions,
    shared: AsyncSharedStream,
) -> AsyncGenerator[Any, Any]:
    """`_followed` for an async `send`."""

    async def awaited() -> AsyncGenerator[Any, Any]:
        async for chunk in await send():
            yield chunk

    try:
        async for chunk in shared.read(FIRST_CHUNK_PATIENCE):
            yield chunk
    except RestartError:
        async for chunk in astream(engine, query, awaited, replace(options, coalesce="off")):
            yield chunk


def _alead(
    engine: Engine,
    lead: Lead,
    shared: AsyncSharedStream,
    send: Callable[[], AsyncIterator[Any]],
    options: CallOptions,
) -> None:
    """`_lead` for an async iterator."""

    shared.enter()
    shared.start(
        send, lambda error: adrive(engine, _ended(engine, lead, shared.kept, options, error))
    )


async def _aiter(chunks: list[Any]) -> AsyncGenerator[Any, None]:
    for chunk in chunks:
        yield chunk


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
    """Read a whole stream that only the cache needs."""
    kept = _kept(options)
    for chunk in send():
        kept.add(chunk)
    return kept.whole, kept.seen


async def _acollect(options: CallOptions, send: Callable[[], AsyncIterator[Any]]) -> Whole:
    kept = _kept(options)
    async for chunk in send():
        kept.add(chunk)
    return kept.whole, kept.seen
