"""The walk of a call: look up, else ask the model, store the answer.

What follows a miss is written once, as generators that yield what they need done: local
work (a callable), waiting for another's flight (`Wait`), asking the model (`SEND`). One
driver does it blocking, one async, where local work goes to a worker thread. What the
callers of this module differ in is only how the model is asked. A hit ends before any
of that, in a few lines.

A fault of the cache leaves the walk as a miss; the model's own errors pass through
unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from semcache.cache import Cache, Keep
from semcache.core.retention import UNSET, GivenTTL
from semcache.flights import Crashed, Flight, Flights, Landed, Left, inside
from semcache.types import Completion, Lookup, Query

T = TypeVar("T")

STREAM_PATIENCE = 30.0
"""Seconds that equal requests wait for a stream under way, whose reader may have stopped."""


class Codec(Protocol):
    """How a caller's values are stored and given back."""

    def dump(self, value: Any) -> Completion:
        """Raises `TypeError` for a value that cannot be stored."""
        ...

    def load(self, completion: Completion) -> Any:
        """Raises `TypeError` or `ValueError` where the stored form is another's."""
        ...


class CompletionCodec:
    """For callers whose values are completions."""

    def dump(self, value: Completion) -> Completion:
        return value

    def load(self, completion: Completion) -> Completion:
        return completion


COMPLETIONS = CompletionCodec()


class TextChunks:
    """For streams of text."""

    def dump(self, value: Sequence[str]) -> Completion:
        return Completion("".join(value), payload=list(value), payload_kind="chunks")

    def load(self, completion: Completion) -> list[str]:
        if completion.payload_kind == "chunks" and all(
            isinstance(chunk, str) for chunk in completion.payload
        ):
            return list(completion.payload)
        return [completion.text]


TEXT_CHUNKS = TextChunks()


@dataclass(frozen=True, slots=True)
class Terms:
    """How one call is looked up and kept.

    Attributes:
        codec: values to completions and back.
        ttl: for the answer, see `core.retention`.
        store_if: asked with the value; the answer is not stored if it says no.
        keep: which answers are stored besides whole ones in words; None: the cache's own.
        streams: values are lists of chunks.
        refresh: ask the model even if an answer is stored, and store the new one.
        noted: told how each lookup ended.
    """

    codec: Codec = COMPLETIONS
    ttl: GivenTTL = UNSET
    store_if: Callable[[Any], bool] | None = None
    keep: Keep | None = None
    streams: bool = False
    refresh: bool = False
    noted: Callable[[Lookup], None] | None = None


class _Send(Enum):
    SEND = "send"


SEND: Final = _Send.SEND


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a flight; after `patience` seconds count it as left."""

    flight: Flight
    patience: float | None


@dataclass(frozen=True, slots=True)
class Served:
    """The walk ends here, with this value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Lead:
    """The caller is to ask the model, and to end the flight."""

    flight: Flight
    lookup: Lookup


Step = Callable[[], Any] | Wait | _Send
Walk = Generator[Step, Any, Any]


# --------------------------------------------------------------------------- the walk


def _served(cache: Cache, terms: Terms, lookup: Lookup) -> Served | None:
    """The value of a hit; None for a miss, and for a stored value of another kind."""
    if terms.noted is not None:
        terms.noted(lookup)
    entry = lookup.entry
    return None if entry is None else _loaded(cache, terms.codec, entry.completion)


def _joining(
    cache: Cache, flights: Flights, lookup: Lookup, ended: int, terms: Terms
) -> Generator[Step, Any, Served | Lead]:
    """From a miss to another's value, or to leading the flight.

    `ended` is `flights.ended` from before the lookup.
    """
    patience = STREAM_PATIENCE if terms.streams else None
    while True:
        flight, leads = flights.join(lookup.query.exact_key)
        if leads:
            break
        outcome = yield Wait(flight, patience)
        match outcome:
            case Landed(value, completion):
                cache.tally.note("shared")
                copy = None if completion is None else _loaded(cache, terms.codec, completion)
                return copy or Served(value)
            case Crashed(error):
                raise error
            case Left():
                if patience is not None:
                    return Lead(Flight(flight.key), lookup)
    if flights.ended == ended or terms.refresh:
        return Lead(flight, lookup)
    # Another flight has ended since the lookup: perhaps with this very answer.
    try:
        entry = yield partial(_fresh, cache, lookup)
        served = None if entry is None else _loaded(cache, terms.codec, entry.completion)
    except BaseException:
        flights.end(flight, Left())
        raise
    if served is None:
        return Lead(flight, lookup)
    flights.end(flight, Left())
    return served


def _fresh(cache: Cache, lookup: Lookup) -> Any:
    try:
        return cache.fresh_exact(lookup.query)
    except Exception as error:
        cache.fault("lookup", error)
        return None


def _loaded(cache: Cache, codec: Codec, completion: Completion) -> Served | None:
    try:
        return Served(codec.load(completion))
    except Exception as error:
        cache.fault("codec", error)
        return None


def _closing(
    cache: Cache, flights: Flights, lead: Lead, terms: Terms, value: Any
) -> Generator[Step, Any, None]:
    """Store the model's answer and end the flight."""
    completion = None
    try:
        completion = _dumped(cache, terms, value)
        if completion is not None:
            yield partial(cache.store, lead.lookup, completion, ttl=terms.ttl, keep=terms.keep)
    finally:
        flights.end(lead.flight, Landed(value, completion))


def _dumped(cache: Cache, terms: Terms, value: Any) -> Completion | None:
    if value is None:
        cache.tally.note("not_stored:empty")
        return None
    try:
        if terms.store_if is not None and not terms.store_if(value):
            cache.tally.note("not_stored:store_if")
            return None
        return terms.codec.dump(value)
    except Exception as error:
        cache.fault("codec", error)
        return None


def _asking(cache: Cache, flights: Flights, lookup: Lookup, ended: int, terms: Terms) -> Walk:
    """From a miss to the model's answer, stored."""
    opening = yield from _joining(cache, flights, lookup, ended, terms)
    if isinstance(opening, Served):
        return opening.value
    try:
        with inside(opening.flight.key):
            value = yield SEND
    except Exception as error:
        flights.end(opening.flight, Crashed(error))
        raise
    except BaseException:
        flights.end(opening.flight, Left())
        raise
    yield from _closing(cache, flights, opening, terms, value)
    return value


# ------------------------------------------------------------------------ the drivers


def drive(walk: Walk, send: Callable[[], Any] | None = None) -> Any:
    """Do what a walk asks for, blocking."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = walk.send(result) if error is None else walk.throw(error)
        except StopIteration as stop:
            return stop.value
        result = error = None
        try:
            if step is SEND:
                assert send is not None
                result = send()
            elif isinstance(step, Wait):
                result = step.flight.wait(step.patience)
            else:
                result = step()
        except BaseException as raised:
            error = raised


async def adrive(walk: Walk, send: Callable[[], Awaitable[Any]] | None = None) -> Any:
    """Do what a walk asks for; local work in a worker thread."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = walk.send(result) if error is None else walk.throw(error)
        except StopIteration as stop:
            return stop.value
        result = error = None
        try:
            if step is SEND:
                assert send is not None
                result = await send()
            elif isinstance(step, Wait):
                result = await step.flight.await_(step.patience)
            else:
                result = await in_thread(step)
        except BaseException as raised:
            error = raised


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a worker thread."""
    import asyncio  # here, so that programs without tasks do not load it

    return await asyncio.to_thread(work)


# -------------------------------------------------------------------------- the doors


def answer(
    cache: Cache, flights: Flights, query: Query, send: Callable[[], Any], terms: Terms
) -> Any:
    """The stored value for a request, or what `send()` returns."""
    ended = flights.ended
    lookup = cache.find(query, serve=not terms.refresh)
    if (served := _served(cache, terms, lookup)) is not None:
        return served.value
    return drive(_asking(cache, flights, lookup, ended, terms), send)


async def aanswer(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], Awaitable[Any]],
    terms: Terms,
) -> Any:
    """`answer` for an async `send`."""
    ended = flights.ended
    lookup = await _find(cache, query, terms)
    if (served := _served(cache, terms, lookup)) is not None:
        return served.value
    return await adrive(_asking(cache, flights, lookup, ended, terms), send)


async def _find(cache: Cache, query: Query, terms: Terms) -> Lookup:
    find = partial(cache.find, query, serve=not terms.refresh)
    return await in_thread(find)


def stream(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], Iterator[Any]],
    terms: Terms,
) -> Iterator[Any]:
    """The stored chunks for a request, or those of `send()`, passed on as they arrive.

    Stored is a stream that was read to its end, and no other.
    """
    ended = flights.ended
    lookup = cache.find(query, serve=not terms.refresh)
    opening = _served(cache, terms, lookup) or drive(_joining(cache, flights, lookup, ended, terms))
    if isinstance(opening, Served):
        yield from opening.value
        return
    chunks: list[Any] = []
    source: Any = None
    try:
        source = iter(send())
        for chunk in source:
            chunks.append(chunk)
            yield chunk
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        if (close := getattr(source, "close", None)) is not None:
            close()
        raise
    drive(_closing(cache, flights, opening, terms, chunks))


async def astream(
    cache: Cache,
    flights: Flights,
    query: Query,
    send: Callable[[], AsyncIterator[Any]],
    terms: Terms,
) -> AsyncIterator[Any]:
    """`stream` for an async iterator."""
    ended = flights.ended
    lookup = await _find(cache, query, terms)
    opening = _served(cache, terms, lookup) or await adrive(
        _joining(cache, flights, lookup, ended, terms)
    )
    if isinstance(opening, Served):
        for chunk in opening.value:
            yield chunk
        return
    chunks: list[Any] = []
    source: Any = None
    try:
        source = aiter(send())
        async for chunk in source:
            chunks.append(chunk)
            yield chunk
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        if (close := getattr(source, "aclose", None)) is not None:
            await close()
        raise
    await adrive(_closing(cache, flights, opening, terms, chunks))


def _broken_off(error: BaseException) -> Crashed | Left:
    """A model's error is its followers' too; a reader who leaves is not."""
    return Crashed(error) if isinstance(error, Exception) else Left()
