"""Forks and the end of the program, for every engine of the process.

The only place with state of the process as a whole: the operating system forks all of it at once.
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
    """The engines that are open, and what must happen to them when the process forks or ends."""

    def __init__(self) -> None:
        self._engines: WeakSet[Engine] = WeakSet()
        self._turn = threading.RLock()
        """Held while a thread forks; one at a time."""
        self._held: list[Engine] = []

    def add(self, engine: Engine) -> None:
        """Look after an engine for as long as somebody uses it."""
        self._engines.add(engine)

    def register(self) -> None:
        """Have the interpreter call this object."""
        atexit.register(self.close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.before_fork,
                after_in_parent=self.after_fork_in_parent,
                after_in_child=self.after_fork,
            )

    def close_all(self) -> None:
        """At the end of the program: write what is counted, save indexes."""
        for engine in list(self._engines):
            with suppress(Exception):
                engine.close()

    def before_fork(self) -> None:
        """Wait until no engine is in the middle of a write, and keep it so."""
        self._turn.acquire()
        self._held[:] = list(self._engines)
        for engine in self._held:
            engine.before_fork()

    def after_fork_in_parent(self) -> None:
        for engine in reversed(self._held):
            engine.after_fork_in_parent()
        self._held.clear()
        self._turn.release()

    def after_fork(self) -> None:
        """In a child process: the parent's threads are gone, with the locks that they held."""
        self._turn = threading.RLock()
        self._held.clear()
        for engine in list(self._engines):
            engine.after_fork()


LIFECYCLE = Lifecycle()
LIFECYCLE.register()
