"""Compares stored answers with fresh ones in the background, so that no caller has to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue
from typing import TYPE_CHECKING

from semcache.types import PendingComparison
from semcache.verification.base import Judge

if TYPE_CHECKING:
    from semcache.backends.base import Fault

MAX_WAITING = 256
"""Maximum number of queued comparisons; further ones are dropped and give no label."""
CLOSING_TIME = 2.0
"""Seconds that `close` waits for comparisons; those not finished by then are returned."""
_STOPPING_TIME = 1.0
"""Seconds that `close` then waits for the judge to stop."""


class _Stop(BaseException):
    """Raised inside a judge that is still busy when the cache has been closed."""


class JudgeWorker:
    """Runs one comparison at a time, in its own thread.

    Args:
        judge: compares the answers; if it raises, `fault` gets the exception instead of a verdict.
        on_verdict: called with each comparison and its verdict (None if the judge is not sure),
            unless the judge raised.
        in_background: if False, answers are compared before `submit` returns.
    """

    def __init__(
        self,
        judge: Judge,
        on_verdict: Callable[[PendingComparison, bool | None], None],
        fault: Fault,
        *,
        in_background: bool,
    ) -> None:
        self._judge, self._on_verdict, self._fault = judge, on_verdict, fault
        self._in_background = in_background
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue: Queue[PendingComparison | None] = Queue()
        self._thread: threading.Thread | None = None
        self._current: PendingComparison | None = None
        """The comparison that is running."""
        self._withdrawn = False
        """Whether `close` has withdrawn the comparisons that were not finished in time."""

    def submit(self, comparison: PendingComparison) -> None:
        """Queue a comparison, or drop it if the queue is full."""
        if self._closed:
            return
        if not self._in_background:
            self._compare(comparison)
        elif self._queue.qsize() < MAX_WAITING:
            self._queue.put(comparison)
            self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="semcache-judge", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while (comparison := self._queue.get()) is not None:
            with self._lock:
                self._current = comparison
            try:
                self._compare(comparison)
            except _Stop:
                return
            except BaseException as error:  # SystemExit in a judge must not kill the worker
                self._fault("judge", error)
            finally:
                self._queue.task_done()
            with self._lock:
                self._current = None
        self._queue.task_done()

    def _compare(self, comparison: PendingComparison) -> None:
        try:
            verdict = self._judge.judge(comparison.question, comparison.stored, comparison.fresh)
        except Exception as error:
            self._fault("judge", error)
            return
        with self._lock:
            withdrawn = self._withdrawn
        if not withdrawn:
            self._on_verdict(comparison, verdict)

    def wait(self) -> None:
        """Wait until every comparison has finished."""
        if self._thread is not None:
            self._queue.join()

    def after_fork(self) -> None:
        """Start over in a child process: thread and queued comparisons belong to the parent."""
        self._reset()

    def close(self) -> list[PendingComparison]:
        """Accept no more comparisons, and run the queued ones for at most `CLOSING_TIME`.

        Returns the comparisons that did not finish. If the judge is still busy with one of them,
        its verdict is ignored, and it is interrupted when it next runs Python code: a thread that
        is inside a native library when the interpreter exits can abort or hang the process.
        """
        self._closed = True
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return self._withdraw()
        self._queue.put(None)
        thread.join(CLOSING_TIME)
        if not thread.is_alive():
            return []
        left = self._withdraw()
        _stop(thread)
        return left

    def _withdraw(self) -> list[PendingComparison]:
        """Take the unfinished comparisons out of the queue, and return them."""
        left: list[PendingComparison] = []
        with self._lock:
            self._withdrawn = True
            if self._current is not None:
                left.append(self._current)
        with suppress(Empty):
            while True:
                comparison = self._queue.get_nowait()
                self._queue.task_done()
                if comparison is not None:
                    left.append(comparison)
        self._queue.put(None)
        return left


def _stop(thread: threading.Thread) -> None:
    """Raise `_Stop` in a thread, and wait a little for it to end."""
    if thread.ident is not None and thread.is_alive():
        import ctypes

        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop)
        )
        thread.join(_STOPPING_TIME)
