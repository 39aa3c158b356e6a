"""`@cache.cached` for plain, async, generator and async generator functions."""

from semcache.decorator.arguments import OWN_NAME, FunctionOptions
from semcache.decorator.functions import Cached, CacheInfo, decorate

__all__ = ["OWN_NAME", "CacheInfo", "Cached", "FunctionOptions", "decorate"]
