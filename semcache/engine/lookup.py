"""Looks up requests and decides what to serve.

A malformed request raises `RequestError`, because only the caller can fix it. A failure of any
part of the cache (embedder, index, store) is a miss and a `FaultEvent`, never the caller's problem.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semcache.backends.base import NotReadyError
from semcache.engine.explain import Explanation
from semcache.errors import EmbedderError
from semcache.keys import keys
from semcache.keys.keys import KeyRules
from semcache.keys.parse import name_of
from semcache.telemetry.counters import Counter, Labelled
from semcache.telemetry.events import LookupEvent
from semcache.types import (
    Candidate,
    Decision,
    Entry,
    Explore,
    Hit,
    Lookup,
    Miss,
    Personal,
    Query,
    Request,
)

if TYPE_CHECKING:
    from semcache.backends.base import Entries
    from semcache.config.flags import Flags
    from semcache.engine.embedding import QuestionEmbedder
    from semcache.privacy.personal import PersonalData
    from semcache.telemetry.telemetry import Telemetry
    from semcache.types import Vector
    from semcache.verification.base import Verification

_NOT_READY = Miss("fault", "the index is still being built")
CACHING_OFF = Miss("caching_off", "the flag caching_enabled is off")
_EXPIRED = Miss("expired", "the stored answer has expired")
_SEMANTIC_OFF = Miss("semantic_off", "the semantic tier is switched off")
_SKIPPED = "it is neither served nor stored"
_EXACT_TIER_ONLY = "it is served and stored in the exact tier only"
_BYPASSED = Miss("bypassed", "put and refresh never serve a stored answer")


class Lookups:
    """Looks up requests.

    Args:
        entries: finds entries by key and by similarity.
        embedding: turns questions into vectors; None means exact tier only.
        verification: decides which neighbour may be served.
        telemetry: events and counters.
        rules: what to leave out of the scope.
        flags: feature flags, checked on every lookup; None means that all are on.
        clock: returns seconds since the epoch.
        draw: returns uniform random numbers in [0, 1).
        personal_data: finds personal data in requests; None looks for nothing.
    """

    def __init__(
        self,
        entries: Entries,
        embedding: QuestionEmbedder | None,
        verification: Verification,
        telemetry: Telemetry,
        *,
        rules: KeyRules,
        flags: Flags | None,
        clock: Callable[[], float],
        draw: Callable[[], float],
        personal_data: PersonalData | None = None,
    ) -> None:
        self.rules = rules
        self.clock = clock
        self._entries = entries
        self._embedding = embedding
        self._verification = verification
        self._telemetry = telemetry
        self._flags = flags
        self._draw = draw
        self._personal_data = personal_data

    def query(self, request: Request, rules: KeyRules | None = None) -> Query:
        """The request as the cache sees it.

        Args:
            rules: used instead of the cache's own.

        Raises:
            RequestError: the request has no canonical form.
        """
        if self._personal_data is None:
            return keys.query(request, rules or self.rules)
        try:
            handled, personal = self._personal_data.handled(request)
            name_of(handled.namespace, "namespace", "")
        except Exception as error:  # not known to be harmless
            self._telemetry.fault("privacy", error)
            handled, personal = request, Personal(("unknown",), "skip")
        used = rules or self.rules
        if personal is not None and personal.handling == "exact" and used != keys.STRICT:
            # Equal keys do not mean equal requests: some of what was searched is left out.
            personal = Personal(personal.kinds, "skip")
        return replace(keys.query(handled, used), personal=personal)

    def enabled(self, flag: str) -> bool:
        return self._flags is None or self._flags.enabled(flag)

    # --------------------------------------------------------------------------- lookup

    def lookup(self, query: Query, *, serve: bool = True) -> Lookup:
        """Look up a request. Never raises: a fault is a miss.

        Args:
            serve: False embeds the question for `record`, but serves nothing.
        """
        start = time.perf_counter()
        try:
            if not self.enabled("caching_enabled"):
                lookup = Lookup(query, CACHING_OFF)
            elif is_skipped(query):
                lookup = Lookup(query, _because_personal(query))
            else:
                lookup = self._find_answer(query) if serve else self._embed_only(query)
        except Exception as error:
            lookup = Lookup(query, self._fault("lookup", error))
        self._count(lookup)
        if lookup.candidate is not None:
            try:
                self._verification.observe_lookup(lookup)
            except Exception as error:
                self._telemetry.fault("lookup", error)
        if self._telemetry.wants_lookups:
            self._telemetry.emit(_event(lookup, time.perf_counter() - start))
        return lookup

    def _find_answer(self, query: Query) -> Lookup:
        now = self.clock()
        entry = self._entries.exact(query.exact_key)
        if entry is not None and entry.fresh(now):
            hit = Hit(entry, 1.0, "same request")
            return Lookup(query, hit, "exact", 1.0, entry, stale=entry.stale(now))
        lookup = self._find_similar(query, now)
        if entry is not None and isinstance(lookup.decision, Miss):
            return replace(lookup, decision=_EXPIRED)
        return lookup

    def _find_similar(self, query: Query, now: float) -> Lookup:
        # Read before the question is embedded, while the store's code is still in the CPU caches.
        revision = None if self._embedding is None else self._entries.revision()
        vector = self.vector(query)
        if isinstance(vector, Miss):
            return Lookup(query, vector)
        try:
            decision, nearest = self._decide(query, vector, now, self._draw(), revision)
        except NotReadyError as error:
            return Lookup(query, Miss("index_building", str(error)), vector=vector)
        except Exception as error:
            return Lookup(query, self._fault("search", error), vector=vector)
        if isinstance(decision, Hit):
            entry, similarity = decision.entry, decision.similarity
            stale = entry.stale(now)
            return Lookup(query, decision, "semantic", similarity, entry, vector, stale=stale)
        return Lookup(query, decision, None, nearest, None, vector)

    def _decide(
        self, query: Query, vector: Vector, now: float, draw: float, revision: int | None = None
    ) -> tuple[Decision, float | None]:
        """The decision on a vector's neighbours, and the similarity of the nearest one."""
        verification = self._verification
        neighbours = self._entries.nearest(
            query.scope.digest, vector, verification.k, verification.floor, revision
        )
        return verification.decide(query, neighbours, now=now, draw=draw), neighbours.nearest

    def _embed_only(self, query: Query) -> Lookup:
        """A miss with the question's vector."""
        vector = self.vector(query)
        if isinstance(vector, Miss):
            return Lookup(query, vector if vector.reason == "fault" else _BYPASSED)
        return Lookup(query, _BYPASSED, vector=vector)

    def vector(self, query: Query) -> Vector | Miss:
        """The question's vector, float32[d], or why there is none; a failed embedder is a miss."""
        try:
            return self._vector(query)
        except EmbedderError as error:
            return self._fault("embed", error)

    def _vector(self, query: Query) -> Vector | Miss:
        if self._embedding is None or not self.enabled("semantic_enabled"):
            return _SEMANTIC_OFF
        if query.personal is not None and query.personal.handling != "user":
            return _because_personal(query)
        return self._embedding.vector(query.question)

    def _fault(self, where: str, error: Exception) -> Miss:
        self._telemetry.fault(where, error)
        return Miss("fault", f"{where}: {error}")

    def _count(self, lookup: Lookup) -> None:
        counters = self._telemetry.counters
        if lookup.tier is not None and lookup.entry is not None:
            counters.served(lookup.tier, lookup.entry, self.clock())
        elif isinstance(lookup.decision, Miss):
            counters.increment_labelled(Labelled.MISS, lookup.decision.reason)
        else:
            counters.increment(Counter.EXPLORATION)

    # --------------------------------------------------------------- lookups that are not counted

    def fresh_exact(self, query: Query) -> Entry | None:
        """The entry for exactly this request, if it is neither expired nor stale."""
        try:
            entry, now = self._entries.exact(query.exact_key), self.clock()
        except Exception as error:
            self._telemetry.fault("lookup", error)
            return None
        return entry if entry is not None and entry.fresh(now) and not entry.stale(now) else None

    def fresh_semantic(self, lookup: Lookup) -> Entry | None:
        """The entry that may now be served for a question that was looked up earlier."""
        if lookup.vector is None:
            return None
        try:
            decision, _ = self._decide(lookup.query, lookup.vector, self.clock(), self._draw())
        except NotReadyError:
            return None
        except Exception as error:
            self._telemetry.fault("search", error)
            return None
        return decision.entry if isinstance(decision, Hit) else None

    def explain(self, query: Query, *, k: int = 5) -> Explanation:
        """What a lookup would do, with up to k neighbours. Changes and counts nothing.

        Raises:
            EmbedderError, StoreError: the embedder or the store failed. Unlike in `lookup`, a
                fault is not turned into a miss.
        """
        now = self.clock()
        exact = self._entries.exact(query.exact_key)
        fresh = exact is not None and exact.fresh(now)
        vector = self._vector(query)
        notes: list[str] = []
        if exact is not None and not fresh:
            notes.append(f"entry {exact.id} answers the same request but has expired")
        neighbours: list[Candidate] = []
        decision: Decision
        if isinstance(vector, Miss):
            decision = vector
            notes.append(vector.detail)
        else:
            try:
                decision, _ = self._decide(query, vector, now, 1.0)
                neighbours = self._neighbours(query, vector, k, now)
            except NotReadyError:
                decision = _NOT_READY
                notes.append(_NOT_READY.detail)
        if exact is not None and fresh:
            decision = Hit(exact, 1.0, "same request")
        elif exact is not None and isinstance(decision, Miss):
            decision = _EXPIRED
        if is_skipped(query):
            decision = _because_personal(query)
        if not self.enabled("caching_enabled"):
            decision = CACHING_OFF
        tier = None
        if isinstance(decision, Hit):
            tier = "exact" if fresh else "semantic"
        policy = self._verification.describe()
        return Explanation(query, exact, tuple(neighbours), decision, tier, policy, tuple(notes))

    def _neighbours(self, query: Query, vector: Vector, k: int, now: float) -> list[Candidate]:
        """Up to k neighbours, however dissimilar, with their evidence."""
        candidates = self._entries.nearest(query.scope.digest, vector, k, -1.0).candidates[:k]
        return self._verification.examine(query, candidates, now=now) if candidates else []


def is_skipped(query: Query) -> bool:
    """Whether a request is neither served nor stored, because it holds personal data."""
    return query.personal is not None and query.personal.handling == "skip"


def _because_personal(query: Query) -> Miss:
    assert query.personal is not None
    effect = _SKIPPED if is_skipped(query) else _EXACT_TIER_ONLY
    return Miss("personal_data", f"the request holds {_listed(query.personal.kinds)}: {effect}")


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kind.replace("_", " ") for kind in kinds)


def _event(lookup: Lookup, seconds: float) -> LookupEvent:
    decision: Any = lookup.decision
    request = lookup.query.request
    return LookupEvent(
        namespace=request.namespace,
        model=request.model,
        tier=lookup.tier,
        reason="explore" if isinstance(decision, Explore) else decision.reason,
        similarity=lookup.similarity,
        entry_id=None if lookup.entry is None else lookup.entry.id,
        seconds=seconds,
        lookup_id=lookup.id,
    )
