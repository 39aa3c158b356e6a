"""Doing what a walk asks for: blocking, or in tasks with local work in a worker thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from semcache import sansio as driving
from semcache.engine.call_options import Pause, Step, Wait, Walk

T = TypeVar("T")


def drive(walk: Walk) -> Any:
    """Do what a walk asks for, blocking."""
    return driving.drive(walk, _perform)


def _perform(step: Step) -> Any:
    match step:
        case Wait(flight, patience):
            return flight.wait(patience)
        case Pause(seconds):
            return time.sleep(seconds)
        case _:
            return step()


async def adrive(walk: Walk) -> Any:
    """Do what a walk asks for; local work in a worker thread."""
    return await driving.adrive(walk, _aperform)


async def _aperform(step: Step) -> Any:
    match step:
        case Wait(flight, patience):
            return await flight.await_(patience)
        case Pause(seconds):
            import asyncio

            return await asyncio.sleep(seconds)
        case _:
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
