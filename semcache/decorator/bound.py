"""Decorated methods, bound to their object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from semcache.decorator.reports import CacheInfo
from semcache.engine.explain import Explanation
from semcache.types import Lookup

if TYPE_CHECKING:
    from semcache.decorator.functions import Cached

P = ParamSpec("P")
R = TypeVar("R")


class BoundCached(Generic[P, R]):
    """A decorated method of one object: called, inspected and copied like a bound method.

    Attributes:
        __func__: the decorated function of the class.
        __self__: the object, or the class of a class method.
    """

    def __init__(self, function: Cached[..., R], instance: Any) -> None:
        self.__func__ = function
        self.__self__ = instance
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__func__(self.__self__, *args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        return self  # like a bound method, it stays bound to its object

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """See `Cached.lookup`."""
        return self.__func__.lookup(self.__self__, *args, **kwargs)

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """See `Cached.explain`."""
        return self.__func__.explain(self.__self__, *args, **kwargs)

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Cached.refresh`."""
        return self.__func__.refresh(self.__self__, *args, **kwargs)

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Cached.bypass`."""
        return self.__func__.bypass(self.__self__, *args, **kwargs)

    def cache_info(self) -> CacheInfo:
        """See `Cached.cache_info`; the counts are those of all objects of the class."""
        return self.__func__.cache_info()

    def last_lookup(self) -> Lookup | None:
        """See `Cached.last_lookup`."""
        return self.__func__.last_lookup()

    @property
    def __wrapped__(self) -> Callable[P, R]:
        bound: Callable[P, R] = self.__func__.__wrapped__.__get__(self.__self__)
        return bound

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in _INSPECTED:
            raise AttributeError(name)
        return getattr(self.__func__, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCached):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<bound method {self.__func__.__qualname__} of {self.__self__!r}, cached>"

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, self.__func__.__name__)


_INSPECTED = frozenset(
    {
        "__annotations__",
        "__code__",
        "__defaults__",
        "__kwdefaults__",
        "__module__",
        "__name__",
        "__qualname__",
    }
)
"""Attributes of functions that `inspect` and frameworks look at."""
