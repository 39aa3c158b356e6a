"""Counters, written in the background so that no hit waits for the disk.

Counting appends to a queue. A thread wakes half a second after the first count, adds up the
queue and writes the sums in one transaction: counters by name, hits by entry. What cannot be
written stays in the queue until the next write.
"""

from __future__ import annotations

import threading
from collections import Counter as Sums
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

from semcache.errors import ReadOnlyError

if TYPE_CHECKING:
    from semcache.backends.base import CounterStore, Fault
    from semcache.types import Entry, Usage

_WRITE_DELAY = 0.5
_MAX_PENDING = 100_000
"""The most counts to keep while the store cannot be written; the oldest are dropped first."""


class Counter(Enum):
    """What is counted. The values are the stored names of the counters."""

    EXACT_HIT = "hits:exact"
    SEMANTIC_HIT = "hits:semantic"
    SHARED = "shared"
    """Answers taken from another caller's call in flight."""
    RECORD = "records"
    EXPLORATION = "explorations"
    EXPLORE_CALL = "bought:explore"
    AUDIT_CALL = "bought:audit"


class Labelled(Enum):
    """Counters with a label: a reason, or the part that failed."""

    MISS = "misses"
    FAULT = "faults"
    NOT_STORED = "not_stored"


FunctionCount = Literal["hit", "miss", "fault", "not_stored"]
"""What is counted of a decorated function."""

_FUNCTIONS = "functions"


def function_name(function: str, what: FunctionCount, detail: str = "") -> str:
    """The name of a counter of a decorated function.

    Args:
        detail: the error of a fault, or the reason for which an answer was not stored.
    """
    parts = (_FUNCTIONS, function, what, detail.replace("\n", " "))
    return "\n".join(part for part in parts if part)


_SERVED = {"exact": Counter.EXACT_HIT, "semantic": Counter.SEMANTIC_HIT}
_BOUGHT = {"explore": Counter.EXPLORE_CALL, "audit": Counter.AUDIT_CALL}
_SAVED_TOKENS, _SAVED_USD = "tokens_saved", "usd_saved"
_BOUGHT_TOKENS, _BOUGHT_USD = "tokens_bought", "usd_bought"


class _Count(NamedTuple):
    """One count: its name, and the entry served and when, or what an exploration or audit cost."""

    name: str
    entry: Entry | None = None
    at: float = 0.0
    cost: Usage | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of a cache, summed over all processes, by name."""

    values: Mapping[str, float]

    def of(self, counter: Counter) -> int:
        return int(self.values.get(counter.value, 0))

    def by_label(self, counter: Labelled) -> dict[str, int]:
        prefix = f"{counter.value}:"
        return {
            name.removeprefix(prefix): int(value)
            for name, value in sorted(self.values.items())
            if name.startswith(prefix)
        }

    def by_function(self) -> dict[str, dict[str, int]]:
        """Counts of each decorated function: "hit", "miss", "fault: ...", "not_stored: ..."."""
        result: dict[str, dict[str, int]] = {}
        for name, value in sorted(self.values.items()):
            if name.startswith(f"{_FUNCTIONS}\n"):
                _, function, what = name.split("\n", 2)
                result.setdefault(function, {})[what.replace("\n", ": ")] = int(value)
        return result

    @property
    def tokens_saved(self) -> int:
        return int(self.values.get(_SAVED_TOKENS, 0))

    @property
    def usd_saved(self) -> float:
        return float(self.values.get(_SAVED_USD, 0.0))

    @property
    def tokens_bought(self) -> int:
        return int(self.values.get(_BOUGHT_TOKENS, 0))

    @property
    def usd_bought(self) -> float:
        return float(self.values.get(_BOUGHT_USD, 0.0))


class Counters:
    """The counters of one cache in this process; the store sums them over processes.

    Args:
        store: receives the sums.
        fault: called if the sums could not be written.
    """

    def __init__(self, store: CounterStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault
        self._pending: deque[_Count] = deque(maxlen=_MAX_PENDING)
        self._wake = threading.Event()
        self._write_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._scheduled = False
        self.flush_hooks: list[Callable[[], None]] = []
        """Called before each write, so that other state can be written by the same thread."""

    def increment(self, counter: Counter) -> None:
        """Count one."""
        self._add(_Count(counter.value))

    def increment_labelled(self, counter: Labelled, label: str) -> None:
        """Count one under a label."""
        self._add(_Count(f"{counter.value}:{label}"))

    def served(self, tier: Literal["exact", "semantic"], entry: Entry, at: float) -> None:
        """Count a hit and what it saved; `at` is in seconds since the epoch."""
        self._add(_Count(_SERVED[tier].value, entry, at))

    def bought(self, kind: Literal["explore", "audit"], cost: Usage) -> None:
        """Count an exploration or an audit, and what the call cost."""
        self._add(_Count(_BOUGHT[kind].value, cost=cost))

    def increment_name(self, name: str) -> None:
        """Count one under a name that `function_name` has made."""
        self._add(_Count(name))

    def _add(self, count: _Count) -> None:
        self._pending.append(count)
        if not self._scheduled:
            self._schedule()

    def wake(self) -> None:
        """Schedule a write."""
        if not self._scheduled:
            self._schedule()

    def flush(self) -> None:
        """Write everything counted so far; what cannot be written is kept for the next write."""
        for hook in self.flush_hooks:
            try:
                hook()
            except Exception as error:
                self._fault("counters", error)
        failed: Exception | None = None
        with self._write_lock:
            counts = [self._pending.popleft() for _ in range(len(self._pending))]
            if not counts:
                return
            try:
                self._store.add_up(*_sums(counts))
            except ReadOnlyError:
                return  # the counts of a read-only cache are dropped
            except Exception as error:
                failed = error
                room = _MAX_PENDING - len(self._pending)
                self._pending.extendleft(reversed(counts[-room:] if room > 0 else []))
        if failed is not None:  # reported without the lock: a hook may increment counters
            self._fault("counters", failed)

    def after_fork(self) -> None:
        """In a child process: drop the pending counts, which the parent will write."""
        self._pending.clear()
        self._wake, self._write_lock = threading.Event(), threading.Lock()
        self._thread, self._scheduled = None, False

    def close(self) -> None:
        """Write pending counts and end the thread."""
        self._closed = True
        self._wake.set()
        self.flush()

    def _schedule(self) -> None:
        if self._closed:
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="semcache-counters", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads: try again at the next count
                return
            self._thread = thread
        self._scheduled = True
        self._wake.set()

    def _run(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._wake.wait()
            if self._closed:
                return
            pause.wait(_WRITE_DELAY)
            self._wake.clear()
            self._scheduled = False
            self.flush()


def _sums(counts: list[_Count]) -> tuple[Sums[str], dict[int, tuple[int, float]]]:
    """Sums by counter name, and by entry id (number of hits, time of the last hit)."""
    counters: Sums[str] = Sums()
    hits: dict[int, tuple[int, float]] = {}
    for name, entry, at, cost in counts:
        counters[name] += 1
        if entry is not None:
            count, last = hits.get(entry.id, (0, 0.0))
            hits[entry.id] = (count + 1, max(last, at))
            _add_usage(counters, entry.completion.usage, _SAVED_TOKENS, _SAVED_USD)
        elif cost is not None:
            _add_usage(counters, cost, _BOUGHT_TOKENS, _BOUGHT_USD)
    return counters, hits


def _add_usage(counters: Sums[str], usage: Usage, tokens: str, usd: str) -> None:
    """Add the known parts of a usage."""
    for name, amount in (
        (tokens, usage.prompt_tokens),
        (tokens, usage.completion_tokens),
        (usd, usage.cost_usd),
    ):
        if isinstance(amount, int | float):
            counters[name] += amount  # type: ignore[assignment]
