"""An embedder that answers in time or fails.

A call that hangs cannot be stopped from outside, only left behind: it runs on another
thread, and the caller goes on without it. One that did not answer is left alone for a while,
so that a hung model costs one wait and not one for each call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.types import Vector

MOST_HUNG = 4
"""Calls that may hang at once; beyond these none is made."""
REST = 30.0
"""Seconds for which an embedder that hung is left alone."""


class TimeLimited:
    """An `Embedder` around another.

    Args:
        seconds: the longest that one call of `embed` may take. Loading does not count.
    """

    local = True

    def __init__(self, embedder: Embedder, seconds: float, *, rest: float = REST) -> None:
        self._embedder = embedder
        self._seconds = seconds
        self._rest = rest
        self._hung_until = 0.0
        self._idle: list[_Worker] = []
        self._hung: list[_Worker] = []

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def window(self) -> int | None:
        return self._embedder.window

    def load(self) -> None:
        self._embedder.load()

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        if time.monotonic() < self._hung_until:
            raise EmbedderError(
                f"{self.fingerprint} did not answer within {self._seconds} s a short while ago "
                "and is left alone for now."
            )
        self._hung = [worker for worker in self._hung if worker.alive]
        if len(self._hung) >= MOST_HUNG:
            raise EmbedderError(
                f"{self.fingerprint} has {len(self._hung)} calls that do not come back; it is "
                "asked again when one of them does."
            )
        self._embedder.load()
        worker = self._worker()
        outcome = worker.run(lambda: self._embedder.embed(texts), self._seconds)
        if outcome is None:
            self._hung.append(worker)
            self._hung_until = time.monotonic() + self._rest
            raise EmbedderError(f"{self.fingerprint} did not answer within {self._seconds} s.")
        self._idle.append(worker)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, BaseException):  # SystemExit and the like end no caller
            raise EmbedderError(f"{self.fingerprint} failed: {outcome!r}")
        return outcome

    def _worker(self) -> _Worker:
        """One that has nothing to do; threads of a parent process are not here."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return self._new_worker()
            if worker.pid == os.getpid():
                return worker

    def _new_worker(self) -> _Worker:
        try:
            return _Worker()
        except RuntimeError as error:
            raise EmbedderError(f"no thread for {self.fingerprint}: {error}") from error


class _Worker:
    """A thread that does one thing after another. Left behind while it hangs, it ends after."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._work: SimpleQueue[Callable[[], Vector] | None] = SimpleQueue()
        self._done: SimpleQueue[Vector | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="semcache-embed", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Callable[[], Vector], seconds: float) -> Vector | BaseException | None:
        """What the work returned or raised; None: it is not done in time."""
        self._work.put(work)
        try:
            return self._done.get(timeout=seconds)
        except Empty:
            self._work.put(None)
            return None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._done.put(work())
            except BaseException as error:
                self._done.put(error)
            del work  # nothing is held while nothing is done
