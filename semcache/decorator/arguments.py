"""From the arguments of a call to a request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from semcache.backends.retention import GivenTTL
from semcache.engine.call_options import Coalesce
from semcache.engine.record import StoragePolicy
from semcache.errors import ConfigError, RequestError
from semcache.keys.keys import KeyRules
from semcache.keys.parse import question
from semcache.keys.parse import request as make_request
from semcache.types import Request

_PROMPT_NAMES = ("prompt", "question", "query", "message", "user_message", "text")


_MESSAGES_NAMES = ("messages",)


_REQUEST_FIELDS = frozenset({"model", "system", "tools", "response_format"})


FUNCTION = "@function"
"""The parameter that holds the function's name; no argument can be called that."""


@dataclass(frozen=True, slots=True)
class FunctionOptions:
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
    storage: StoragePolicy | None
    known: dict[str, Any]
    """What the functions decorated so far under their own names are made of."""
    coalesce: Coalesce = "exact"


class ArgumentReader:
    """From a call's arguments to a `Request`."""

    def __init__(self, function: Callable[..., Any], options: FunctionOptions) -> None:
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
        self._class = class_name if first == "cls" else None
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


def class_name(args: tuple[Any, ...]) -> str:
    """A classmethod means another question in another class."""
    return f"{args[0].__module__}.{args[0].__qualname__}" if args else ""
