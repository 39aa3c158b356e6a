"""Calls from many threads, gathered into batches.

A lone caller's text is embedded on its own thread, at once: no thread stands between
a caller and the model, for waking one takes longer than looking the answer up. While
every processor has a run to do, texts gather; whoever ends a run embeds what has
gathered as one small batch, for the others, and after a few of those passes the lead
on to one that waits. Nobody waits for a batch to fill.
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
"""Texts in a batch; more are no faster for each text, and make the first one wait longer."""
_ROUNDS = 4
"""Batches that a caller embeds for others before it goes back to its own work."""


class _Job:
    """One text; `turn` opens when it is embedded, or when its thread is to take the lead."""

    __slots__ = ("error", "leads", "text", "turn", "vector")

    def __init__(self, text: str) -> None:
        self.text = text
        self.turn = allocate_lock()
        self.turn.acquire()
        self.leads = False
        self.vector: Vector | None = None
        self.error: BaseException | None = None


class EmbedderPool:
    """One text at a time for each caller, many at a time for the embedder.

    Args:
        runs: runs under way at once; by default one for each processor.
        trusted: its vectors are known to have length 1; others are held to that here.
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
        try:
            job.turn.acquire()
        except BaseException:
            self._leave(job)
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
        """Embed what waits, with the leader's own text in the first batch; then step down."""
        for _ in range(_ROUNDS):
            batch = self._taken(own)
            if batch is None:
                return
            self._embed_batch(batch)
            for job in batch:
                if job is not own:
                    job.turn.release()
            own = None
        self._pass_on()

    def _taken(self, own: _Job | None) -> list[_Job] | None:
        """The next batch; None, and one run less, if nobody waits."""
        with self._lock:
            if own is None and not self._waiting:
                self._running -= 1
                return None
            room = _BATCH - (own is not None)
            batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            return batch if own is None else [own, *batch]

    def _embed_batch(self, batch: list[_Job]) -> None:
        try:
            vectors = self._embed([job.text for job in batch])
            for job, vector in zip(batch, vectors, strict=True):
                job.vector = vector
        except Exception as error:
            for job in batch:
                job.error = error
        except BaseException:  # the leader is interrupted, not those whose texts it holds
            for job in batch:
                job.error = EmbedderError("the embedding was interrupted")
                job.turn.release()
            self._pass_on()
            raise

    def _leave(self, job: _Job) -> None:
        """A waiter that is interrupted takes its text along, or gives its lead away."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
                return
        if job.leads:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give this run's place to the first that waits."""
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return
            following = self._waiting.popleft()
            following.leads = True
        following.turn.release()
