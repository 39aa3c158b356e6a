"""Calls from many threads, gathered into batches.

A lone caller's text is embedded on its own thread, at once. While every processor
has a run to do, texts gather; when a run ends, the first of those
waiting embeds its share of them as one batch, for the others too. Nobody waits for
a batch to fill, and no thread stands between a caller and the model: waking one
takes longer than looking the answer up.
"""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcache.protocols import Embedder
    from semcache.types import Vector

_MOST = 32


class _Job:
    """One text; `turn` opens when it is embedded, or when its thread is to embed a batch."""

    __slots__ = ("batch", "error", "text", "turn", "vector")

    def __init__(self, text: str) -> None:
        self.text = text
        self.turn = allocate_lock()
        self.turn.acquire()
        self.batch: list[_Job] | None = None
        self.vector: Vector | None = None
        self.error: BaseException | None = None


class EmbedderPool:
    """One text at a time for each caller, many at a time for the embedder.

    Args:
        runs: batches under way at once; by default one more than there are processors, so
            that none is idle while a batch changes hands.
    """

    def __init__(self, embedder: Embedder, *, runs: int | None = None) -> None:
        self.embedder = embedder
        self._runs = runs or (os.cpu_count() or 1) + 1
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._running = 0

    def embed(self, text: str) -> Vector:
        """float32[d] for one text.

        Raises:
            EmbedderError: the embedder failed.
        """
        if self._pid != os.getpid():
            self._reset()  # after a fork nobody is running and nobody waits
        with self._lock:
            job = None
            if self._running < self._runs:
                self._running += 1
            else:
                job = _Job(text)
                self._waiting.append(job)
        if job is None:
            return self._embed_alone(text)
        job.turn.acquire()
        if job.batch is not None:
            self._embed_batch(job.batch)
        if job.error is not None:
            raise job.error
        assert job.vector is not None
        return job.vector

    def _embed_alone(self, text: str) -> Vector:
        try:
            vector: Vector = self.embedder.embed([text])[0]
        finally:
            self._pass_on()
        return vector

    def _embed_batch(self, batch: list[_Job]) -> None:
        try:
            vectors = self.embedder.embed([job.text for job in batch])
            for job, vector in zip(batch, vectors, strict=True):
                job.vector = vector
        except BaseException as error:
            for job in batch:
                job.error = error
        finally:
            self._pass_on()
            for job in batch[1:]:
                job.turn.release()

    def _pass_on(self) -> None:
        """Give this run's place to the first that waits, with its share of the texts."""
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return
            share = min(_MOST, -(-len(self._waiting) // self._runs))
            batch = [self._waiting.popleft() for _ in range(share)]
        batch[0].batch = batch
        batch[0].turn.release()
