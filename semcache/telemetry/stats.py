"""Statistics of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from semcache.telemetry.intervals import wilson


@dataclass(frozen=True, slots=True)
class Stats:
    """Contents and history of a cache, over all processes.

    Attributes:
        entries: number of entries.
        entry_bytes: bytes of their texts and vectors.
        stored_bytes: bytes that the backend occupies; 0 if unknown.
        exact_hits, semantic_hits: lookups answered from the cache, by tier.
        shared: calls answered from another caller's call in flight.
        misses: lookups that missed, by reason.
        faults: failures of the cache, by the part that failed.
        records: answers that were stored.
        not_stored: answers that were not stored, by reason.
        tokens_saved, usd_saved: what hits saved, as far as the usage of their answers is known.
        explorations: lookups whose good candidate was not served, to learn from the model's answer.
        audits: calls made to learn although a stored answer was served.
        tokens_bought, usd_bought: cost of the calls for explorations and audits, as far as known.
        labels: number of labels, by how they came about.
        served_labels: number of labels from random explorations, audits and reviews of hits; only
            the newest 1,000 count.
        served_wrong: how many of these labels say that the answer was wrong.
        bound: the largest acceptable false hit rate; None if another policy decides.
        expected_false_hit_rate: the false hit rate expected at the present threshold; None if
            nothing is served.
        embedder: fingerprint of the embedder; None while there are no vectors.
        functions: counts of each decorated function: "hit", "miss", "fault: ..." with the error,
            and "not_stored: ..." with the reason.
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
    functions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def without_hits(self) -> dict[str, str]:
        """Decorated functions that were called at least twice and never had a hit, and why."""
        return {
            name: _why_no_hit(counts)
            for name, counts in self.functions.items()
            if "hit" not in counts and sum(counts.values()) > 1
        }

    @property
    def lookups(self) -> int:
        """Lookups that could have been hits (those of `put` and `refresh` could not)."""
        missed = sum(count for reason, count in self.misses.items() if reason != "bypassed")
        return self.exact_hits + self.semantic_hits + missed + self.explorations

    @property
    def calls_saved(self) -> int:
        """Calls to the model avoided by hits, minus the calls made for audits."""
        return self.exact_hits + self.semantic_hits - self.audits

    @property
    def false_hit_interval(self) -> tuple[float, float] | None:
        """95% interval of the false hit rate (Wilson 1927); None if there are no labels."""
        if not self.served_labels:
            return None
        return wilson(self.served_wrong, self.served_labels)

    @property
    def hit_rate(self) -> float | None:
        """Hits / lookups; None before the first lookup."""
        return (self.exact_hits + self.semantic_hits) / self.lookups if self.lookups else None


def _why_no_hit(counts: Mapping[str, int]) -> str:
    obstacles = {what: n for what, n in counts.items() if what.startswith(("fault", "not_stored"))}
    calls = counts.get("miss", 0)
    if not obstacles:
        return f"{calls:,} calls, each with another question or other arguments"
    what = max(obstacles, key=obstacles.__getitem__)
    kind, _, detail = what.partition(": ")
    said = f"its answers are not stored ({detail})" if kind == "not_stored" else detail
    return f"{max(calls, obstacles[what]):,} calls; {said}"
