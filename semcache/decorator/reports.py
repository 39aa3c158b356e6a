"""What became of the calls of one decorated function: its counts, and warnings.

It must not go unnoticed that a function's answers are never stored. So the first fault of each
kind, and the first answer not stored for each reason, is reported with the function's name and
what to do about it.
"""

from __future__ import annotations

import threading
from collections import Counter as Sums
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from semcache.telemetry.counters import FunctionCount, function_name
from semcache.telemetry.events import NotStoredEvent
from semcache.types import Lookup

if TYPE_CHECKING:
    from semcache.telemetry.telemetry import Telemetry

_EXPECTED = frozenset({"store_if", "caching_off", "fault", "read_only"})
"""Reasons that the caller has chosen, or that are reported elsewhere."""


class CacheInfo(NamedTuple):
    """What became of the calls of one decorated function, in this process.

    Attributes:
        exact_hits, semantic_hits, misses: the lookups, by their outcome.
        faults: calls that could not be looked up, or whose answer could not be stored.
        not_stored: answers that were not stored, by reason.
    """

    exact_hits: int
    semantic_hits: int
    misses: int
    faults: int = 0
    not_stored: Mapping[str, int] = {}


class FunctionReport:
    """Counts the calls of one function and reports what keeps it from being cached.

    Args:
        name: the function's name.
        telemetry: events and counters.
    """

    def __init__(self, name: str, telemetry: Telemetry) -> None:
        self._name = name
        self._telemetry = telemetry
        self._hit, self._miss = function_name(name, "hit"), function_name(name, "miss")
        self._counts = {"exact": 0, "semantic": 0, "miss": 0, "fault": 0}
        self._not_stored: Sums[str] = Sums()
        self._reported: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._last: ContextVar[Lookup | None] = ContextVar("semcache_last_lookup", default=None)

    @property
    def info(self) -> CacheInfo:
        with self._lock:
            exact, semantic, misses, faults = self._counts.values()
            return CacheInfo(exact, semantic, misses, faults, dict(self._not_stored))

    @property
    def last_lookup(self) -> Lookup | None:
        return self._last.get()

    def lookup(self, lookup: Lookup) -> None:
        """A call has been looked up."""
        self._last.set(lookup)
        tier = lookup.tier
        with self._lock:
            self._counts[tier or "miss"] += 1
        self._telemetry.counters.increment_name(self._miss if tier is None else self._hit)

    def fault(self, where: str, error: BaseException) -> None:
        """A call could not be looked up, or its answer could not be stored."""
        self._last.set(None)
        with self._lock:
            self._counts["fault"] += 1
        repeated = not self._is_first("fault", f"{where} {type(error).__name__}")
        self._telemetry.fault(where, error, function=self._name, repeated=repeated)
        self._count("fault", str(error)[:200])

    def recorded(self, reason: str) -> None:
        """An answer was stored, or was not, for this reason."""
        if reason == "stored":
            return
        with self._lock:
            self._not_stored[reason] += 1
        if reason not in _EXPECTED:
            self._count("not_stored", reason)
            if self._is_first("not_stored", reason):
                self._telemetry.emit(NotStoredEvent(self._name, reason))

    def _is_first(self, kind: str, what: str) -> bool:
        with self._lock:
            if (kind, what) in self._reported:
                return False
            self._reported.add((kind, what))
            return True

    def _count(self, what: FunctionCount, detail: str) -> None:
        name = function_name(self._name, what, detail)
        self._telemetry.counters.increment_name(name)
