"""One call from start to end: look up; on a miss, ask the model and store the answer.

What happens before and after asking the model is written once, as generators of steps
(`coalescing`); one driver performs the steps blocking, another async (`drivers`). The four
functions here differ only in how they ask the model. Hits take a short path without generators.

If the cache fails, the call is a miss; the model's own errors pass through unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.call_options import CallOptions, Lead, Served
from semcache.engine.coalescing import finish, join, served_by
from semcache.engine.drivers import adrive, drive
from semcache.engine.single_flight import Abandoned, Failed, inside
from semcache.types import Query

if TYPE_CHECKING:
    from semcache.engine.engine import Engine


def _open(engine: Engine, query: Query, options: CallOptions) -> Served | Lead:
    """Look up; on a miss, join a call in flight or lead a new one."""
    ended = engine.in_flight.ended
    lookup = engine.lookups.lookup(query, serve=not options.refresh)
    served = served_by(engine, options, lookup)
    if served is not None:
        return served
    joined: Served | Lead = drive(join(engine, lookup, ended, options))
    return joined


async def _aopen(engine: Engine, query: Query, options: CallOptions) -> Served | Lead:
    """`_open` without blocking."""
    ended = engine.in_flight.ended
    lookup = await engine.in_thread(
        partial(engine.lookups.lookup, query, serve=not options.refresh)
    )
    served = served_by(engine, options, lookup)
    if served is not None:
        return served
    joined: Served | Lead = await adrive(engine, join(engine, lookup, ended, options))
    return joined


def answer(engine: Engine, query: Query, send: Callable[[], Any], options: CallOptions) -> Any:
    """The stored value for a request, or what `send()` returns."""
    opening = _open(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            after_hit(engine, opening.lookup, partial(_whole, send), options)
        return opening.value
    try:
        with inside(opening.call.key):
            value = send()
    except BaseException as error:
        engine.in_flight.end(opening.call, _outcome_of(error))
        raise
    drive(finish(engine, opening, options, value, value))
    return value


async def aanswer(
    engine: Engine, query: Query, send: Callable[[], Awaitable[Any]], options: CallOptions
) -> Any:
    """`answer` for an async `send`."""
    opening = await _aopen(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            aafter_hit(engine, opening.lookup, partial(_awhole, send), options)
        return opening.value
    try:
        with inside(opening.call.key):
            value = await send()
    except BaseException as error:
        engine.in_flight.end(opening.call, _outcome_of(error))
        raise
    await adrive(engine, finish(engine, opening, options, value, value))
    return value


def stream(
    engine: Engine, query: Query, send: Callable[[], Iterator[Any]], options: CallOptions
) -> Generator[Any, None, None]:
    """The stored chunks for a request, or those of `send()` as they arrive.

    A stream is stored only if it is read to its end.
    """
    opening = _open(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            whole = partial(_collect, engine, options, send)
            after_hit(engine, opening.lookup, whole, options)
        yield from opening.value
        return
    chunks = _Chunks(engine, options)
    source: Any = None
    try:
        source = iter(send())
        for chunk in source:
            chunks.add(chunk)
            yield chunk
    except BaseException as error:
        engine.in_flight.end(opening.call, _outcome_of(error))
        if (close := getattr(source, "close", None)) is not None:
            close()
        raise
    drive(finish(engine, opening, options, chunks.kept, chunks.seen))


async def astream(
    engine: Engine, query: Query, send: Callable[[], AsyncIterator[Any]], options: CallOptions
) -> AsyncGenerator[Any, None]:
    """`stream` for an async iterator."""
    opening = await _aopen(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            whole = partial(_acollect, engine, options, send)
            aafter_hit(engine, opening.lookup, whole, options)
        for chunk in opening.value:
            yield chunk
        return
    chunks = _Chunks(engine, options)
    source: Any = None
    try:
        source = aiter(send())
        async for chunk in source:
            chunks.add(chunk)
            yield chunk
    except BaseException as error:
        engine.in_flight.end(opening.call, _outcome_of(error))
        if (close := getattr(source, "aclose", None)) is not None:
            await close()
        raise
    await adrive(engine, finish(engine, opening, options, chunks.kept, chunks.seen))


class _Chunks:
    """Collects the chunks of a stream as they arrive.

    Attributes:
        seen: the caller's own chunks; empty if there is no `store_if` to call with them.
        kept: what to store of the chunks; None once one of them cannot be stored, and so neither
            can the stream.
    """

    def __init__(self, engine: Engine, options: CallOptions) -> None:
        self._engine = engine
        self._options = options
        self.seen: list[Any] = []
        self.kept: list[Any] | None = []

    def add(self, chunk: Any) -> None:
        if self.kept is None:
            return
        try:
            self.kept.append(self._options.codec.keep(chunk))
            if self._options.store_if is not None:
                self.seen.append(chunk)
        except Exception as error:
            self.kept = None
            self._engine.telemetry.fault("codec", error)


def _whole(send: Callable[[], Any]) -> Whole:
    value = send()
    return value, value


async def _awhole(send: Callable[[], Awaitable[Any]]) -> Whole:
    value = await send()
    return value, value


def _collect(engine: Engine, options: CallOptions, send: Callable[[], Iterator[Any]]) -> Whole:
    """Read a whole stream that only the cache needs."""
    chunks = _Chunks(engine, options)
    for chunk in send():
        chunks.add(chunk)
    return chunks.kept, chunks.seen


async def _acollect(
    engine: Engine, options: CallOptions, send: Callable[[], AsyncIterator[Any]]
) -> Whole:
    chunks = _Chunks(engine, options)
    async for chunk in send():
        chunks.add(chunk)
    return chunks.kept, chunks.seen


def _outcome_of(error: BaseException) -> Failed | Abandoned:
    """Followers share an error of the model, but not the cancellation of their leader."""
    return Failed(error) if isinstance(error, Exception) else Abandoned()
