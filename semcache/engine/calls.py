"""One call from start to end: look up; on a miss, ask the model and store the answer.

What happens before and after asking the model is written once, as generators of steps
(`coalescing`); one driver performs the steps blocking, another async (`drivers`). The functions
here and in `streams` differ only in how they ask the model. Hits take a short path without
generators.

If the cache fails, the call is a miss; the model's own errors pass through unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from semcache.engine.background import Whole, aafter_hit, after_hit
from semcache.engine.call_options import CallOptions, Follow, Lead, Served
from semcache.engine.coalescing import finish, join, served_by
from semcache.engine.drivers import adrive, drive
from semcache.engine.single_flight import Abandoned, Failed, inside
from semcache.privacy.personal import LONGEST_DELAY, is_delay
from semcache.types import Query

if TYPE_CHECKING:
    from semcache.engine.async_shared_streams import AsyncSharedStream
    from semcache.engine.engine import Engine
    from semcache.engine.shared_streams import SharedStream


def open_call(
    engine: Engine, query: Query, options: CallOptions, stream: SharedStream | None = None
) -> Served | Lead | Follow:
    """Look up; on a miss, join a call in flight or lead a new one."""
    ended = engine.in_flight.ended
    lookup = engine.lookups.lookup(query, serve=not options.refresh)
    served = served_by(engine, options, lookup)
    if served is not None:
        if engine.hit_delay:
            time.sleep(_seconds(engine))
        return served
    joined: Served | Lead | Follow = drive(join(engine, lookup, ended, options, stream))
    return joined


async def aopen_call(
    engine: Engine, query: Query, options: CallOptions, stream: AsyncSharedStream | None = None
) -> Served | Lead | Follow:
    """`open_call` without blocking."""
    ended = engine.in_flight.ended
    lookup = await engine.in_thread(
        partial(engine.lookups.lookup, query, serve=not options.refresh)
    )
    served = served_by(engine, options, lookup)
    if served is not None:
        if engine.hit_delay:
            import asyncio

            await asyncio.sleep(_seconds(engine))
        return served
    steps = join(engine, lookup, ended, options, stream, blocking=False)
    joined: Served | Lead | Follow = await adrive(engine, steps)
    return joined


def _seconds(engine: Engine) -> float:
    """How long a hit waits before it is returned."""
    delay = engine.hit_delay
    try:
        seconds = float(delay() if callable(delay) else delay)
        if not is_delay(seconds):
            raise ValueError(f"hit_delay returned {seconds}, not 0 to {LONGEST_DELAY} seconds")
        return seconds
    except Exception as error:
        engine.telemetry.fault("privacy", error)
        return 0.0


def answer(engine: Engine, query: Query, send: Callable[[], Any], options: CallOptions) -> Any:
    """The stored value for a request, or what `send()` returns."""
    opening = open_call(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            after_hit(engine, opening.lookup, partial(_whole, send), options)
        return opening.value
    assert isinstance(opening, Lead)
    try:
        with inside(opening.call.key):
            value = send()
    except BaseException as error:
        engine.in_flight.end(opening.call, outcome_of(error))
        raise
    drive(finish(engine, opening, options, value, value))
    return value


async def aanswer(
    engine: Engine, query: Query, send: Callable[[], Awaitable[Any]], options: CallOptions
) -> Any:
    """`answer` for an async `send`."""
    opening = await aopen_call(engine, query, options)
    if isinstance(opening, Served):
        if opening.lookup is not None:
            aafter_hit(engine, opening.lookup, partial(_awhole, send), options)
        return opening.value
    assert isinstance(opening, Lead)
    try:
        with inside(opening.call.key):
            value = await send()
    except BaseException as error:
        engine.in_flight.end(opening.call, outcome_of(error))
        raise
    await adrive(engine, finish(engine, opening, options, value, value))
    return value


def _whole(send: Callable[[], Any]) -> Whole:
    value = send()
    return value, value


async def _awhole(send: Callable[[], Awaitable[Any]]) -> Whole:
    value = await send()
    return value, value


def outcome_of(error: BaseException) -> Failed | Abandoned:
    """Followers share an error of the model, but not the cancellation of their leader."""
    return Failed(error) if isinstance(error, Exception) else Abandoned()
