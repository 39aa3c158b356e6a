"""What the cache tells whoever listens. A hook is any callable that takes an event.

A hook runs on the caller's thread, after the answer is known; one that raises is
logged and passed over. Events hold no prompt and no answer, so that a log line
leaks neither; the entry's id leads to both.
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
        reason: why it was served or not (see `types.MissReason` for misses).
        similarity: cosine to the served or nearest question, if one was looked at.
        seconds: how long the lookup took.
        lookup_id: for `feedback`.
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
    """An answer was stored, or was not, and why."""

    namespace: str
    model: str
    entry_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """Something in the cache failed and the call went on without it.

    Attributes:
        where: "request", "lookup", "embed", "search", "record", "codec", "verify", "judge",
            "index", "lease", "background" or "counters".
        error: the exception.
    """

    where: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """The router has called a provider, or has held a call back.

    Attributes:
        attempt: who was asked and how it ended.
    """

    namespace: str
    task_type: str | None
    attempt: AttemptReport


@dataclass(frozen=True, slots=True)
class BreakerEvent:
    """A provider's breaker has turned: "closed", "open" or "half_open"."""

    provider: str
    state: str


@dataclass(frozen=True, slots=True)
class BoundEvent:
    """Labels said that the bound would be broken: from now on less is served, or nothing.

    It is taken back, without an event, as soon as new labels allow.

    Attributes:
        namespace: whose; None: the traffic as a whole.
        bound: the largest share of wrong answers among semantic hits.
        served_from: the least chance of being right that is served now; None: nothing is.
    """

    namespace: str | None
    bound: float
    served_from: float | None


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A stored answer was held against a fresh one, or somebody reported on it.

    Attributes:
        kind: how it came about, see `types.ObservationKind`.
        right: the verdict; None: the judge was not sure, which is no label.
    """

    namespace: str
    entry_id: int
    kind: str
    right: bool | None


Event: TypeAlias = (
    LookupEvent | RecordEvent | FaultEvent | RouteEvent | BreakerEvent | BoundEvent | LabelEvent
)
Hook: TypeAlias = Callable[[Event], None]


def logging_hook(event: Event) -> None:
    """Log faults and turns of breakers at WARNING and the rest at DEBUG, under "semcache"."""
    if isinstance(event, FaultEvent):
        logger.warning(
            "fault in %s, the call goes on without the cache: %s: %s",
            event.where,
            type(event.error).__name__,
            event.error,
        )
    elif isinstance(event, BoundEvent):
        logger.warning(
            "answers%s were wrong more often than %.1f%% allows: %s until new labels say more",
            "" if event.namespace is None else f" of {event.namespace}",
            100 * event.bound,
            "nothing is served"
            if event.served_from is None
            else f"only what is right with {event.served_from:.1%} is served",
        )
    elif isinstance(event, BreakerEvent):
        logger.warning("the breaker of %s is %s", event.provider, event.state.replace("_", "-"))
    else:
        logger.debug("%s", event)


class Hooks:
    """The listeners of one cache."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = self.all = tuple(hooks)
        self._others = any(hook is not logging_hook for hook in self._hooks)

    @property
    def wants_lookups(self) -> bool:
        """Whether making an event for every lookup is worth its while."""
        return self._others or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.warning("the hook %r failed on %r", hook, event, exc_info=True)
