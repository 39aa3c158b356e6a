"""Events of the cache, and the hooks that receive them. A hook is a callable that takes an event.

A hook runs on the thread where the event happens; if it raises, the error is logged and otherwise
ignored. Events contain neither prompts nor answers, so that logs cannot leak them; the entry's id
identifies both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from semcache.types import AttemptReport, Tier

logger = logging.getLogger("semcache")


@dataclass(frozen=True, slots=True)
class LookupEvent:
    """A lookup has ended.

    Attributes:
        tier: "exact", "semantic", or None for a miss.
        reason: for a miss, one of `types.MissReason`; "explore" for an exploration; for a hit, a
            sentence.
        similarity: cosine to the served or nearest question; None if none was compared.
        entry_id: the served entry; None for a miss.
        seconds: how long the lookup took.
        lookup_id: identifies the lookup in `feedback`.
    """

    namespace: str
    model: str
    tier: Tier | None
    reason: str
    similarity: float | None
    entry_id: int | None
    seconds: float
    lookup_id: str = ""


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """An answer was stored or was not.

    Attributes:
        entry_id: the new entry; None if the answer was not stored.
        reason: "stored", or why the answer was not stored.
    """

    namespace: str
    model: str
    entry_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A part of the cache failed, and the call continued without it.

    Attributes:
        where: the part: "request", "lookup", "embed", "search", "record", "codec", "verify",
            "judge", "index", "lease", "background", "privacy" or "counters".
        error: the exception.
        function: the decorated function that was called; None if it was another call.
        repeated: whether this function has reported such a fault before.
    """

    where: str
    error: BaseException
    function: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class NotStoredEvent:
    """An answer of a decorated function was not stored; emitted once for each reason.

    Attributes:
        function: the function's name.
        reason: as in `RecordEvent`.
    """

    function: str
    reason: str

    @property
    def advice(self) -> str:
        """What the reason means, and what to do about it."""
        return _ADVICE.get(self.reason, self.reason)


@dataclass(frozen=True, slots=True)
class AboutAskerEvent:
    """An answer that seems to depend on who asked was stored where it is served to everybody.

    The question reads like "Where is my order?", and the namespace is the default one. Emitted
    for the first such answer only, and not at all if `Privacy.detect` is set.

    Attributes:
        entry_id: the entry with the answer.
    """

    entry_id: int


_STORE_TRUNCATED = "store_truncated=True stores such answers"
_ADVICE = {
    "truncated": f"it was cut off by a limit or a filter; {_STORE_TRUNCATED}",
    "unfinished": f"it has no finish reason, so it may be cut off; {_STORE_TRUNCATED}",
    "tool_calls": "it calls tools; store_tool_calls=True stores such answers",
    "empty": "it is None, or has no text",
    "personal_data": "it, or its request, holds personal data; see Privacy",
    "too_large": "it is larger than the cache's quota",
}


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """The router called a provider, or held a call back.

    Attributes:
        attempt: the target of the call and its result.
    """

    namespace: str
    task_type: str | None
    attempt: AttemptReport


@dataclass(frozen=True, slots=True)
class BreakerEvent:
    """A provider's breaker changed its state to "closed", "open" or "half_open"."""

    provider: str
    state: str


@dataclass(frozen=True, slots=True)
class BoundEvent:
    """The serving threshold rose steeply, or labels show that the bound is broken.

    The threshold falls again, without an event, when new labels allow it.

    Attributes:
        namespace: the namespace concerned; None means all traffic.
        bound: the largest acceptable share of wrong answers among semantic hits.
        served_from: the new threshold, as a chance of being right; None means that nothing is
            served.
    """

    namespace: str | None
    bound: float
    served_from: float | None


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A stored answer was judged against a fresh one, or was reported right or wrong.

    Attributes:
        kind: how the label came about; see `types.ObservationKind`.
        right: the verdict; None means that the judge was not sure, which is a label, too.
    """

    namespace: str
    entry_id: int
    kind: str
    right: bool | None


Event: TypeAlias = (
    LookupEvent
    | RecordEvent
    | FaultEvent
    | NotStoredEvent
    | AboutAskerEvent
    | RouteEvent
    | BreakerEvent
    | BoundEvent
    | LabelEvent
)
Hook: TypeAlias = Callable[[Event], None]


def logging_hook(event: Event) -> None:
    """Log to "semcache", at WARNING: faults, and not-stored, about-asker, bound and breaker events.

    All other events, and repeated faults of a decorated function, are logged at DEBUG.
    """
    if isinstance(event, FaultEvent):
        logger.log(
            logging.DEBUG if event.repeated else logging.WARNING,
            "fault in %s%s, the call continues without this part: %s: %s",
            event.where,
            "" if event.function is None else f" of {event.function}",
            type(event.error).__name__,
            event.error,
        )
    elif isinstance(event, NotStoredEvent):
        logger.warning("an answer of %s is not stored: %s", event.function, event.advice)
    elif isinstance(event, AboutAskerEvent):
        logger.warning(
            "the question of entry %d is about the person who asks, and its answer was stored in "
            "the default namespace, from which it is served to others; give each user a namespace, "
            "or set privacy=Privacy(detect=...)",
            event.entry_id,
        )
    elif isinstance(event, BoundEvent):
        logger.warning(
            "more than %.1f%% of semantic hits%s would be wrong: %s until new labels allow more",
            100 * event.bound,
            "" if event.namespace is None else f" in {event.namespace}",
            "none are served"
            if event.served_from is None
            else f"only those at least {event.served_from:.1%} likely to be right are served",
        )
    elif isinstance(event, BreakerEvent):
        logger.warning("the breaker of %s is %s", event.provider, event.state.replace("_", "-"))
    else:
        logger.debug("%s", event)


class Hooks:
    """The hooks of one cache."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = self.all = tuple(hooks)
        self._has_custom = any(hook is not logging_hook for hook in self._hooks)

    @property
    def wants_lookups(self) -> bool:
        """Whether any hook would use an event for every lookup."""
        return self._has_custom or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        """Call every hook; one that raises is logged and does not affect the others."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.warning("the hook %r failed on %r", hook, event, exc_info=True)
