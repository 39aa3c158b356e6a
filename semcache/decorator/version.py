"""A digest of what a function does, so that an edited function does not serve its old answers.

It covers the source of the function; of the functions, classes and constants of its own module that
it uses; and of the members of its class that a method uses. It also covers the wrappers around the
function, the values that it captures, and its prompt templates: the globals that it uses whose
value is a string with a space in it. Docstrings and comments are left out. So are other values that
are not written in the module, since a key, an address or a counter may change with every process.
In a notebook, where each cell is a module of its own, values from the other cells are included, and
the digest is recomputed when one of them is replaced. A function of an SDK has no digest, so that
an upgrade of the SDK leaves its answers valid.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from hashlib import sha256
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from semcache.decorator.definitions import (
    Definition,
    definitions_around,
    definitions_in,
    names_assigned,
    names_of,
    written,
)
from semcache.decorator.forwarding import is_of_an_sdk
from semcache.errors import RequestError
from semcache.keys.canonical import canonical_json

_MAX_DEPTH = 3
"""How many levels of captured functions are included."""


class CodeVersion:
    """The digest of a function.

    Args:
        function: the function.
        owner: for a method, the class of its object.
    """

    def __init__(self, function: Callable[..., Any], owner: type | None = None) -> None:
        self._function = function
        self._owner = owner
        self._digest = ""
        self._used: dict[str, Any] | None = None

    def __call__(self) -> str:
        """The digest, in hexadecimal; "" for a function of an SDK."""
        if self._used is None or (self._used and self._has_changed()):
            self._digest, self._used = self._computed()
        return self._digest

    def _has_changed(self) -> bool:
        values = self._values
        assert self._used is not None
        return any(values.get(name) is not value for name, value in self._used.items())

    @cached_property
    def _values(self) -> Mapping[str, Any]:
        return getattr(inspect.unwrap(self._function), "__globals__", {})

    def _computed(self) -> tuple[str, dict[str, Any]]:
        """(the digest, the global values to watch)."""
        if is_of_an_sdk(self._function):
            return "", {}
        walk = _Walk(self._owner)
        text = "\n".join(walk.function(self._function, _MAX_DEPTH))
        watched = {name: self._values[name] for name in walk.watched if name in self._values}
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16], watched


def layers(function: Any) -> list[Any]:
    """A function and what it wraps, from the outermost to the innermost."""
    found = [getattr(function, "__func__", function)]
    while (inner := getattr(found[-1], "__wrapped__", None)) is not None and len(found) < 50:
        found.append(getattr(inner, "__func__", inner))
    return found


def has_canonical_form(value: Any) -> bool:
    """Whether the digest includes a captured value itself, rather than only its type."""
    return callable(value) or " " in _value(value)


class _Walk:
    """Collects the source and the values that a function depends on.

    Args:
        owner: for a method, the class of its object.
    """

    def __init__(self, owner: type | None) -> None:
        self._owner = owner
        self._package = ""
        self.watched: set[str] = set()

    def function(self, function: Any, depth: int) -> Iterator[str]:
        """What a function consists of, with its wrappers."""
        wrapped = layers(function)
        package = _package(wrapped[-1])
        self._package = self._package or package
        for layer in wrapped:
            if isinstance(layer, partial):
                yield _value([*layer.args, layer.keywords])
                yield from self.function(layer.func, depth - 1) if depth else ()
            elif not isinstance(layer, FunctionType):
                yield _value(layer)
                call = inspect.getattr_static(type(layer), "__call__", None)
                if isinstance(call, FunctionType) and _package(call) == self._package:
                    yield written(call)
            elif layer is wrapped[-1] or _package(layer) == package:
                yield written(layer)
                yield from self._names(layer)
                yield from self._captured(layer, wrapped, depth)
            else:  # a library's wrapper: its code may change with each release
                yield layer.__code__.co_qualname
                yield from self._captured(layer, wrapped, depth)

    def _captured(self, function: FunctionType, known: list[Any], depth: int) -> Iterator[str]:
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield _value(default)
        cells = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if any(value is layer for layer in known):
                continue
            yield f"{name}:"
            if callable(value) and depth:
                yield from self.function(value, depth - 1)
            else:
                yield _value(value)

    def _names(self, function: FunctionType) -> Iterator[str]:
        """The definitions of the names that a function uses, directly or through others."""
        values = function.__globals__
        definitions = definitions_around(function.__code__, values)
        in_cell = _is_of_a_cell(function)
        assigned = names_assigned(function.__code__)
        waiting, seen = set(names_of(function.__code__)), set[str]()
        while waiting:
            name = min(waiting)
            waiting.discard(name)
            seen.add(name)
            if name in assigned:
                continue
            value = values.get(name)
            if (definition := definitions.get(name)) is not None:
                yield f"{name}: {definition.text}"
                waiting |= definition.names - seen
            elif in_cell and name in values:
                yield f"{name}: "
                yield from self._elsewhere(value, waiting, seen)
            if in_cell and name in values and not isinstance(value, ModuleType):
                self.watched.add(name)
            if isinstance(value, str) and " " in value:
                self.watched.add(name)
                yield f"{name}={value!r}"
            for text, names in self._members(name):
                yield f"self.{name}: {text}"
                waiting |= names - seen

    def _elsewhere(self, value: Any, waiting: set[str], seen: set[str]) -> Iterator[str]:
        """The definition of a name in another cell of a notebook."""
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, type):
            if (found := _class_definition(value)) is not None:
                yield found.text
                waiting |= found.names - seen
            else:
                yield from _contents(value)
        elif isinstance(value, FunctionType):
            yield written(value)
            waiting |= set(names_of(value.__code__)) - seen
        elif not isinstance(value, ModuleType):
            yield _value(value)

    def _members(self, name: str) -> Iterator[tuple[str, set[str]]]:
        """How a method's class and its bases define one attribute."""
        for cls in () if self._owner is None else self._owner.__mro__:
            if name not in vars(cls) or _package(cls) != self._package:
                continue
            function = _function_of(vars(cls)[name])
            if function is not None:
                if _package(function) == self._package:
                    yield written(function), set(names_of(function.__code__))
                continue
            definition = _class_definition(cls)
            member = None if definition is None else definition.members.get(name)
            if member is not None:
                yield member.text, set(member.names)
            value = vars(cls)[name]
            if "<" in cls.__qualname__ or (isinstance(value, str) and " " in value):
                yield _value(value), set()


def _function_of(member: Any) -> FunctionType | None:
    """The function of a method, a property or a class method; None for data."""
    member = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    member = inspect.unwrap(getattr(member, "func", member))
    return member if isinstance(member, FunctionType) else None


def _class_definition(cls: type) -> Definition | None:
    """The definition in a class's source; None if the source is not available."""
    methods = (_function_of(value) for value in vars(cls).values())
    own = (m for m in methods if m is not None and m.__module__ == cls.__module__)
    for function in own:
        found = definitions_around(function.__code__, function.__globals__).get(cls.__name__)
        if found is not None and cls.__qualname__ == cls.__name__:
            return found
    with suppress(OSError, TypeError, SyntaxError):
        source = textwrap.dedent(inspect.getsource(cls))
        return definitions_in(source).get(cls.__name__)
    return None


def _contents(cls: type) -> Iterator[str]:
    """The members of a class whose source is not available."""
    for name, value in vars(cls).items():
        if not name.startswith("__"):
            function = _function_of(value)
            yield f"{name}: {_value(value) if function is None else written(function)}"


def _is_of_a_cell(function: FunctionType) -> bool:
    """Whether a function is written in a notebook's cell, or in no file at all."""
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None) or function.__globals__.get("__file__")
    return file is None or function.__code__.co_filename.startswith("<")


def _package(function: Any) -> str:
    return (getattr(function, "__module__", None) or "").partition(".")[0]


def _value(value: Any) -> str:
    """A captured value in canonical form, or the type of an object that has none."""
    plain = vars(value) if isinstance(value, SimpleNamespace) else value
    with suppress(RequestError):
        return f"{type(value).__qualname__} {canonical_json(plain)}"
    return type(value).__qualname__
