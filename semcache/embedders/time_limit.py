"""Limits the time that an embedder may take.

A hung call cannot be stopped, only abandoned: it runs on another thread, and the caller goes
on without it. After a timeout the embedder is not called for a while, so that a hung model
costs one wait and not one per call.
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

MAX_HUNG_CALLS = 4
"""Maximum number of hung calls; no further calls are made while there are this many."""
COOLDOWN = 30.0
"""Seconds after a timeout during which the embedder is not called."""


class TimeLimited:
    """An `Embedder` that wraps another and limits the time of each call.

    Args:
        seconds: maximum duration of one call of `embed`; loading the model does not count.
        cooldown: seconds after a timeout during which the embedder is not called.
    """

    def __init__(self, embedder: Embedder, seconds: float, *, cooldown: float = COOLDOWN) -> None:
        self._embedder = embedder
        self._seconds = seconds
        self._cooldown = cooldown
        self._paused_until = 0.0
        self._idle: list[_Worker] = []
        self._hung: list[_Worker] = []

    @property
    def local(self) -> bool:
        return self._embedder.local

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
        if time.monotonic() < self._paused_until:
            raise EmbedderError(
                f"{self.fingerprint} recently timed out (no answer within {self._seconds} s); it "
                "is not called for now."
            )
        self._hung = [worker for worker in self._hung if worker.alive]
        if len(self._hung) >= MAX_HUNG_CALLS:
            raise EmbedderError(
                f"{self.fingerprint} has {len(self._hung)} hung calls; it is not called until one "
                "of them returns."
            )
        self._embedder.load()
        worker = self._worker()
        outcome = worker.run(lambda: self._embedder.embed(texts), self._seconds)
        if outcome is None:
            self._hung.append(worker)
            self._paused_until = time.monotonic() + self._cooldown
            raise EmbedderError(f"{self.fingerprint} did not answer within {self._seconds} s.")
        self._idle.append(worker)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, BaseException):  # SystemExit and the like must not end the caller
            raise EmbedderError(f"{self.fingerprint} failed: {outcome!r}")
        return outcome

    def __del__(self) -> None:
        for worker in getattr(self, "_idle", ()):
            worker.end()

    def _worker(self) -> _Worker:
        """An idle worker of this process, or a new one; threads do not survive a fork."""
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
            raise EmbedderError(f"cannot start a thread for {self.fingerprint}: {error}") from error


class _Worker:
    """A thread that runs one call after another; once abandoned, it ends after its call."""

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
        """Return the result of the work or its exception; None if it did not finish in time."""
        self._work.put(work)
        try:
            return self._done.get(timeout=seconds)
        except Empty:
            self.end()
            return None
        except BaseException:  # an interruption: nobody will use this thread again
            self.end()
            raise

    def end(self) -> None:
        """End the thread after its call."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._done.put(work())
            except BaseException as error:
                self._done.put(error)
            del work  # an idle worker must not keep the texts alive
