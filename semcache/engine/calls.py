"""The walk of a call: look up, else ask the model, store the answer.

What surrounds asking the model is written once, as generators that yield what they need
done (`joining`). One driver does it blocking, one async (`drivers`). What the four doors here
differ in is only how the model is asked. A hit ends before any of that, in a few lines.

A fault of the cache leaves the walk as a miss; the model's own errors pass through
unchanged.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from functools import partial
from typing import Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.cache import Cache
from semcache.engine.call_options import Lead, Served, Terms
from semcache.engine.coalescing import closing, joining, served_by
from semcache.engine.drivers import adrive, drive, in_thread
from semcache.engine.single_flight import Crashed, Flights, Left, inside
from semcache.types import Query


def _open(cache: Cache, flights: Flights, query: Query, terms: Terms) -> Served | Lead:
    """Look up, and on a miss join or lead the flight."""
    ended = flights.ended
    lookup = cache.find(query, serve=not terms.refresh)
    served = served_by(cache, terms, lookup)
    if served is not None:
        return served
    joined: Served | Lead = drive(joining(cache, flights, lookup, ended, terms))
    return joined


async def _aopen(cache: Cache, flights: Flights, query: Query, terms: Terms) -> Served | Lead:
    """`_open` for tasks."""
    ended = flights.ended
    lookup = await in_thread(partial(cache.find, query, serve=not terms.refresh))
    served = served_by(cache, terms, lookup)
    if served is not None:
        return served
    joined: Served | Lead = await adrive(joining(cache, flights, lookup, ended, terms))
    return joined


def answer(
    cache: Cache, flights: Flights, query: Query, send: Callable[[], Any], terms: Terms
) -> Any:
    """The stored value for a request, or what `send()` returns."""
    opening = _open(cache, flights, query, terms)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            after_hit(cache, flights, opening.lookup, partial(_whole, send), terms)
        return opening.value
    try:
        with inside(opening.flight.key):
            value = send()
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        raise
    drive(closing(cache, flights, opening, terms, value, value))
    return value


async def aanswer(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], Awaitable[Any]],
    terms: Terms,
) -> Any:
    """`answer` for an async `send`."""
    opening = await _aopen(cache, flights, query, terms)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            aafter_hit(cache, flights, opening.lookup, partial(_awhole, send), terms)
        return opening.value
    try:
        with inside(opening.flight.key):
            value = await send()
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        raise
    await adrive(closing(cache, flights, opening, terms, value, value))
    return value


def stream(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], Iterator[Any]],
    terms: Terms,
) -> Generator[Any, None, None]:
    """The stored chunks for a request, or those of `send()`, passed on as they arrive.

    Stored is a stream that was read to its end, and no other.
    """
    opening = _open(cache, flights, query, terms)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            whole = partial(_collected, cache, terms, send)
            after_hit(cache, flights, opening.lookup, whole, terms)
        yield from opening.value
        return
    chunks = _Kept(cache, terms)
    source: Any = None
    try:
        source = iter(send())
        for chunk in source:
            chunks.add(chunk)
            yield chunk
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        if (close := getattr(source, "close", None)) is not None:
            close()
        raise
    drive(closing(cache, flights, opening, terms, chunks.whole, chunks.seen))


async def astream(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], AsyncIterator[Any]],
    terms: Terms,
) -> AsyncGenerator[Any, None]:
    """`stream` for an async iterator."""
    opening = await _aopen(cache, flights, query, terms)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            whole = partial(_acollected, cache, terms, send)
            aafter_hit(cache, flights, opening.lookup, whole, terms)
        for chunk in opening.value:
            yield chunk
        return
    chunks = _Kept(cache, terms)
    source: Any = None
    try:
        source = aiter(send())
        async for chunk in source:
            chunks.add(chunk)
            yield chunk
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        if (close := getattr(source, "aclose", None)) is not None:
            await close()
        raise
    await adrive(closing(cache, flights, opening, terms, chunks.whole, chunks.seen))


class _Kept:
    """The chunks of a stream, each as it was when it arrived."""

    def __init__(self, cache: Cache, terms: Terms) -> None:
        self._cache = cache
        self._terms = terms
        self.seen: list[Any] = []
        """The caller's own chunks; empty where nobody asks for them."""
        self.whole: list[Any] | None = []
        """None: a chunk could not be kept, and so the stream cannot be stored."""

    def add(self, chunk: Any) -> None:
        if self.whole is None:
            return
        try:
            self.whole.append(self._terms.codec.keep(chunk))
            if self._terms.store_if is not None:
                self.seen.append(chunk)
        except Exception as error:
            self.whole = None
            self._cache.fault("codec", error)


def _whole(send: Callable[[], Any]) -> Whole:
    value = send()
    return value, value


async def _awhole(send: Callable[[], Awaitable[Any]]) -> Whole:
    value = await send()
    return value, value


def _collected(cache: Cache, terms: Terms, send: Callable[[], Iterator[Any]]) -> Whole:
    """A whole stream, read for nobody but the cache."""
    chunks = _Kept(cache, terms)
    for chunk in send():
        chunks.add(chunk)
    return chunks.whole, chunks.seen


async def _acollected(cache: Cache, terms: Terms, send: Callable[[], AsyncIterator[Any]]) -> Whole:
    chunks = _Kept(cache, terms)
    async for chunk in send():
        chunks.add(chunk)
    return chunks.whole, chunks.seen


def _broken_off(error: BaseException) -> Crashed | Left:
    """A model's error is its followers' too; a caller who leaves is not."""
    return Crashed(error) if isinstance(error, Exception) else Left()
