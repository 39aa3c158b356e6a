"""What a cache holds and has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from semcache.telemetry.intervals import wilson


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache holds and has done, over all processes.

    Attributes:
        entries, entry_bytes: how many, and the bytes of their texts and vectors.
        stored_bytes: what the backend takes where it is stored; 0 if that is not known.
        exact_hits, semantic_hits, shared: served from the cache; from another caller's
            call under way.
        misses: by reason. faults: by the part that failed.
        records: answers stored. not_stored: by reason.
        tokens_saved, usd_saved: of served answers whose usage was known.
        explorations, audits: calls that were made to learn, though a stored answer was good
            enough. tokens_bought, usd_bought: what these cost, where known.
        labels: how many labels there are, by how they came about.
        served_labels: of hits that were explored, audited or reviewed at random, the newest
            1,000. served_wrong: how many of these were wrong.
        bound: the largest false hit rate that was asked for; None: another policy decides.
        expected_false_hit_rate: what is expected of what is served now; None: nothing is.
        embedder: fingerprint of the embedder; None while there is no vector.
    """

    entries: int
    entry_bytes: int
    stored_bytes: int
    exact_hits: int
    semantic_hits: int
    shared: int
    misses: Mapping[str, int]
    faults: Mapping[str, int]
    records: int
    not_stored: Mapping[str, int]
    tokens_saved: int
    usd_saved: float
    embedder: str | None
    explorations: int = 0
    audits: int = 0
    tokens_bought: int = 0
    usd_bought: float = 0.0
    labels: Mapping[str, int] = field(default_factory=dict)
    served_labels: int = 0
    served_wrong: int = 0
    bound: float | None = None
    expected_false_hit_rate: float | None = None

    @property
    def lookups(self) -> int:
        """Lookups that could have been served (`put` and `refresh` could not)."""
        missed = sum(count for reason, count in self.misses.items() if reason != "bypassed")
        return self.exact_hits + self.semantic_hits + missed + self.explorations

    @property
    def calls_saved(self) -> int:
        """Calls that were not made, less those that only audits made."""
        return self.exact_hits + self.semantic_hits - self.audits

    @property
    def false_hit_interval(self) -> tuple[float, float] | None:
        """95% interval of the share of wrong semantic hits (Wilson 1927); None: no labels."""
        if not self.served_labels:
            return None
        return wilson(self.served_wrong, self.served_labels)

    @property
    def hit_rate(self) -> float | None:
        """Served / all lookups; None before the first."""
        return (self.exact_hits + self.semantic_hits) / self.lookups if self.lookups else None
