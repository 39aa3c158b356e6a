"""`@cache.cached` for plain, async, generator and async generator functions."""

from semcache.decorator.arguments import FunctionOptions
from semcache.decorator.functions import OWN_NAME, Cached, CacheInfo, decorate

__all__ = ["OWN_NAME", "CacheInfo", "Cached", "FunctionOptions", "decorate"]
