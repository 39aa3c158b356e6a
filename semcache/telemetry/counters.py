"""Counting what happens, written behind the traffic so that no hit waits for a disk.

Counting is one append. A thread wakes half a second after the first count, adds up what has come
in and writes it in one transaction: counters by name, hits by entry. What cannot be written is
kept and tried again with the next write.
"""

from __future__ import annotations

import threading
from collections import Counter as Sums
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from semcache.backends.base import CounterStore, Fault
    from semcache.types import Entry, Usage

_DELAY = 0.5
_KEPT = 100_000
"""Counts that are kept while the store cannot be written; older ones are dropped."""


class Counter(Enum):
    """What is counted. The values are the names under which counters are stored."""

    EXACT_HIT = "hits:exact"
    SEMANTIC_HIT = "hits:semantic"
    SHARED = "shared"
    """Answers of another caller's call that was under way."""
    RECORD = "records"
    EXPLORATION = "explorations"
    EXPLORE_CALL = "bought:explore"
    AUDIT_CALL = "bought:audit"


class Labelled(Enum):
    """Counters that are kept apart by a label: a reason, or a part that failed."""

    MISS = "misses"
    FAULT = "faults"
    NOT_STORED = "not_stored"


_SERVED = {"exact": Counter.EXACT_HIT, "semantic": Counter.SEMANTIC_HIT}
_BOUGHT = {"explore": Counter.EXPLORE_CALL, "audit": Counter.AUDIT_CALL}
_SAVED_TOKENS, _SAVED_USD = "tokens_saved", "usd_saved"
_BOUGHT_TOKENS, _BOUGHT_USD = "tokens_bought", "usd_bought"


class _Note(NamedTuple):
    """One count: its name; the entry that was served, and when; what a bought call cost."""

    name: str
    entry: Entry | None = None
    at: float = 0.0
    cost: Usage | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of a cache, added up over all processes, by their names."""

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
    """Counters of one cache in this process, added up over processes by the store.

    Args:
        store: where they are written.
        fault: told when they could not be written.
    """

    def __init__(self, store: CounterStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault
        self._notes: deque[_Note] = deque(maxlen=_KEPT)
        self._wake = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._awake = False
        self.flush_hooks: list[Callable[[], None]] = []
        """Called before each write: others who write behind the traffic, with the same thread."""

    def increment(self, counter: Counter) -> None:
        """Count one."""
        self._add(_Note(counter.value))

    def increment_labelled(self, counter: Labelled, label: str) -> None:
        """Count one under a label."""
        self._add(_Note(f"{counter.value}:{label}"))

    def served(self, tier: Literal["exact", "semantic"], entry: Entry, at: float) -> None:
        """Count a hit, and what it saved. at: seconds since the epoch."""
        self._add(_Note(_SERVED[tier].value, entry, at))

    def bought(self, kind: Literal["explore", "audit"], cost: Usage) -> None:
        """Count a call that was made only to learn, and what it cost."""
        self._add(_Note(_BOUGHT[kind].value, cost=cost))

    def _add(self, note: _Note) -> None:
        self._notes.append(note)
        if not self._awake:
            self._begin()

    def wake(self) -> None:
        """Have what waits written soon."""
        if not self._awake:
            self._begin()

    def flush(self) -> None:
        """Write everything counted so far; what cannot be written is kept for the next time."""
        for hook in self.flush_hooks:
            try:
                hook()
            except Exception as error:
                self._fault("counters", error)
        failed: Exception | None = None
        with self._writing:
            notes = [self._notes.popleft() for _ in range(len(self._notes))]
            if not notes:
                return
            try:
                self._store.add_up(*_sums(notes))
            except Exception as error:
                failed = error
                room = _KEPT - len(self._notes)
                self._notes.extendleft(reversed(notes[-room:] if room > 0 else []))
        if failed is not None:  # told without the lock: a listener may want to count
            self._fault("counters", failed)

    def after_fork(self) -> None:
        """In a child process: what the parent counted is the parent's to write."""
        self._notes.clear()
        self._wake, self._writing = threading.Event(), threading.Lock()
        self._thread, self._awake = None, False

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self._closed = True
        self._wake.set()
        self.flush()

    def _begin(self) -> None:
        if self._closed:
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="semcache-counters", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads: the next count tries again
                return
            self._thread = thread
        self._awake = True
        self._wake.set()

    def _run(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._wake.wait()
            if self._closed:
                return
            pause.wait(_DELAY)
            self._wake.clear()
            self._awake = False
            self.flush()


def _sums(notes: list[_Note]) -> tuple[Sums[str], dict[int, tuple[int, float]]]:
    """Counters by name, and hits by entry id: (how many, the last in seconds since the epoch)."""
    counters: Sums[str] = Sums()
    hits: dict[int, tuple[int, float]] = {}
    for name, entry, at, cost in notes:
        counters[name] += 1
        if entry is not None:
            count, last = hits.get(entry.id, (0, 0.0))
            hits[entry.id] = (count + 1, max(last, at))
            _add_usage(counters, entry.completion.usage, _SAVED_TOKENS, _SAVED_USD)
        elif cost is not None:
            _add_usage(counters, cost, _BOUGHT_TOKENS, _BOUGHT_USD)
    return counters, hits


def _add_usage(counters: Sums[str], usage: Usage, tokens: str, usd: str) -> None:
    """Add what is known of a usage."""
    for name, amount in (
        (tokens, usage.prompt_tokens),
        (tokens, usage.completion_tokens),
        (usd, usage.cost_usd),
    ):
        if isinstance(amount, int | float):
            counters[name] += amount  # type: ignore[assignment]
