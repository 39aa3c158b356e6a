"""One call whose answer is a stream, from start to end: the counterpart of `calls`."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.call_options import CallOptions, Lead, Served, Steps
from semcache.engine.calls import aopen_call, open_call, outcome_of
from semcache.engine.coalescing import codec_fault, finish
from semcache.engine.drivers import adrive, drive
from semcache.engine.kept_chunks import Kept
from semcache.engine.replays import AsyncReplay, AsyncReplayedStream, Replay, ReplayedStream
from semcache.engine.shared_streams import FIRST_CHUNK_PATIENCE, SharedStream
from semcache.engine.single_flight import Abandoned, Completed, inside
from semcache.engine.stream_readers import Reader
from semcache.types import Query

if TYPE_CHECKING:
    from semcache.engine.async_shared_streams import AsyncReader, AsyncSharedStream
    from semcache.engine.engine import Engine


def stream(
    engine: Engine, query: Query, send: Callable[[], Iterator[Any]], options: CallOptions
) -> Generator[Any, Any, Any]:
    """The stored chunks for a request, or those of `send()` as they arrive.

    A stream is stored only if it is read to its end. Callers who make the same request meanwhile
    read the same stream, each from its start. A follower that sends a value gets a separate stream.
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
        returned_whole: called if `send()` returned a whole value; returns whether to store it.
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
    """A reader of another caller's stream; it opens its own if no first chunk arrives in time."""
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
        reader = shared.start(
            send, _aend(engine, opening, shared, options), _abandon(engine, opening)
        )
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
        end, abandon = _aend(engine, opening, shared, options), _abandon(engine, opening)
        reader = shared.start(awaited, end, abandon, value)
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


def _abandon(engine: Engine, lead: Lead) -> Callable[[], None]:
    """What to do if the event loop was closed before the stream that a caller leads ended."""
    return partial(engine.in_flight.end, lead.call, Abandoned())


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
