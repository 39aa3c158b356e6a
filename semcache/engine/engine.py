"""The engine of a cache: its parts, its calls in flight, and its lifecycle.

An engine owns everything that a call passes through, and everything that needs attention when the
process forks or exits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from semcache.engine.background import Background
from semcache.engine.erasure import Erased, erase
from semcache.engine.lookup import Lookups
from semcache.engine.record import Recorder, StoragePolicy
from semcache.engine.single_flight import InFlightCalls
from semcache.errors import StoreError
from semcache.lifecycle import Managed, Threads
from semcache.types import Selection
from semcache.verification.memory import POLICY

if TYPE_CHECKING:
    from semcache.backends.base import Backend, Entries, Leases
    from semcache.backends.retention import Retention
    from semcache.config.flags import Flags
    from semcache.embedders.base import Embedder
    from semcache.engine.embedding import QuestionEmbedder
    from semcache.keys.keys import KeyRules
    from semcache.privacy.personal import PersonalData
    from semcache.telemetry.telemetry import Telemetry
    from semcache.verification.base import Verification

T = TypeVar("T")


class Engine(Managed):
    """The working parts of a cache, put together.

    Args:
        backend: closed with the engine.
        entries: looks up and stores the backend's entries.
        leases: coalesces calls across processes; None disables that.
        embedder: the embedder of the semantic tier; None means exact tier only.
        embedding: turns questions into vectors with it; None means exact tier only.
        verification: decides whether a neighbour may be served; closed with the engine.
        telemetry: events and counters.
        rules: what to leave out of the scope.
        retention: TTLs of new entries.
        storage: which answers are stored.
        flags: feature flags, checked on every lookup; None means that all are on.
        clock: returns seconds since the epoch.
        draw: returns uniform random numbers in [0, 1).
        audit: share of the semantic hits that are audited.
        personal_data: finds personal data in requests and answers; None looks for nothing.
        hit_delay: seconds that a hit waits before it is returned, or a function that returns them.
        policy: the options that decide what is served, as JSON; stored for the command line.
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
        personal_data: PersonalData | None = None,
        hit_delay: float | Callable[[], float] = 0.0,
        policy: str | None = None,
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
            personal_data=personal_data,
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
            personal_data=personal_data,
            first=partial(self._keep_policy, policy),
        )
        self.hit_delay = hit_delay
        self.in_flight = InFlightCalls()
        self.background = Background(telemetry.fault)
        self._threads = Threads("semcache")

    def _keep_policy(self, policy: str | None) -> None:
        """Store the serving policy, so that another process that inspects the cache can show it."""
        if policy is not None and self.backend.metadata.meta(POLICY) != policy:
            self.backend.metadata.set_meta(POLICY, policy)

    def delete(self, selection: Selection) -> int:
        """Delete the selected entries; return how many there were.

        Raises:
            StoreError: the store failed, and some or all of the entries may remain.
        """
        return self.entries.delete(selection)

    def erase(self, selection: Selection) -> Erased:
        """Delete the selected entries and everything that was learned from them.

        Raises:
            ConfigError: neither a namespace nor a tag is selected.
            StoreError: something could not be deleted; entries may be left.
        """
        self.wait()
        self.flush()
        return erase(self.backend, self.entries, selection, self.verification.forget)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work in a worker thread.

        The engine has its own threads: the loop's default threads may all be busy with callers
        that wait for the engine.
        """
        import asyncio  # here, so that programs without async code do not load it

        context = copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads.pool, partial(context.run, work))

    # ----------------------------------------------------------------------- lifecycle

    def flush(self) -> None:
        """Write counters and learned state now."""
        self.telemetry.counters.flush()
        try:
            self.verification.save()
        except StoreError as error:
            self.telemetry.fault("counters", error)

    def wait(self) -> None:
        """Block until indexes are built and answers are judged."""
        self.entries.wait()
        self.verification.wait()

    def before_fork(self) -> None:
        """Hold off new writes, after waiting briefly for those under way."""
        self.backend.hold()

    def after_fork_in_parent(self) -> None:
        """Allow writes again."""
        self.backend.let_go()

    def after_fork(self) -> None:
        """In a child process: replace locks and threads, which belong to the parent."""
        self.telemetry.counters.after_fork()
        self.verification.after_fork()
        self.backend.after_fork()
        self.in_flight.after_fork()
        self.background.after_fork()
        self._threads.after_fork()

    def close(self) -> None:
        """Write counters and learned state, and close the backend."""
        try:
            self.verification.close()
        except Exception as error:
            self.telemetry.fault("counters", error)
        self.telemetry.counters.close()
        self.backend.close()
        self.background.close()
        self._threads.close()

    def close_at_exit(self) -> None:
        self.close()
