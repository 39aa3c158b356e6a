"""Drivers that perform the steps of a call: blocking, or async with local work in a thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from semcache import sansio
from semcache.engine.call_options import Pause, Step, Steps, Wait

if TYPE_CHECKING:
    from semcache.engine.engine import Engine


def drive(steps: Steps) -> Any:
    """Perform the steps, blocking."""
    return sansio.drive(steps, _perform)


def _perform(step: Step) -> Any:
    match step:
        case Wait(call, patience):
            return call.wait(patience)
        case Pause(seconds):
            return time.sleep(seconds)
        case _:
            return step()


async def adrive(engine: Engine, steps: Steps) -> Any:
    """Perform the steps without blocking; local work runs in a worker thread of the engine."""

    async def perform(step: Step) -> Any:
        match step:
            case Wait(call, patience):
                return await call.await_(patience)
            case Pause(seconds):
                import asyncio

                return await asyncio.sleep(seconds)
            case _:
                return await engine.in_thread(step)

    return await sansio.adrive(steps, perform)
