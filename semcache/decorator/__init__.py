"""`@cache.cached` for plain, async, generator and async generator functions."""

from semcache.decorator.arguments import OWN_NAME, FunctionOptions
from semcache.decorator.bound import BoundCached
from semcache.decorator.functions import Cached, decorate
from semcache.decorator.reports import CacheInfo

__all__ = ["OWN_NAME", "BoundCached", "CacheInfo", "Cached", "FunctionOptions", "decorate"]
