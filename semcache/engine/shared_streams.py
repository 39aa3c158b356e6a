"""A stream in flight that several callers read, each from its start and at its own pace.

The first caller leads: it has called the model. Chunks are kept as they arrive, so that a caller
who joins later gets the earlier ones at once and every later one as it arrives. The first reader of
a chunk gets the chunk itself; the others get copies made by the codec.

The leader takes chunks in its own thread and context, as if there were no cache, because a
generator may rely on both. A caller who joins while the leader is reading slowly asks the model
independently. If the leader leaves, or reads the stream of an SDK's client slowly, a thread that
belongs to the shared stream takes the rest; so a generator changes threads at most once. The
model's stream is closed when its last reader has left.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from typing import Any

from semcache.engine.kept_chunks import Kept, RestartError
from semcache.engine.single_flight import inside, mark_inside
from semcache.engine.stream_readers import Reader, resume

FIRST_CHUNK_PATIENCE = 10.0
"""Seconds that a follower waits for the first chunk before it asks the model independently."""
_LEADER_PATIENCE = 0.25
"""Seconds without a chunk after which a leader counts as reading slowly."""
_STALLED_PATIENCE = 10.0
"""Seconds after which a generator is moved to another thread, if a follower has begun to read."""


class SharedStream:
    """A shared stream whose source is a blocking iterator.

    Args:
        key: the exact key of the call.
        kept: the chunks.
    """

    def __init__(self, key: bytes, kept: Kept) -> None:
        self.kept = kept
        self._key = key
        self._context = copy_context()
        self._context.run(mark_inside, key)
        self._changed = threading.Condition()
        self._open: Callable[[], Iterator[Any]] | None = None
        self._source: Any = None
        self._ended: Callable[[BaseException | None], None] = _nothing
        self._readers = 0
        self._led = False
        self._taking_thread = 0
        self._taking = False
        self._wanted: float = 0
        self._pump: threading.Thread | None = None
        self._pumped = False
        self._void = False
        self._bound = True
        self._private = False
        self._taken_at = time.monotonic()

    def start(
        self,
        send: Callable[[], Iterator[Any]],
        ended: Callable[[BaseException | None], None],
        source: Any = None,
    ) -> Reader:
        """Attach the model's stream, so that chunks can be taken, and become the leading reader.

        Args:
            send: called to open the stream when its first chunk is taken.
            ended: called once, with the stream's error or None; `GeneratorExit` if all have left.
            source: the stream itself, if there is one already.
        """
        with self._changed:
            self._open, self._ended, self._source = send, ended, source
            self._bound = source is None or isinstance(source, Generator)
            self._taken_at = time.monotonic()
            self._taking_thread = threading.get_ident()
            self._readers += 1
            self._led = True
            self._changed.notify_all()
        return Reader(self, leads=True, anew=send)

    def runner(self, leader: tuple[int, Any]) -> tuple[int, Any] | None:
        """The thread, and the asyncio task if any, that the model's stream runs in; None if idle.

        Args:
            leader: the thread and task that run the call until there is a stream.
        """
        if self._open is None:
            return leader
        if not self._taking:
            return None
        return self._taking_thread, None

    def cancel(self) -> None:
        """Record that no stream will start, so that its followers stop waiting."""
        with self._changed:
            self._void = self._open is None
            self._changed.notify_all()

    def enter(self) -> bool:
        """Become a reader, who must read the stream or leave it; False if it admits no more."""
        with self._changed:
            if self.kept.over or self._void or self._private:
                return False
            self._readers += 1
            return True

    def make_private(self) -> None:
        """Admit no new readers and store nothing: later chunks depend on what the leader sends."""
        self._private, self.kept.storable = True, False

    @property
    def _waits_for_leader(self) -> bool:
        """Whether the stream advances only when its leader takes the next chunk."""
        depends = self._bound and self._led and not self._pumped and self._open is not None
        return depends and not self._taking and not self.kept.over

    @property
    def stalled(self) -> bool:
        """Whether the stream waits for its leader, who has taken no chunk for a while."""
        return self._waits_for_leader and time.monotonic() - self._taken_at > _LEADER_PATIENCE

    def is_read(self) -> bool:
        """Whether the stream advances; if it depends on its leader, watch it for a moment."""
        with self._changed:
            count = len(self.kept)

            def goes_on() -> bool:
                mine = self._taking_thread == threading.get_ident()
                return mine or not self._waits_for_leader or len(self.kept) > count

            return self._changed.wait_for(goes_on, _LEADER_PATIENCE)

    def drain(self) -> None:
        """Have the stream read to its end, for a caller who waits for the whole answer."""
        with self._changed:
            if self.kept.over or self._void or self._wanted == math.inf:
                return
            if self._bound and self._led:
                return  # the leader takes the chunks, or is found to be stalled
            self._readers += 1
            self._wanted = math.inf
            self._start_pump()
            self._changed.notify_all()

    def take(
        self, position: int, command: tuple[str, Any] | None, patience: float | None, *, leads: bool
    ) -> None:
        """Take the next chunk, or wait until another reader has taken it.

        Args:
            position: the index of the chunk.
            command: what to do with the generator instead of advancing it; for the leader only.
            patience: seconds to wait.

        Raises:
            RestartError: there is no stream, or it takes too long.
        """
        if not self._may_take(position, patience, leads=leads):
            return
        try:
            with inside(self._key):
                try:
                    self.kept.add(self._advance(command))
                finally:
                    self._context = copy_context()
        except StopIteration as stop:
            self._over(None, stop.value)
        except BaseException as error:
            self._over(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and the like: for this reader only
        finally:
            self._free()

    def leads_alone(self, position: int) -> bool:
        """Whether a command of the leader, who has read up to `position`, affects nobody else."""
        alone = self._readers == 1 and position == len(self.kept)
        return alone and self._led and not self._pumped

    def leave(self, *, leads: bool) -> None:
        """Stop reading."""
        with self._changed:
            self._readers -= 1
            self._led = self._led and not leads
            self._changed.notify_all()
            if self._readers or self.kept.over or self._open is None:
                return
            self._void = True  # admit no new readers: the stream is about to be closed
            if self._pumped:
                return  # closed by the thread that takes the chunks
        with inside(self._key):
            self._close()

    def _may_take(self, position: int, patience: float | None, *, leads: bool) -> bool:
        """Wait for the chunk, or for the reader's turn to take it; False if the chunk is there."""

        def came() -> bool:
            return position < len(self.kept) or self.kept.over

        def turn() -> bool:
            if self._pumped or self._taking or self._open is None:
                return False
            return leads or self._taking_thread == threading.get_ident()

        with self._changed:
            if not (came() or turn()):
                self._wanted = max(self._wanted, position + 1)
                self._start_pump()
                self._changed.notify_all()
                wait = self._changed.wait_for(lambda: came() or turn() or self._void, patience)
                if not wait or (self._void and not came()):
                    raise RestartError
            if came():
                return False
            self._taking = True
            self._taking_thread = threading.get_ident()
            return True

    def _advance(self, command: tuple[str, Any] | None) -> Any:
        if self._source is None:
            assert self._open is not None
            self._source = iter(self._open())
        return resume(self._source, command, next)

    def _free(self) -> None:
        with self._changed:
            self._taking = False
            self._taken_at = time.monotonic()
            self._changed.notify_all()

    def _start_pump(self) -> None:
        if self._pump is None:
            self._pump = threading.Thread(
                target=self._take_the_rest, name="semcache-stream", daemon=True
            )
            self._pump.start()

    def _take_the_rest(self) -> None:
        """Take the chunks that readers need and the leader does not take."""
        while self._needs_pump():
            try:
                self.kept.add(self._context.run(self._advance, None))
            except StopIteration as stop:
                self._over(None, stop.value)
            except BaseException as error:
                self._over(error)
            finally:
                self._free()
        if self._pumped and not self.kept.over:
            self._context.run(self._close)

    def _needs_pump(self) -> bool:
        """Wait until this thread must take a chunk; False if there are no more to take."""

        def needed() -> bool:
            return len(self.kept) < self._wanted and self._open is not None

        def over() -> bool:
            return self.kept.over or self._void or not self._readers

        with self._changed:
            while True:
                self._changed.wait_for(lambda: over() or needed())
                if over():
                    return False
                if not self._pumped and not self._leader_is_gone(len(self.kept)):
                    continue
                self._pumped = self._taking = True
                self._taking_thread = threading.get_ident()
                return True

    def _leader_is_gone(self, count: int) -> bool:
        """Wait briefly; return whether the leader has left, or has taken no chunk in that time."""

        def moved() -> bool:
            return self.kept.over or len(self.kept) > count or not (self._led or self._taking)

        patience = _STALLED_PATIENCE if self._bound else _LEADER_PATIENCE
        came = self._changed.wait_for(moved, patience)
        return not self._taking and not (came and (self.kept.over or len(self.kept) > count))

    def _over(self, error: BaseException | None, returned: Any = None) -> None:
        """Record that the stream has ended."""
        kept = self.kept
        if kept.over:
            return
        kept.returned, kept.error = returned, error
        try:
            if not isinstance(self._source, Generator):
                self._close_source()
        finally:
            kept.over = True
            self._ended(error)

    def _close(self) -> None:
        """Close the stream after its last reader has left."""
        try:
            self._close_source()
        finally:
            self.kept.error, self.kept.over = GeneratorExit(), True
            self._ended(self.kept.error)

    def _close_source(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


def _nothing(_: BaseException | None) -> None:
    pass
