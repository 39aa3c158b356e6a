"""The engine of a cache: its parts, the calls under way, and their common life.

An engine owns everything that a call goes through, and everything that a fork or the end of the
program must reach.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from semcache.engine.background import Background
from semcache.engine.lookup import Lookups
from semcache.engine.record import Recorder, StoragePolicy
from semcache.engine.single_flight import InFlightCalls
from semcache.errors import StoreError
from semcache.types import Selection

if TYPE_CHECKING:
    from semcache.backends.base import Backend, Entries, Leases
    from semcache.backends.retention import Retention
    from semcache.config.flags import Flags
    from semcache.embedders.base import Embedder
    from semcache.engine.embedding import QuestionEmbedder
    from semcache.keys.keys import KeyRules
    from semcache.telemetry.telemetry import Telemetry
    from semcache.verification.base import Verification

T = TypeVar("T")


class Engine:
    """A cache at work, over parts that it is given.

    Args:
        backend: closed with the engine.
        entries: the serving path of the backend.
        leases: who asks the model for what, among processes; None if each asks for itself.
        embedder: the semantic tier's; None for the exact tier only.
        embedding: how questions reach it.
        verification: decides whether a neighbour may be served; closed with the engine.
        telemetry: events and counters.
        rules: what does not belong to the scope.
        retention: TTLs.
        storage: which answers are stored.
        flags: looked at with every lookup; None if all flags are on.
        clock: seconds since the epoch. draw: uniform in [0, 1).
        audit: share of the semantic hits that are audited.
    """

    def __init__(
        self,
        backend: Backend,
        entries: Entries,
        *,
        leases: Leases | None,
        embedder: Embedder | None,
        embedding: QuestionEmbedder | None,
        verification: Verification,
        telemetry: Telemetry,
        rules: KeyRules,
        retention: Retention,
        storage: StoragePolicy,
        flags: Flags | None,
        clock: Callable[[], float],
        draw: Callable[[], float],
        audit: float = 0.0,
    ) -> None:
        self.backend = backend
        self.entries = entries
        self.leases = leases
        self.embedder = embedder
        self.verification = verification
        self.telemetry = telemetry
        self.clock = clock
        self.lookups = Lookups(
            entries,
            embedding,
            verification,
            telemetry,
            rules=rules,
            flags=flags,
            clock=clock,
            draw=draw,
        )
        self.recorder = Recorder(
            entries,
            self.lookups,
            verification,
            telemetry,
            retention=retention,
            policy=storage,
            audit=audit,
            draw=draw,
        )
        self.in_flight = InFlightCalls()
        self.background = Background(telemetry.fault)
        self._threads: ThreadPoolExecutor | None = None

    def delete(self, selection: Selection) -> int:
        """Delete what is selected; return how many entries were deleted.

        Raises:
            StoreError: the store failed. An invalidation that did not happen must be known.
        """
        return self.entries.delete(selection)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do blocking work in a worker thread.

        In threads of our own: the loop's default threads may all be taken by callers that wait
        for us.
        """
        import asyncio  # here, so that programs without tasks do not load it

        if self._threads is None:
            self._threads = ThreadPoolExecutor(thread_name_prefix="semcache")
        context = copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(context.run, work))

    # --------------------------------------------------------------------------- life

    def flush(self) -> None:
        """Write counters, and what was learned, now."""
        self.telemetry.counters.flush()
        try:
            self.verification.save()
        except StoreError as error:
            self.telemetry.fault("counters", error)

    def wait(self) -> None:
        """Return when indexes are built and answers compared."""
        self.entries.wait()
        self.verification.wait()

    def before_fork(self) -> None:
        """Wait until none of the cache's threads is in the middle of a write."""
        self.backend.hold()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.backend.let_go()

    def after_fork(self) -> None:
        """In a child process: renew what threads of the parent may have held."""
        self.telemetry.counters.after_fork()
        self.verification.after_fork()
        self.backend.after_fork()
        self.in_flight.after_fork()
        self.background.after_fork()
        self._threads = None

    def close(self) -> None:
        """Write what is counted and learned, and close the backend."""
        try:
            self.verification.close()
        except Exception as error:
            self.telemetry.fault("counters", error)
        self.telemetry.counters.close()
        self.backend.close()
        self.background.close()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
