"""Turns the arguments of a call into a request."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from semcache.backends.retention import GivenTTL
from semcache.decorator.bodies import (
    BODY,
    MESSAGES_NAMES,
    PROMPT,
    PROMPT_NAMES,
    body_fields,
    gemini_contents,
)
from semcache.decorator.forwarding import FOR_THE_PROVIDER, ignorable, is_of_an_sdk
from semcache.decorator.receivers import bound_receiver_json, check_method, receiver_json
from semcache.decorator.version import CodeVersion
from semcache.engine.call_options import Coalesce
from semcache.engine.record import StoragePolicy
from semcache.errors import ConfigError, RequestError
from semcache.keys.canonical import explicit_none, is_absent
from semcache.keys.keys import KeyRules
from semcache.keys.parse import question
from semcache.keys.parse import request as make_request
from semcache.types import JSON, Request

_REQUEST_FIELDS = frozenset({"model", "system", "tools", "response_format"})


OWN_NAME = "\0own"
"""Default of `name`: stands for the function's module and qualified name."""
_EMBEDDINGS = re.compile(r"(Async)?Embeddings\.create")
"""The SDKs' functions that embed texts."""

FUNCTION = "@function"
"""The request parameter that holds the function's name; no argument can have this name."""
VERSION = "@version"
"""The request parameter that holds the function's version, or the digest of its code."""


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """The options of `cached`; see `SemanticCache.cached`."""

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
    version: str | None
    known: dict[str, Any]
    """For each default name, the function decorated under it; see `_check_own_name`."""
    coalesce: Coalesce = "exact"


class ArgumentReader:
    """Turns a call's arguments into a `Request`."""

    def __init__(self, function: Callable[..., Any], options: FunctionOptions) -> None:
        self._options = options
        self._name = options.name
        self._function = function
        self._versions: dict[type | None, CodeVersion] = {}
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
        self._set_receiver(function)
        self._is_of_an_sdk = is_of_an_sdk(function)
        self._ignored = ignorable(function, self._keywords) - {options.prompt}
        self._prompt_name = "" if options.key else self._find_prompt_name(function)
        names = [name for name in MESSAGES_NAMES if name in self._signature.parameters]
        self._messages_name = names[0] if names and names[0] != self._prompt_name else None
        self._takes_contents = "contents" in (self._prompt_name, self._messages_name)
        self._embeds = _EMBEDDINGS.match(function.__qualname__) is not None
        self._may_stream = "stream" in self._signature.parameters
        self._stream_is_plain = False
        self._plain_template = self._template()

    def _set_receiver(self, function: Callable[..., Any]) -> None:
        """Determine how the receivers of a method are told apart.

        Raises:
            ConfigError: the function is a method whose receivers cannot be told apart.
        """
        options = self._options
        first = self._positional[0] if self._positional else ""
        self._receiver = first if first in ("self", "cls") else None
        self._class = class_name if first == "cls" else None
        explicit = callable(options.namespace) or options.key is not None
        self.needs_receiver = (
            first == "self" and not explicit and "self" not in options.rules.ignore
        )
        self.needs_class_check = self.needs_receiver and check_method(function)
        owner = getattr(function, "__self__", None)
        self._bound_receiver: JSON = None
        if owner is not None and not isinstance(owner, type | ModuleType) and not explicit:
            self._bound_receiver = bound_receiver_json(
                owner, named=options.name != f"{function.__module__}.{function.__qualname__}"
            )

    def _owner(self, receiver: Any) -> type | None:
        """The class of a method's object."""
        if self._receiver is None:
            receiver = getattr(self._function, "__self__", None)
        if receiver is None or isinstance(receiver, ModuleType):
            return None
        return receiver if isinstance(receiver, type) else type(receiver)

    def _version(self, owner: type | None) -> str:
        """The version, computed at the first call, when the globals that it depends on exist.

        Args:
            owner: the class of the method's object.
        """
        if self._options.version is not None:
            return self._options.version
        version = self._versions.get(owner)
        if version is None:
            version = self._versions[owner] = CodeVersion(self._function, owner)
        return version()

    def _template(self) -> Request | None:
        """A request for plain prompts, lacking only the prompt and the parameters."""
        namespace = self._options.namespace
        if callable(namespace):
            return None
        return make_request(
            "-", model=self._options.model, namespace=namespace, tags=self._options.tags
        )

    def _find_prompt_name(self, function: Callable[..., Any]) -> str:
        """The name of the parameter that holds the prompt or the messages.

        Raises:
            ConfigError: there is no such parameter, or it is not clear which one it is.
        """
        names = [name for name in self._signature.parameters if name != self._receiver]
        prompt = self._options.prompt
        if prompt is not None:
            if prompt in names:
                return prompt
            raise ConfigError(
                f"{function.__qualname__} has no parameter {prompt!r}; it has {names}."
            )
        for name in (*PROMPT_NAMES, *MESSAGES_NAMES):
            if name in names:
                return name
        if len(names) == 1 and not self._variadic:
            return names[0]
        raise ConfigError(
            f"Which argument of {function.__qualname__}{self._signature} is the prompt? Name it: "
            '@cache.cached(prompt="..."), or pass key=callable.'
        )

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Request:
        """The request of a call. Raises `RequestError` if an argument has no canonical form."""
        arguments = self._bound(args, kwargs)
        receiver = arguments.pop(self._receiver, None) if self._receiver is not None else None
        options = self._options
        namespace = options.namespace
        if callable(namespace):
            namespace = self._called(namespace, "namespace", args, kwargs)
            if namespace is None:
                raise ConfigError(
                    f"namespace= of {self._function.__qualname__} returned None; return the name "
                    "of the caller's partition, so that no tenant gets another's answers."
                )
        if options.key is not None:
            prompt = self._called(options.key, "key", args, kwargs)
            fields: dict[str, Any] = {}
            params: dict[str, Any] = {}
        else:
            if any(map(is_absent, arguments.values())):
                arguments = {n: v for n, v in arguments.items() if not is_absent(v)}
            prompt = arguments.pop(self._prompt_name, None)
            if prompt is None and self._messages_name is not None:
                prompt = arguments.pop(self._messages_name, None)
                if isinstance(prompt, str):
                    arguments[BODY] = self._messages_name
            prompt = self._in_its_form(prompt)
            ignored = self._ignored
            body = None if isinstance(prompt, str) else body_fields(prompt)
            if body is not None:
                prompt = body.pop(PROMPT)
                ignored -= FOR_THE_PROVIDER  # an application's own function may depend on these
                clash = body.keys() & arguments.keys()
                inner = {
                    f"{self._prompt_name}.{n}" if n in clash else n: v for n, v in body.items()
                }
                arguments = {**inner, **arguments}
            fields = {name: arguments.pop(name) for name in _REQUEST_FIELDS & arguments.keys()}
            params = arguments
            if not ignored.isdisjoint(params):
                params = {n: v for n, v in params.items() if n not in ignored or _counts(n, v)}
            if self._stream_is_plain and arguments.get("stream") is True:
                params["stream"] = True
            if self.needs_receiver:
                params["@self"] = receiver_json(receiver)
            if self._bound_receiver is not None:
                params["@self"] = self._bound_receiver
        if self._name is not None:
            params[FUNCTION] = self._name
            if version := self._version(self._owner(receiver)):
                params[VERSION] = version
        if self._class is not None:
            params["@class"] = self._class(args)
        return self._request(prompt, fields, params, namespace)

    def _request(
        self, prompt: Any, fields: dict[str, Any], params: dict[str, Any], namespace: str | None
    ) -> Request:
        options = self._options
        if isinstance(prompt, Request):
            return self._completed(prompt, params, namespace)
        model = fields.pop("model", None) or options.model
        if model is not None and not isinstance(model, str):
            params["model"], model = model, options.model
        if isinstance(prompt, str):
            if self._plain_template is not None and not fields and model == options.model:
                return self._plain_request(self._plain_template, prompt, params)
            kind = "prompt"
        else:
            kind = "messages"
        return make_request(
            **{kind: prompt},
            model=model,
            namespace=namespace,
            params=params,
            tags=options.tags,
            **fields,
        )

    def _completed(
        self, request: Request, params: dict[str, Any], namespace: str | None
    ) -> Request:
        """The `Request` that `key` returned, completed with the decorator's options."""
        default = make_request("-").namespace
        if namespace is not None and request.namespace not in (default, namespace):
            raise RequestError(
                f"key returned a request in the namespace {request.namespace!r}, but the function "
                f"is decorated with {namespace!r}."
            )
        return replace(
            request,
            model=request.model or self._options.model or "",
            namespace=request.namespace if namespace is None else namespace,
            params={**request.params, **params},
            tags=tuple(dict.fromkeys((*request.tags, *self._options.tags))),
        )

    @staticmethod
    def _plain_request(template: Request, prompt: str, params: dict[str, Any]) -> Request:
        not_none = {name: value for name, value in params.items() if value is not None}
        return Request(
            question(prompt), template.model, template.namespace, not_none, tags=template.tags
        )

    def _in_its_form(self, prompt: Any) -> Any:
        """The prompt in the form that the name of its parameter or function implies."""
        if self._takes_contents:
            return gemini_contents(prompt)
        if self._embeds and isinstance(prompt, str):
            return [prompt]  # a list is not a question, so it must match exactly
        return prompt

    def _called(
        self, function: Callable[..., Any], option: str, args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        """Call the function that was given as an option with the arguments of a call."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise RequestError(
                f"{option}= of {self._function.__qualname__} raised {type(error).__name__}: {error}"
            ) from error

    def asks_for_stream(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether `stream` is True in a call, as an argument or by default."""
        if "stream" in kwargs:
            return kwargs["stream"] is True
        return self._may_stream and (self._bound(args, kwargs).get("stream") is True)

    def streams_no_more(self) -> bool:
        """Note that the function returned a whole value although it was asked to stream.

        From now on, `stream` is part of the request like any other argument. Returns whether it was
        before.
        """
        before, self._stream_is_plain = self._stream_is_plain, True
        return before

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises `TypeError` if the function cannot be called with these arguments."""
        self._signature.bind(*args, **kwargs)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, with defaults filled in."""
        names = self._positional[: len(args)]
        if not kwargs and len(names) == len(args) == len(self._signature.parameters):
            return dict(zip(names, args, strict=True))
        if not self._variadic and len(args) == len(names) and not kwargs.keys() & set(names):
            arguments = {**self._defaults, **dict(zip(names, args, strict=True))}
            arguments.update(kwargs)
            if len(arguments) == len(self._signature.parameters):
                return arguments
        bound = self._signature.bind(*args, **kwargs)  # raises the call's own TypeError
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if self._keywords is not None:
            extra = arguments.pop(self._keywords)
            # A keyword may share its name with a positional-only parameter: keep them apart.
            clash = extra.keys() & arguments.keys()
            if not self._is_of_an_sdk:  # a function's **options can distinguish None from absent
                extra = {n: explicit_none() if v is None else v for n, v in extra.items()}
            arguments.update({f"**{self._keywords}": extra} if clash else extra)
        return arguments


def _counts(name: str, value: Any) -> bool:
    """Whether an ignored argument counts after all: `stream`, if its value is not a bool."""
    return name == "stream" and value is not None and not isinstance(value, bool)


def class_name(args: tuple[Any, ...]) -> str:
    """The name of a classmethod's class: each class asks a different question."""
    return f"{args[0].__module__}.{args[0].__qualname__}" if args else ""
