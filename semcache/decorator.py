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
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from semcache import engine as flow
from semcache.backends.retention import GivenTTL
from semcache.engine.cache import Cache, Explanation, Keep
from semcache.engine.single_flight import Flights
from semcache.engine.value_codecs import AnswerChunks, ChunkCodec, ValueCodec
from semcache.errors import ConfigError, RequestError
from semcache.keys.keys import KeyRules
from semcache.keys.parse import question
from semcache.keys.parse import request as make_request
from semcache.types import Chunk, Lookup, Query, Request

P = ParamSpec("P")
R = TypeVar("R")

_PROMPT_NAMES = ("prompt", "question", "query", "message", "user_message", "text")
_MESSAGES_NAMES = ("messages",)
_REQUEST_FIELDS = frozenset({"model", "system", "tools", "response_format"})

FUNCTION = "@function"
"""The parameter that holds the function's name; no argument can be called that."""

NOT_PART_OF_THE_ANSWER = "__semcache_ignore__"
"""A function may carry the names of arguments that never change its answer."""

OWN_NAME = "\0own"
"""Stands for the function's module and qualified name."""


class CacheInfo(NamedTuple):
    """How the lookups of one function in this process have ended."""

    exact_hits: int
    semantic_hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class Options:
    """What `cached` was given; see `SemanticCache.cached`."""

    model: str | None
    namespace: str | Callable[..., str] | None
    prompt: str | None
    key: Callable[..., Any] | None
    name: str | None
    rules: KeyRules
    ttl: GivenTTL
    tags: tuple[str, ...]
    store_if: Callable[[Any], bool] | None
    keep: Keep | None
    known: dict[str, Any]
    """What the functions decorated so far under their own names are made of."""
    coalesce: flow.Coalesce = "exact"


class _Reader:
    """From a call's arguments to a `Request`."""

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self._options = options
        self._name = options.name
        self._signature = inspect.signature(function)
        self._defaults = {
            name: parameter.default
            for name, parameter in self._signature.parameters.items()
            if parameter.default is not parameter.empty
        }
        self._positional = [
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        self._variadic = any(
            parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in self._signature.parameters.values()
        )
        self._keywords = next(
            (
                name
                for name, parameter in self._signature.parameters.items()
                if parameter.kind is parameter.VAR_KEYWORD
            ),
            None,
        )
        first = self._positional[0] if self._positional else ""
        self._self = first if first in ("self", "cls") else None
        self._class = _class_name if first == "cls" else None
        self._asked = "" if options.key else self._find_asked(function)
        others = [name for name in _MESSAGES_NAMES if name in self._signature.parameters]
        self._other = others[0] if others and others[0] != self._asked else None
        self._plain = self._template()

    def _template(self) -> Request | None:
        """The request of a call with a plain prompt, without its prompt and parameters."""
        namespace = self._options.namespace
        if callable(namespace):
            return None
        return make_request(
            "-", model=self._options.model, namespace=namespace, tags=self._options.tags
        )

    def _find_asked(self, function: Callable[..., Any]) -> str:
        """The name of the parameter that holds the prompt or the messages."""
        names = [name for name in self._signature.parameters if name != self._self]
        given = self._options.prompt
        if given is not None:
            if given in names:
                return given
            raise ConfigError(
                f"{function.__qualname__} has no parameter {given!r}; it has {names}."
            )
        for name in (*_PROMPT_NAMES, *_MESSAGES_NAMES):
            if name in names:
                return name
        if len(names) == 1 and not self._variadic:
            return names[0]
        raise ConfigError(
            f"Which argument of {function.__qualname__}{self._signature} is the prompt? Name it: "
            '@cache.cached(prompt="..."), or give key=callable.'
        )

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Request:
        """Raises `RequestError` if the arguments cannot be told apart from other calls'."""
        arguments = self._bound(args, kwargs)
        if self._self is not None:
            arguments.pop(self._self, None)
        options = self._options
        namespace = options.namespace
        if callable(namespace):
            namespace = namespace(*args, **kwargs)
        if options.key is not None:
            asked = options.key(*args, **kwargs)
            fields: dict[str, Any] = {}
            params: dict[str, Any] = {}
        else:
            asked = arguments.pop(self._asked)
            if asked is None and self._other is not None:
                asked = arguments.pop(self._other)
            fields = {name: arguments.pop(name) for name in _REQUEST_FIELDS & arguments.keys()}
            params = arguments
        if self._name is not None:
            params[FUNCTION] = self._name
        if self._class is not None:
            params["@class"] = self._class(args)
        return self._request(asked, fields, params, namespace)

    def _request(
        self, asked: Any, fields: dict[str, Any], params: dict[str, Any], namespace: str | None
    ) -> Request:
        options = self._options
        if isinstance(asked, Request):
            return self._completed(asked, params, namespace)
        model = fields.pop("model", None) or options.model
        if model is not None and not isinstance(model, str):
            params["model"], model = model, options.model
        if isinstance(asked, str):
            if self._plain is not None and not fields and model == options.model:
                return self._plain_request(self._plain, asked, params)
            kind = "prompt"
        else:
            kind = "messages"
        return make_request(
            **{kind: asked},
            model=model,
            namespace=namespace,
            params=params,
            tags=options.tags,
            **fields,
        )

    def _completed(self, asked: Request, params: dict[str, Any], namespace: str | None) -> Request:
        """A `Request` that `key` gave, with what the decorator says of every call."""
        default = make_request("-").namespace
        if namespace is not None and asked.namespace not in (default, namespace):
            raise RequestError(
                f"key gave a request in the namespace {asked.namespace!r}, but the function is "
                f"decorated with {namespace!r}."
            )
        return replace(
            asked,
            model=asked.model or self._options.model or "",
            namespace=asked.namespace if namespace is None else namespace,
            params={**asked.params, **params},
            tags=tuple(dict.fromkeys((*asked.tags, *self._options.tags))),
        )

    @staticmethod
    def _plain_request(template: Request, prompt: str, params: dict[str, Any]) -> Request:
        given = {name: value for name, value in params.items() if value is not None}
        return Request(
            question(prompt), template.model, template.namespace, given, tags=template.tags
        )

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises `TypeError` if the function cannot be called so."""
        self._signature.bind(*args, **kwargs)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults filled in."""
        given = self._positional[: len(args)]
        if not kwargs and len(given) == len(args) == len(self._signature.parameters):
            return dict(zip(given, args, strict=True))
        if not self._variadic and len(args) == len(given) and not kwargs.keys() & set(given):
            arguments = {**self._defaults, **dict(zip(given, args, strict=True))}
            arguments.update(kwargs)
            if len(arguments) == len(self._signature.parameters):
                return arguments
        bound = self._signature.bind(*args, **kwargs)  # TypeError, as from the call itself
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if self._keywords is not None:
            extra = arguments.pop(self._keywords)
            # A keyword may be called like a positional-only parameter: then it stays apart.
            clash = extra.keys() & arguments.keys()
            arguments.update({self._keywords: extra} if clash else extra)
        return arguments


def _class_name(args: tuple[Any, ...]) -> str:
    """A classmethod means another question in another class."""
    return f"{args[0].__module__}.{args[0].__qualname__}" if args else ""


class Cached(Generic[P, R]):
    """A decorated function: called like the function, with the same types.

    Attributes:
        __wrapped__: the function itself.
    """

    def __init__(
        self,
        function: Callable[P, R],
        cache: Cache,
        flights: Flights,
        reader: _Reader,
        rules: KeyRules,
        terms: flow.Terms,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._cache = cache
        self._flights = flights
        self._reader = reader
        self._rules = rules
        self._counts = [0, 0, 0]
        self._counts_lock = threading.Lock()
        self._terms = replace(terms, noted=self._note)
        self._bound_to: tuple[Any, ...] = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Cached[P, R]:
        if instance is None:
            return self
        bound = copy.copy(self)
        bound._bound_to = (instance,)
        return bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._run(self._bound_to + args, kwargs, self._terms))

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """Look into the cache for this call, without calling the function.

        Raises:
            RequestError: the arguments have no canonical form.
        """
        request = self._reader(self._bound_to + args, kwargs)
        return self._cache.find(self._cache.query(request, self._rules))

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """All that a lookup for this call would see and decide; nothing is changed.

        Raises:
            RequestError: the arguments have no canonical form.
            EmbedderError, StoreError: a part failed.
        """
        request = self._reader(self._bound_to + args, kwargs)
        return self._cache.explain_query(self._cache.query(request, self._rules))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is stored, and store its answer."""
        terms = replace(self._terms, refresh=True)
        return cast(R, self._run(self._bound_to + args, kwargs, terms))

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
            return self._cache.query(self._reader(args, kwargs), self._rules)
        except TypeError as error:
            self._reader.check(args, kwargs)  # a wrong call is the function's own TypeError
            self._cache.fault("request", error)
        except Exception as error:
            self._cache.fault("request", error)
        return None

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: flow.Terms) -> Any:
        raise NotImplementedError


class CachedFunction(Cached[P, R]):
    """A plain function."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: flow.Terms) -> Any:
        query = self._query(args, kwargs)
        call = functools.partial(self._function, *args, **kwargs)
        if query is None:
            return call()
        return flow.answer(self._cache, self._flights, query, call, terms)


class CachedCoroutine(Cached[P, R]):
    """An async function."""

    async def __call__(  # type: ignore[override]  # R is a coroutine's type, here awaited
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        return await self._run(self._bound_to + args, kwargs, self._terms)

    async def _run(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: flow.Terms
    ) -> Any:
        query = self._query(args, kwargs)
        call = cast(
            Callable[[], Awaitable[Any]], functools.partial(self._function, *args, **kwargs)
        )
        if query is None:
            return await call()
        return await flow.aanswer(self._cache, self._flights, query, call, terms)


class CachedGenerator(Cached[P, R]):
    """A generator function: chunks of one answer."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: flow.Terms) -> Any:
        query = self._query(args, kwargs)
        call = cast(Callable[[], Iterator[Any]], functools.partial(self._function, *args, **kwargs))
        if query is None:
            return call()
        return flow.stream(self._cache, self._flights, query, call, terms)


class CachedAsyncGenerator(Cached[P, R]):
    """An async generator function: chunks of one answer."""

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: flow.Terms) -> Any:
        query = self._query(args, kwargs)
        call = cast(
            Callable[[], AsyncIterator[Any]], functools.partial(self._function, *args, **kwargs)
        )
        if query is None:
            return call()
        return flow.astream(self._cache, self._flights, query, call, terms)


def decorate(
    function: Callable[P, R], cache: Cache, flights: Flights, options: Options
) -> Cached[P, R]:
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
    terms = flow.Terms(
        codec=_codec(annotation, streams=streams),
        ttl=options.ttl,
        store_if=options.store_if,
        keep=options.keep,
        streams=streams,
        coalesce=options.coalesce,
    )
    return shape(function, cache, flights, _Reader(function, options), options.rules, terms)


def _codec(annotation: Any, *, streams: bool) -> flow.Codec:
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
