"""The receiver of a method: whether answers may depend on it, and its place in the scope.

`Bot("pirate").ask(q)` and `Bot("lawyer").ask(q)` are different questions, so a method is cached
only if its object can be told from others: it has a `__semcache_key__`, or it is immutable, such as
a frozen dataclass; or if the caller says what counts, by `namespace=`, `key=` or `ignore={"self"}`.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import linecache
import sys
from collections.abc import Callable
from functools import cached_property, lru_cache
from types import FrameType
from typing import Any

from semcache.engine.tagged_objects import found
from semcache.errors import ConfigError, RequestError
from semcache.keys.canonical import plain
from semcache.types import JSON

KEY = "__semcache_key__"
"""Attribute or method of a receiver: what tells it from others of its class."""


def receiver_json(receiver: Any) -> JSON:
    """What distinguishes a receiver from others of its class, in canonical form.

    Raises:
        RequestError: nothing distinguishes it.
    """
    cls = type(receiver)
    key = getattr(receiver, KEY, None)
    if key is not None:
        value = key() if callable(key) else key
        return {"class": f"{cls.__module__}.{cls.__qualname__}", "key": plain(value, KEY)}
    if is_immutable(cls) and not _has_other_attributes(receiver):
        return plain(receiver, "self")
    raise RequestError(_message(f"{cls.__qualname__}'s method"))


def _has_other_attributes(receiver: Any) -> bool:
    """Whether a plain subclass of a frozen dataclass has added attributes to its objects."""
    fields = getattr(receiver, "__dataclass_fields__", None)
    return fields is not None and any(
        not isinstance(getattr(type(receiver), name, None), cached_property)
        for name in getattr(receiver, "__dict__", {}).keys() - fields
    )


def bound_receiver_json(receiver: Any, *, named: bool) -> JSON:
    """`receiver_json` for a bound method, that is, one decorated on its object.

    Clients of SDKs are told apart by the address that they call.

    Args:
        named: whether the function has an explicit name; if so, no key is needed.

    Raises:
        ConfigError: nothing tells the object from others of its class.
    """
    address = getattr(getattr(receiver, "_client", None), "base_url", None)
    if address is not None:
        return str(address)
    try:
        return receiver_json(receiver)
    except RequestError:
        if named:
            return None
        raise ConfigError(
            f"{type(receiver).__qualname__} objects may answer differently, and nothing tells them "
            f"apart. Give the function a name of its own, @cache.cached(name=...), or give the "
            f"class a {KEY} (an attribute or method)."
        ) from None


def is_immutable(cls: type) -> bool:
    """Whether the values of a class have a canonical form that no assignment can change."""
    dataclass: Any = getattr(cls, "__dataclass_params__", None)
    if dataclass is not None:
        return bool(dataclass.frozen)
    config = getattr(cls, "model_config", None)
    if isinstance(config, dict):
        return bool(config.get("frozen"))
    return issubclass(cls, enum.Enum) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def check_method(function: Callable[..., Any]) -> bool:
    """Check a function whose first parameter is self, as far as its class is known by now.

    Inside the body of a class, its base classes and decorators are not known yet.

    Returns whether `check_class` must check the class, too. Whatever it leaves open is checked at
    the first call.

    Raises:
        ConfigError: nothing tells the receivers of this function apart.
    """
    owner, _, _ = function.__qualname__.rpartition(".")
    body = _class_body(owner)
    if body is not None:
        header = _header(body)
        if header is None or _may_be_immutable(header):
            return header is None or not _mentions_key(header)
        if _mentions_key(header):
            return False
    else:
        cls = found(f"{function.__module__}:{owner}")
        if isinstance(cls, type) and (hasattr(cls, KEY) or is_immutable(cls)):
            return False
    raise ConfigError(_message(function.__qualname__))


def check_class(cls: type, name: str) -> None:
    """Check the class of a method, once it has been created.

    A class decorator, such as `dataclass(frozen=True)`, may still be applied to it: a class with
    annotated fields is left to the first call.

    Raises:
        ConfigError: nothing tells the objects of this class apart.
    """
    if hasattr(cls, KEY) or is_immutable(cls) or "__annotations__" in vars(cls):
        return
    if "__annotate_func__" in vars(cls) or dataclasses.is_dataclass(cls):
        return
    raise ConfigError(_message(f"{cls.__qualname__}.{name}"))


def _message(what: str) -> str:
    return (
        f"{what} may answer differently for each object, and nothing tells its objects apart. "
        f"Give the class a {KEY} (an attribute or method), or make it a frozen dataclass; or say "
        "what counts: @cache.cached(namespace=lambda self, ...: ...) or key=...; or "
        'ignore={"self"} if all objects give the same answers.'
    )


def _class_body(owner: str) -> FrameType | None:
    """The frame of the class body that is being executed, if it is that of the named class."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        if owner and names.get("__qualname__") == owner and "__module__" in names:
            return frame
        frame = frame.f_back
    return None


def _mentions_key(header: ast.ClassDef) -> bool:
    """Whether a class defines a key, or sets it on its objects."""
    return any(
        KEY in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "name", ""))
        for node in ast.walk(header)
    )


def _may_be_immutable(header: ast.ClassDef) -> bool:
    """Whether the base classes or decorators may make the objects of a class immutable."""
    return bool(header.bases) or any(map(_may_freeze, header.decorator_list))


def _may_freeze(decorator: ast.expr) -> bool:
    """Whether a class decorator may be one that makes objects immutable."""
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
    if name != "dataclass":
        return True
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return any(keyword.arg in ("frozen", None) for keyword in keywords)


def _header(body: FrameType) -> ast.ClassDef | None:
    """The class statement of a class body; None if its source is not available."""
    source = "".join(linecache.getlines(body.f_code.co_filename, body.f_globals))
    return _classes(source).get((body.f_code.co_name, body.f_code.co_firstlineno))


@lru_cache(maxsize=16)
def _classes(source: str) -> dict[tuple[str, int], ast.ClassDef]:
    """The class statements of a module, by name and first line."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {
        (node.name, line): node
        for node in nodes
        for line in (node.lineno, *(decorator.lineno for decorator in node.decorator_list))
    }
