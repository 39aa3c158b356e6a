"""semcache: a semantic cache for calls to language models."""

from semcache.cache import Explanation
from semcache.decorator import Cached, CacheInfo
from semcache.errors import (
    ConfigError,
    EmbedderError,
    IndexMismatchError,
    RequestError,
    SemcacheError,
    StoreError,
    StoreVersionError,
)
from semcache.events import Event, FaultEvent, Hook, LookupEvent, RecordEvent, logging_hook
from semcache.semantic_cache import SemanticCache, Stats
from semcache.types import (
    Candidate,
    Completion,
    Entry,
    Explore,
    Hit,
    Lookup,
    Miss,
    Request,
    Usage,
)

__version__ = "0.1.0"

__all__ = [
    "CacheInfo",
    "Cached",
    "Candidate",
    "Completion",
    "ConfigError",
    "EmbedderError",
    "Entry",
    "Event",
    "Explanation",
    "Explore",
    "FaultEvent",
    "Hit",
    "Hook",
    "IndexMismatchError",
    "Lookup",
    "LookupEvent",
    "Miss",
    "RecordEvent",
    "Request",
    "RequestError",
    "SemanticCache",
    "SemcacheError",
    "Stats",
    "StoreError",
    "StoreVersionError",
    "Usage",
    "__version__",
    "logging_hook",
]
