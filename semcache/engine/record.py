"""Stores answers. A failure to store is counted and reported, never the caller's problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semcache.backends.base import TooLargeError
from semcache.backends.retention import UNSET, GivenTTL, Lifetime, Retention
from semcache.engine.lookup import CACHING_OFF, Lookups
from semcache.errors import ReadOnlyError, RequestError
from semcache.keys import keys
from semcache.keys.parse import tags_of
from semcache.keys.summary import request_summary
from semcache.privacy.rules import about_asker
from semcache.telemetry.counters import Counter, Labelled
from semcache.telemetry.events import AboutAskerEvent, RecordEvent
from semcache.types import (
    DEFAULT_NAMESPACE,
    EXACT_ONLY,
    UNFINISHED,
    Completion,
    Entry,
    Explore,
    Handling,
    Lookup,
    Miss,
    NewEntry,
    Query,
)

if TYPE_CHECKING:
    from semcache.backends.base import Entries
    from semcache.privacy.personal import PersonalData
    from semcache.telemetry.telemetry import Telemetry
    from semcache.types import Vector
    from semcache.verification.base import Verification

WHOLE = frozenset({None, "stop", "end_turn", "stop_sequence", "eos", "completed"})
"""Finish reasons of complete answers. Any other, except those in `_TOOL_CALLS`, means that the
answer was cut off or refused.

None stands for an answer that cannot have a finish reason, such as plain text.
"""

_NAMES_SOMEBODY = re.compile(r"user|customer|account|session|tenant|member|client|person|_id$|^id$")
"""Names of parameters that say whom an answer is for. They are part of the scope."""
_TOOL_CALLS = frozenset({"tool_calls", "tool_use", "function_call"})


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """Which answers are stored besides complete ones.

    Attributes:
        truncated: also store answers that were cut off by a length limit or a filter.
        tool_calls: also store answers that call tools.
    """

    truncated: bool = False
    tool_calls: bool = False

    def reason_against(self, completion: Completion) -> str | None:
        """Why an answer must not be stored; None if it may be."""
        reason = completion.finish_reason
        calls_tools = completion.has_tool_calls or reason in _TOOL_CALLS
        if reason not in WHOLE and reason not in _TOOL_CALLS and not self.truncated:
            return UNFINISHED if reason == UNFINISHED else "truncated"
        if calls_tools:
            return None if self.tool_calls else "tool_calls"
        if reason not in WHOLE:
            return None
        no_text = not completion.text.strip()
        if no_text and (completion.payload_kind is None or completion.finish_reason is not None):
            return "empty"
        if completion.payload_kind == "chunks" and not completion.payload:
            return "empty"
        return None


class Recorder:
    """Stores answers.

    Args:
        entries: stores entries.
        lookups: provides missing vectors, feature flags and the clock.
        verification: learns from every fresh answer.
        telemetry: events and counters.
        retention: TTLs of new entries.
        policy: which answers are stored.
        audit: share of the semantic hits to audit, for calls that can ask the model.
        draw: returns uniform random numbers in [0, 1).
        personal_data: finds personal data in answers; None looks for nothing.
        first: called before the first answer is stored.
    """

    def __init__(
        self,
        entries: Entries,
        lookups: Lookups,
        verification: Verification,
        telemetry: Telemetry,
        *,
        retention: Retention,
        policy: StoragePolicy,
        audit: float,
        draw: Callable[[], float],
        personal_data: PersonalData | None = None,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy = policy
        self._first: Callable[[], None] | None = first
        self._entries = entries
        self._lookups = lookups
        self._verification = verification
        self._telemetry = telemetry
        self._retention = retention
        self._audit = audit
        self._draw = draw
        self._personal_data = personal_data
        self._watches_for_asker = personal_data is None

    def record(
        self,
        lookup: Lookup,
        completion: Completion,
        *,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
        policy: StoragePolicy | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Entry | None:
        """Store the answer to a request that was looked up; None if it was not stored.

        Args:
            policy: used instead of the cache's own.
            told: called with "stored", or the reason why the answer was not stored.

        Raises:
            ConfigError: the TTL is invalid.
        """
        now = self._lookups.clock()
        request = lookup.query.request
        lifetime = self._retention.lifetime(now, request.namespace, ttl)
        labels = tags_of((*request.tags, *tags_of(tags)))
        entry = None
        try:
            reason = (policy or self.policy).reason_against(completion)
            if lookup.decision is CACHING_OFF or not self._lookups.enabled("caching_enabled"):
                reason = "caching_off"
            handling = None if reason is not None else self._handling(lookup.query, completion)
            if handling == "skip":
                reason = "personal_data"
            if reason is None:
                if (first := self._first) is not None:
                    self._first = None
                    first()
                new = _new_entry(lookup.query, completion, now, lifetime, labels)
                if handling == "exact":
                    new = replace(new, summary={**new.summary, EXACT_ONLY: True})
                vector = None if handling == "exact" else self._vector(lookup)
                entry = new.with_id(self._entries.record(new, vector))
                reason = "stored"
        except TooLargeError:
            reason = "too_large"
        except ReadOnlyError:
            reason = "read_only"
        except Exception as error:
            self._telemetry.fault("record", error)
            reason = "fault"
        self._count(entry, reason)
        if entry is not None and self._watches_for_asker:
            self._warn_about_asker(lookup.query, entry)
        if told is not None:
            told(reason)
        entry_id = None if entry is None else entry.id
        if reason in ("stored", "too_large", "fault"):
            self._learn(lookup, completion, entry_id)
        if self._telemetry.wants_lookups:
            event = RecordEvent(request.namespace, request.model, entry_id, reason)
            self._telemetry.emit(event)
        return entry

    def _warn_about_asker(self, query: Query, entry: Entry) -> None:
        """Report the first answer that depends on who asked, if everybody is served it."""
        request, question = query.request, query.question
        if request.namespace != DEFAULT_NAMESPACE or "before" in query.scope.parts:
            return
        if any(map(_NAMES_SOMEBODY.search, _params_that_count(query))):
            return
        if question and about_asker(question):
            self._watches_for_asker = False
            self._telemetry.emit(AboutAskerEvent(entry.id))

    @property
    def searches_answers(self) -> bool:
        """Whether answers are searched for personal data before they are stored."""
        return self._personal_data is not None

    def _handling(self, query: Query, completion: Completion) -> Handling | None:
        """How an answer may be stored, given the personal data found; None means as usual."""
        if self._personal_data is None:
            return None
        try:
            return self._personal_data.allowed(query.personal, completion)
        except Exception as error:  # not known to be harmless
            self._telemetry.fault("privacy", error)
            return "skip"

    def _count(self, entry: Entry | None, reason: str) -> None:
        if entry is not None:
            self._telemetry.counters.increment(Counter.RECORD)
        else:
            self._telemetry.counters.increment_labelled(Labelled.NOT_STORED, reason)

    def _learn(self, lookup: Lookup, completion: Completion, entry_id: int | None) -> None:
        """Learn from a fresh answer whether the candidate was right. Never raises."""
        if isinstance(lookup.decision, Explore):
            self._telemetry.counters.bought("explore", completion.usage)
        try:
            self._verification.observe_answer(lookup, completion, entry_id)
        except Exception as error:
            self._telemetry.fault("judge", error)

    def _vector(self, lookup: Lookup) -> Vector | None:
        """The vector to store. An exact hit has none, so the question is embedded now."""
        if lookup.vector is not None or lookup.tier != "exact":
            return lookup.vector
        vector = self._lookups.vector(lookup.query)
        return None if isinstance(vector, Miss) else vector

    # --------------------------------------------------------------------------- audits

    def wants_audit(self, lookup: Lookup) -> bool:
        """Whether to audit this semantic hit, that is, to ask the model although it was served."""
        return (
            self._audit > 0
            and self._verification.judges
            and lookup.tier == "semantic"
            and self._draw() < self._audit
        )

    def record_audit(
        self,
        lookup: Lookup,
        completion: Completion,
        *,
        ttl: GivenTTL = UNSET,
        policy: StoragePolicy | None = None,
    ) -> None:
        """Record the model's answer to a request that was served from the cache.

        The judge compares the two answers. The fresh one is stored under the exact request, so
        that a wrong answer is not served to that request again.
        """
        self._telemetry.counters.bought("audit", completion.usage)
        if lookup.candidate is None:
            return
        if (policy or self.policy).reason_against(completion) is not None:
            return
        miss = replace(lookup, decision=Miss("bypassed"), tier=None, entry=None)
        entry = self.record(miss, completion, ttl=ttl, policy=policy)
        entry_id = None if entry is None else entry.id
        self._verification.observe_audit(lookup, completion, entry_id)


def _new_entry(
    query: Query, completion: Completion, now: float, lifetime: Lifetime, tags: tuple[str, ...]
) -> NewEntry:
    request = query.request
    return NewEntry(
        exact_key=query.exact_key,
        scope=query.scope.digest,
        namespace=request.namespace,
        model=request.model,
        question=query.question,
        summary=request_summary(request),
        completion=completion,
        key_version=keys.KEY_VERSION,
        created_at=now,
        expires_at=lifetime.expires_at,
        tags=tags,
        stale_at=lifetime.stale_at,
        sliding=lifetime.sliding,
    )


def _params_that_count(query: Query) -> Iterable[str]:
    """The names of the parameters that are part of the scope."""
    params = query.scope.parts.get("params")
    return params if isinstance(params, dict) else ()


def as_completion(answer: str | Completion) -> Completion:
    """Turn text into a `Completion`; return a `Completion` unchanged.

    Raises:
        RequestError: the answer is neither.
    """
    if isinstance(answer, Completion):
        return answer
    if isinstance(answer, str):
        return Completion(answer)
    raise RequestError(
        f"The answer is a {type(answer).__name__}; pass a string or a semcache.Completion."
    )
