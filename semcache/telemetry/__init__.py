"""Events, counters and statistics of a cache."""

from semcache.telemetry.events import (
    AboutAskerEvent,
    BoundEvent,
    BreakerEvent,
    Event,
    FaultEvent,
    Hook,
    LabelEvent,
    LookupEvent,
    NotStoredEvent,
    RecordEvent,
    RouteEvent,
    logging_hook,
)
from semcache.telemetry.stats import Stats

__all__ = [
    "AboutAskerEvent",
    "BoundEvent",
    "BreakerEvent",
    "Event",
    "FaultEvent",
    "Hook",
    "LabelEvent",
    "LookupEvent",
    "NotStoredEvent",
    "RecordEvent",
    "RouteEvent",
    "Stats",
    "logging_hook",
]
