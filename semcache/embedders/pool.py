"""Batches embedding calls from many threads.

A lone caller embeds its text on its own thread, at once: there is no worker thread between a
caller and the model, since waking one takes longer than a lookup. While every processor is
busy with a run, texts queue up. The thread that finishes a run becomes the leader: it embeds
the queued texts of other callers in small batches, and after a few batches hands the lead over
to a waiting caller. Nobody waits for a batch to fill.
"""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.types import Vector

_BATCH = 4
"""Texts per batch; larger batches are no faster per text and delay the first text."""
_BATCHES_PER_LEADER = 4
"""Batches that a leader embeds before it returns to its caller."""


class _Job:
    """One queued text; `turn` is released when it is embedded or its thread becomes leader."""

    __slots__ = ("error", "leads", "text", "turn", "vector")

    def __init__(self, text: str) -> None:
        self.text = text
        self.turn = allocate_lock()
        self.turn.acquire()
        self.leads = False
        self.vector: Vector | None = None
        self.error: BaseException | None = None


class EmbedderPool:
    """Takes one text from each caller, and passes batches to the embedder.

    Args:
        runs: maximum number of concurrent runs; by default one per processor.
        trusted: whether the embedder's vectors are known to have length 1; otherwise they are
            checked and normalised here.
    """

    def __init__(
        self, embedder: Embedder, *, runs: int | None = None, trusted: bool = False
    ) -> None:
        self.embedder = embedder
        self._trusted = trusted
        self._runs = runs or os.cpu_count() or 1
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._running = 0

    def embed(self, text: str) -> Vector:
        """Embed one text: float32[d].

        Raises:
            EmbedderError: the embedder failed.
        """
        if self._pid != os.getpid():
            self._reset()  # after a fork there are no runs and no waiting threads
        with self._lock:
            job = None
            if self._running < self._runs:
                self._running += 1
            else:
                job = _Job(text)
                self._queue.append(job)
        if job is None:
            return self._embed_alone(text)
        try:
            job.turn.acquire()
        except BaseException:
            self._withdraw(job)
            raise
        if job.leads:
            self._lead(job)
        if job.error is not None:
            raise job.error
        assert job.vector is not None
        return job.vector

    def _embed_alone(self, text: str) -> Vector:
        try:
            vector: Vector = self._embed([text])[0]
        finally:
            self._lead(None)
        return vector

    def _embed(self, texts: list[str]) -> Vector:
        embedder = self.embedder
        raw = embedder.embed(texts)
        if self._trusted:
            return raw
        from semcache.embedders.vectors import unit_rows

        return unit_rows(raw, len(texts), embedder.dimension, embedder.fingerprint)

    def _lead(self, own: _Job | None) -> None:
        """Embed queued texts, with the leader's own text in the first batch; then hand over."""
        for _ in range(_BATCHES_PER_LEADER):
            batch = self._next_batch(own)
            if batch is None:
                return
            self._embed_batch(batch)
            for job in batch:
                if job is not own:
                    job.turn.release()
            own = None
        self._hand_over()

    def _next_batch(self, own: _Job | None) -> list[_Job] | None:
        """Take the next batch; if there is none, end this run and return None."""
        with self._lock:
            if own is None and not self._queue:
                self._running -= 1
                return None
            limit = _BATCH - (own is not None)
            batch = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            return batch if own is None else [own, *batch]

    def _embed_batch(self, batch: list[_Job]) -> None:
        try:
            vectors = self._embed([job.text for job in batch])
            for job, vector in zip(batch, vectors, strict=True):
                job.vector = vector
        except Exception as error:
            for job in batch:
                job.error = error
        except BaseException:  # only the leader is interrupted: release the other callers
            for job in batch:
                job.error = EmbedderError("the embedding was interrupted")
                job.turn.release()
            self._hand_over()
            raise

    def _withdraw(self, job: _Job) -> None:
        """Withdraw an interrupted caller's text; hand over if the caller has become the leader."""
        with self._lock:
            if job in self._queue:
                self._queue.remove(job)
                return
        if job.leads:
            self._hand_over()

    def _hand_over(self) -> None:
        """Make the first waiting caller the leader of this run, or end the run."""
        with self._lock:
            if not self._queue:
                self._running -= 1
                return
            successor = self._queue.popleft()
            successor.leads = True
        successor.turn.release()
