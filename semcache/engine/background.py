"""Asking the model beside the traffic, after a hit was served: to audit it, or to renew it.

Nobody waits for it. In threads it is done one after another by a daemon, so that what has
not been asked when the program ends is not asked; in tasks, each by a task of the caller's
loop. There are never more than a few under way or waiting: a hit beyond these goes without.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from queue import Full, Queue
from threading import Thread
from typing import Any

from semcache.engine.cache import Cache
from semcache.engine.call_options import Lead, Step, Terms
from semcache.engine.coalescing import closing, dumped, leased
from semcache.engine.drivers import adrive, drive, in_thread
from semcache.engine.single_flight import Flights, Left, inside
from semcache.types import Lookup, Miss, Selection

Whole = tuple[Any, Any]
"""A value, and what `store_if` is asked with."""
Later = Callable[[], Awaitable[Whole]]

_MOST = 8
"""Under way or waiting, in this process."""
_tasks: set[Any] = set()
_working: tuple[int, Queue[Callable[[], None]]] | None = None


def after_hit(
    cache: Cache, flights: Flights, lookup: Lookup, send: Callable[[], Whole], terms: Terms
) -> None:
    """What is to be done after a hit, if anything.

    `send` returns the whole value, and what `store_if` is asked with.
    """
    if lookup.stale:
        _later(cache, partial(_renew, cache, flights, lookup, send, terms))
    elif not terms.streams and cache.wants_audit(lookup):
        _later(cache, lambda: _audited(cache, lookup, terms, send()[0]))


def aafter_hit(cache: Cache, flights: Flights, lookup: Lookup, send: Later, terms: Terms) -> None:
    """`after_hit` as a task of the caller's loop."""
    if lookup.stale:
        _task(cache, partial(_arenew, cache, flights, lookup, send, terms))
    elif not terms.streams and cache.wants_audit(lookup):

        async def audit() -> None:
            value, _ = await send()
            await in_thread(partial(_audited, cache, lookup, terms, value))

        _task(cache, audit)


def _later(cache: Cache, work: Callable[[], None]) -> None:
    global _working
    if _working is None or _working[0] != os.getpid():
        waiting: Queue[Callable[[], None]] = Queue(_MOST)
        thread = Thread(target=_work_on, args=(waiting,), name="semcache-aside", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there are too many
            cache.fault("background", error)
            return
        _working = (os.getpid(), waiting)

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            cache.fault("background", error)

    with suppress(Full):
        _working[1].put_nowait(partial(copy_context().run, guarded))


def _work_on(waiting: Queue[Callable[[], None]]) -> None:
    while True:
        waiting.get()()


def _task(cache: Cache, work: Callable[[], Awaitable[None]]) -> None:
    import asyncio

    _let_go()
    if len(_tasks) >= _MOST:
        return

    async def guarded() -> None:
        try:
            await work()
        except Exception as error:
            cache.fault("background", error)

    task = asyncio.get_running_loop().create_task(guarded())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _let_go() -> None:
    """Tasks of loops that were closed will never end by themselves, nor let others go on."""
    for task in list(_tasks):
        if task.get_loop().is_closed():
            _tasks.discard(task)
            with suppress(Exception):
                task.get_coro().close()


# -------------------------------------------------------------------------------- audits


def _audited(cache: Cache, lookup: Lookup, terms: Terms, value: Any) -> None:
    completion = dumped(cache, terms, value, value)
    if completion is not None:
        cache.audited(lookup, completion, ttl=terms.ttl, keep=terms.keep)


# -------------------------------------------------------------------------------- renewing


def _renew(
    cache: Cache, flights: Flights, lookup: Lookup, send: Callable[[], Whole], terms: Terms
) -> None:
    lead = drive(_leading(cache, flights, lookup, terms))
    if lead is None:
        return
    try:
        with inside(lead.flight.key):
            value, judged = send()
    except BaseException:
        flights.end(lead.flight, Left())
        raise
    drive(_renewed(cache, flights, lead, terms, value, judged))


async def _arenew(
    cache: Cache, flights: Flights, lookup: Lookup, send: Later, terms: Terms
) -> None:
    lead = await adrive(_leading(cache, flights, lookup, terms))
    if lead is None:
        return
    try:
        with inside(lead.flight.key):
            value, judged = await send()
    except BaseException:
        flights.end(lead.flight, Left())
        raise
    await adrive(_renewed(cache, flights, lead, terms, value, judged))


def _leading(
    cache: Cache, flights: Flights, lookup: Lookup, terms: Terms
) -> Generator[Step, Any, Lead | None]:
    """The right to renew; None: somebody else does or did, here or in another process."""
    key = lookup.query.exact_key
    flight, leads = flights.join(key)
    if not leads:
        return None
    try:
        whose = yield from leased(cache, flight, lookup, terms, 0.0)
        if whose != "another's" and (yield partial(cache.fresh_exact, lookup.query)) is None:
            # The tier stays: for an exact hit the question is still to be embedded.
            asked = replace(lookup, decision=Miss("expired"), entry=None)
            old = lookup.entry if lookup.tier == "semantic" else None
            return Lead(flight, asked, None if old is None else old.id)
    except BaseException:
        flights.end(flight, Left())
        raise
    flights.end(flight, Left())
    return None


def _renewed(
    cache: Cache, flights: Flights, lead: Lead, terms: Terms, value: Any, judged: Any
) -> Generator[Step, Any, None]:
    """Store the new answer; a stale one to other words of the question goes."""
    stored = yield from closing(cache, flights, lead, terms, value, judged)
    if stored is not None and lead.replaces is not None:
        yield partial(cache.remove, Selection(ids=(lead.replaces,)))
