"""Labels, served hits and pending comparisons in lists and dictionaries."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from semcache.backends.base import LabelCount
from semcache.types import Observation, PendingComparison, Selection, ServedHit

_MAX_SERVED = 10_000
_MAX_OBSERVATIONS = 200_000
_MAX_COMPARISONS = 1000


class MemoryLedger:
    """The `Ledger` part of a store in memory; subclasses say which entries exist."""

    lock: threading.RLock

    def __init__(self) -> None:
        self._observations: deque[tuple[int, Observation]] = deque(maxlen=_MAX_OBSERVATIONS)
        self._last_observation = 0
        self._served: dict[str, ServedHit] = {}
        self._comparisons: deque[PendingComparison] = deque(maxlen=_MAX_COMPARISONS)

    def check_open(self) -> None:
        """Raise `StoreError` if the backend is closed."""
        raise NotImplementedError

    def _exists(self, entry_id: int) -> bool:
        raise NotImplementedError

    def _selected_ids(self, selection: Selection) -> set[int]:
        raise NotImplementedError

    def observe(self, observations: Sequence[Observation], served: Sequence[ServedHit]) -> None:
        with self.lock:
            self.check_open()
            for observation in observations:
                self._last_observation += 1
                self._observations.append((self._last_observation, observation))
            for hit in served:
                self._served.setdefault(hit.id, hit)
            if len(self._served) > _MAX_SERVED:
                # Hits judged wrong are kept, so that they are not served to that question again.
                oldest = sorted(self._served.values(), key=lambda hit: hit.at)
                for hit in oldest[: len(self._served) - _MAX_SERVED]:
                    if hit.verdict is not False:
                        del self._served[hit.id]

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        with self.lock:
            if number >= self._last_observation:
                return []
            return [(n, o) for n, o in self._observations if n > number][:limit]

    def last_observation(self) -> int:
        return self._last_observation

    def observation_counts(self) -> list[LabelCount]:
        with self.lock:
            counts = Counter(o.kind for _, o in self._observations if o.right is not None)
            right = Counter(o.kind for _, o in self._observations if o.right)
        return [LabelCount(kind, counts[kind], right[kind]) for kind in sorted(counts)]

    def served_labels(self, limit: int) -> list[bool]:
        kinds = ("explore", "audit", "review")
        with self.lock:
            newest = [o for _, o in reversed(self._observations) if o.kind in kinds]
        return [o.right for o in newest if o.right is not None][:limit]

    def forget(self, selection: Selection) -> int:
        """See `Ledger.forget`."""
        with self.lock:
            self.check_open()
            ids = self._selected_ids(selection)
            name = selection.namespace if selection == Selection(selection.namespace) else None

            def stays(namespace: str, entry_id: int) -> bool:
                return namespace != name and entry_id not in ids

            before = len(self._observations)
            left = [(n, o) for n, o in self._observations if stays(o.namespace, o.entry_id)]
            self._observations = deque(left, maxlen=_MAX_OBSERVATIONS)
            self._served = {
                key: hit for key, hit in self._served.items() if stays(hit.namespace, hit.entry_id)
            }
            waiting = [c for c in self._comparisons if stays(c.namespace, c.entry_id)]
            self._comparisons = deque(waiting, maxlen=_MAX_COMPARISONS)
            return before - len(left)

    def served_hit(self, lookup_id: str) -> ServedHit | None:
        return self._served.get(lookup_id)

    def unreviewed(self, limit: int) -> list[ServedHit]:
        with self.lock:
            unjudged = [
                hit
                for hit in self._served.values()
                if hit.verdict is None and self._exists(hit.entry_id)
            ]
        return random.sample(unjudged, min(limit, len(unjudged)))

    def rejected_pairs(self) -> set[tuple[int, str]]:
        with self.lock:
            hits = list(self._served.values())
        return {(hit.entry_id, hit.question) for hit in hits if hit.verdict is False}

    def set_verdict(self, lookup_id: str, right: bool) -> None:
        with self.lock:
            if (hit := self._served.get(lookup_id)) is not None:
                self._served[lookup_id] = replace(hit, verdict=right)

    def keep_comparisons(self, comparisons: Sequence[PendingComparison]) -> None:
        with self.lock:
            self._comparisons.extend(comparisons)

    def take_comparisons(self, limit: int) -> list[PendingComparison]:
        with self.lock:
            taken = [self._comparisons.popleft() for _ in range(min(limit, len(self._comparisons)))]
        return [c for c in taken if self._exists(c.entry_id)]
