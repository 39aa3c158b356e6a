"""Compares stored answers with fresh ones, behind the caller's back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import TYPE_CHECKING

from semcache.types import Candidate, Completion, ObservationKind
from semcache.verification.base import Judge

if TYPE_CHECKING:
    from semcache.backends.base import Fault

_WAITING = 256
"""Comparisons that may wait; further ones are dropped, and give no label."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate's answer and a fresh one.

    Attributes:
        entry_id: of the entry that holds the fresh answer, if it was stored.
    """

    question: str
    namespace: str
    candidate: Candidate
    fresh: Completion
    entry_id: int | None
    kind: ObservationKind


class JudgeWorker:
    """Makes one comparison after another, in a thread of its own.

    Args:
        judge: compares; an exception goes to `fault`, and is no verdict.
        on_verdict: told each comparison and its verdict (None if the judge is not sure).
        in_background: False compares before `submit` returns.
    """

    def __init__(
        self,
        judge: Judge,
        on_verdict: Callable[[Comparison, bool | None], None],
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
        self._queue: Queue[Comparison | None] = Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def submit(self, comparison: Comparison) -> None:
        """Have two answers compared, if there is room in the queue."""
        if self._closed:
            return
        if not self._in_background:
            self._compare(comparison)
            return
        with suppress(Full):
            self._queue.put_nowait(comparison)
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
        while True:
            comparison = self._queue.get()
            try:
                if comparison is not None and not self._closed:
                    self._compare(comparison)
            except BaseException as error:  # SystemExit in a judge must not kill the worker
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
        self._on_verdict(comparison, verdict)

    def wait(self) -> None:
        """Return when every comparison has been made."""
        if self._thread is not None:
            self._queue.join()

    def after_fork(self) -> None:
        """In a child process: the thread and what waits are the parent's."""
        self._reset()

    def close(self) -> None:
        """Make no more comparisons, not even those that wait."""
        self._closed = True
        with suppress(Full):
            self._queue.put_nowait(None)
