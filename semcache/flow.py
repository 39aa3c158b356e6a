"""The walk of a call: look up, else ask the model, store the answer.

What surrounds asking the model is written once, as two generators that yield what they
need done: local work (a callable), or waiting for another's flight (`Wait`). One driver
does it blocking, one async, where local work goes to a worker thread. What the four
doors at the end differ in is only how the model is asked. A hit ends before any of
that, in a few lines.

A fault of the cache leaves the walk as a miss; the model's own errors pass through
unchanged.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from queue import Full, Queue
from threading import Thread
from typing import Any, Literal, Protocol, TypeVar

from semcache import driving
from semcache.cache import Cache, Keep
from semcache.core.retention import UNSET, GivenTTL
from semcache.flights import Crashed, Flight, Flights, Landed, Left, inside
from semcache.types import Completion, Lookup, Query, Source

T = TypeVar("T")
Coalesce = Literal["exact", "semantic", "off"]

PATIENCE = 120.0
"""Seconds that equal requests wait for a call under way before they ask for themselves."""
STREAM_PATIENCE = 10.0
"""The same for a stream, whose reader may have stopped reading."""


class Codec(Protocol):
    """How a caller's values are stored and given back."""

    tells_source: bool
    """Its values have room for where a completion was served from."""

    def keep(self, chunk: Any) -> Any:
        """What `dump` needs of a chunk, taken before the caller can change the chunk."""
        ...

    def dump(self, value: Any) -> Completion:
        """A value, or the list of a stream's kept chunks. Raises `TypeError` if it cannot be."""
        ...

    def load(self, completion: Completion) -> Any:
        """A value of the caller's own. Raises `TypeError` or `ValueError` for another's."""
        ...


class CompletionCodec:
    """For callers whose values are completions."""

    tells_source = True

    def keep(self, chunk: Any) -> Any:
        return chunk

    def dump(self, value: Completion) -> Completion:
        if not isinstance(value, Completion):
            raise TypeError(f"send gave a {type(value).__name__}, not a semcache.Completion")
        return value

    def load(self, completion: Completion) -> Completion:
        return completion


COMPLETIONS = CompletionCodec()


class TextChunks:
    """For streams of text."""

    tells_source = False

    def keep(self, chunk: str) -> str:
        return chunk

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
        coalesce: which calls under way are waited for: for the "exact" same request, also
            for one that the policy would serve ("semantic"), or none ("off").
        refresh: ask the model even if an answer is stored, and store the new one.
        noted: told how each lookup ended.
    """

    codec: Codec = COMPLETIONS
    ttl: GivenTTL = UNSET
    store_if: Callable[[Any], bool] | None = None
    keep: Keep | None = None
    streams: bool = False
    coalesce: Coalesce = "exact"
    refresh: bool = False
    noted: Callable[[Lookup], None] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a flight; after `patience` seconds count it as left."""

    flight: Flight
    patience: float | None


@dataclass(frozen=True, slots=True)
class Served:
    """The walk ends here, with this value. `lookup`: a semantic hit that may be audited."""

    value: Any
    lookup: Lookup | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """The caller is to ask the model, and to end the flight."""

    flight: Flight
    lookup: Lookup


Step = Callable[[], Any] | Wait
Walk = Generator[Step, Any, Any]


# --------------------------------------------------------------------------- the walk


def _served(cache: Cache, terms: Terms, lookup: Lookup) -> Served | None:
    """The value of a hit; None for a miss, and for a stored value of another kind."""
    if terms.noted is not None:
        terms.noted(lookup)
    entry = lookup.entry
    if entry is None:
        return None
    served = _loaded(cache, terms.codec, entry.completion, lookup.tier)
    return served if served is None else replace(served, lookup=lookup)


def _joining(
    cache: Cache, flights: Flights, lookup: Lookup, ended: int, terms: Terms
) -> Generator[Step, Any, Served | Lead]:
    """From a miss to another's value, or to leading the flight.

    `ended` is `flights.ended` from before the lookup.
    """
    patience = STREAM_PATIENCE if terms.streams else PATIENCE
    key = lookup.query.exact_key
    alone = terms.refresh or terms.coalesce == "off" or lookup.decision.reason == "caching_off"
    if terms.coalesce == "semantic" and not alone:
        near = yield from _after_near(cache, flights, lookup, terms, patience)
        if near is not None:
            return near
    while True:
        if alone:
            return Lead(Flight(key), lookup)
        flight, leads = flights.join(key, lookup)
        if leads:
            break
        if flight.mine:  # waiting for oneself would never end
            return Lead(Flight(key), lookup)
        outcome = yield Wait(flight, patience)
        match outcome:
            case Landed(completion) if (copy := _copied(cache, terms, completion)) is not None:
                cache.tally.note("shared")
                return copy
            case Crashed(error):
                raise error
            case Left() if flight.ended:
                continue  # the leader is gone: one of those who waited takes its place
            case _:  # not for sharing, or too slow: everybody for himself, side by side
                return Lead(Flight(key), lookup)
    if flights.ended == ended:
        return Lead(flight, lookup)
    # Another flight has ended since the lookup: perhaps with this very answer.
    try:
        entry = yield partial(_fresh, cache, lookup)
        served = None if entry is None else _loaded(cache, terms.codec, entry.completion, "shared")
    except BaseException:
        flights.end(flight, Left())
        raise
    if served is None:
        return Lead(flight, lookup)
    flights.end(flight, Left())
    cache.tally.note("shared")
    return served


def _after_near(
    cache: Cache, flights: Flights, lookup: Lookup, terms: Terms, patience: float
) -> Generator[Step, Any, Served | None]:
    """Wait for a call under way for nearly the same question, and look again.

    Whether its answer may be served is for the policy to say, as always.
    """
    near = flights.near(lookup, cache.floor)
    if near is None or near.mine:
        return None
    yield Wait(near, patience)
    entry = yield partial(cache.fresh_semantic, lookup)
    served = None if entry is None else _loaded(cache, terms.codec, entry.completion, "shared")
    if served is not None:
        cache.tally.note("shared")
    return served


def _fresh(cache: Cache, lookup: Lookup) -> Any:
    try:
        return cache.fresh_exact(lookup.query)
    except Exception as error:
        cache.fault("lookup", error)
        return None


def _copied(cache: Cache, terms: Terms, completion: Completion | None) -> Served | None:
    """A follower's own copy of the leader's answer; None if it cannot have one."""
    if completion is None:
        return None
    try:
        own = replace(completion, payload=deepcopy(completion.payload), attempts=())
    except Exception as error:
        cache.fault("codec", error)
        return None
    return _loaded(cache, terms.codec, own, "shared")


def _loaded(
    cache: Cache, codec: Codec, completion: Completion, source: Source | None
) -> Served | None:
    try:
        if codec.tells_source:
            completion = replace(completion, served_from=source)
        return Served(codec.load(completion))
    except Exception as error:
        cache.fault("codec", error)
        return None


def _closing(
    cache: Cache, flights: Flights, lead: Lead, terms: Terms, value: Any, judged: Any
) -> Generator[Step, Any, None]:
    """Store the model's answer and end the flight. `judged` is what `store_if` is asked with."""
    completion = None
    try:
        completion = _dumped(cache, terms, value, judged)
        if completion is not None:
            yield partial(cache.store, lead.lookup, completion, ttl=terms.ttl, keep=terms.keep)
    finally:
        flights.end(lead.flight, Landed(completion))


def _dumped(cache: Cache, terms: Terms, value: Any, judged: Any) -> Completion | None:
    if value is None:
        cache.tally.note("not_stored:empty")
        return None
    try:
        if terms.store_if is not None and not terms.store_if(judged):
            cache.tally.note("not_stored:store_if")
            return None
        return terms.codec.dump(value)
    except Exception as error:
        cache.fault("codec", error)
        return None


# ------------------------------------------------------------------------- the audits

_AUDITS = 8
"""Audits under way or waiting in this process; a hit beyond these goes unaudited."""
_audits: set[Any] = set()
_auditing: tuple[int, Queue[Callable[[], None]]] | None = None


def _audit(cache: Cache, lookup: Lookup, send: Callable[[], Any], terms: Terms) -> None:
    """Ask the model about an answer that was served, in a thread; nobody waits for it.

    A daemon: what has not been asked when the program ends is not asked.
    """
    global _auditing
    if _auditing is None or _auditing[0] != os.getpid():
        _audits.clear()
        _auditing = (os.getpid(), Queue(_AUDITS))
        Thread(target=_ask_on, args=(_auditing[1],), name="semcache-audit", daemon=True).start()

    def ask() -> None:
        try:
            _audited(cache, lookup, terms, send())
        except Exception as error:
            cache.fault("judge", error)

    with suppress(Full):
        _auditing[1].put_nowait(partial(copy_context().run, ask))


def _ask_on(waiting: Queue[Callable[[], None]]) -> None:
    while True:
        waiting.get()()


def _aaudit(cache: Cache, lookup: Lookup, send: Callable[[], Awaitable[Any]], terms: Terms) -> None:
    """`_audit` as a task of the caller's loop."""
    import asyncio

    if len(_audits) >= _AUDITS:
        return

    async def ask() -> None:
        try:
            value = await send()
            await in_thread(partial(_audited, cache, lookup, terms, value))
        except Exception as error:
            cache.fault("judge", error)

    task = asyncio.get_running_loop().create_task(ask())
    _audits.add(task)
    task.add_done_callback(_audits.discard)


def _audited(cache: Cache, lookup: Lookup, terms: Terms, value: Any) -> None:
    completion = _dumped(cache, terms, value, value)
    if completion is not None:
        cache.audited(lookup, completion, ttl=terms.ttl, keep=terms.keep)


# ------------------------------------------------------------------------ the drivers


def drive(walk: Walk) -> Any:
    """Do what a walk asks for, blocking."""
    return driving.drive(walk, _perform)


def _perform(step: Step) -> Any:
    return step.flight.wait(step.patience) if isinstance(step, Wait) else step()


async def adrive(walk: Walk) -> Any:
    """Do what a walk asks for; local work in a worker thread."""
    return await driving.adrive(walk, _aperform)


async def _aperform(step: Step) -> Any:
    if isinstance(step, Wait):
        return await step.flight.await_(step.patience)
    return await in_thread(step)


_workers: tuple[int, ThreadPoolExecutor] | None = None


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a worker thread.

    Of our own: the loop's default threads may all be taken by callers that wait for us.
    """
    import asyncio  # here, so that programs without tasks do not load it

    global _workers
    if _workers is None or _workers[0] != os.getpid():
        _workers = (os.getpid(), ThreadPoolExecutor(thread_name_prefix="semcache"))
    context = copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_workers[1], partial(context.run, work))


# -------------------------------------------------------------------------- the doors


def _open(cache: Cache, flights: Flights, query: Query, terms: Terms) -> Served | Lead:
    """Look up, and on a miss join or lead the flight."""
    ended = flights.ended
    lookup = cache.find(query, serve=not terms.refresh)
    served = _served(cache, terms, lookup)
    if served is not None:
        return served
    joined: Served | Lead = drive(_joining(cache, flights, lookup, ended, terms))
    return joined


async def _aopen(cache: Cache, flights: Flights, query: Query, terms: Terms) -> Served | Lead:
    """`_open` for tasks."""
    ended = flights.ended
    lookup = await in_thread(partial(cache.find, query, serve=not terms.refresh))
    served = _served(cache, terms, lookup)
    if served is not None:
        return served
    joined: Served | Lead = await adrive(_joining(cache, flights, lookup, ended, terms))
    return joined


def answer(
    cache: Cache, flights: Flights, query: Query, send: Callable[[], Any], terms: Terms
) -> Any:
    """The stored value for a request, or what `send()` returns."""
    opening = _open(cache, flights, query, terms)
    if isinstance(opening, Served):
        if opening.lookup is not None and cache.wants_audit(opening.lookup):
            _audit(cache, opening.lookup, send, terms)
        return opening.value
    try:
        with inside(opening.flight.key):
            value = send()
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        raise
    drive(_closing(cache, flights, opening, terms, value, value))
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
        if opening.lookup is not None and cache.wants_audit(opening.lookup):
            _aaudit(cache, opening.lookup, send, terms)
        return opening.value
    try:
        with inside(opening.flight.key):
            value = await send()
    except BaseException as error:
        flights.end(opening.flight, _broken_off(error))
        raise
    await adrive(_closing(cache, flights, opening, terms, value, value))
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
    drive(_closing(cache, flights, opening, terms, chunks.whole, chunks.seen))


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
    await adrive(_closing(cache, flights, opening, terms, chunks.whole, chunks.seen))


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


def _broken_off(error: BaseException) -> Crashed | Left:
    """A model's error is its followers' too; a caller who leaves is not."""
    return Crashed(error) if isinstance(error, Exception) else Left()
