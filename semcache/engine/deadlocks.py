"""Detects a call in flight that can never end, because its leader waits for the current thread.

This happens when a function calls itself through a thread or a pool: the inner call would wait for
the answer of the outer one, which waits for the inner one. The threads' stacks reveal it: a thread
that works for a pool has a future, and a thread that waits for that future holds it in a local
variable of the standard library function that blocks.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_WAITING = ("concurrent/futures/_base.py", "concurrent/futures/thread.py", "/threading.py")
_INNERMOST = 25
"""How many of a waiting thread's innermost frames are inspected."""


def waits_for_this_thread(thread: int, task: Any) -> bool:
    """Whether a thread, or an asyncio task, waits for work that the current thread is doing.

    The wait may be indirect, through other threads.

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
    """The ids of what others wait for while a thread works: the thread and its futures."""
    yield id(thread)
    while frame is not None:
        if frame.f_code.co_name == "run":
            future = getattr(frame.f_locals.get("self"), "future", None)
            if future is not None:
                yield id(future)
        frame = frame.f_back


def _waits_for(frame: FrameType, awaited: set[int]) -> bool:
    """Whether a thread waits for any of these objects, directly or in a task that it runs."""
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
    """The ids of the local variables of a thread's blocking functions, and of their items."""
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
    """Whether an asyncio task awaits one of these pool futures, as wrapped by the event loop."""
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
