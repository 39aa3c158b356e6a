"""Where a stored answer is held against a fresh one, behind the caller's back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue

from semcache.types import Candidate, Completion, ObservationKind
from semcache.verification.base import Judge

_WAITING = 256
"""Comparisons that wait; when more come, they are no labels."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate's answer and a fresh one.

    Attributes:
        entry_id: of the entry that holds the fresh one, if it was stored.
    """

    question: str
    namespace: str
    candidate: Candidate
    fresh: Completion
    entry_id: int | None
    kind: ObservationKind


class Desk:
    """One comparison after another, in a thread of its own.

    Args:
        judge: compares; what it raises is told to `fault`, and is no verdict.
        found: told of each comparison and its verdict (None: not sure).
        in_background: False: compare before `give` returns.
    """

    def __init__(
        self,
        judge: Judge,
        found: Callable[[Comparison, bool | None], None],
        fault: Callable[[str, BaseException], None],
        *,
        in_background: bool,
    ) -> None:
        self._judge, self._found, self._fault = judge, found, fault
        self._in_background = in_background
        self._closed = False
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._queue: Queue[Comparison | None] = Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def give(self, comparison: Comparison) -> None:
        """Have two answers compared, if there is room."""
        if self._closed:
            return
        if not self._in_background:
            self._compare(comparison)
            return
        with suppress(Full):
            self._queue.put_nowait(comparison)
            self._begin()

    def _begin(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="semcache-judge", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            comparison = self._queue.get()
            try:
                if comparison is not None and not self._closed:
                    self._compare(comparison)
            except BaseException as error:  # a judge that wants to end the program ends nothing
                self._fault("judge", error)
            finally:
                self._queue.task_done()
            if self._closed and self._queue.empty():
                return

    def _compare(self, comparison: Comparison) -> None:
        try:
            stored = comparison.candidate.entry.completion
            verdict = self._judge.judge(comparison.question, stored, comparison.fresh)
        except Exception as error:
            self._fault("judge", error)
            verdict = None
        self._found(comparison, verdict)

    def wait(self) -> None:
        """Until nothing is left to compare."""
        if self._thread is not None:
            self._queue.join()

    def after_fork(self) -> None:
        """In a child process: the thread is the parent's, and so is what waits."""
        self._renew()

    def close(self) -> None:
        """Compare what waits no longer."""
        self._closed = True
        with suppress(Full):
            self._queue.put_nowait(None)
