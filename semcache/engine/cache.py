"""Looking answers up and storing them: blocking, local, and never the caller's trouble.

`lookup` and `record` raise `RequestError` for a request that cannot be used and
`ConfigError` for an argument that is wrong, because only the caller can mend those.
Everything else that fails, the embedder, the index, the store, the disk, becomes a
miss, an answer that is not stored, and a `FaultEvent`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from semcache.backends.base import Leases
from semcache.backends.local.index_follower import NotReadyError
from semcache.backends.local.repository import Repository, TooLargeError
from semcache.backends.retention import UNSET, GivenTTL, Lifetime, Retention
from semcache.config.flags import Flags
from semcache.errors import EmbedderError, RequestError
from semcache.keys import keys
from semcache.keys.keys import KeyRules
from semcache.keys.parse import tags_of
from semcache.keys.summary import request_summary
from semcache.telemetry.counters import Tally
from semcache.telemetry.events import Event, FaultEvent, Hook, Hooks, LookupEvent, RecordEvent
from semcache.types import (
    Candidate,
    Completion,
    Decision,
    Entry,
    Explore,
    Hit,
    Lookup,
    Miss,
    NewEntry,
    Query,
    Request,
    Selection,
)
from semcache.verification.base import Policy
from semcache.verification.decision import decide, servable
from semcache.verification.learner import Learning
from semcache.verification.policies import FLOOR, NEIGHBOURS

if TYPE_CHECKING:
    from semcache.types import Vector

WHOLE = frozenset({None, "stop", "end_turn", "stop_sequence", "eos", "completed"})
"""Finish reasons of whole answers; an answer with any other was cut off, filtered or refused."""

_TOOL_CALLS = frozenset({"tool_calls", "tool_use", "function_call"})


_EXPIRED = Miss("expired", "the same request has expired")
_CACHING_OFF = Miss("caching_off", "the flag caching_enabled is off")


@dataclass(frozen=True, slots=True)
class Keep:
    """Which answers are stored besides whole ones in words.

    Attributes:
        truncated: answers cut off by a length limit or a filter.
        tool_calls: answers that ask for tools.
    """

    truncated: bool = False
    tool_calls: bool = False


@dataclass(frozen=True, slots=True)
class Semantics:
    """Turns questions into vectors, on the cache's terms.

    Attributes:
        embed: question -> float32[d]; raises `EmbedderError`.
        fits: whether all of a question reaches its vector.
        embed_long: the same as `embed` for questions that do not fit; None: these use the
            exact tier only.
    """

    embed: Callable[[str], Vector]
    fits: Callable[[str], bool]
    embed_long: Callable[[str], Vector] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that a lookup saw and decided, found out without changing anything.

    Attributes:
        query: scope, question and exact key.
        exact: the entry with the same exact key, expired or not.
        neighbours: entries of the scope near the question, the nearest first, whatever
            their similarity.
        decision: what a lookup would decide now.
        tier: which tier decided.
        policy: what decides, in words.
        notes: what else a person should know, such as why no vector was made.
    """

    query: Query
    exact: Entry | None
    neighbours: tuple[Candidate, ...]
    decision: Decision
    tier: str | None
    policy: str = ""
    notes: tuple[str, ...] = ()


class Cache:
    """The walk from a request to a decision, over parts that it is given.

    Args:
        repository: entries, by key and by nearness.
        semantics: the semantic tier's embedder; None: the exact tier only.
        policy: decides whether a neighbour may be served; None: what is learned does.
        rules: what does not belong to the scope.
        retention: TTLs.
        keep: which answers are stored.
        hooks: listeners.
        flags: looked at with every lookup; None: all as by default.
        clock: seconds since the epoch. draw: uniform in [0, 1).
        learning: makes what learns, where there is no policy.
        audit: share of the semantic hits that are audited, where the walk can.
        leases: who asks the model for what, among processes; None: each for itself.
    """

    def __init__(
        self,
        repository: Repository[Any],
        *,
        semantics: Semantics | None,
        policy: Policy | None,
        rules: KeyRules,
        retention: Retention,
        keep: Keep,
        hooks: Sequence[Hook],
        flags: Flags | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        learning: Callable[[Cache], Learning] | None = None,
        audit: float = 0.0,
        leases: Callable[[Callable[[BaseException], None]], Leases] | None = None,
    ) -> None:
        self.repository = repository
        self._policy = policy
        self.rules = rules
        self._semantics = semantics
        self._retention = retention
        self.keep = keep
        self._hooks = Hooks(hooks)
        self._flags = flags
        self._clock = clock
        self._draw = draw
        self.tally = Tally(repository.store, self.fault)
        self.learning = None if learning is None else learning(self)
        self._audit = audit
        self.leases = None if leases is None else leases(lambda error: self.fault("lease", error))
        if self.learning is not None:
            self.tally.also.append(self.learning.flush)
        repository.before_eviction = self.tally.flush  # whoever was just hit was just used
        repository.fault = self.fault

    @property
    def policy_in_words(self) -> str:
        """What decides, for people."""
        if self._policy is not None:
            return repr(self._policy)
        if self.learning is None:
            return "the exact tier only"
        return f"at most {self.learning.rules.bound:.1%} of the semantic hits wrong"

    @property
    def floor(self) -> float:
        """Neighbours less similar than this are none."""
        return self._policy.floor if self._policy is not None else FLOOR

    @property
    def k(self) -> int:
        """How many neighbours are looked at."""
        return self._policy.k if self._policy is not None else NEIGHBOURS

    # ------------------------------------------------------------------------ lookup

    def query(self, request: Request, rules: KeyRules | None = None) -> Query:
        """A request as the cache sees it.

        Args:
            rules: instead of the cache's own.

        Raises:
            RequestError: the request has no canonical form.
        """
        return keys.query(request, rules or self.rules)

    def find(self, query: Query, *, serve: bool = True) -> Lookup:
        """Look a request up. Raises nothing: a fault is a miss.

        Args:
            serve: False: serve nothing, only prepare for `store`.
        """
        start = time.perf_counter()
        try:
            if not self._enabled("caching_enabled"):
                lookup = self._missed(query, _CACHING_OFF)
            else:
                lookup = self._walk(query) if serve else self._prepared(query)
        except Exception as error:
            lookup = self._missed(query, self._fault_miss("lookup", error))
        self._count(lookup)
        if self.learning is not None and lookup.candidate is not None:
            try:
                self.learning.saw(lookup)
            except Exception as error:
                self.fault("lookup", error)
        if self._hooks.wants_lookups:
            self._hooks.emit(_lookup_event(lookup, time.perf_counter() - start))
        return lookup

    def _walk(self, query: Query) -> Lookup:
        now = self._clock()
        entry = self.repository.exact(query.exact_key)
        if entry is not None and entry.fresh(now):
            hit = Hit(entry, 1.0, "same request")
            return Lookup(query, hit, "exact", 1.0, entry, stale=entry.stale(now))
        lookup = self._semantic(query, now)
        if entry is not None and isinstance(lookup.decision, Miss):
            return replace(lookup, decision=_EXPIRED)
        return lookup

    def fresh_exact(self, query: Query) -> Entry | None:
        """The entry for exactly this request, if it is good now; counts nothing."""
        try:
            entry, now = self.repository.exact(query.exact_key), self._clock()
        except Exception as error:
            self.fault("lookup", error)
            return None
        return entry if entry is not None and entry.fresh(now) and not entry.stale(now) else None

    def fresh_semantic(self, lookup: Lookup) -> Entry | None:
        """What may be served now for a question that was looked up before; counts nothing."""
        if lookup.vector is None:
            return None
        try:
            decision, _ = self._decided(lookup.query, lookup.vector, self._clock())
        except NotReadyError:
            return None
        except Exception as error:
            self.fault("search", error)
            return None
        return decision.entry if isinstance(decision, Hit) else None

    def _semantic(self, query: Query, now: float) -> Lookup:
        # Before the embedding, while SQLite's code lies in the processor's caches.
        seen = None if self._semantics is None else self.repository.glance()
        vector = self._vector_or_miss(query)
        if isinstance(vector, Miss):
            return self._missed(query, vector)
        try:
            decision, nearest = self._decided(query, vector, now, seen=seen)
        except NotReadyError as error:
            return self._missed(query, Miss("index_building", str(error)), vector)
        except Exception as error:
            return self._missed(query, self._fault_miss("search", error), vector)
        if isinstance(decision, Hit):
            served = decision.entry
            return Lookup(
                query, decision, "semantic", decision.similarity, served, vector,
                stale=served.stale(now),
            )  # fmt: skip
        return Lookup(query, decision, None, nearest, None, vector)

    def _vector_or_miss(self, query: Query) -> Vector | Miss:
        """`_vector`, where an embedder that fails is a miss like the others."""
        try:
            return self._vector(query)
        except EmbedderError as error:
            return self._fault_miss("embed", error)

    def _vector(self, query: Query) -> Vector | Miss:
        """float32[d] of the question, or why there is none."""
        semantics = self._semantics
        if semantics is None or not self._enabled("semantic_enabled"):
            return Miss("semantic_off", "the semantic tier is switched off")
        if query.question is None:
            return Miss("no_question", "there is no user turn with words in it to embed")
        if semantics.fits(query.question):
            return semantics.embed(query.question)
        if semantics.embed_long is not None:
            return semantics.embed_long(query.question)
        return Miss(
            "question_too_long",
            "the question is longer than the embedder's window, so that only the exact tier "
            "looks at it (long_prompts='chunks' embeds all of it)",
        )

    def _prepared(self, query: Query) -> Lookup:
        """A miss that knows its vector."""
        vector = self._vector_or_miss(query)
        if isinstance(vector, Miss) and vector.reason == "fault":
            return self._missed(query, vector)
        bypassed = Miss("bypassed", "nothing was to be served")
        return self._missed(query, bypassed, None if isinstance(vector, Miss) else vector)

    def _missed(self, query: Query, miss: Miss, vector: Vector | None = None) -> Lookup:
        return Lookup(query, miss, vector=vector)

    def _fault_miss(self, where: str, error: Exception) -> Miss:
        self.fault(where, error)
        return Miss("fault", f"{where}: {error}")

    # ------------------------------------------------------------------------ record

    def store(
        self,
        lookup: Lookup,
        completion: Completion,
        *,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
        keep: Keep | None = None,
    ) -> Entry | None:
        """Store the answer to a request that was looked up; None if it was not to be stored.

        Raises:
            ConfigError: the TTL is wrong.
        """
        now = self._clock()
        request = lookup.query.request
        lifetime = self._retention.lifetime(now, request.namespace, ttl)
        labels = tags_of((*request.tags, *tags_of(tags)))
        entry = None
        try:
            reason = reason_against(completion, keep or self.keep)
            if lookup.decision is _CACHING_OFF or not self._enabled("caching_enabled"):
                reason = "caching_off"
            if reason is None:
                new = self._new_entry(lookup.query, completion, now, lifetime, labels)
                entry = self._stored(new, self._vector_of(lookup))
                reason = "stored"
        except TooLargeError:
            reason = "too_large"
        except Exception as error:
            self.fault("record", error)
            reason = "fault"
        self.tally.note("records" if entry is not None else f"not_stored:{reason}")
        entry_id = None if entry is None else entry.id
        if reason in ("stored", "too_large", "fault"):
            self._learn(lookup, completion, entry_id)
        if self._hooks.wants_lookups:
            self.emit(RecordEvent(request.namespace, request.model, entry_id, reason))
        return entry

    def _learn(self, lookup: Lookup, completion: Completion, entry_id: int | None) -> None:
        """A fresh answer tells what the candidate was worth. Never the caller's fault."""
        if self.learning is None:
            return
        if isinstance(lookup.decision, Explore):
            self.tally.note("bought:explore", _priced(completion))
        try:
            self.learning.answered(lookup, completion, entry_id)
        except Exception as error:
            self.fault("judge", error)

    # ------------------------------------------------------------------------- audits

    def wants_audit(self, lookup: Lookup) -> bool:
        """Whether to ask the model about this semantic hit, after it was served."""
        return (
            self._audit > 0
            and self.learning is not None
            and self.learning.judges
            and lookup.tier == "semantic"
            and self._draw() < self._audit
        )

    def audited(
        self,
        lookup: Lookup,
        completion: Completion,
        *,
        ttl: GivenTTL = UNSET,
        keep: Keep | None = None,
    ) -> None:
        """The model's answer to a request that was served from the cache.

        The judge compares the two; the fresh one is stored for the very words of the request,
        so that a wrong answer is not served to them again.
        """
        learning, candidate = self.learning, lookup.candidate
        self.tally.note("bought:audit", _priced(completion))
        if learning is None or candidate is None:
            return
        if reason_against(completion, keep or self.keep) is not None:
            return
        asked = replace(lookup, decision=Miss("bypassed"), tier=None, entry=None)
        entry = self.store(asked, completion, ttl=ttl, keep=keep)
        entry_id = None if entry is None else entry.id
        learning.compare(lookup, candidate, completion, entry_id, "audit")

    def _vector_of(self, lookup: Lookup) -> Vector | None:
        """The vector to store: an exact hit has made none, and its entry is replaced."""
        if lookup.vector is not None or lookup.tier != "exact":
            return lookup.vector
        vector = self._vector_or_miss(lookup.query)
        return None if isinstance(vector, Miss) else vector

    def _new_entry(
        self,
        query: Query,
        completion: Completion,
        now: float,
        lifetime: Lifetime,
        tags: tuple[str, ...],
    ) -> NewEntry:
        request = query.request
        return NewEntry(
            query.exact_key,
            query.scope.digest,
            request.namespace,
            request.model,
            query.question,
            request_summary(request),
            completion,
            keys.KEY_VERSION,
            now,
            lifetime.expires_at,
            tags,
            stale_at=lifetime.stale_at,
            sliding=lifetime.sliding,
        )

    def _stored(self, new: NewEntry, vector: Vector | None) -> Entry:
        entry_id = self.repository.record(new, vector)
        return Entry(
            entry_id,
            new.exact_key,
            new.scope,
            new.namespace,
            new.model,
            new.question,
            new.completion,
            new.created_at,
            new.expires_at,
            stale_at=new.stale_at,
            sliding=new.sliding,
        )

    # --------------------------------------------------------------------- the others

    def explain_query(self, query: Query, *, k: int = 5) -> Explanation:
        """What a lookup would do, with up to k neighbours. Changes and counts nothing.

        Raises:
            EmbedderError, StoreError: a part failed; here that is said and not hidden.
        """
        now = self._clock()
        exact = self.repository.exact(query.exact_key)
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
            decision = self._decided(query, vector, now, draw=1.0)[0]
            shown = self.repository.nearest(query.scope.digest, vector, k, -1.0)[1][:k]
            if self._policy is None and shown:
                shown = self._shown(query, shown, now)
        if exact is not None and fresh:
            decision = Hit(exact, 1.0, "same request")
        elif exact is not None and isinstance(decision, Miss):
            decision = _EXPIRED
        tier = None
        if isinstance(decision, Hit):
            tier = "exact" if fresh else "semantic"
        words = self.policy_in_words
        return Explanation(query, exact, tuple(shown), decision, tier, words, tuple(notes))

    def _shown(self, query: Query, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
        """Candidates with all that could be known of them, those that are out of the question
        as they are."""
        _, looked = self._verified(query, candidates, now, all_of=True)
        known = {c.entry.id: c for c in looked}
        return [known.get(c.entry.id, c) for c in candidates]

    def _decided(
        self,
        query: Query,
        vector: Vector,
        now: float,
        *,
        draw: float | None = None,
        seen: int | None = None,
    ) -> tuple[Decision, float | None]:
        """The policy's decision on the neighbours of a vector, and how near the nearest is."""
        neighbours, candidates = self.repository.nearest(
            query.scope.digest, vector, self.k, self.floor, seen
        )
        nearest = neighbours[0].similarity if neighbours else None
        policy = self._policy
        if policy is None:
            policy, candidates = self._verified(query, candidates, now)
        decision = decide(
            nearest, candidates, policy, now=now, draw=self._draw() if draw is None else draw
        )
        return decision, nearest

    def _verified(
        self, query: Query, candidates: Sequence[Candidate], now: float, *, all_of: bool = False
    ) -> tuple[Policy, list[Candidate]]:
        """What was learned, as a policy, and the candidates with what is known of them."""
        learning = self.learning
        assert learning is not None
        policy = learning.policy(query.request.namespace)
        servables = servable(candidates, policy.floor, now)
        if not servables:
            return policy, list(candidates)
        return policy, learning.examined(policy, query.question or "", servables, all_of=all_of)

    def remove(self, selection: Selection) -> int:
        """Delete what is selected; return how many entries that were.

        Raises:
            StoreError: the store failed. An invalidation that did not happen must be known.
        """
        return self.repository.delete(selection)

    def _enabled(self, flag: str) -> bool:
        return self._flags is None or self._flags.enabled(flag)

    def now(self) -> float:
        """Seconds since the epoch, by the cache's clock."""
        return self._clock()

    def fault(self, where: str, error: BaseException) -> None:
        """Tell the listeners that a part failed and the call goes on without it."""
        if where != "counters":
            self.tally.note(f"faults:{where}")
        self.emit(FaultEvent(where, error))

    def emit(self, event: Event) -> None:
        self._hooks.emit(event)

    def before_fork(self) -> None:
        """Wait until none of the cache's threads is in the middle of a write."""
        if self.leases is not None:
            self.leases.hold()
        self.repository.store.hold()

    def after_fork_here(self) -> None:
        """In the parent: go on."""
        self.repository.store.let_go()
        if self.leases is not None:
            self.leases.let_go()

    def after_fork(self) -> None:
        """In a child process: make new what the parent's threads may have held."""
        self.tally.after_fork()
        if self.learning is not None:
            self.learning.after_fork()
        if self.leases is not None:
            self.leases.after_fork()
        self.repository.after_fork()

    def close(self) -> None:
        """Write what is counted and learned, save the index, close the store."""
        if self.learning is not None:
            try:
                self.learning.close()
            except Exception as error:
                self.fault("counters", error)
        self.tally.close()
        if self.leases is not None:
            self.leases.close()
        self.repository.close()

    def _count(self, lookup: Lookup) -> None:
        decision = lookup.decision
        if lookup.tier == "exact":
            self.tally.note("hits:exact", lookup.entry, self._clock())
        elif lookup.tier == "semantic":
            self.tally.note("hits:semantic", lookup.entry, self._clock())
        elif isinstance(decision, Miss):
            self.tally.note(f"misses:{decision.reason}")
        else:
            self.tally.note("explorations")


def _priced(completion: Completion) -> Entry:
    """An answer as the tally wants it: something with a usage."""
    return Entry(0, b"", b"", "", "", None, completion, 0.0, None)


def reason_against(completion: Completion, keep: Keep) -> str | None:
    """Why an answer is not to be stored; None if it is."""
    if completion.has_tool_calls or completion.finish_reason in _TOOL_CALLS:
        return None if keep.tool_calls else "tool_calls"
    if completion.finish_reason not in WHOLE:
        return None if keep.truncated else "truncated"
    says_nothing = not completion.text.strip()
    if says_nothing and (completion.payload_kind is None or completion.finish_reason is not None):
        return "empty"
    if completion.payload_kind == "chunks" and not completion.payload:
        return "empty"
    return None


def as_completion(answer: str | Completion) -> Completion:
    """An answer given as text or as a `Completion`.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(answer, Completion):
        return answer
    if isinstance(answer, str):
        return Completion(answer)
    raise RequestError(
        f"The answer is a {type(answer).__name__}; give a string or a semcache.Completion."
    )


def _lookup_event(lookup: Lookup, seconds: float) -> LookupEvent:
    decision = lookup.decision
    request = lookup.query.request
    reason = decision.reason if not isinstance(decision, Explore) else "explore"
    entry_id = None if lookup.entry is None else lookup.entry.id
    return LookupEvent(
        request.namespace,
        request.model,
        lookup.tier,
        reason,
        lookup.similarity,
        entry_id,
        seconds,
        lookup.id,
    )
