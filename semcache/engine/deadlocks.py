"""Finds out that a call in flight cannot end, because its leader waits for one that waits for it.

It happens when a function asks itself by way of a pool or a thread: the inner call would wait for
the answer of the outer one, which waits for the inner one. The threads' stacks tell: a thread that
works for a pool has a future, and one that waits for that future has it among the local variables
of the standard library's function that waits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_WAITING = ("concurrent/futures/_base.py", "concurrent/futures/thread.py", "/threading.py")
_INNERMOST = 25
"""How many frames of a waiting thread are looked at."""


def waits_for_this_thread(thread: int, task: Any) -> bool:
    """Whether a thread, or an asyncio task, waits for work that the current thread is doing.

    It may wait for another thread that does.

    Args:
        thread: the thread's identifier.
        task: the task; None if the thread is not running one.
    """
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    awaited = set(_work(sys._getframe(1), threading.current_thread()))
    known: set[int] = set()
    while awaited:
        if task is not None and _task_waits_for(task, awaited):
            return True
        found = {
            ident
            for ident, frame in frames.items()
            if ident not in known and _waits_for(frame, awaited)
        }
        if task is None and thread in found:
            return True
        known |= found
        threads = {t.ident: t for t in threading.enumerate()}
        awaited = {work for i in found if i in threads for work in _work(frames[i], threads[i])}
    return False


def _work(frame: FrameType | None, thread: threading.Thread) -> Iterator[int]:
    """What others may wait for while a thread works: the ids of the thread and of its futures."""
    yield id(thread)
    while frame is not None:
        if frame.f_code.co_name == "run":
            future = getattr(frame.f_locals.get("self"), "future", None)
            if future is not None:
                yield id(future)
        frame = frame.f_back


def _waits_for(frame: FrameType, awaited: set[int]) -> bool:
    """Whether a thread waits for any of these, itself or as a task that it runs to its end."""
    return not awaited.isdisjoint(_held(frame)) or any(
        _task_waits_for(task, awaited) for task in _run_to_the_end(frame)
    )


def _run_to_the_end(frame: FrameType | None) -> Iterator[Any]:
    """The tasks that a thread's blocking code runs in an event loop."""
    while frame is not None:
        if frame.f_code.co_name == "run_until_complete":
            yield frame.f_locals.get("future")
        frame = frame.f_back


def _held(frame: FrameType | None) -> Iterator[int]:
    """The ids of what the waiting functions of a thread hold."""
    for _ in range(_INNERMOST):
        if frame is None:
            return
        if frame.f_code.co_filename.replace("\\", "/").endswith(_WAITING):
            for value in list(frame.f_locals.values()):
                yield id(value)
                if isinstance(value, list | set | tuple | dict):
                    yield from map(id, list(value))
        frame = frame.f_back


def _task_waits_for(task: Any, awaited: set[int]) -> bool:
    """Whether an asyncio task awaits one of these futures of a pool, wrapped by the event loop."""
    waiting = [getattr(task, "_fut_waiter", None)]
    while waiting:
        future = waiting.pop()
        if future is None:
            continue
        waiting += [getattr(future, "_fut_waiter", None), *getattr(future, "_children", ())]
        for callback in list(getattr(future, "_callbacks", None) or ()):
            for cell in getattr(callback[0], "__closure__", None) or ():
                if id(cell.cell_contents) in awaited:
                    return True
    return False
