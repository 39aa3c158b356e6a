"""What happened, counted: written behind, so that no hit waits for a disk.

Noting is one append. A thread wakes half a second after the first note, adds up what
has come in and writes it in one transaction: counters by name, hits by entry. What
cannot be written is kept and tried again with the next.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from semcache.backends.local.base import Store
    from semcache.types import Entry

_DELAY = 0.5
_KEPT = 100_000
"""Notes that are kept while the store cannot be written; older ones are dropped."""


_Note: TypeAlias = "tuple[str, Entry | None, float]"
"""What happened; the entry that was served, and when."""


class Tally:
    """Counters of one cache, added up across processes by the store.

    Args:
        fault: told when the counters could not be written.
    """

    def __init__(self, store: Store, fault: Callable[[str, BaseException], None]) -> None:
        self._store = store
        self._fault = fault
        self._notes: deque[_Note] = deque(maxlen=_KEPT)
        self._wake = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._awake = False
        self.also: list[Callable[[], None]] = []
        """Others who write behind, with the same thread."""

    def note(self, name: str, entry: Entry | None = None, at: float = 0.0) -> None:
        """Count one `name`; with an entry, that it was served at `at` (seconds since epoch)."""
        self._notes.append((name, entry, at))
        self.rouse()

    def rouse(self) -> None:
        """See to it that what is there to be written is written soon."""
        if not self._awake:
            self._rouse()

    def flush(self) -> None:
        """Write everything noted so far; what cannot be written is kept for the next time."""
        for write in self.also:
            try:
                write()
            except Exception as error:
                self._fault("counters", error)
        failed: Exception | None = None
        with self._writing:
            notes = [self._notes.popleft() for _ in range(len(self._notes))]
            if not notes:
                return
            try:
                self._store.add_up(*_add_up(notes))
            except Exception as error:
                failed = error
                room = _KEPT - len(self._notes)
                self._notes.extendleft(reversed(notes[-room:] if room > 0 else []))
        if failed is not None:  # told without the lock: a listener may want to count
            self._fault("counters", failed)

    def after_fork(self) -> None:
        """In a child process: what the parent noted is the parent's to write."""
        self._notes.clear()
        self._wake, self._writing = threading.Event(), threading.Lock()
        self._thread, self._awake = None, False

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self.flush()

    def _rouse(self) -> None:
        if self._closed:
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="semcache-tally", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are too many: the next note tries again
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


def _add_up(notes: list[_Note]) -> tuple[Counter[str], dict[int, tuple[int, float]]]:
    counters: Counter[str] = Counter()
    hits: dict[int, tuple[int, float]] = {}
    for name, entry, at in notes:
        counters[name] += 1
        if entry is None:
            continue
        bought = name.startswith("bought:")
        if not bought:
            count, last = hits.get(entry.id, (0, 0.0))
            hits[entry.id] = (count + 1, max(last, at))
        usage, what = entry.completion.usage, "bought" if bought else "saved"
        for counter, amount in (
            (f"tokens_{what}", usage.prompt_tokens),
            (f"tokens_{what}", usage.completion_tokens),
            (f"usd_{what}", usage.cost_usd),
        ):
            if isinstance(amount, int | float):
                counters[counter] += amount  # type: ignore[assignment]
    return counters, hits
