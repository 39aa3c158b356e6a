"""Calls to the model after a hit was served: to audit the hit, or to refresh a stale entry.

No caller waits for them. For blocking callers, one daemon thread makes them in turn, and those
still queued when the program ends are dropped; for async callers, each is a task of the caller's
loop. The number of pending calls is limited; hits beyond it are not audited or refreshed.
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
"""A whole value, and the value to call `store_if` with."""
AsyncSend = Callable[[], Awaitable[Whole]]

_MAX_PENDING = 8
"""The most calls queued for an engine's thread, and the most that run as its tasks."""


class Background:
    """Runs work after a hit, in a thread or in tasks, and drops work when there is too much.

    Args:
        fault: called with errors of the work.
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.after_fork()

    def after_fork(self) -> None:
        """In a child process: start empty; the thread and the tasks are the parent's."""
        self._queue: Queue[Callable[[], None] | None] = Queue(_MAX_PENDING)
        self._thread: Thread | None = None
        self._tasks: set[Any] = set()

    def close(self) -> None:
        """Drop what is queued. Work that the thread has begun still finishes."""
        while not self._queue.empty():
            with suppress(Empty):
                self._queue.get_nowait()
        with suppress(Full):
            self._queue.put_nowait(None)
        self._thread = None

    def submit(self, work: Callable[[], None]) -> None:
        """Queue work for the thread; drop it if the queue is full."""
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
        """Run work in a task of the running loop; drop it if there are too many tasks."""
        import asyncio

        self._drop_orphans()
        if len(self._tasks) >= _MAX_PENDING:
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
        """Forget tasks of closed loops, which never finish and would count as pending forever."""
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
    """Refresh or audit a hit in the background thread, if that is due."""
    if lookup.stale:
        engine.background.submit(partial(_refresh, engine, lookup, send, options))
    elif not options.streams and engine.recorder.wants_audit(lookup):
        engine.background.submit(lambda: _audit(engine, lookup, options, send()[0]))


def aafter_hit(engine: Engine, lookup: Lookup, send: AsyncSend, options: CallOptions) -> None:
    """`after_hit` in a task of the running loop."""
    if lookup.stale:
        engine.background.submit_task(partial(_arefresh, engine, lookup, send, options))
    elif not options.streams and engine.recorder.wants_audit(lookup):

        async def audit() -> None:
            value, _ = await send()
            await engine.in_thread(partial(_audit, engine, lookup, options, value))

        engine.background.submit_task(audit)


def _audit(engine: Engine, lookup: Lookup, options: CallOptions, value: Any) -> None:
    completion = dump(engine, options, value, value)
    if completion is not None:
        engine.recorder.record_audit(lookup, completion, ttl=options.ttl, policy=options.storage)


# ---------------------------------------------------------------------------- refreshing


def _refresh(
    engine: Engine, lookup: Lookup, send: Callable[[], Whole], options: CallOptions
) -> None:
    lead = drive(_lead_refresh(engine, lookup, options))
    if lead is None:
        return
    try:
        with inside(lead.call.key):
            value, checked = send()
    except BaseException:
        engine.in_flight.end(lead.call, Abandoned())
        raise
    drive(_finish_refresh(engine, lead, options, value, checked))


async def _arefresh(engine: Engine, lookup: Lookup, send: AsyncSend, options: CallOptions) -> None:
    lead = await adrive(engine, _lead_refresh(engine, lookup, options))
    if lead is None:
        return
    try:
        with inside(lead.call.key):
            value, checked = await send()
    except BaseException:
        engine.in_flight.end(lead.call, Abandoned())
        raise
    await adrive(engine, _finish_refresh(engine, lead, options, value, checked))


def _lead_refresh(
    engine: Engine, lookup: Lookup, options: CallOptions
) -> Generator[Step, Any, Lead | None]:
    """Lead the refresh; None if another caller, in any process, is doing it or has done it."""
    query = lookup.query
    call, leads = engine.in_flight.join(query.exact_key)
    if not leads:
        return None
    try:
        holder = yield from take_lease(engine, call, lookup, options, 0.0)
        refreshed = holder == "another"
        if not refreshed:
            refreshed = (yield partial(engine.lookups.fresh_exact, query)) is not None
        if not refreshed:
            # Keep the tier: `record` embeds the question of an exact hit, which has no vector.
            miss = replace(lookup, decision=Miss("expired"), entry=None)
            old = lookup.entry if lookup.tier == "semantic" else None
            return Lead(call, miss, None if old is None else old.id)
    except BaseException:
        engine.in_flight.end(call, Abandoned())
        raise
    engine.in_flight.end(call, Abandoned())
    return None


def _finish_refresh(
    engine: Engine, lead: Lead, options: CallOptions, value: Any, checked: Any
) -> Generator[Step, Any, None]:
    """Store the new answer, and delete a stale entry that answered a rephrased question."""
    stored = yield from finish(engine, lead, options, value, checked)
    if stored is not None and lead.replaces is not None:
        yield partial(engine.delete, Selection(ids=(lead.replaces,)))
