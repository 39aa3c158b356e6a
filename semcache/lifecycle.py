"""What must happen to every cache and router when the process forks or exits.

Forks and exits concern the whole process, so the list of its caches and routers is process-wide.
The only other module-level state is memoised values, and what belongs to the process by nature,
such as connections inherited by a fork and POSIX file locks.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, finalize

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Managed:
    """An object with hooks for forks and for the end of the program; by default they do nothing."""

    def before_fork(self) -> None:
        """Wait until nothing is in the middle of a write, and hold off new writes."""

    def after_fork_in_parent(self) -> None:
        """In the parent: allow writes again."""

    def after_fork(self) -> None:
        """In a child process: replace what belonged to threads of the parent."""

    def close_at_exit(self) -> None:
        """At the end of the program: write what is waiting to be written."""


class Handle:
    """Closes a cache when the last object through which it can still be used is gone.

    Each of these objects refers to the handle, so a cache that is dropped without `close` leaves no
    descriptors or threads behind.

    Args:
        close: closes the cache; called in a thread of its own, because a finaliser may run at any
            moment, while any lock is held.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._finalizer = finalize(self, _close_in_thread, close)
        self._finalizer.atexit = False  # at exit, `Lifecycle.close_all` closes it

    def closed(self) -> None:
        """Record that the cache has been closed, so that the handle does not close it again."""
        self._finalizer.detach()


def _close_in_thread(close: Callable[[], None]) -> None:
    def quietly() -> None:
        with suppress(Exception):
            close()

    with suppress(RuntimeError):  # the interpreter is about to end
        threading.Thread(target=quietly, name="semcache-close", daemon=True).start()


class Lifecycle:
    """The managed objects of a process."""

    def __init__(self) -> None:
        self._managed: WeakSet[Managed] = WeakSet()
        self._fork_lock = threading.RLock()
        """Held during a fork, so that threads fork one at a time."""
        self._paused: list[Managed] = []

    def add(self, managed: Managed) -> None:
        """Manage an object for as long as it is referenced elsewhere."""
        self._managed.add(managed)

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
        for managed in list(self._managed):
            with suppress(Exception):
                managed.close_at_exit()

    def before_fork(self) -> None:
        self._fork_lock.acquire()
        self._paused[:] = list(self._managed)
        for managed in self._paused:
            managed.before_fork()

    def after_fork_in_parent(self) -> None:
        for managed in reversed(self._paused):
            managed.after_fork_in_parent()
        self._paused.clear()
        self._fork_lock.release()

    def after_fork(self) -> None:
        self._fork_lock = threading.RLock()
        self._paused.clear()
        for managed in list(self._managed):
            managed.after_fork()


class Threads(Managed):
    """Worker threads that are started when they are first needed, and again after a fork.

    Args:
        name: the beginning of the threads' names.
        most: the maximum number of threads; None for the default of `ThreadPoolExecutor`.
    """

    def __init__(self, name: str, most: int | None = None) -> None:
        self._name, self._most = name, most
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
        return self._pool

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` in a thread, without waiting for it."""
        self.pool.submit(work)

    def after_fork(self) -> None:
        self._pool = None

    def close(self) -> None:
        """Accept no more work; submitted work still runs. A later `submit` starts new threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


class BackgroundLoop(Managed):
    """One event loop in a thread of its own.

    The connections of an async client belong to the loop in which they were opened, so blocking
    calls of async functions all run in this one.
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine and wait for its result, whether or not this thread has a loop.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and was cancelled.
        """
        import asyncio  # here, so that programs without async code do not load it

        running = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return running.result(timeout)
        except BaseException:
            running.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="semcache-loop", daemon=True
                ).start()
            return self._loop


LIFECYCLE = Lifecycle()
LIFECYCLE.register()
BACKGROUND_LOOP = BackgroundLoop()
LIFECYCLE.add(BACKGROUND_LOOP)
