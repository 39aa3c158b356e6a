"""`@cache.cached`: a function that asks a model, and its answers kept.

What kind of function it is (plain, async, generator, async generator) and where its
prompt comes from is settled once, when it is decorated. A call then becomes a
`Request`: the prompt or the messages are found among the arguments, every other
argument goes into the scope, and so does the function's own name: two functions
that are given the same words do not mean the same question.
"""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import threading
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from semcache.decorator.arguments import ArgumentReader, FunctionOptions
from semcache.engine import calls
from semcache.engine.call_options import CallOptions, Codec
from semcache.engine.engine import Engine
from semcache.engine.explain import Explanation
from semcache.engine.value_codecs import AnswerChunks, ChunkCodec, ValueCodec
from semcache.errors import ConfigError
from semcache.keys.keys import KeyRules
from semcache.types import Chunk, Lookup, Query

P = ParamSpec("P")
R = TypeVar("R")


NOT_PART_OF_THE_ANSWER = "__semcache_ignore__"
"""A function may carry the names of arguments that never change its answer."""

OWN_NAME = "\0own"
"""Stands for the function's module and qualified name."""


class CacheInfo(NamedTuple):
    """How the lookups of one function in this process have ended."""

    exact_hits: int
    semantic_hits: int
    misses: int


class Cached(Generic[P, R]):
    """A decorated function: called like the function, with the same types.

    Attributes:
        __wrapped__: the function itself.
    """

    def __init__(
        self,
        function: Callable[P, R],
        engine: Engine,
        reader: ArgumentReader,
        rules: KeyRules,
        call_options: CallOptions,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._engine = engine
        self._reader = reader
        self._rules = rules
        self._counts = [0, 0, 0]
        self._counts_lock = threading.Lock()
        self._call_options = replace(call_options, on_lookup=self._note)
        self._bound_to: tuple[Any, ...] = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Cached[P, R]:
        if instance is None:
            return self
        bound = copy.copy(self)
        bound._bound_to = (instance,)
        return bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._run(self._bound_to + args, kwargs, self._call_options))

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """Look into the cache for this call, without calling the function.

        Raises:
            RequestError: the arguments have no canonical form.
        """
        request = self._reader(self._bound_to + args, kwargs)
        return self._engine.lookups.lookup(self._engine.lookups.query(request, self._rules))

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """All that a lookup for this call would see and decide; nothing is changed.

        Raises:
            RequestError: the arguments have no canonical form.
            EmbedderError, StoreError: a part failed.
        """
        request = self._reader(self._bound_to + args, kwargs)
        return self._engine.lookups.explain(self._engine.lookups.query(request, self._rules))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is stored, and store its answer."""
        options = replace(self._call_options, refresh=True)
        return cast(R, self._run(self._bound_to + args, kwargs, options))

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is looked up or stored."""
        return self._function(*(self._bound_to + args), **kwargs)

    def cache_info(self) -> CacheInfo:
        """How this function's lookups have ended, in this process."""
        with self._counts_lock:
            return CacheInfo(*self._counts)

    def _note(self, lookup: Lookup) -> None:
        place = {"exact": 0, "semantic": 1}.get(lookup.tier or "", 2)
        with self._counts_lock:
            self._counts[place] += 1

    def _query(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Query | None:
        """The call as the cache sees it; None, and a fault, where it cannot be cached."""
        try:
            return self._engine.lookups.query(self._reader(args, kwargs), self._rules)
        except TypeError as error:
            self._reader.check(args, kwargs)  # a wrong call is the function's own TypeError
            self._engine.telemetry.fault("request", error)
        except Exception as error:
            self._engine.telemetry.fault("request", error)
        return None

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Any:
        raise NotImplementedError


class CachedFunction(Cached[P, R]):
    """A plain function."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Any:
        query = self._query(args, kwargs)
        call = functools.partial(self._function, *args, **kwargs)
        if query is None:
            return call()
        return calls.answer(self._engine, query, call, options)


class CachedCoroutine(Cached[P, R]):
    """An async function."""

    async def __call__(  # type: ignore[override]  # R is a coroutine's type, here awaited
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        return await self._run(self._bound_to + args, kwargs, self._call_options)

    async def _run(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions
    ) -> Any:
        query = self._query(args, kwargs)
        call = cast(
            Callable[[], Awaitable[Any]], functools.partial(self._function, *args, **kwargs)
        )
        if query is None:
            return await call()
        return await calls.aanswer(self._engine, query, call, options)


class CachedGenerator(Cached[P, R]):
    """A generator function: chunks of one answer."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Any:
        query = self._query(args, kwargs)
        call = cast(Callable[[], Iterator[Any]], functools.partial(self._function, *args, **kwargs))
        if query is None:
            return call()
        return calls.stream(self._engine, query, call, options)


class CachedAsyncGenerator(Cached[P, R]):
    """An async generator function: chunks of one answer."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Any:
        query = self._query(args, kwargs)
        call = cast(
            Callable[[], AsyncIterator[Any]], functools.partial(self._function, *args, **kwargs)
        )
        if query is None:
            return call()
        return calls.astream(self._engine, query, call, options)


def decorate(function: Callable[P, R], engine: Engine, options: FunctionOptions) -> Cached[P, R]:
    """Wrap a function in the shape that it has.

    Raises:
        ConfigError: it cannot be told which argument is the prompt.
    """
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise ConfigError(
            f"{function!r} is no function. Decorate the function itself (below @classmethod or "
            "@staticmethod), and wrap a functools.partial in a function."
        )
    if inspect.iscoroutinefunction(options.store_if):
        raise ConfigError("store_if must be a plain function: it says at once, yes or no.")
    own = frozenset(getattr(function, NOT_PART_OF_THE_ANSWER, ()))
    if own:
        options = replace(options, rules=replace(options.rules, ignore=options.rules.ignore | own))
    shape, annotation = _shape(function)
    streams = shape in (CachedGenerator, CachedAsyncGenerator)
    if options.name == OWN_NAME:
        options = replace(options, name=f"{function.__module__}.{function.__qualname__}")
        _check_own_name(function, options.known)
    call_options = CallOptions(
        codec=_codec(annotation, streams=streams),
        ttl=options.ttl,
        store_if=options.store_if,
        storage=options.storage,
        streams=streams,
        coalesce=options.coalesce,
    )
    return shape(function, engine, ArgumentReader(function, options), options.rules, call_options)


def _codec(annotation: Any, *, streams: bool) -> Codec:
    if streams:
        return AnswerChunks() if annotation is Chunk else ChunkCodec(annotation)
    return ValueCodec(annotation)


def _check_own_name(function: Callable[..., Any], known: dict[str, Any]) -> None:
    """A name must mean one function, or two of them would share answers.

    Closures, lambdas and bound methods of one name may differ in what they hold.

    Raises:
        ConfigError: another function of this name was decorated before.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    cells = getattr(function, "__closure__", None) or ()
    held = [_contents(cell) for cell in cells if not isinstance(_contents(cell), Cached)]
    code = getattr(function, "__code__", None)
    made_of = (code, held, getattr(function, "__self__", None))
    unsure = "<" in function.__qualname__ or made_of[2] is not None
    first = known.setdefault(name, made_of)
    same = first[0] == code and first[2] is made_of[2]
    same = same and len(first[1]) == len(held)
    same = same and all(map(operator.is_, first[1], held))
    if unsure and not same:
        raise ConfigError(
            f"Two functions are called {name!r} (made in a function, lambdas, or bound methods), "
            "and may answer differently. Tell them apart: @cache.cached(name='...')."
        )


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not set yet
        return None


def _shape(function: Callable[..., Any]) -> tuple[type[Cached[Any, Any]], Any]:
    """The wrapper's class and the type of a value (for a stream: of a chunk)."""
    returned = _return_type(function)
    if inspect.isasyncgenfunction(function):
        return CachedAsyncGenerator, _first_argument(returned)
    if inspect.iscoroutinefunction(function):
        return CachedCoroutine, returned
    if inspect.isgeneratorfunction(function):
        return CachedGenerator, _first_argument(returned)
    return CachedFunction, returned


def _return_type(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", Any)
    except Exception:  # names that only a type checker can resolve
        return Any


def _first_argument(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any
