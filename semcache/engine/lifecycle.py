"""Prepares every engine of the process for a fork, and closes it when the program exits.

This is the only module with process-wide state, because a fork copies the whole process at once.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from semcache.engine.engine import Engine


class Lifecycle:
    """The open engines, and what happens to them when the process forks or exits."""

    def __init__(self) -> None:
        self._engines: WeakSet[Engine] = WeakSet()
        self._fork_lock = threading.RLock()
        """Held during a fork, so that threads fork one at a time."""
        self._paused: list[Engine] = []

    def add(self, engine: Engine) -> None:
        """Manage an engine for as long as it is referenced elsewhere."""
        self._engines.add(engine)

    def register(self) -> None:
        """Register with the interpreter's exit and fork hooks."""
        atexit.register(self.close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.before_fork,
                after_in_parent=self.after_fork_in_parent,
                after_in_child=self.after_fork,
            )

    def close_all(self) -> None:
        """At exit: close every engine, which writes its counters and saves its index."""
        for engine in list(self._engines):
            with suppress(Exception):
                engine.close()

    def before_fork(self) -> None:
        """Wait until no engine is in the middle of a write, and hold off new writes."""
        self._fork_lock.acquire()
        self._paused[:] = list(self._engines)
        for engine in self._paused:
            engine.before_fork()

    def after_fork_in_parent(self) -> None:
        for engine in reversed(self._paused):
            engine.after_fork_in_parent()
        self._paused.clear()
        self._fork_lock.release()

    def after_fork(self) -> None:
        """In a child process: replace locks, which threads of the parent may have held."""
        self._fork_lock = threading.RLock()
        self._paused.clear()
        for engine in list(self._engines):
            engine.after_fork()


LIFECYCLE = Lifecycle()
LIFECYCLE.register()
