"""Asking the model beside the traffic, after a hit was served: to audit it, or to renew it.

Nobody waits for it. In threads it is done one after another by a daemon thread, so that what has
not been asked when the program ends is never asked; in tasks, each by a task of the caller's loop.
There are never more than a few under way or waiting: a hit beyond these goes without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from queue import Empty, Full, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from semcache.engine.call_options import CallOptions, Lead, Step
from semcache.engine.coalescing import dump, finish, take_lease
from semcache.engine.drivers import adrive, drive
from semcache.engine.single_flight import Abandoned, inside
from semcache.types import Lookup, Miss, Selection

if TYPE_CHECKING:
    from semcache.backends.base import Fault
    from semcache.engine.engine import Engine

Whole = tuple[Any, Any]
"""A whole value, and what `store_if` is called with."""
AsyncSend = Callable[[], Awaitable[Whole]]

_MOST = 8
"""Under way or waiting, of one engine."""


class Background:
    """Work that follows a hit, in a thread or in tasks. Drops what there is no room for.

    Args:
        fault: told what failed.
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.after_fork()

    def after_fork(self) -> None:
        """In a child process: the thread and the tasks are the parent's."""
        self._queue: Queue[Callable[[], None] | None] = Queue(_MOST)
        self._thread: Thread | None = None
        self._tasks: set[Any] = set()

    def close(self) -> None:
        """Begin nothing more. What is under way in the thread ends by itself."""
        while not self._queue.empty():
            with suppress(Empty):
                self._queue.get_nowait()
        with suppress(Full):
            self._queue.put_nowait(None)
        self._thread = None

    def submit(self, work: Callable[[], None]) -> None:
        """Do this in the thread, if there is room."""
        if self._thread is None:
            thread = Thread(
                target=_run, args=(self._queue,), name="semcache-background", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # too many threads
                self._fault("background", error)
                return
            self._thread = thread

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self._fault("background", error)

        with suppress(Full):
            self._queue.put_nowait(partial(copy_context().run, guarded))

    def submit_task(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this in a task of the running loop, if there is room."""
        import asyncio

        self._drop_orphans()
        if len(self._tasks) >= _MOST:
            return

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                self._fault("background", error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop_orphans(self) -> None:
        """Tasks of closed loops never end by themselves, and would take the room of others."""
        for task in list(self._tasks):
            if task.get_loop().is_closed():
                self._tasks.discard(task)
                with suppress(Exception):
                    task.get_coro().close()


def _run(queue: Queue[Callable[[], None] | None]) -> None:
    while (work := queue.get()) is not None:
        work()


def after_hit(
    engine: Engine, lookup: Lookup, send: Callable[[], Whole], options: CallOptions
) -> None:
    """What is to be done after a hit, if anything."""
    if lookup.stale:
        engine.background.submit(partial(_renew, engine, lookup, send, options))
    elif not options.streams and engine.recorder.wants_audit(lookup):
        engine.background.submit(lambda: _audit(engine, lookup, options, send()[0]))


def aafter_hit(engine: Engine, lookup: Lookup, send: AsyncSend, options: CallOptions) -> None:
    """`after_hit` in a task of the caller's loop."""
    if lookup.stale:
        engine.background.submit_task(partial(_arenew, engine, lookup, send, options))
    elif not options.streams and engine.recorder.wants_audit(lookup):

        async def audit() -> None:
            value, _ = await send()
            await engine.in_thread(partial(_audit, engine, lookup, options, value))

        engine.background.submit_task(audit)


def _audit(engine: Engine, lookup: Lookup, options: CallOptions, value: Any) -> None:
    completion = dump(engine, options, value, value)
    if completion is not None:
        engine.recorder.record_audit(lookup, completion, ttl=options.ttl, policy=options.storage)


# ------------------------------------------------------------------------------- renewing


def _renew(engine: Engine, lookup: Lookup, send: Callable[[], Whole], options: CallOptions) -> None:
    lead = drive(_lead_renewal(engine, lookup, options))
    if lead is None:
        return
    try:
        with inside(lead.call.key):
            value, judged = send()
    except BaseException:
        engine.in_flight.end(lead.call, Abandoned())
        raise
    drive(_finish_renewal(engine, lead, options, value, judged))


async def _arenew(engine: Engine, lookup: Lookup, send: AsyncSend, options: CallOptions) -> None:
    lead = await adrive(engine, _lead_renewal(engine, lookup, options))
    if lead is None:
        return
    try:
        with inside(lead.call.key):
            value, judged = await send()
    except BaseException:
        engine.in_flight.end(lead.call, Abandoned())
        raise
    await adrive(engine, _finish_renewal(engine, lead, options, value, judged))


def _lead_renewal(
    engine: Engine, lookup: Lookup, options: CallOptions
) -> Generator[Step, Any, Lead | None]:
    """The right to renew; None if somebody else does or did, here or in another process."""
    query = lookup.query
    call, leads = engine.in_flight.join(query.exact_key)
    if not leads:
        return None
    try:
        holder = yield from take_lease(engine, call, lookup, options, 0.0)
        renewed = holder == "another"
        if not renewed:
            renewed = (yield partial(engine.lookups.fresh_exact, query)) is not None
        if not renewed:
            # The tier stays: for an exact hit the question is still to be embedded.
            asked = replace(lookup, decision=Miss("expired"), entry=None)
            old = lookup.entry if lookup.tier == "semantic" else None
            return Lead(call, asked, None if old is None else old.id)
    except BaseException:
        engine.in_flight.end(call, Abandoned())
        raise
    engine.in_flight.end(call, Abandoned())
    return None


def _finish_renewal(
    engine: Engine, lead: Lead, options: CallOptions, value: Any, judged: Any
) -> Generator[Step, Any, None]:
    """Store the new answer; a stale one to other words of the question is deleted."""
    stored = yield from finish(engine, lead, options, value, judged)
    if stored is not None and lead.replaces is not None:
        yield partial(engine.delete, Selection(ids=(lead.replaces,)))
