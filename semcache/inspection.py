"""Inspection of a cache with any backend: statistics, search, and a reviewer's verdicts."""

from __future__ import annotations

import collections
import heapq
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semcache.telemetry.counters import Counter, Counts, Labelled
from semcache.telemetry.stats import Stats
from semcache.types import Candidate, Selection
from semcache.verification.labels import label_of
from semcache.verification.memory import POLICY, learned_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semcache.backends.base import Backend
    from semcache.embedders.base import Embedder
    from semcache.types import Entry, Query, ServedHit

_NEWEST_ENTRIES = 1000
"""Other scopes are found among this many of the newest entries."""
_RECENT_LABELS = 1000
"""The false hit rate is estimated from this many of the newest labels of served answers."""


def read_stats(backend: Backend) -> Stats:
    """Statistics of a cache, over all processes.

    Raises:
        StoreError: the backend cannot be read.
    """
    totals = backend.catalogue.totals()
    counts = Counts(backend.counters.counters())
    served = backend.ledger.served_labels(_RECENT_LABELS)
    bound = learned_bound(backend.metadata)
    return Stats(
        entries=totals.entries,
        entry_bytes=totals.size,
        stored_bytes=backend.catalogue.stored_bytes(),
        exact_hits=counts.of(Counter.EXACT_HIT),
        semantic_hits=counts.of(Counter.SEMANTIC_HIT),
        shared=counts.of(Counter.SHARED),
        misses=counts.by_label(Labelled.MISS),
        faults=counts.by_label(Labelled.FAULT),
        records=counts.of(Counter.RECORD),
        not_stored=counts.by_label(Labelled.NOT_STORED),
        tokens_saved=counts.tokens_saved,
        usd_saved=counts.usd_saved,
        embedder=backend.embedder,
        explorations=counts.of(Counter.EXPLORATION),
        audits=counts.of(Counter.AUDIT_CALL),
        tokens_bought=counts.tokens_bought,
        usd_bought=counts.usd_bought,
        labels={label.kind: label.labels for label in backend.ledger.observation_counts()},
        served_labels=len(served),
        served_wrong=served.count(False),
        bound=bound.bound,
        expected_false_hit_rate=bound.expected_false_hit_rate,
        functions=counts.by_function(),
    )


def policy_of(backend: Backend) -> dict[str, Any]:
    """The options of `SemanticCache` that decide what is served, as they were when it last ran.

    Empty if they are unknown.

    Raises:
        StoreError: the backend cannot be read.
    """
    written = backend.metadata.meta(POLICY)
    if written is not None:
        options = json.loads(written)
        if isinstance(options, dict):
            return options
    bound = learned_bound(backend.metadata).bound
    return {} if bound is None else {"max_false_hit_rate": bound}


@dataclass(frozen=True, slots=True)
class ScopeSummary:
    """A scope in which entries are stored.

    Attributes:
        entry_id: one of its entries.
        entries: how many of the cache's newest 1,000 entries are in this scope.
        params: the parameters of that entry's request, shortened.
    """

    entry_id: int
    entries: int
    model: str
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is stored in scopes other than that of a lookup, among the newest entries.

    Attributes:
        same_question: up to three entries for the same question.
        scopes: up to five other scopes of the namespace, those with the most entries first.
    """

    same_question: list[Entry]
    scopes: list[ScopeSummary]


def elsewhere(backend: Backend, query: Query) -> Elsewhere:
    """What is in scopes other than that of `query`, among the newest 1,000 entries.

    Raises:
        StoreError: the backend cannot be read.
    """
    newest = backend.catalogue.select(Selection(), limit=_NEWEST_ENTRIES)
    others = [entry for entry in newest if entry.scope != query.scope.digest]
    same = [e for e in others if e.question == query.question] if query.question else []
    own = [entry for entry in others if entry.namespace == query.request.namespace]
    return Elsewhere(same[:3], _scopes(backend, own))


def _scopes(backend: Backend, newest: Sequence[Entry], limit: int = 5) -> list[ScopeSummary]:
    counts = collections.Counter(entry.scope for entry in newest)
    examples = {entry.scope: entry for entry in newest}
    shown = [examples[scope] for scope, _ in counts.most_common(limit)]
    details = backend.catalogue.details([entry.id for entry in shown])
    return [
        ScopeSummary(
            entry.id,
            counts[entry.scope],
            entry.model,
            details[entry.id].summary.get("params", {}) if entry.id in details else {},
        )
        for entry in shown
    ]


def search(
    backend: Backend, embedder: Embedder, text: str, *, namespace: str | None, limit: int
) -> list[Candidate]:
    """The stored questions nearest to a text, across all scopes, for people to inspect.

    Compares the text with every stored vector.

    Raises:
        EmbedderError: the embedder failed.
        StoreError: the backend cannot be read.
    """
    query = embedder.embed([text])[0]
    allowed = None
    if namespace is not None:
        selected = backend.catalogue.select(Selection(namespace=namespace))
        allowed = {entry.id for entry in selected}
    similarities = (
        (float(vector @ query), entry_id)
        for entry_id, vector in backend.catalogue.vectors()
        if allowed is None or entry_id in allowed
    )
    nearest = heapq.nlargest(limit, similarities)
    entries = backend.catalogue.get_many([entry_id for _, entry_id in nearest])
    return [Candidate(entries[i], similarity) for similarity, i in nearest if i in entries]


def record_review(backend: Backend, hit: ServedHit, right: bool, writer: str) -> None:
    """Store a person's verdict on a served hit; running caches learn from it within a second.

    Args:
        writer: identifies this process, so that a cache in this process does not learn
            from the label twice.

    Raises:
        StoreError: the verdict could not be stored.
    """
    backend.ledger.set_verdict(hit.id, right)  # before the label, whose readers need the verdict
    label = label_of(hit, right, "review", time.time(), writer)
    backend.ledger.observe([label], [])
