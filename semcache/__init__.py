"""semcache: a semantic cache for calls to language models."""

from semcache.backends import LocalOptions, Retention
from semcache.config.flags import Flags
from semcache.decorator import Cached, CacheInfo
from semcache.engine.erasure import Copy, Erased
from semcache.engine.explain import Explanation
from semcache.errors import (
    BreakerOpenError,
    ConfigError,
    DeadlineExceededError,
    EmbedderError,
    IndexMismatchError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    RequestError,
    RouteExhaustedError,
    SemcacheError,
    StoreError,
    StoreVersionError,
    UnavailableError,
    WebhookError,
)
from semcache.options import Calls, Matching, Trust
from semcache.privacy import Privacy
from semcache.semantic_cache import SemanticCache
from semcache.telemetry.events import (
    BoundEvent,
    BreakerEvent,
    Event,
    FaultEvent,
    Hook,
    LabelEvent,
    LookupEvent,
    RecordEvent,
    RouteEvent,
    logging_hook,
)
from semcache.telemetry.stats import Stats
from semcache.types import (
    AttemptReport,
    Candidate,
    Chunk,
    Completion,
    Entry,
    Explore,
    Hit,
    Lookup,
    Miss,
    Request,
    Usage,
)
from semcache.verification.base import Judge

__version__ = "0.1.0"

__all__ = [
    "AttemptReport",
    "BoundEvent",
    "BreakerEvent",
    "BreakerOpenError",
    "CacheInfo",
    "Cached",
    "Calls",
    "Candidate",
    "Chunk",
    "Completion",
    "ConfigError",
    "Copy",
    "DeadlineExceededError",
    "EmbedderError",
    "Entry",
    "Erased",
    "Event",
    "Explanation",
    "Explore",
    "FaultEvent",
    "Flags",
    "Hit",
    "Hook",
    "IndexMismatchError",
    "Judge",
    "LabelEvent",
    "LocalOptions",
    "Lookup",
    "LookupEvent",
    "Matching",
    "Miss",
    "Privacy",
    "ProviderError",
    "RateLimitedError",
    "RecordEvent",
    "RejectedError",
    "Request",
    "RequestError",
    "Retention",
    "RouteEvent",
    "RouteExhaustedError",
    "SemanticCache",
    "SemcacheError",
    "Stats",
    "StoreError",
    "StoreVersionError",
    "Trust",
    "UnavailableError",
    "Usage",
    "WebhookError",
    "__version__",
    "logging_hook",
]
