"""From a request to a decision. A fault of the cache is a miss, never the caller's trouble.

A request that cannot be used raises `RequestError`, because only the caller can mend that.
Whatever else fails, the embedder, the index, the store, becomes a miss and a `FaultEvent`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semcache.backends.base import NotReadyError
from semcache.engine.explain import Explanation
from semcache.errors import EmbedderError
from semcache.keys import keys
from semcache.keys.keys import KeyRules
from semcache.telemetry.counters import Counter, Labelled
from semcache.telemetry.events import LookupEvent
from semcache.types import Candidate, Decision, Entry, Explore, Hit, Lookup, Miss, Query, Request

if TYPE_CHECKING:
    from semcache.backends.base import Entries
    from semcache.config.flags import Flags
    from semcache.engine.embedding import QuestionEmbedder
    from semcache.telemetry.telemetry import Telemetry
    from semcache.types import Vector
    from semcache.verification.base import Verification

CACHING_OFF = Miss("caching_off", "the flag caching_enabled is off")
_EXPIRED = Miss("expired", "the same request has expired")
_SEMANTIC_OFF = Miss("semantic_off", "the semantic tier is switched off")
_BYPASSED = Miss("bypassed", "nothing was to be served")


class Lookups:
    """Looks requests up, over parts that it is given.

    Args:
        entries: entries by key and by similarity.
        embedding: None for the exact tier only.
        verification: decides which neighbour may be served.
        telemetry: told how every lookup ended.
        rules: what does not belong to the scope.
        flags: looked at with every lookup; None if all flags are on.
        clock: seconds since the epoch. draw: uniform in [0, 1).
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
    ) -> None:
        self.rules = rules
        self.clock = clock
        self._entries = entries
        self._embedding = embedding
        self._verification = verification
        self._telemetry = telemetry
        self._flags = flags
        self._draw = draw

    def query(self, request: Request, rules: KeyRules | None = None) -> Query:
        """A request as the cache sees it.

        Args:
            rules: instead of the cache's own.

        Raises:
            RequestError: the request has no canonical form.
        """
        return keys.query(request, rules or self.rules)

    def enabled(self, flag: str) -> bool:
        return self._flags is None or self._flags.enabled(flag)

    # --------------------------------------------------------------------------- lookup

    def lookup(self, query: Query, *, serve: bool = True) -> Lookup:
        """Look a request up. Raises nothing: a fault is a miss.

        Args:
            serve: False serves nothing and only prepares for recording.
        """
        start = time.perf_counter()
        try:
            if not self.enabled("caching_enabled"):
                lookup = Lookup(query, CACHING_OFF)
            else:
                lookup = self._served(query) if serve else self._prepared(query)
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

    def _served(self, query: Query) -> Lookup:
        now = self.clock()
        entry = self._entries.exact(query.exact_key)
        if entry is not None and entry.fresh(now):
            hit = Hit(entry, 1.0, "same request")
            return Lookup(query, hit, "exact", 1.0, entry, stale=entry.stale(now))
        lookup = self._semantic(query, now)
        if entry is not None and isinstance(lookup.decision, Miss):
            return replace(lookup, decision=_EXPIRED)
        return lookup

    def _semantic(self, query: Query, now: float) -> Lookup:
        # Before the embedding, while the store's code still lies in the processor's caches.
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
            served, similarity = decision.entry, decision.similarity
            stale = served.stale(now)
            return Lookup(query, decision, "semantic", similarity, served, vector, stale=stale)
        return Lookup(query, decision, None, nearest, None, vector)

    def _decide(
        self, query: Query, vector: Vector, now: float, draw: float, revision: int | None = None
    ) -> tuple[Decision, float | None]:
        """The decision on the neighbours of a vector, and the similarity of the nearest."""
        verification = self._verification
        neighbours = self._entries.nearest(
            query.scope.digest, vector, verification.k, verification.floor, revision
        )
        return verification.decide(query, neighbours, now=now, draw=draw), neighbours.nearest

    def _prepared(self, query: Query) -> Lookup:
        """A miss that knows its vector."""
        vector = self.vector(query)
        if isinstance(vector, Miss):
            return Lookup(query, vector if vector.reason == "fault" else _BYPASSED)
        return Lookup(query, _BYPASSED, vector=vector)

    def vector(self, query: Query) -> Vector | Miss:
        """float32[d] of the question, or why there is none. A failing embedder is a miss, too."""
        try:
            return self._vector(query)
        except EmbedderError as error:
            return self._fault("embed", error)

    def _vector(self, query: Query) -> Vector | Miss:
        if self._embedding is None or not self.enabled("semantic_enabled"):
            return _SEMANTIC_OFF
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

    # ------------------------------------------------------------------ looking once more

    def fresh_exact(self, query: Query) -> Entry | None:
        """The entry for exactly this request, if it is good now; counts nothing."""
        try:
            entry, now = self._entries.exact(query.exact_key), self.clock()
        except Exception as error:
            self._telemetry.fault("lookup", error)
            return None
        return entry if entry is not None and entry.fresh(now) and not entry.stale(now) else None

    def fresh_semantic(self, lookup: Lookup) -> Entry | None:
        """What may be served now for a question that was looked up before; counts nothing."""
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
            EmbedderError, StoreError: a part failed; here that is said and not hidden.
        """
        now = self.clock()
        exact = self._entries.exact(query.exact_key)
        fresh = exact is not None and exact.fresh(now)
        vector = self._vector(query)
        notes: list[str] = []
        if exact is not None and not fresh:
            notes.append(f"entry {exact.id} answers the same request but has expired")
        shown: list[Candidate] = []
        decision: Decision
        if isinstance(vector, Miss):
            decision = vector
            notes.append(vector.detail)
        else:
            decision, _ = self._decide(query, vector, now, 1.0)
            shown = self._neighbours(query, vector, k, now)
        if exact is not None and fresh:
            decision = Hit(exact, 1.0, "same request")
        elif exact is not None and isinstance(decision, Miss):
            decision = _EXPIRED
        tier = None
        if isinstance(decision, Hit):
            tier = "exact" if fresh else "semantic"
        policy = self._verification.describe()
        return Explanation(query, exact, tuple(shown), decision, tier, policy, tuple(notes))

    def _neighbours(self, query: Query, vector: Vector, k: int, now: float) -> list[Candidate]:
        """Up to k neighbours, however dissimilar, with their evidence."""
        found = self._entries.nearest(query.scope.digest, vector, k, -1.0)
        shown = found.candidates[:k]
        return self._verification.examine(query, shown, now=now) if shown else []


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
