"""`@cache.cached`: caches the answers of a function that calls a model.

The kind of function (plain, async, generator, async generator) and the parameter that holds the
prompt are determined once, when the function is decorated. Every call then becomes a `Request`: the
prompt or the messages are taken from the arguments; all other arguments become part of the scope,
and so does the function's name, because two functions given the same text ask different questions.
"""

from __future__ import annotations

import functools
import inspect
import operator
import typing
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType, SimpleNamespace
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    cast,
    overload,
)

from semcache.decorator.arguments import OWN_NAME, ArgumentReader, FunctionOptions
from semcache.decorator.bound import BoundCached
from semcache.decorator.forwarding import is_of_an_sdk, wants_raw_response, wants_usage
from semcache.decorator.receivers import check_class
from semcache.decorator.reports import CacheInfo, FunctionReport
from semcache.decorator.version import has_canonical_form, layers
from semcache.engine import calls, streams
from semcache.engine.call_options import CallOptions, Codec
from semcache.engine.engine import Engine
from semcache.engine.explain import Explanation
from semcache.engine.value_codecs import AnswerChunks, ChunkCodec, ValueCodec
from semcache.errors import ConfigError, RequestError
from semcache.keys.keys import KeyRules
from semcache.types import Chunk, Lookup, Query

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")


NOT_PART_OF_THE_ANSWER = "__semcache_ignore__"
"""Attribute of a function that names arguments which never change its answer."""


class Cached(Generic[P, R]):
    """A decorated function, called like the function itself, with the same types.

    `inspect`, copying, pickling (by name) and binding treat it as the function itself.

    Attributes:
        __wrapped__: the undecorated function.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Any

    handle: object = None
    """Keeps the cache open; see `lifecycle.Handle`."""

    def __init__(
        self,
        function: Callable[P, R],
        engine: Engine,
        reader: ArgumentReader,
        rules: KeyRules,
        call_options: CallOptions,
    ) -> None:
        functools.update_wrapper(self, function)
        inspected = inspect.unwrap(function) if is_of_an_sdk(function) else function
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(inspected, name):
                setattr(self, name, getattr(inspected, name))
        self._function = function
        self._engine = engine
        self._reader = reader
        self._rules = rules
        self._report = FunctionReport(function.__qualname__, engine.telemetry)
        self._call_options = replace(call_options, report=self._report)
        self._binds: Literal["object", "class", "nothing"] = "object"

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The function's class, because pydantic recognises methods only by their class."""
        return FunctionType if isinstance(self._function, FunctionType) else type(self)

    def __set_name__(self, owner: type, name: str) -> None:
        if self._reader.needs_class_check:
            check_class(owner, name)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> BoundCached[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if self._binds == "class":
            return BoundCached(self, type(instance) if owner is None else owner)
        return self if instance is None or self._binds == "nothing" else BoundCached(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__  # copied as itself, and pickled by its name, as a function is

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._run(args, kwargs, self._call_options))

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """Look up this call in the cache, without calling the function.

        Raises:
            RequestError: the arguments have no canonical form.
        """
        request = self._reader(args, kwargs)
        return self._engine.lookups.lookup(self._engine.lookups.query(request, self._rules))

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Show what a lookup for this call would see and decide, without changing anything.

        Raises:
            RequestError: the arguments have no canonical form.
            EmbedderError, StoreError: the embedder or the store failed.
        """
        request = self._reader(args, kwargs)
        return self._engine.lookups.explain(self._engine.lookups.query(request, self._rules))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function even if an answer is stored, and store the new one."""
        options = replace(self._call_options, refresh=True)
        return cast(R, self._run(args, kwargs, options))

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function without looking up or storing anything."""
        return self._function(*args, **kwargs)

    def cache_info(self) -> CacheInfo:
        """What became of the calls of this function, in this process."""
        return self._report.info

    def last_lookup(self) -> Lookup | None:
        """The lookup of the last call of this function in the current thread or task.

        Its `tier` tells a hit from a miss, and `SemanticCache.feedback` takes it. None before the
        first call, and after one that could not be looked up or whose answer has no storable form.
        """
        return self._report.last_lookup

    def _query(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Query | None:
        """The call as the cache sees it; None, and a fault event, if it cannot be cached.

        Raises:
            TypeError: the function cannot be called with these arguments.
            ConfigError: the namespace function returned None.
        """
        if "extra_headers" in kwargs and wants_raw_response(kwargs["extra_headers"]):
            self._report.fault("request", RequestError(_RAW))
            return None
        try:
            return self._engine.lookups.query(self._reader(args, kwargs), self._rules)
        except TypeError as error:
            self._reader.check(args, kwargs)  # wrong arguments raise the function's own TypeError
            self._report.fault("request", error)
        except ConfigError:
            raise
        except Exception as error:
            self._report.fault("request", error)
        return None

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Any:
        query = self._query(args, kwargs)
        call = functools.partial(self._function, *args, **kwargs)
        if query is None:
            return call()
        if self._may_stream and self._reader.asks_for_stream(args, kwargs):
            chunked = replace(options, codec=ChunkCodec(usage=wants_usage(kwargs)), streams=True)
            return self._value_or_stream(
                self._engine, query, call, options, chunked, self._reader.streams_no_more
            )
        return self._answer(self._engine, query, call, options)

    _answer: Callable[[Engine, Query, Any, CallOptions], Any]
    """How a call of this kind of function goes through the engine."""
    _value_or_stream: Callable[
        [Engine, Query, Any, CallOptions, CallOptions, Callable[[], bool]], Any
    ]
    """Likewise, if it is asked to return a stream."""
    _may_stream = False


_RAW = (
    "a call through with_raw_response or with_streaming_response is not cached, because its "
    "result holds an open connection; call the function itself"
)


class CachedFunction(Cached[P, R]):
    """A decorated plain function."""

    _answer = staticmethod(calls.answer)
    _value_or_stream = staticmethod(streams.value_or_stream)
    _may_stream = True


class CachedCoroutine(Cached[P, R]):
    """A decorated async function."""

    _answer = staticmethod(calls.aanswer)
    _value_or_stream = staticmethod(streams.avalue_or_stream)
    _may_stream = True


class CachedGenerator(Cached[P, R]):
    """A decorated generator function, which yields the chunks of one answer."""

    _answer = staticmethod(streams.stream)


class CachedAsyncGenerator(Cached[P, R]):
    """A decorated async generator function, which yields the chunks of one answer."""

    _answer = staticmethod(streams.astream)


def decorate(function: Callable[P, R], engine: Engine, options: FunctionOptions) -> Cached[P, R]:
    """Wrap a function according to its kind.

    Raises:
        ConfigError: the function cannot be cached, or its prompt parameter cannot be determined.
    """
    if isinstance(function, classmethod | staticmethod):
        cached: Cached[P, R] = decorate(function.__func__, engine, options)
        cached._binds = "class" if isinstance(function, classmethod) else "nothing"
        return cached
    if not callable(function) or not hasattr(function, "__qualname__"):
        advice = (
            f"Name the option: @cache.cached(model={function!r})"
            if isinstance(function, str)
            else "Decorate the function itself, and wrap a functools.partial in a function"
        )
        raise ConfigError(f"{function!r} is not a function. {advice}.")
    for name in ("key", "store_if"):
        if (given := getattr(options, name)) is not None and not callable(given):
            raise ConfigError(f"{name} is {given!r}, not a function.")
    if inspect.iscoroutinefunction(options.store_if):
        raise ConfigError("store_if must be a plain function, not an async one.")
    ignored = frozenset(getattr(function, NOT_PART_OF_THE_ANSWER, ()))
    if ignored:
        rules = replace(options.rules, ignore=options.rules.ignore | ignored)
        options = replace(options, rules=rules)
    wrapper, annotation = _wrapper_of(function)
    yields = wrapper in (CachedGenerator, CachedAsyncGenerator)
    if options.name == OWN_NAME:
        options = replace(options, name=f"{function.__module__}.{function.__qualname__}")
        _check_own_name(function, options.known)
    elif (
        options.version is None
    ):  # functions with the same explicit name share answers, whatever their code
        options = replace(options, version="")
    call_options = CallOptions(
        codec=_codec(annotation, yields=yields),
        ttl=options.ttl,
        store_if=options.store_if,
        storage=options.storage,
        streams=yields,
        coalesce=options.coalesce,
    )
    reader = ArgumentReader(function, options)
    return wrapper(function, engine, reader, options.rules, call_options)


def _codec(annotation: Any, *, yields: bool) -> Codec:
    if yields:
        return AnswerChunks() if annotation is Chunk else ChunkCodec(annotation)
    return ValueCodec(annotation)


def _check_own_name(function: Callable[..., Any], known: dict[str, Any]) -> None:
    """Check that closures, lambdas, bound methods or wrappers with one name do not share answers.

    They may capture different values. For a wrapped function, only the captured values
    that its code digest omits are compared, and only while both functions exist, because the
    same function may be decorated again.

    Raises:
        ConfigError: another function of this name, which captures other values, was decorated
            before.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    wrapped = layers(function)
    is_local = "<" in function.__qualname__ or getattr(function, "__self__", None) is not None
    captured = [
        value
        for layer in wrapped
        for value in map(_contents, getattr(layer, "__closure__", None) or ())
        if not isinstance(value, Cached) and not any(value is layer for layer in wrapped)
        if is_local or not has_canonical_form(value)
    ]
    mine = _Own(
        [getattr(layer, "__code__", None) for layer in wrapped],
        captured,
        getattr(function, "__self__", None),
        _weakly(function),
    )
    first = known.setdefault(name, mine)
    if mine.same(first):
        return
    if is_local or (len(wrapped) > 1 and first.function() is not None and mine.similar(first)):
        raise ConfigError(
            f"Two functions have the name {name!r} (closures, lambdas, bound methods or wrappers), "
            "and may answer differently. Give each its own name: @cache.cached(name='...')."
        )
    known[name] = mine


class _Own(NamedTuple):
    """What tells the functions of one name apart."""

    codes: list[Any]
    captured: list[Any]
    receiver: Any
    function: Callable[[], Any]

    def similar(self, other: _Own) -> bool:
        """Whether both consist of the same code."""
        return self.codes == other.codes

    def same(self, other: _Own) -> bool:
        """Whether both capture the same objects, too."""
        return (
            self.similar(other)
            and self.receiver is other.receiver
            and len(self.captured) == len(other.captured)
            and all(map(operator.is_, self.captured, other.captured))
        )


def _weakly(function: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(function)
    except TypeError:
        return lambda: function


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not assigned yet
        return None


def _wrapper_of(function: Callable[..., Any]) -> tuple[type[Cached[Any, Any]], Any]:
    """The wrapper class, and the type of a value (of a chunk, for a stream)."""
    annotation = _return_type(function)
    if is_of_an_sdk(function):  # the SDKs hide their coroutine functions in plain wrappers
        function = inspect.unwrap(function)
    if inspect.isasyncgenfunction(function):
        return CachedAsyncGenerator, _first_argument(annotation)
    if inspect.iscoroutinefunction(function):
        return CachedCoroutine, annotation
    if inspect.isgeneratorfunction(function):
        return CachedGenerator, _first_argument(annotation)
    return CachedFunction, annotation


def _return_type(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", Any)
    except Exception:  # another annotation may need names that only a type checker can resolve
        return _return_type_alone(inspect.unwrap(function))


def _return_type_alone(function: Callable[..., Any]) -> Any:
    annotation = getattr(function, "__annotations__", {}).get("return", Any)
    if not isinstance(annotation, str):
        return annotation
    alone = SimpleNamespace(__annotations__={"return": annotation})
    try:
        names = getattr(function, "__globals__", {})
        return typing.get_type_hints(alone, names).get("return", Any)
    except Exception:
        return Any


def _first_argument(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any
